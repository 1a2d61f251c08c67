"""Decides which files of a source are ignored.

1. Files of operating systems, file managers and tools are ignored and not read. These are hidden
   files (a part of the path begins with ``.``, as in ``._1.jpg`` and ``.ipynb_checkpoints/1.jpg``),
   and files with a part of the path in ``LITTER``.
2. Every other file is read, whatever its suffix. It is a picture if it can be decoded (see
   :mod:`~vgg16_transfer.images.pictures`); otherwise it is left out, with the reason.

Both kinds are counted by reason and listed in ``left_out.csv``. ``splits`` and ``predict FOLDER``
ignore the same files.
"""

from __future__ import annotations

from pathlib import PurePosixPath

LITTER = frozenset(
    {
        # folders of macOS and of file servers
        "__macosx",
        "network trash folder",
        "temporary items",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@tmp",
        "@__thumb",
        "#recycle",
        "#snapshot",
        "lost+found",
        # folders of Windows
        "$recycle.bin",
        "recycler",
        "system volume information",
        # folders of Python
        "__pycache__",
        # files
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
    }
)
"""Names of files and folders that are never pictures of a class, in lower case."""


def passed_by(name: str) -> str | None:
    """Why a file or folder is ignored.

    Args:
        name: Path relative to the source, with ``/`` between folders.

    Returns:
        The reason, such as ``is hidden: .thumbnails``, or None if it is not ignored.
    """
    for part in PurePosixPath(name).parts:
        if part.startswith(".") and part != "..":
            return f"is hidden: {part}"
        if part.lower() in LITTER:
            return f"is made by the system: {part.strip()}"
    return None

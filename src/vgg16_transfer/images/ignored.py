"""Which files of a source are pictures: the one rule.

1. What an operating system, a file manager or a tool leaves behind is passed by, whatever it
   holds: everything that is hidden (a part of its path begins with ``.``, as in ``._1.jpg`` and
   ``.ipynb_checkpoints/1.jpg``), and everything that is called, or lies in a folder called, like
   one of ``LITTER``. It is not even read.
2. Everything else is read, whatever its ending. What decodes is a picture (see
   :mod:`~vgg16_transfer.images.pictures`); what does not is left out, with the reason.

Both are counted by reason and listed in ``left_out.csv``. ``predict FOLDER`` passes by what
``splits`` passes by.
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
    """Why a file or folder is passed by.

    Args:
        name: Its path, relative to the source, with ``/`` between folders.

    Returns:
        The reason, such as ``is hidden: .thumbnails``, or None if the file is to be read.
    """
    for part in PurePosixPath(name).parts:
        if part.startswith(".") and part != "..":
            return f"is hidden: {part}"
        if part.lower() in LITTER:
            return f"is made by the system: {part.strip()}"
    return None

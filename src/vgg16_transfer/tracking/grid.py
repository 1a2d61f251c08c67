"""Pictures for the grid of MLflow's UI, as ``log_image`` logs them, but under constant names.

``log_image`` chooses a new name in each call. A picture that is logged again would be in the grid
twice.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import mlflow
    from mlflow.entities import Run
    from PIL import Image

IMAGES = "images"
"""The folder that MLflow's UI shows as a grid."""

SHOWN = "mlflow.loggedImages"
"""The tag that makes the UI show the grid."""

_SMALL = 256  # pixels of the longer side of the small copies, which the grid shows first


def log_pictures(
    client: mlflow.MlflowClient,
    run: Run,
    pictures: Mapping[str, Image.Image],
    *,
    step: int = 0,
    beside: Path | None = None,
) -> set[str]:
    """Logs pictures, in one go with the files that lie in a folder.

    Args:
        client: Client of the store.
        run: The run.
        pictures: Pictures by key. The same key in several runs makes their grids line up.
        step: Such as the epoch.
        beside: The folder, whose files are logged as well; None if there are no others.

    Returns:
        The paths of all that was logged, folders too.
    """
    with TemporaryDirectory() as empty:
        folder = beside or Path(empty)
        images = folder / IMAGES
        images.mkdir(exist_ok=True)
        for key, picture in pictures.items():
            full, small = _names(run, key, step)
            picture.save(images / full, "PNG", compress_level=3)
            copy = picture.copy()
            copy.thumbnail((_SMALL, _SMALL))
            copy.save(images / small, "WEBP", method=0)  # twice as fast; it is a preview
        client.log_artifacts(run.info.run_id, str(folder))
        logged = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    if SHOWN not in run.data.tags:
        client.set_tag(run.info.run_id, SHOWN, "True")
    return logged


def grid_files(run: Run, keys: Iterable[str]) -> set[str]:
    """Paths of the files of pictures in a run, by their keys."""
    return {f"{IMAGES}/{name}" for key in keys for name in _names(run, key, 0)}


def _names(run: Run, key: str, step: int) -> tuple[str, str]:
    """File names of a picture and of its small copy, in the pattern that MLflow's UI parses."""
    same = uuid.uuid5(uuid.UUID(run.info.run_id), f"{key} {step}" if step else key)
    name = f"{key}+step+{step}+timestamp+{run.info.start_time}+{same}"
    return f"{name}.png", f"{name}+compressed.webp"

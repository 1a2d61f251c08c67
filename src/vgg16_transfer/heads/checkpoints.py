"""The last complete epoch of a trial on disk, so that a killed training goes on after it.

The file holds numbers and one line of JSON, and a digest over all of them. A file that is damaged,
or that another trial wrote, is not used: the trial then begins at its first epoch.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from vgg16_transfer.artifacts import reading, remove, replacing
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_ABOUT, _SHA256 = "about", "sha256"


class CheckpointError(InputError):
    """A kept epoch that is missing, damaged, or of another trial."""


class Checkpoint:
    """Where the last complete epoch of a trial is kept, and how long the trial has taken so far.

    Attributes:
        started: Milliseconds since 1970 when the first process began with the trial. After
            :meth:`load`, this may be earlier than this process.
    """

    def __init__(self, path: Path, started: int) -> None:
        self.started = started
        self._path = path
        self._before = 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since this object was made, and those of earlier processes up to this epoch."""
        return self._before + time.perf_counter() - self._began

    def load(self, trial: str, variables: Sequence[Any]) -> list[dict[str, float]]:
        """Sets variables to their values after the last complete epoch.

        Args:
            trial: Identifies the trial and its inputs.
            variables: Variables of Keras or TensorFlow, in the order of :meth:`save`.

        Returns:
            The measures of each complete epoch. The list is empty, and no variable is set, if no
            epoch was kept, or if the file can't be believed.
        """
        try:
            about, arrays = self._read(trial, [(v.shape, v.dtype) for v in variables])
        except CheckpointError:
            return []
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.started, self._before = about["started"], about["seconds"]
        return list(about["rows"])

    def save(
        self, trial: str, variables: Sequence[Any], rows: Sequence[Mapping[str, float]]
    ) -> None:
        """Keeps an epoch in place of the one before.

        Args:
            trial: Identifies the trial and its inputs.
            variables: Everything that training changes: weights, the optimiser's state, the step.
            rows: The measures of each complete epoch.

        Raises:
            ArtifactError: The disk is full.
        """
        about = {"trial": trial, "started": self.started, "seconds": self.seconds, "rows": rows}
        text = json.dumps(about)
        sha256 = hashlib.sha256(text.encode())
        with replacing(self._path) as fresh, zipfile.ZipFile(fresh, "w") as file:
            _add(file, _ABOUT, np.array(text))
            # One array at a time, because fine-tuned blocks and their state may need gigabytes.
            for number, variable in enumerate(variables):
                array = variable.numpy()
                _update(sha256, array)
                _add(file, str(number), array)
            _add(file, _SHA256, np.array(sha256.hexdigest()))

    def remove(self) -> None:
        """Removes the kept epoch, because the trial's result is stored."""
        remove(self._path)

    def _read(
        self, trial: str, expected: Sequence[tuple[Any, Any]]
    ) -> tuple[dict[str, Any], list[Array]]:
        """Reads what was kept, if it is whole and of this trial."""
        with (
            reading(self._path, CheckpointError),
            self._path.open("rb") as file,  # NumPy would leave a damaged file open
            np.load(file, allow_pickle=False) as stored,
        ):
            text = str(stored[_ABOUT])
            about = dict(json.loads(text))
            if about["trial"] != trial:
                raise ValueError("it is of another trial")
            if len(stored.files) != len(expected) + 2:
                raise ValueError("it has another number of arrays")
            arrays = list(_checked(expected, (stored[str(n)] for n in range(len(expected)))))
            sha256 = hashlib.sha256(text.encode())
            for array in arrays:
                _update(sha256, array)
            if sha256.hexdigest() != str(stored[_SHA256]):
                raise ValueError("it has another checksum")
            return about, arrays


def _checked(expected: Iterable[tuple[Any, Any]], arrays: Iterable[Array]) -> Iterator[Array]:
    for (shape, dtype), array in zip(expected, arrays, strict=True):
        if array.shape != tuple(shape) or array.dtype.name != getattr(dtype, "name", dtype):
            raise ValueError("an array has another shape or type")
        yield array


def _update(sha256: Any, array: Array) -> None:
    sha256.update(f"{array.dtype.str}{array.shape}".encode())
    sha256.update(np.ascontiguousarray(array).data)


def _add(file: zipfile.ZipFile, name: str, array: Array) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)

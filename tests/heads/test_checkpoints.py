"""A training that is killed at any moment goes on after its last complete epoch, to the same bytes.

Where it is killed is random, and the same in every run of the tests.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.heads import small
from tests.heads.small import AXES, STEPS, Inputs, Killed, Watching, contents, make_study

from vgg16_transfer import artifacts
from vgg16_transfer.heads import checkpoints, end_to_end, records
from vgg16_transfer.heads.checkpoints import Checkpoint
from vgg16_transfer.heads.watching import Ended

ROOT = Path(__file__).parents[2]
EPOCHS = int(AXES["epochs"])
AT = "only.epochs.npz"


@pytest.fixture(scope="module")
def expected(small_inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a training leaves that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    small.train(make_study(), small_inputs, folder)
    return contents(folder)


@pytest.fixture
def inputs(small_inputs: Inputs) -> Inputs:
    return small_inputs


def kept(folder: Path) -> Path:
    """The file of the only epoch that is kept."""
    (path,) = (folder / "heads").rglob(AT)
    return path


def killed_after_epoch(epoch: int, inputs: Inputs, folder: Path) -> None:
    with pytest.raises(Killed):
        small.train(make_study(), inputs, folder, Watching(last=epoch))


def killed_in(step: int) -> Callable[..., None]:
    """What takes the place of ``on_train_batch_end``, to end the training after some steps."""
    steps = iter(range(1, step + 1))

    def on_train_batch_end(*_: Any, **__: Any) -> None:
        if next(steps) == step:
            raise Killed

    return on_train_batch_end


def test_a_training_that_is_killed_within_an_epoch_goes_on_to_the_same_bytes(
    inputs, expected, tmp_path, monkeypatch
) -> None:
    step = random.Random(1).randint(STEPS + 1, EPOCHS * STEPS)  # noqa: S311
    with monkeypatch.context() as patch:
        patch.setattr(end_to_end._Training, "on_train_batch_end", killed_in(step))
        with pytest.raises(Killed):
            small.train(make_study(), inputs, tmp_path)
    complete = (step - 1) // STEPS
    watching = Watching()
    small.train(make_study(), inputs, tmp_path, watching)
    assert watching.epochs == list(range(complete + 1, EPOCHS + 1))
    assert contents(tmp_path) == expected


def test_a_process_that_is_killed_goes_on_to_the_same_bytes(inputs, expected, tmp_path) -> None:
    step = random.Random(2).randint(STEPS + 1, EPOCHS * STEPS)  # noqa: S311
    for path in inputs:
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, tmp_path / path.name)
    command = [sys.executable, "-m", "tests.heads.small", str(tmp_path), str(step)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    watching = Watching()
    small.train(make_study(), inputs, tmp_path, watching)
    assert watching.epochs == list(range((step - 1) // STEPS + 1, EPOCHS + 1))
    assert contents(tmp_path) == expected


def test_a_training_that_is_killed_twice_and_while_an_epoch_is_kept_ends_in_the_same_bytes(
    inputs, expected, tmp_path, monkeypatch
) -> None:
    killed_after_epoch(2, inputs, tmp_path)
    put = artifacts.put

    def mortal(fresh: Path, path: Path) -> None:
        if path.name == AT:
            raise Killed
        put(fresh, path)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "put", mortal)
        with pytest.raises(Killed):
            small.train(make_study(), inputs, tmp_path)
    watching = Watching()
    small.train(make_study(), inputs, tmp_path, watching)
    assert watching.epochs == [3, 4, 5]
    assert contents(tmp_path) == expected


def test_after_the_last_epoch_nothing_is_trained_again(
    inputs, expected, tmp_path, monkeypatch
) -> None:
    killed_after_epoch(EPOCHS, inputs, tmp_path)
    monkeypatch.setattr(end_to_end, "_read", lambda *_: pytest.fail("pictures were read"))
    small.train(make_study(), inputs, tmp_path)
    assert contents(tmp_path) == expected


def test_the_seconds_of_all_processes_count(inputs, tmp_path) -> None:
    killed_after_epoch(2, inputs, tmp_path)
    about, seconds = stored(kept(tmp_path)), 5000.0
    variables = [Constant(about[str(number)]) for number in range(len(about) - 2)]
    earlier = Checkpoint(kept(tmp_path), started=12345)
    earlier._before = seconds
    earlier.save(identity(about), variables, rows(about))
    watching = Watching()
    times = small.train(make_study(), inputs, tmp_path, watching).times["only"]
    assert watching.epochs == [3, 4, 5]
    assert times.started == 12345
    assert times.fit_seconds > seconds
    assert times.pictures_per_second * times.fit_seconds == pytest.approx(12 * EPOCHS)
    assert watching.ended_with is not None
    assert watching.ended_with.times == times


class Constant:
    """A variable that can be kept."""

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value)
        self.shape, self.dtype = self.value.shape, self.value.dtype.name

    def numpy(self) -> Any:
        return self.value

    def assign(self, value: Any) -> None:
        self.value = value


def stored(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def identity(about: Mapping[str, Any]) -> str:
    return str(json.loads(str(about["about"]))["trial"])


def rows(about: Mapping[str, Any]) -> list[dict[str, float]]:
    return list(json.loads(str(about["about"]))["rows"])


ROWS = [{"train_loss": 0.1 + 0.2}, {"train_loss": 1 / 3}]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What a trial of two arrays kept."""
    path = tmp_path / "t.epochs.npz"
    values = [Constant(np.arange(6, dtype=np.float32).reshape(2, 3)), Constant(np.int64(7))]
    Checkpoint(path, 1).save("t", values, ROWS)
    return path


def loaded(path: Path, trial: str = "t", shape: tuple[int, ...] = (2, 3)) -> Any:
    """The epochs that are believed, and what two variables are after that; -1 if they are not."""
    variables = [Constant(np.full(shape, -1, np.float32)), Constant(np.int64(-1))]
    epochs = Checkpoint(path, 1).load(trial, variables)
    return epochs, [variable.value.tolist() for variable in variables]


UNTOUCHED = ([], [[[-1] * 3] * 2, -1])


def test_what_is_kept_is_read_to_the_last_bit(whole: Path) -> None:
    assert loaded(whole) == (ROWS, [[[0, 1, 2], [3, 4, 5]], 7])


def test_what_another_trial_kept_is_not_used(whole: Path) -> None:
    assert loaded(whole, trial="u") == UNTOUCHED


def test_arrays_of_other_shapes_are_not_used(whole: Path) -> None:
    assert loaded(whole, shape=(3, 2))[0] == []
    variables = [Constant(np.zeros((2, 3), np.float32))]
    assert Checkpoint(whole, 1).load("t", variables) == []


def test_a_file_that_is_cut_off_anywhere_is_not_used(whole: Path) -> None:
    content = whole.read_bytes()
    for length in range(0, len(content), 11):
        whole.write_bytes(content[:length])
        assert loaded(whole) == UNTOUCHED


def test_a_file_with_a_changed_bit_is_not_used_or_changes_nothing(whole: Path) -> None:
    content = whole.read_bytes()
    right = loaded(whole)
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        whole.write_bytes(changed)
        assert loaded(whole) in (UNTOUCHED, right)  # a time stamp in the archive is no content


def test_another_number_with_its_own_checksum_is_not_used(whole: Path) -> None:
    members = stored(whole) | {"0": np.zeros((2, 3), np.float32)}
    with zipfile.ZipFile(whole, "w") as file:
        for name, array in members.items():
            checkpoints._add(file, name, array)
    assert loaded(whole) == UNTOUCHED


def test_without_a_file_no_epoch_is_done(tmp_path) -> None:
    assert loaded(tmp_path / "t.epochs.npz") == UNTOUCHED


def test_a_damaged_epoch_costs_the_epochs_and_no_byte(inputs, expected, tmp_path) -> None:
    killed_after_epoch(3, inputs, tmp_path)
    path = kept(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    watching = Watching()
    small.train(make_study(), inputs, tmp_path, watching)
    assert watching.epochs == [1, 2, 3, 4, 5]
    assert contents(tmp_path) == expected


def test_an_epoch_is_told_after_it_is_kept_and_none_is_left_once_the_trial_is(
    inputs, tmp_path
) -> None:
    left: list[Path] = []

    class Reading(Watching):
        def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
            super().epoch(trial, epoch, measured)
            assert rows(stored(kept(tmp_path))) == self.measured

        def ended(self, trial: str, ended: Ended) -> None:
            super().ended(trial, ended)
            left.extend((tmp_path / "heads").rglob("*.epochs.*"))

    watching = Reading()
    small.train(make_study(epochs=2), inputs, tmp_path, watching)
    assert watching.ended_with is not None
    assert left == []
    history = records.read(tmp_path / "results" / "s").history
    assert [row["test_loss"] for row in watching.measured[:-1]] == pytest.approx(
        history["test_loss"].tolist()[:-1], rel=1e-5
    )

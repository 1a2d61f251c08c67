"""A process that logs: calls in order, errors that come back, and what happens if one is killed."""

import os
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe, get_context
from pathlib import Path

import pytest

from vgg16_transfer.tracking import background
from vgg16_transfer.tracking.background import LOST, Background, Logger, LoggingEndedError

ROOT = Path(__file__).parents[2]


class Notes(Logger):
    """Notes what it is asked to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.write_text("")

    def note(self, word: str, *, fail: bool = False) -> None:
        if fail:
            raise OSError(f"no room for {word}")
        with self._path.open("a") as file:
            file.write(f"{word} ")

    def read(self) -> str:
        return self._path.read_text()

    def process(self) -> int:
        return os.getpid()

    def odd(self) -> None:
        raise UnsentError("odd")

    def beat(self) -> None:
        self.note("beat")

    def stop(self, status: str, why: str) -> None:
        self.note(f"{status}: {why}.")


class UnsentError(Exception):
    """An error that can't be sent to another process."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Made:
    """Makes notes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notes"

    def __call__(self) -> Notes:
        return Notes(self.path)


@pytest.fixture
def make(tmp_path: Path, monkeypatch) -> Made:
    monkeypatch.setattr(background, "Process", get_context("spawn").Process)
    monkeypatch.syspath_prepend(ROOT)  # the new process imports this module
    return Made(tmp_path)


def test_calls_are_made_in_order_in_another_process(make: Made) -> None:
    with Background(make) as logger:
        for word in ("one", "two", "three"):
            logger.send(Notes.note, word)
        assert logger.ask(Notes.read) == "one two three "
        assert logger.ask(Notes.process) != os.getpid()


def test_an_error_comes_back_to_who_asked(make: Made) -> None:
    with Background(make) as logger:
        with pytest.raises(OSError, match="no room for it"):
            logger.ask(Notes.note, "it", fail=True)
        with pytest.raises(RuntimeError, match="UnsentError: odd"):
            logger.ask(Notes.odd)
        assert logger.ask(Notes.read) == ""


def test_once_a_call_failed_only_questions_are_answered(make: Made) -> None:
    with Background(make) as logger:
        logger.send(Notes.note, "one")
        logger.send(Notes.note, "two", fail=True)
        logger.send(Notes.note, "three")
        assert logger.ask(Notes.read) == "one "


def test_each_question_says_why_there_is_no_object(make: Made) -> None:
    make.path = make.path / "no" / "folder"
    with Background(make) as logger:
        logger.send(Notes.note, "one")
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="folder"):
                logger.ask(Notes.read)


def test_a_killed_process_is_an_error(make: Made) -> None:
    with Background(make) as logger:
        os.kill(logger.ask(Notes.process), signal.SIGKILL)
        logger.send(Notes.note, "one")
        with pytest.raises(LoggingEndedError, match="was killed"):
            logger.ask(Notes.read)


def test_ctrl_c_and_sigterm_are_left_to_the_stage(make: Made) -> None:
    with Background(make) as logger:
        process = logger.ask(Notes.process)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process, number)
            logger.send(Notes.note, number.name)
        assert logger.ask(Notes.read) == "SIGINT SIGTERM "


def test_it_is_told_how_the_stage_ended_before_the_process_ends(make: Made) -> None:
    def stage() -> None:
        with Background(make) as logger:
            logger.ask(Notes.note, "one")
            raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        stage()
    assert make.path.read_text() == "one FAILED: no picture. "


def test_the_last_call_replaces_those_that_wait(monkeypatch) -> None:
    monkeypatch.setattr(background, "_HEARTBEAT", 0.01)
    ours, theirs = Pipe()
    for word in ("one", "two"):
        ours.send(background._Call(Notes.note, (word,)))
    calls = background._received(theirs)
    assert next(calls).args == ("one",)
    ours.send(background._Call(Notes.note, ("last",), last=True))
    assert [call.args for call in calls if call.method == Notes.note] == [("last",)]


def test_it_beats_while_nothing_is_to_do_and_while_much_is(monkeypatch) -> None:
    monkeypatch.setattr(background, "_HEARTBEAT", 0.01)
    ours, theirs = Pipe()
    calls = background._received(theirs)
    beats = [next(calls) for _ in range(3)]
    assert {call.method for call in beats} == {background._beat}
    for _ in range(3):
        ours.send(background._Call(Notes.note, ("one",)))
    monkeypatch.setattr(background, "_HEARTBEAT", -1)
    assert [next(calls).method for _ in range(4)] == [background._beat, Notes.note] * 2


KILLED = """
import os
import signal
import sys
from pathlib import Path

from tests.tracking.test_background import Made, Notes
from vgg16_transfer.tracking.background import Background

with Background(Made(Path(sys.argv[1]))) as logger:
    logger.ask(Notes.note, "one")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_process_ends_when_the_stage_is_killed(tmp_path: Path) -> None:
    """The process has the stage's output, whose end this waits for."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "notes").read_text() == f"one KILLED: {LOST}. "

"""The console script, run in this process."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from vgg16_transfer import cli


class Outcome(NamedTuple):
    code: Any
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """Runs a command as the console script does, but in this process."""

    def run_command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vgg16-transfer", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(caught.value.code, printed.out, printed.err)

    return run_command

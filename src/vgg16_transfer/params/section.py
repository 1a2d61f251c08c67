"""What the sections of params.yaml share: strictness, and one sentence per mistake."""

from __future__ import annotations

import difflib
import re

from pydantic import BaseModel, ConfigDict

from vgg16_transfer.errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9-]*(_[a-z0-9-]+)*")
"""Names of datasets and studies become file names, DVC stage names and MLflow names."""


class ParamsError(InputError):
    """The mistakes found in a params file.

    Attributes:
        mistakes: One sentence per mistake, each of the form ``path.to.key: what is wrong``.
    """

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class Section(BaseModel):
    """A part of params.yaml: unknown keys and sloppy types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the known word most like the one given, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"

"""What all sections of params.yaml share: strict checks, and one sentence per mistake."""

from __future__ import annotations

import difflib
import re

from pydantic import BaseModel, ConfigDict

from vgg16_transfer.errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9-]*(_[a-z0-9-]+)*")
"""Pattern of the names of datasets and studies.

These names become file names, DVC stage names and MLflow names.
"""

MAX_NAME = 100
MAX_TRIAL_NAME = 200
"""Characters of a name, and of a trial's name. Both are parts of file names, of at most 255."""


class ParamsError(InputError):
    """A params file has mistakes.

    Attributes:
        mistakes: One sentence per mistake, each of the form ``path.to.key: what is wrong``.
    """

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class Section(BaseModel):
    """A section of params.yaml. Unknown keys and values of a wrong type are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the known word that is most similar, or all known words.

    Args:
        word: The unknown word.
        known: All known words.
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"

"""How far does a frozen ImageNet VGG16 take you on a few pictures per class?

The names below are the Python interface; see :mod:`vgg16_transfer.api`. They are imported when they
are first used, because TensorFlow takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vgg16_transfer.errors import InputError
from vgg16_transfer.quiet import silence_tensorflow

if TYPE_CHECKING:
    from vgg16_transfer.api import (
        Data,
        Features,
        Head,
        Predictions,
        Results,
        dataset,
        features,
        fit,
        study,
    )

__all__ = [
    "Data",
    "Features",
    "Head",
    "InputError",
    "Predictions",
    "Results",
    "dataset",
    "features",
    "fit",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    silence_tensorflow()
    return getattr(importlib.import_module("vgg16_transfer.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

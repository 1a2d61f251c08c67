"""How far does a frozen ImageNet VGG16 take you on a few pictures per class?

The names below are the Python interface; see :mod:`vgg16_transfer.api`. They are imported when they
are first used, because TensorFlow takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vgg16_transfer.errors import InputError
from vgg16_transfer.quiet import keep_float32, silence_tensorflow

if TYPE_CHECKING:
    from vgg16_transfer.api.activations import Features, features
    from vgg16_transfer.api.data import Data, dataset
    from vgg16_transfer.api.heads import Head, Results, fit, study
    from vgg16_transfer.api.predictions import Predictions

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

_MODULES = {
    "Data": "data",
    "dataset": "data",
    "Features": "activations",
    "features": "activations",
    "Head": "heads",
    "Results": "heads",
    "fit": "heads",
    "study": "heads",
    "Predictions": "predictions",
}
"""The module of :mod:`vgg16_transfer.api` that has each name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    keep_float32()
    silence_tensorflow()
    return getattr(importlib.import_module(f"vgg16_transfer.api.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]

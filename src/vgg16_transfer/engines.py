"""What can compute a network's features, one row each. docs/engines.md explains them.

To add an engine, add a row and a module of its name in backbones/engines/. A row is data, so that
params.yaml can be checked without Keras, which takes seconds to import. The module has the function
``open_run`` that :class:`~vgg16_transfer.backbones.engines.base.OpenRun` describes. The default
engine has none: it is what all others are compared with.
"""

from __future__ import annotations

from typing import NamedTuple


class Precision(NamedTuple):
    """A number format that an engine computes in.

    Attributes:
        tolerance: The most that a layer's activations may differ from TensorFlow's: the length of
            the difference as a share of the length of TensorFlow's, on average over a few pictures.
        calibrated: Whether the network is first converted with the help of a few pictures.
    """

    tolerance: float
    calibrated: bool = False


class Engine(NamedTuple):
    """A library that computes features.

    Attributes:
        what: One line for docs/engines.md.
        precisions: The number formats that it computes in.
        extra: The extra of this package that installs it. None if it is always installed.
        packages: Distributions whose versions decide numbers.
    """

    what: str
    precisions: dict[str, Precision]
    extra: str | None = None
    packages: tuple[str, ...] = ()


# VGG16's largest differences (840 photographs, 571 drawings) are 4e-6, 0.02 and, on average over
# four of them, 0.21 (docs/engines.md). A wrong layer, layout or preprocessing makes about 1.
ENGINES = {
    "tensorflow": Engine(
        what="the reference: Keras's own forward pass",
        precisions={"float32": Precision(0)},
    ),
    "ncnn": Engine(
        what="Winograd convolutions: fewer multiplications, the same features within rounding",
        precisions={"float32": Precision(1e-4)},
        extra="ncnn",
        packages=("ncnn",),
    ),
    "openvino": Engine(
        what="short numbers, on a CPU that has instructions for them",
        precisions={
            "float32": Precision(1e-4),
            "bfloat16": Precision(0.1),
            "int8": Precision(0.3, calibrated=True),
        },
        extra="openvino",
        packages=("openvino",),
    ),
    "jax": Engine(
        what="XLA, on any GPU that JAX finds, or a CPU",
        precisions={"float32": Precision(1e-4), "bfloat16": Precision(0.1)},
        extra="jax",
        packages=("jax", "jaxlib"),
    ),
}
"""The engines, by the name that params.yaml uses."""

DEFAULT_ENGINE = "tensorflow"
"""The engine of all that trains or explains, and of features if params.yaml names no other."""

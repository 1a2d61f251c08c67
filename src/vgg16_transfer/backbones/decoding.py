"""A picture's bytes → the input of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.images import pictures

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vgg16_transfer.params import Backbone


def decode(content: bytes, backbone: Backbone) -> npt.NDArray[np.uint8]:
    """Reads a picture as input of the network.

    Args:
        content: Bytes of a picture file.
        backbone: The section ``backbone`` of params.yaml.

    Returns:
        Shape (image_size, image_size, 3), RGB, 0 to 255.
    """
    return pictures.to_square(pictures.decode(content), backbone.image_size, backbone.resize)

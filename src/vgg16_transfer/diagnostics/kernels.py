"""The kernels that fine-tuning changes, before and after it.

Importing this module does not import Keras, which takes seconds: most studies tune no kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.networks import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import numpy as np
    import numpy.typing as npt

    Kernels = dict[str, npt.NDArray[np.float32]]


def before_and_after(head: Path, network: str, weights: Path) -> tuple[Kernels, Kernels]:
    """The kernels of the first and the last convolution that a head was fine-tuned with, by layer.

    Args:
        head: File of the head.
        network: A key of ``NETWORKS``.
        weights: The network's weights before training.

    Raises:
        HeadError: The head is missing or damaged.
        WeightsError: The weights are missing or damaged.
    """
    from vgg16_transfer.backbones import base  # noqa: PLC0415
    from vgg16_transfer.heads import model_files  # noqa: PLC0415

    tuned = _ends(base.convolutions(model_files.load(head)))
    frozen = {
        layer.name: layer
        for layer in base.convolutions(base.load(network, weights, NETWORKS[network].image_size))
    }
    before = {layer.name: frozen[layer.name].get_weights()[0] for layer in tuned}
    return before, {layer.name: layer.get_weights()[0] for layer in tuned}


def _ends(layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    return layers[:1] + layers[-1:]

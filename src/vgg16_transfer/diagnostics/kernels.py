"""Draws the kernels of any convolution, so that a person sees what fine-tuning changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.backbones import base
from vgg16_transfer.diagnostics.filters import kernel_sheet
from vgg16_transfer.heads import model_files
from vgg16_transfer.networks import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import numpy.typing as npt
    from PIL import Image

    Kernels = dict[str, npt.NDArray[np.float32]]

SHOWN = 64


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
    tuned = _ends(base.convolutions(model_files.load(head)))
    frozen = {
        layer.name: layer
        for layer in base.convolutions(base.load(network, weights, NETWORKS[network].image_size))
    }
    before = {layer.name: frozen[layer.name].get_weights()[0] for layer in tuned}
    return before, {layer.name: layer.get_weights()[0] for layer in tuned}


def _ends(layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    return layers[:1] + layers[-1:]


def deep_kernel_sheet(kernel: npt.NDArray[np.float32]) -> Image.Image:
    """Draws the first ``SHOWN`` kernels of a convolution in grey, eight per row, on a common scale.

    A kernel is drawn as its mean over the input channels: its answer where all of them are equally
    active. Middle grey is 0. Every weight counts, and the same ones in every epoch, so pictures of
    two epochs can be compared. The three largest of 512 channels as colours would be other channels
    after training than before.

    Args:
        kernel: Shape (height, width, input channels, kernels). The last axis is 1 for a depthwise
            convolution, which has one kernel for each input channel.
    """
    kernels = np.swapaxes(kernel, 2, 3) if kernel.shape[3] == 1 else kernel
    means = kernels[..., :SHOWN].mean(axis=2, keepdims=True)
    return kernel_sheet(np.repeat(means, 3, axis=2))

"""Draws kernels as tiles of one picture. It needs no TensorFlow, which takes seconds to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vgg16_transfer.images.cards import GAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

SHOWN = 64
"""Number of kernels of a deep convolution that are drawn."""

_KERNEL = 24


def kernel_sheet(kernels: npt.NDArray[np.float32]) -> Image.Image:
    """Draws all kernels of the first convolution, eight per row, on a common scale.

    Args:
        kernels: Shape (height, width, 3, n): height, width, colour in the order BGR, kernel.
    """
    bound = np.abs(kernels).max()
    colours = np.round((kernels[:, :, ::-1] / bound + 1) * 127.5).astype(np.uint8)
    tiles = [
        Image.fromarray(np.ascontiguousarray(colours[..., kernel])).resize(
            (_KERNEL, _KERNEL), Image.Resampling.NEAREST
        )
        for kernel in range(colours.shape[-1])
    ]
    return sheet(tiles, columns=8)


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


def sheet(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Puts tiles of one size in rows, with a white gap between them.

    Args:
        tiles: The tiles, row by row.
        columns: Number of tiles in a row.
    """
    side = tiles[0].width + GAP
    rows = -(-len(tiles) // columns)
    size = (columns * side - GAP, rows * side - GAP)
    picture = Image.new(tiles[0].mode, size, "white")
    for index, tile in enumerate(tiles):
        picture.paste(tile, (index % columns * side, index // columns * side))
    return picture

"""Draws the kernels of any convolution, so that a person sees what fine-tuning changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.diagnostics.filters import kernel_sheet

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

SHOWN = 64


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

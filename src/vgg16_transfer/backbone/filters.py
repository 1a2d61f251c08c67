"""[stage] What the filters are, and what they see → results/filters/<dataset>/*.png.

The report's figure: the 64 kernels of the first convolution in colour, and, for one probe picture
of a dataset, the first six activations of a convolution of each set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vgg16_transfer.backbone import vgg16
from vgg16_transfer.backbone.features import decode
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.params import Backbone

REPORTED = [
    "block1_conv1",
    "block1_conv2",
    "block2_conv1",
    "block3_conv1",
    "block4_conv1",
    "block5_conv1",
]
"""The convolutions that the report of 2017 shows."""

MAPS = 6
_TILE = 160
_KERNEL = 24
_GAP = 4


def write_filters(
    backbone: Backbone,
    weights: Path,
    manifest: Path,
    archive_path: Path,
    out: Path,
    convolutions: Sequence[str] = REPORTED,
) -> None:
    """Writes ``kernels.png``, ``probe.png`` and one ``<convolution>.png`` each.

    Args:
        backbone: How pictures enter the network.
        weights: What the stage ``weights`` wrote.
        manifest: Its first test picture is the probe.
        archive_path: Where the picture is.
        out: Folder to write to.
        convolutions: Whose activations to show.

    Raises:
        WeightsError: The weights are missing, or hold no such convolution.
    """
    network = vgg16.load(weights, backbone.image_size)
    tapped = vgg16.tap(network, convolutions)
    rows = read_manifest(manifest)
    with open_archive(archive_path) as archive:
        probe = decode(archive.read(rows.loc[rows["role"] == "test", "path"].iloc[0]), backbone)
    activations = tapped.forward(probe[np.newaxis])
    out.mkdir(parents=True, exist_ok=True)
    kernels = network.get_layer(vgg16.CONVOLUTIONS[0]).get_weights()[0]
    kernel_sheet(kernels).save(out / "kernels.png")
    Image.fromarray(probe).resize((_TILE, _TILE)).save(out / "probe.png")
    for convolution, maps in activations.items():
        activation_strip(maps[0]).save(out / f"{convolution}.png")


def kernel_sheet(kernels: npt.NDArray[np.float32]) -> Image.Image:
    """All kernels of the first convolution, eight in a row, on one common scale.

    Args:
        kernels: Shape (3, 3, 3, n): height, width, colour (the network's order, BGR), kernel.
    """
    bound = np.abs(kernels).max()
    colours = np.round((kernels[:, :, ::-1] / bound + 1) * 127.5).astype(np.uint8)
    tiles = [
        Image.fromarray(np.ascontiguousarray(colours[..., kernel])).resize(
            (_KERNEL, _KERNEL), Image.Resampling.NEAREST
        )
        for kernel in range(colours.shape[-1])
    ]
    return _sheet(tiles, columns=8)


def activation_strip(maps: npt.NDArray[np.float32]) -> Image.Image:
    """The first activations of a layer side by side, each from black (0) to white (its largest).

    Args:
        maps: Shape (height, width, channels), not negative.
    """
    tiles = []
    for channel in np.moveaxis(maps[..., :MAPS], -1, 0):
        grey = np.round(255 * channel / max(float(channel.max()), 1e-12)).astype(np.uint8)
        tiles.append(Image.fromarray(grey).resize((_TILE, _TILE), Image.Resampling.NEAREST))
    return _sheet(tiles, columns=MAPS)


def _sheet(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    side = tiles[0].width + _GAP
    rows = -(-len(tiles) // columns)
    size = (columns * side - _GAP, rows * side - _GAP)
    sheet = Image.new(tiles[0].mode, size, "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * side, index // columns * side))
    return sheet

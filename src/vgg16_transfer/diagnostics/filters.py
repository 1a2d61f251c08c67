"""[stage] Kernels and activations of the network → reports/filters/<dataset>/*.png.

``kernels.png`` shows the 64 kernels of the first convolution in colour. ``probe.png`` is a test
picture of the dataset, as the network sees it; ``examples.png`` shows training pictures of some
classes, and ``samples.png`` a row of training pictures of each class. For each convolution in
``REPORTED``, ``<convolution>.png`` shows its first ``MAPS`` activation maps for this picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.decoding import decode
from vgg16_transfer.diagnostics.tiles import kernel_sheet, sheet
from vgg16_transfer.images.cards import THUMBNAIL, examples, samples
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.networks import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Backbone

MAPS = 6
_TILE = 160


def write_filters(
    backbone: Backbone,
    *,
    weights: Path,
    manifest: Path,
    source: Source,
    out: Path,
    every: bool = False,
) -> None:
    """Writes kernels, probe, examples, samples and one ``<convolution>.png`` per convolution.

    The whole folder is replaced.

    Args:
        backbone: Settings of the network and of its input pictures.
        weights: Output of the stage ``weights``.
        manifest: Manifest of a split. Its first test picture is the probe.
        source: Source of the dataset's pictures.
        out: Folder to write to.
        every: Show all convolutions, not only those that the network's row names.

    Raises:
        WeightsError: The weights are missing, or are those of another network.
        SourceError: The source lacks one of the pictures, or it has changed.
    """
    network = base.load(backbone.network, weights, backbone.image_size)
    shown = NETWORKS[backbone.network].shown
    convolutions = [layer.name for layer in base.convolutions(network)] if every else shown
    tapped = base.tap(backbone.network, network, convolutions)
    rows = read_manifest(manifest)
    chosen = pd.concat([rows[rows["role"] == "test"].head(1), examples(rows)])
    with source.open() as pictures:
        probe, *trained_on = [
            decode(pictures.read(row["path"], row["sha256"]), backbone)
            for row in chosen.to_dict("records")
        ]
        thumbnails = [
            [
                _tile(decode(pictures.read(row["path"], row["sha256"]), backbone), THUMBNAIL)
                for row in of_class.to_dict("records")
            ]
            for _, of_class in samples(rows).groupby("label")
        ]
    activations = tapped.forward(probe[np.newaxis])
    kernels = base.first_kernels(network)
    if NETWORKS[backbone.network].channels == "RGB":
        kernels = kernels[:, :, ::-1]
    with replacing(out) as folder:
        folder.mkdir()
        kernel_sheet(kernels).save(folder / "kernels.png")
        _tile(probe).save(folder / "probe.png")
        sheet(list(map(_tile, trained_on)), len(trained_on)).save(folder / "examples.png")
        sample_sheet(thumbnails).save(folder / "samples.png")
        for convolution, maps in activations.items():
            activation_strip(maps[0]).save(folder / f"{convolution}.png")


def activation_strip(maps: npt.NDArray[np.float32]) -> Image.Image:
    """Draws the first activation maps of a layer side by side, each scaled to 0 (black) to 255.

    Args:
        maps: Activations of one picture, shape (height, width, channels). Negative ones are black.
    """
    tiles = []
    for channel in np.moveaxis(maps[..., :MAPS], -1, 0):
        grey = np.round(255 * np.maximum(channel, 0) / max(float(channel.max()), 1e-12)).astype(
            np.uint8
        )
        tiles.append(Image.fromarray(grey).resize((_TILE, _TILE), Image.Resampling.NEAREST))
    return sheet(tiles, columns=MAPS)


def sample_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Draws a row of tiles for each class; a class with few pictures leaves places white."""
    columns = max(map(len, rows))
    empty = Image.new(rows[0][0].mode, rows[0][0].size, "white")
    tiles = [tile for row in rows for tile in [*row, *[empty] * (columns - len(row))]]
    return sheet(tiles, columns)


def _tile(square: npt.NDArray[np.uint8], side: int = _TILE) -> Image.Image:
    return Image.fromarray(square).resize((side, side))

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image
from tests.backbones.conftest import SIDE, picture, write_archive, write_split

from vgg16_transfer.backbones import base, features
from vgg16_transfer.diagnostics.filters import activation_strip, sample_sheet, write_filters
from vgg16_transfer.diagnostics.tiles import kernel_sheet
from vgg16_transfer.images.source import Source
from vgg16_transfer.networks import NETWORKS

TRAINED_ON = {"ants": [4, 5], "bees": [6, 7]}


def write_pictures(folder: Path) -> tuple[Path, Path]:
    """An archive, and a manifest in which picture 3 tests and those of ``TRAINED_ON`` train."""
    archive = write_archive(folder / "pictures.tar", [3, 4, 5, 6, 7])
    write_split(folder / "splits", "0", [3, 4, 5, 6, 7])
    path = folder / "splits" / "0.csv"
    rows = pd.read_csv(path).set_index("path")
    for label, (name, seeds) in enumerate(TRAINED_ON.items()):
        for rank, seed in enumerate(seeds):
            row = [label, name, rows.loc[f"p/{seed:03}.png", "sha256"], "train", rank]
            rows.loc[f"p/{seed:03}.png"] = row
    rows.reset_index().to_csv(path, index=False)
    return archive, path


@pytest.fixture
def written(tmp_path, random_weights, backbone):
    archive, manifest = write_pictures(tmp_path)
    out = tmp_path / "filters"
    source = Source(archive)
    write_filters(backbone, weights=random_weights, manifest=manifest, source=source, out=out)
    return out


def test_the_reports_pictures_are_written(written) -> None:
    names = {path.stem for path in written.iterdir()}
    assert names == {"probe", "examples", "samples", "kernels", *NETWORKS["vgg16"].shown}


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_first_training_picture_of_each_class_is_an_example(written, backbone) -> None:
    sheet = pixels(written / "examples.png")
    assert sheet.shape == (160, 2 * 160 + 4, 3)
    for index, (seed, _) in enumerate(TRAINED_ON.values()):
        square = Image.fromarray(features.decode(picture(seed), backbone))
        tile = sheet[:, index * 164 : index * 164 + 160]
        np.testing.assert_array_equal(tile, np.asarray(square.resize((160, 160))))


def test_samples_are_a_row_of_training_pictures_for_each_class(written, backbone) -> None:
    sheet = pixels(written / "samples.png")
    assert sheet.shape == (2 * 80 + 4, 2 * 80 + 4, 3)
    for row, seeds in enumerate(TRAINED_ON.values()):
        for column, seed in enumerate(seeds):
            square = Image.fromarray(features.decode(picture(seed), backbone))
            tile = sheet[row * 84 : row * 84 + 80, column * 84 : column * 84 + 80]
            np.testing.assert_array_equal(tile, np.asarray(square.resize((80, 80))))


def test_a_class_with_few_pictures_leaves_places_white() -> None:
    red = Image.new("RGB", (80, 80), "red")
    sheet = np.asarray(sample_sheet([[red, red], [red]]))
    assert sheet.shape == (164, 164, 3)
    assert (sheet[84:, 84:] == 255).all()
    assert (sheet[84:, :80] == [255, 0, 0]).all()


def test_the_kernels_stand_in_eight_rows_of_eight_in_colour(written) -> None:
    side = 8 * 24 + 7 * 4
    assert pixels(written / "kernels.png").shape == (side, side, 3)


def test_six_activations_stand_side_by_side(written) -> None:
    assert pixels(written / "block3_conv1.png").shape == (160, 6 * 160 + 5 * 4)


def test_a_tile_is_the_activation_it_stands_for(written, random_weights, backbone) -> None:
    tapped = base.tap("vgg16", base.load("vgg16", random_weights, SIDE), ["block1_conv1"])
    square = features.decode(picture(3), backbone)
    seen = tapped.forward(square[np.newaxis])["block1_conv1"][0, :, :, 1]
    second_tile = pixels(written / "block1_conv1.png")[:, 164 : 164 + 160]
    np.testing.assert_array_equal(second_tile[2::5, 2::5], np.round(255 * seen / seen.max()))


def test_kernels_are_drawn_in_rgb_on_a_common_scale() -> None:
    kernels = np.zeros((3, 3, 3, 64), dtype=np.float32)
    kernels[:, :, 2, 0] = 1.0  # the network's third channel is red
    kernels[:, :, 0, 1] = -0.5
    sheet = np.asarray(kernel_sheet(kernels))
    assert sheet[5, 5].tolist() == [255, 128, 128]
    assert sheet[5, 28 + 5].tolist() == [128, 128, 64]


def test_an_activation_that_is_zero_everywhere_is_black() -> None:
    assert np.asarray(activation_strip(np.zeros((4, 4, 6), dtype=np.float32)))[2, 2] == 0


def test_every_convolution_can_be_asked_for(tmp_path, random_weights, backbone) -> None:
    archive, manifest = write_pictures(tmp_path)
    out = tmp_path / "filters"
    write_filters(
        backbone,
        weights=random_weights,
        manifest=manifest,
        source=Source(archive),
        out=out,
        every=True,
    )
    assert {path.stem for path in out.glob("block*.png")} == {
        f"block{block}_conv{conv + 1}"
        for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1)
        for conv in range(convolutions)
    }

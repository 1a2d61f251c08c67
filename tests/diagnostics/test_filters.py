from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.backbones.conftest import SIDE, picture, write_archive, write_split

from vgg16_transfer.backbones import base, features
from vgg16_transfer.diagnostics.filters import activation_strip, kernel_sheet, write_filters
from vgg16_transfer.images.source import Source
from vgg16_transfer.networks import NETWORKS


@pytest.fixture
def written(tmp_path, random_weights, backbone):
    archive = write_archive(tmp_path / "pictures.tar", [3])
    write_split(tmp_path / "splits", "0", [3])
    out = tmp_path / "filters"
    write_filters(
        backbone,
        weights=random_weights,
        manifest=tmp_path / "splits" / "0.csv",
        source=Source(archive),
        out=out,
    )
    return out


def test_the_reports_pictures_are_written(written) -> None:
    names = {path.stem for path in written.iterdir()}
    assert names == {"probe", "kernels", *NETWORKS["vgg16"].shown}


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


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
    archive = write_archive(tmp_path / "pictures.tar", [3])
    write_split(tmp_path / "splits", "0", [3])
    manifest = tmp_path / "splits" / "0.csv"
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

import numpy as np
import pytest
from PIL import Image

from vgg16_transfer.diagnostics.tiles import deep_kernel_sheet

SIDE = 28  # of a tile of 24 pixels, with the gap beside it


def tiles(sheet: Image.Image) -> list[np.ndarray]:
    """The tiles of a sheet, eight per row."""
    pixels = np.asarray(sheet)
    assert (pixels == pixels[..., :1]).all()  # grey
    grey = pixels[..., 0]
    rows, columns = ((length + 4) // SIDE for length in grey.shape)
    corners = [(SIDE * row, SIDE * column) for row in range(rows) for column in range(columns)]
    return [grey[top : top + 24, left : left + 24] for top, left in corners]


@pytest.mark.parametrize("count", [8, 64, 80])
def test_a_kernel_is_drawn_as_the_mean_of_its_channels(count: int) -> None:
    kernel = np.random.default_rng(0).standard_normal((3, 3, 10, count)).astype(np.float32)
    drawn = tiles(deep_kernel_sheet(kernel))
    assert len(drawn) == min(count, 64)
    means = np.mean(kernel, axis=2)[..., :64]
    expected = np.round((means / np.abs(means).max() + 1) * 127.5)
    for number, tile in enumerate(drawn):
        np.testing.assert_allclose(tile[4::8, 4::8], expected[..., number], atol=1)


def test_a_depthwise_convolution_has_a_kernel_for_each_channel() -> None:
    kernel = np.zeros((3, 3, 8, 1), np.float32)
    kernel[..., :4, :] = 1
    shades = [np.unique(tile).tolist() for tile in tiles(deep_kernel_sheet(kernel))]
    assert shades == [[255]] * 4 + [[128]] * 4

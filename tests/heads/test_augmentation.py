from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from vgg16_transfer.heads.augmentation import augment

SIDE = 32
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
# Ten grey levels and no more: what blends them, or moves them, can be seen.
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]
SLOPE = np.stack([2 * ROWS + 100, 2 * COLUMNS + 100, 0 * ROWS + 100], axis=-1).astype(np.uint8)
EVERY_KIND = ["flip", "crop", "colour", "flip+crop+colour"]


def varied(kinds: str, seed: int, picture: Any = NOISE) -> np.ndarray:
    return augment(tf.constant(picture), kinds, tf.constant([seed, 0], tf.int64)).numpy()


def test_none_leaves_a_picture_as_it_is() -> None:
    np.testing.assert_array_equal(varied("none", 0), NOISE)


@pytest.mark.parametrize("kinds", EVERY_KIND)
def test_what_is_varied_is_a_picture_of_the_same_size(kinds: str) -> None:
    result = varied(kinds, 0)
    assert result.shape == NOISE.shape
    assert result.dtype == np.uint8


@pytest.mark.parametrize("kinds", EVERY_KIND)
def test_the_same_seed_gives_the_same_picture_and_others_give_others(kinds: str) -> None:
    pictures = [varied(kinds, seed).tobytes() for seed in range(8)]
    assert pictures == [varied(kinds, seed).tobytes() for seed in range(8)]
    assert len(set(pictures)) == (2 if kinds == "flip" else 8)


def test_every_other_picture_is_flipped() -> None:
    flipped = [np.array_equal(varied("flip", seed), NOISE[:, ::-1]) for seed in range(40)]
    kept = [np.array_equal(varied("flip", seed), NOISE) for seed in range(40)]
    assert [not one for one in kept] == flipped
    assert 10 < sum(flipped) < 30


def test_a_crop_enlarges_a_part_of_at_least_seven_eighths() -> None:
    spans = []
    for seed in range(40):
        red, green, blue = np.moveaxis(varied("crop", seed, SLOPE).astype(float), -1, 0)
        assert (blue == 100).all()
        assert np.ptp(red, axis=1).max() == np.ptp(green, axis=0).max() == 0
        top, bottom, left, right = (red[0, 0], red[-1, 0], green[0, 0], green[0, -1])
        assert min(top, left) >= 100
        assert max(bottom, right) <= 100 + 2 * (SIDE - 1)
        assert bottom - top == pytest.approx(right - left, abs=1.01)
        spans.append((bottom - top) / (2 * (SIDE - 1)))
    assert 7 / 8 - 0.02 <= min(spans) < 0.9
    assert 0.97 < max(spans) <= 1


def test_crops_lie_anywhere() -> None:
    corners = np.array([varied("crop", seed, SLOPE)[0, 0, :2] for seed in range(40)])
    assert np.ptp(corners, axis=0).min() >= 4


def test_colour_moves_no_edge() -> None:
    halves = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
    halves[:, SIDE // 2 :] = [150, 120, 100]
    for seed in range(8):
        result = varied("colour", seed, halves).astype(int)
        assert np.ptp(result[:, : SIDE // 2], axis=(0, 1)).tolist() == [0, 0, 0]
        assert np.ptp(result[:, SIDE // 2 :], axis=(0, 1)).tolist() == [0, 0, 0]


def test_colour_varies_brightness_contrast_and_saturation() -> None:
    brightness, contrast, saturation = [], [], []
    for seed in range(40):
        result = varied("colour", seed, SLOPE // 2 + 60).astype(float)
        brightness.append(result.mean())
        contrast.append(result[..., 0].std())
        saturation.append(np.ptp(result, axis=-1).mean())
    for measured in (brightness, contrast, saturation):
        assert np.ptp(measured) > 0.2 * np.mean(measured)
    assert np.ptp(brightness) < 2 * 0.2 * 255 + 60


def test_colour_stays_within_what_a_picture_holds() -> None:
    # Were black and white to wrap round, they would come out on the other side.
    assert max(varied("colour", seed, 0 * NOISE).max() for seed in range(20)) <= 52
    assert min(varied("colour", seed, 0 * NOISE + 255).min() for seed in range(20)) >= 255 - 52


def test_a_kind_does_the_same_whichever_others_are_asked_for() -> None:
    for seed in range(8):
        both, order = (varied(kinds, seed) for kinds in ("flip+colour", "colour+flip"))
        np.testing.assert_array_equal(both, order)
        np.testing.assert_array_equal(both, varied("colour", seed, varied("flip", seed)))

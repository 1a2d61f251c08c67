"""Random variations of training pictures. The same seed gives the same picture.

Each kind of variation has a separate seed. So switching ``flip`` on does not change how pictures
are cropped.
"""

from __future__ import annotations

import tensorflow as tf

_SMALLEST_CROP = 7 / 8
_BRIGHTER_BY = 0.2
_LESS, _MORE = 0.75, 1 / 0.75


def augment(picture: tf.Tensor, kinds: str, seed: tf.Tensor) -> tf.Tensor:
    """Varies a picture.

    Args:
        picture: Shape (height, width, 3), RGB, integers from 0 to 255.
        kinds: ``none``, or some of ``flip``, ``crop`` and ``colour``, joined by ``+``.
        seed: Two integers. They decide all random numbers.

    Returns:
        The varied picture: same shape, RGB, integers from 0 to 255 (uint8).
    """
    chosen = kinds.split("+")
    for number, (kind, vary) in enumerate(_KINDS.items()):
        if kind in chosen:
            picture = vary(picture, tf.random.fold_in(seed, number))
    return picture


def _flip(picture: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Swaps left and right with probability 1/2."""
    return tf.image.stateless_random_flip_left_right(picture, seed)


def _crop(picture: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Crops a box and resizes it to the picture's size, bilinear.

    Each side of the box is 7/8 to 1 of the picture's side.
    """
    side, top, left = tf.unstack(tf.random.stateless_uniform([3], seed))
    side = _SMALLEST_CROP + (1 - _SMALLEST_CROP) * side
    top, left = (1 - side) * top, (1 - side) * left
    box = [[top, left, top + side, left + side]]
    shape = tf.shape(picture)[:2]
    return _as_uint8(tf.image.crop_and_resize(picture[tf.newaxis], box, [0], shape)[0])


def _colour(picture: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Varies brightness by up to 1/5 of the range, contrast and saturation by up to 1/3."""
    seeds = tf.unstack(tf.random.split(seed, 3))
    picture = tf.cast(picture, tf.float32) / 255
    picture = tf.image.stateless_random_brightness(picture, _BRIGHTER_BY, seeds[0])
    picture = tf.image.stateless_random_contrast(picture, _LESS, _MORE, seeds[1])
    # Saturation is defined only for colours in the range 0 to 1.
    picture = tf.clip_by_value(picture, 0, 1)
    picture = tf.image.stateless_random_saturation(picture, _LESS, _MORE, seeds[2])
    return _as_uint8(255 * picture)


def _as_uint8(picture: tf.Tensor) -> tf.Tensor:
    return tf.saturate_cast(tf.round(picture), tf.uint8)


_KINDS = {"flip": _flip, "crop": _crop, "colour": _colour}

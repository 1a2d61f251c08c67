"""What a GPU does with activations, done here by a CPU."""

import numpy as np
import pytest
import tensorflow as tf

from vgg16_transfer.backbones.base import Tapped
from vgg16_transfer.backbones.narrowing import (
    CastOnDevice,
    OverflowInFeaturesError,
    cast_on_device,
    narrowed,
)

SHAPES = {"pool": (2, 3), "fc2": (6,)}


def network(values: np.ndarray, batch_size: int = 32) -> Tapped:
    """A network that gives the same activations for every picture."""

    def call(pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = tf.tile(tf.constant(values, tf.float32)[tf.newaxis], [len(pictures), 1])
        return {layer: tf.reshape(outputs, (-1, *shape)) for layer, shape in SHAPES.items()}

    return Tapped(SHAPES, batch_size, call)


PICTURES = np.zeros((4, 8, 8, 3), np.uint8)
VALUES = [
    [0.0, -0.0, 1.0, 1 / 3, 1e-7, -1e-9],
    [65504.0, -65504.0, 1.00048828125, 1.0009765625, 5.97e-8, 2.98e-8],
]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("values", VALUES, ids=str)
def test_a_device_narrows_as_numpy_does_to_the_bit(values: list[float], dtype: str) -> None:
    plain = network(np.float32(values))
    cast = cast_on_device(plain, dtype)
    assert isinstance(cast, CastOnDevice)
    for layer, output in cast.forward(PICTURES).items():
        result = narrowed(layer, output, dtype)
        expected = narrowed(layer, plain.forward(PICTURES)[layer], dtype)
        assert result.dtype == dtype
        assert result.shape == (4, 6)
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [65_505.0, -70_000.0, np.inf, np.nan])
@pytest.mark.parametrize("on_device", [True, False])
def test_what_is_too_large_is_named(value: float, on_device: bool) -> None:
    plain = network(np.float32([1, 2, value, 0, 0, 0]))
    outputs = (cast_on_device(plain, "float16") if on_device else plain).forward(PICTURES)
    with pytest.raises(OverflowInFeaturesError, match=r"float16 ends at 65,504, but fc2") as caught:
        narrowed("fc2", outputs["fc2"], "float16")
    np.testing.assert_equal(caught.value.value, abs(value))


def test_on_a_cpu_a_network_stays_as_it_is() -> None:
    plain = network(np.zeros(6, np.float32), batch_size=1)
    assert cast_on_device(plain, "float16") is plain

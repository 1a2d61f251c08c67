import numpy as np
import pytest

from vgg16_transfer.backbones.encoding import decode, encode, widened

RANDOM = np.random.default_rng(0)
COUNT = 1003
SHARES = [0.0, 0.1, 0.5, 0.99, 1.0]


def numbers(zeros: float, dtype: str) -> np.ndarray:
    """Random numbers of all signs, with a share of zeros."""
    values = RANDOM.standard_normal(COUNT).astype(dtype)
    values[RANDOM.random(COUNT) < zeros] = 0
    return values


@pytest.mark.parametrize("zeros", SHARES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_come_back_to_the_bit(zeros: float, dtype: str) -> None:
    values = numbers(zeros, dtype)
    result = decode(encode(values), dtype, COUNT)
    assert result.dtype == np.float32
    assert result.tobytes() == values.astype(np.float32).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_negative_zero_stays_one_and_so_does_what_is_no_number(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    special = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, tiny, 0, 0, 0, 0, 0, 0], dtype)
    result = decode(encode(special), dtype, len(special))
    assert result.tobytes() == special.astype(np.float32).tobytes()


def test_zeros_cost_a_bit_each() -> None:
    values = numbers(0.9, "float16")
    filled = np.count_nonzero(values)
    assert len(encode(values)) == 1 + -(-COUNT // 8) + 2 * filled


def test_numbers_without_zeros_are_compressed() -> None:
    values = np.tile(np.float16([1, 2, 3]), 1000)
    assert len(encode(values)) < values.nbytes / 10


def test_rows_that_are_not_contiguous_are_encoded_as_what_they_say() -> None:
    values = numbers(0.5, "float16")
    assert encode(values[::2]) == encode(values[::2].copy())


def test_every_float16_is_widened_as_numpy_does() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert widened(every).tobytes() == every.astype(np.float32).tobytes()

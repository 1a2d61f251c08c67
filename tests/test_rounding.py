"""One rounding: half up, of what the records hold."""

import math

import pytest

from vgg16_transfer.rounding import fixed, percent, signed


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9675, "96.8"),  # 96.75 is stored as a little more, and 0.9675 as a little less
        (0.6875, "68.8"),
        (0.68749, "68.7"),
        (0.0005, "0.1"),
        (1.0, "100.0"),
        (0.0, "0.0"),
        (0.12345, "12.3"),
    ],
)
def test_halves_go_up_wherever_they_are_printed(share: float, text: str) -> None:
    assert percent(share) == text


def test_digits_can_be_chosen() -> None:
    assert (fixed(2.345, 2), fixed(2.5, 0), percent(0.155, 0)) == ("2.35", "3", "16")


def test_a_missing_number_stays_one() -> None:
    assert fixed(math.nan) == "nan"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0125, "+1.3"), (-0.0125, "−1.3"), (0.0, "+0.0"), (-0.0001, "+0.0"), (-0.2, "−20.0")],
)
def test_differences_have_a_sign(share: float, text: str) -> None:
    assert signed(share) == text

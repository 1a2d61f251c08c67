"""Names at the ends of curves: near to where they belong, and apart from each other."""

import itertools

import pytest
from matplotlib.figure import Figure

from vgg16_transfer.reporting import line_labels
from vgg16_transfer.reporting.line_labels import End, spread


def test_names_that_are_apart_stay_where_they_are() -> None:
    assert spread([0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9])


@pytest.mark.parametrize("wanted", [[0.5] * 6, [0, 0, 0.01], [0.3, 0.31, 0.99, 1.0], [1.0] * 3])
def test_names_that_are_too_near_move_apart_within_the_axes(wanted: list[float]) -> None:
    places = spread(wanted)
    assert all(above - below > 0.06 for below, above in itertools.pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1


def test_names_move_no_further_than_needed() -> None:
    low, high = spread([0.5, 0.5])
    assert (low + high) / 2 == pytest.approx(0.5)
    assert spread([0.1, 0.5, 0.5])[0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ends", "fits"),
    [
        ([End("a", "r", 10, 0.1), End("b", "b", 10, 0.2)], True),
        ([End("a", "r", 10, 0.1), End("b", "b", 5, 0.2)], False),  # ends in the middle
        ([End("a", "r", 10, 0.1), End("wide" * 20, "b", 10, 0.2)], False),
        ([End(f"{n}", "r", 10, 0.1 * n) for n in range(7)], False),
        ([End("a", "r", 10, 0.1), End("failed", "b", None, None)], True),
    ],
)
def test_names_that_could_not_be_read_need_a_legend(ends: list[End], *, fits: bool) -> None:
    axes = Figure().subplots()
    axes.set_xlim(0, 10)
    assert line_labels.fit(axes, ends) == fits

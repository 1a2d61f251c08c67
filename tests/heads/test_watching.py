"""What those who watch a training of ``end_to_end`` see of it."""

import io
import re
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.heads import small
from tests.heads.small import Killed, make_study

from vgg16_transfer.backbones import base
from vgg16_transfer.heads import end_to_end, model_files


class Watching(small.Watching):
    """Notes kernels as well."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__(last)
        self.kernels_of: dict[int, Mapping[str, Any]] = {}

    def kernels(self, trial: str, epoch: int, kernels: Mapping[str, Any]) -> None:
        assert trial == "only"
        assert epoch not in self.kernels_of
        self.kernels_of[epoch] = kernels


@pytest.mark.parametrize(("every", "epochs"), [(0, [0, 4]), (2, [0, 2, 4])])
def test_kernels_of_the_first_and_the_last_convolution_that_is_trained_are_told(
    small_inputs, tmp_path, every: int, epochs: list[int]
) -> None:
    watching = Watching()
    study = make_study(epochs=4, log_filters_every=every)
    small.train(study, small_inputs, tmp_path, watching)
    assert list(watching.kernels_of) == epochs
    head = model_files.load(tmp_path / "heads" / "s" / "only.keras")
    for epoch, model in ((0, small.network()), (4, head)):
        expected = {layer.name: layer.get_weights()[0] for layer in base.convolutions(model)}
        told = watching.kernels_of[epoch]
        assert list(told) == ["block5_conv1", "block5_conv2"]
        for name, kernel in told.items():
            np.testing.assert_array_equal(kernel, expected[name])
    for name, before in watching.kernels_of[0].items():
        assert (before != watching.kernels_of[4][name]).any()


def test_a_process_that_goes_on_tells_only_the_kernels_that_come(small_inputs, tmp_path) -> None:
    study = make_study(epochs=4, log_filters_every=1)
    first, second = Watching(last=2), Watching()
    with pytest.raises(Killed):
        small.train(study, small_inputs, tmp_path, first)
    small.train(study, small_inputs, tmp_path, second)
    assert list(first.kernels_of) == [0, 1]
    assert list(second.kernels_of) == [3, 4]


def test_without_fine_tuning_there_are_no_kernels_to_tell(small_inputs, tmp_path) -> None:
    watching = Watching()
    small.train(make_study(fine_tune_from="none", epochs=1), small_inputs, tmp_path, watching)
    assert watching.epochs == [1]
    assert watching.kernels_of == {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_shows_name_epoch_loss_and_time_left(small_inputs, tmp_path, monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    impatient = partial(end_to_end.tqdm, mininterval=0, miniters=1)
    monkeypatch.setattr(end_to_end, "tqdm", impatient)
    rates = [0.05, 0.012345678901234567]
    small.train(make_study(epochs=2, learning_rate=rates), small_inputs, tmp_path)
    said = r"(\S+): (\d+) %, epoch (\d) of 2, loss \d\S+, \d\d:\d\d left"
    lines = re.findall(said, screen.getvalue())
    of_epoch = {"1": ("17", "33", "50"), "2": ("67", "83", "100")}
    steps = [(percent, epoch) for epoch in of_epoch for percent in of_epoch[epoch]]
    for name in ("learning_rate=0.05", "learning_rate=0.01"):
        assert [tuple(rest) for line, *rest in lines if line[: len(name)] == name] == steps


def test_the_line_of_a_long_name_fits_a_terminal(monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with end_to_end._bar(f"fine_tune_from=block5,samples_per_class=16,seed={'9' * 9}", 9, 0) as bar:
        bar.set_postfix_str("epoch 100 of 200, loss 0.1234")
    lines = screen.getvalue().split("\r")
    assert max(map(len, lines)) < 100
    assert (
        "fine_tune_from=blo…=16,seed=999999999: 0 %, epoch 100 of 200, loss 0.1234, ? left" in lines
    )

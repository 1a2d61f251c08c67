"""Stages that other processes work for: the bytes and the events of a stage alone."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgg16_transfer.backbones.features import write_features
from vgg16_transfer.heads import studies
from vgg16_transfer.heads.studies import Streamed, train_study
from vgg16_transfer.heads.watching import Ended
from vgg16_transfer.images.source import Source

from .inline import Inline


class Listener:
    """A watcher that keeps all that it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def began(self, trial: str, started: int) -> None:
        assert started > 0
        self.heard.append(("began", trial))

    def epoch(self, trial: str, epoch: int, measured: dict[str, float]) -> None:
        self.heard.append(("epoch", trial, epoch, dict(measured)))

    def kernels(self, trial: str, epoch: int, kernels: dict[str, np.ndarray]) -> None:
        bits = {layer: each.tobytes() for layer, each in kernels.items()}
        self.heard.append(("kernels", trial, epoch, bits))

    def ended(self, trial: str, ended: Ended) -> None:
        self.heard.append(("ended", trial, ended.record.trials.to_csv()))

    def broke(self, trial: str, why: str) -> None:
        self.heard.append(("broke", trial, why))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def train(workspace: Any, study: str, **how: Any) -> None:
    layout, params = workspace.layout, workspace.params
    for out in (layout.heads(study), layout.record(study)):
        shutil.rmtree(out, ignore_errors=True)
    train_study(
        params.study(study),
        splits=layout.splits("animals"),
        features=layout.features_of("animals", params.backbones),
        streamed=Streamed(Source(layout.source("animals")), layout.weights_of(params.backbones)),
        heads=layout.heads(study),
        results=layout.record(study),
        **how,
    )


def test_workers_write_the_features_of_a_stage_alone(trained, tmp_path) -> None:
    layout, params = trained.layout, trained.params
    pool = Inline()
    outs = dict.fromkeys(params.backbones, tmp_path / "animals")
    for computed in (18, 0):
        (written,) = write_features(
            params.backbones,
            params.dataset("animals").layers,
            weights=layout.weights_of(params.backbones),
            splits=layout.splits("animals"),
            source=Source(layout.source("animals")),
            outs=outs,
            pool=pool,
        ).values()
        assert written.computed == computed
        assert content(tmp_path / "animals") == content(layout.features("animals"))
    assert pool.gpus == [False]  # nothing was left to ask for


def test_workers_train_the_trials_of_a_stage_alone_and_the_same_is_told(trained, tmp_path) -> None:
    workspace = trained.copy(tmp_path / "workspace")
    for study in ("few", "tuned"):
        alone, with_workers = Listener(), Listener()
        train(workspace, study, watch=alone)
        train(workspace, study, watch=with_workers, pool=Inline())
        assert with_workers.heard == alone.heard
        for kind in (workspace.layout.heads, workspace.layout.record):
            out = kind(study)
            assert content(out) == content(trained.root / out.relative_to(workspace.root))


def test_a_trial_that_breaks_in_a_worker_costs_no_other(trained, tmp_path, monkeypatch) -> None:
    workspace = trained.copy(tmp_path / "workspace")
    train_trial = studies.train_trial

    def fragile(trial: Any, *rest: Any) -> Any:
        if trial.seed == 1 and trial.samples_per_class == 2:
            raise ArithmeticError("a number is too large")
        return train_trial(trial, *rest)

    listener = Listener()
    with monkeypatch.context() as patch:
        patch.setattr(studies, "train_trial", fragile)
        with pytest.raises(studies.BrokenError) as caught:
            train(workspace, "few", watch=listener, pool=Inline())
    assert list(caught.value.broken.values()) == ["ArithmeticError: a number is too large"]
    assert [kind for kind, *_ in listener.heard if kind != "began"].count("ended") == 3
    again = Listener()
    train(workspace, "few", watch=again, pool=Inline())
    assert [kind for kind, *_ in again.heard] == ["began", "ended"]
    out = workspace.layout.heads("few")
    assert content(out) == content(trained.layout.heads("few"))

"""How long it takes to log a trial to MLflow's default store, a SQLite file.

    python benchmarks/logging_trials.py [WORKSPACE] [--study clipart-samples]

The workspace has been reproduced. The trials of the study are logged to a new store, one after the
other, as a stage does while it trains: settings, split, curves, measures, tables, confusion matrix
and head. The first one also imports and draws what the others share.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tables import print_table

from vgg16_transfer.heads import records
from vgg16_transfer.lineage.lineage import locked_stages
from vgg16_transfer.params import read_params
from vgg16_transfer.tracking.mlflow_store import find_store
from vgg16_transfer.tracking.study_runs import StudyRuns, by_trial
from vgg16_transfer.workspace import Workspace


def main() -> None:
    """Logs each trial and prints the seconds that it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path, nargs="?", default=Path())
    parser.add_argument("--study", default="clipart-samples")
    asked = parser.parse_args()
    workspace = Workspace(asked.workspace.resolve())
    study = read_params(workspace.root / "params.yaml").study(asked.study)
    stage = f"train@{study.name}"
    lineage = locked_stages(workspace.root, [stage])[stage]
    of_trials = by_trial(records.read(workspace.record(study.name)))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        store = find_store(workspace.root, f"sqlite:///{folder}/mlflow.db")
        runs = StudyRuns(store, study, lineage, workspace.splits(study.dataset))
        _ = runs.parent  # the study's own run
        for trial in study.trials():
            name = study.trial_name(trial)
            head = workspace.heads(study.name) / f"{name}.keras"
            began = time.perf_counter()
            run = runs.start(name, trial, 1_700_000_000_000)
            runs.finish(run, of_trials[name], [head], lineage.times.get(name, {}))
            seconds.append(time.perf_counter() - began)
    first, *others = seconds
    print_table(
        [f"logging {len(seconds)} trials, one after the other", "seconds"],
        [
            ("the median trial (target: 0.15)", f"{statistics.median(others):.3f}"),
            ("the quickest and the slowest", f"{min(others):.3f}, {max(others):.3f}"),
            ("the first, which imports and draws what they share", f"{first:.2f}"),
        ],
    )


if __name__ == "__main__":
    main()

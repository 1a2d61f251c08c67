"""Runs side by side: which settings differ, what they reach, which test pictures changed sides.

A run may be a trial's or a study's; a study stands for all its trials.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.known_runs import every_run, failure
from vgg16_transfer.tracking.mlflow_store import TrackingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

_SIDES = 0.5
"""A picture is on the right side if more than this share of a run's trials took it rightly."""

_ROUNDING = 1e-5  # records hold six digits


class Compared(NamedTuple):
    """What sets runs apart; the columns of every frame are the runs, in the order asked for.

    Attributes:
        settings: One row per setting in which they differ.
        accuracies: One row per point of their grids: mean ± standard deviation over the seeds, %.
        changed: One row per test picture that not all runs took rightly, or not all wrongly: the
            share of a run's trials that did; its index is the path.
        common: How many pictures all runs were tested on.
    """

    settings: pd.DataFrame
    accuracies: pd.DataFrame
    changed: pd.DataFrame
    common: int


def find_run(client: mlflow.MlflowClient, run_id: str) -> Run:
    """A run by its id.

    Raises:
        TrackingError: The store has none.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not mlflow_private.is_missing_run(error):
            raise
        raise TrackingError(
            f"run '{run_id}': {mlflow.get_tracking_uri()} has none with that id; copy it from the "
            f"run's page in the MLflow UI"
        ) from None


def compare(client: mlflow.MlflowClient, run_ids: Sequence[str]) -> Compared:
    """Compares runs of trials, of studies, or of both.

    Args:
        client: Of the store.
        run_ids: Two or more.

    Raises:
        TrackingError: The store has no such run, it is neither a trial's nor a study's, its trial
            failed, or its predictions are missing or belie its accuracy.
    """
    trials = {}
    for run_id in run_ids:
        run = find_run(client, run_id)
        trials[f"{run.info.run_name} {run_id[:8]}"] = _trials(client, run)
    settings = _beside({name: _settings(runs) for name, runs in trials.items()}).fillna("")
    tested = _beside({name: _right(runs) for name, runs in trials.items()}).dropna()
    return Compared(
        settings[_differ(settings)],
        _beside({name: _accuracies(runs) for name, runs in trials.items()}).fillna(""),
        tested[_differ(tested > _SIDES)],
        len(tested),
    )


def _trials(client: mlflow.MlflowClient, run: Run) -> list[Run]:
    if "trial" in run.data.tags:
        why = failure(run)
        if why is not None:
            raise TrackingError(
                f"run '{run.info.run_id}': its trial failed ({why}); name a run that finished"
            )
        return [run]
    experiment, run_id = run.info.experiment_id, run.info.run_id
    trials = every_run(client, experiment, f"tags.mlflow.parentRunId = '{run_id}'")
    if not trials:
        raise TrackingError(f"run '{run_id}': is neither a trial's nor a study's")
    reached = [trial for trial in trials if failure(trial) is None]
    if not reached:
        raise TrackingError(
            f"run '{run_id}': all trials of its study failed; name a study with one that finished"
        )
    return sorted(reached, key=_in_order)


def _in_order(run: Run) -> list[tuple[float, str]]:
    """Sorts 2 before 16."""
    parts = re.split(r"(\d+)", run.info.run_name)
    return [(float(part), "") if part.isdigit() else (0.0, part) for part in parts]


def _beside(columns: dict[str, pd.Series]) -> pd.DataFrame:
    """Columns side by side; rows stay in the order in which they come."""
    return pd.concat(columns, axis="columns", sort=False)


def _differ(frame: pd.DataFrame) -> pd.Series:
    """Which rows do not hold the same in all columns."""
    return frame.ne(frame.iloc[:, 0], axis="index").any(axis="columns")


def _settings(trials: Sequence[Run]) -> pd.Series:
    """Each setting's values over a run's trials, in their order."""
    values = pd.DataFrame([run.data.params for run in trials])
    return values.apply(lambda column: ", ".join(column.dropna().drop_duplicates()))


def _accuracies(trials: Sequence[Run]) -> pd.Series:
    """Accuracy by point: all settings but the seed that vary within the run, spelt out."""
    rows = pd.DataFrame([run.data.params for run in trials])
    varying = [key for key in rows.columns if key != "seed" and len(set(rows[key])) > 1]
    points = [
        ", ".join(f"{key} {row[key]}" for key in varying) or "accuracy"
        for row in rows.to_dict("records")
    ]
    accuracy = pd.Series([100 * _accuracy(run) for run in trials])
    return accuracy.groupby(points, sort=False).agg(_spread)


def _accuracy(run: Run) -> float:
    try:
        return float(run.data.metrics["accuracy"])
    except KeyError:
        raise TrackingError(
            f"run '{run.info.run_id}': has no accuracy; vgg16-transfer publish completes runs that "
            f"broke off"
        ) from None


def _spread(seeds: pd.Series) -> str:
    mean = f"{seeds.mean():.1f}"
    return f"{mean} ± {seeds.std():.1f} ({len(seeds)} seeds)" if len(seeds) > 1 else mean


def _right(trials: Sequence[Run]) -> pd.Series:
    """By test picture, the share of the trials tested on it that took it for what it is."""
    bar = tqdm(trials, desc="predictions", unit="trial", disable=None)
    told = pd.concat([_predictions(run) for run in bar])
    return (told["true"] == told["predicted"]).groupby(told["path"]).mean()


def _predictions(run: Run) -> pd.DataFrame:
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/predictions.csv")
    except (MlflowException, OSError):
        raise TrackingError(
            f"run '{run.info.run_id}': its predictions.csv can't be read; vgg16-transfer publish "
            f"completes runs that broke off"
        ) from None
    try:
        told = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        right = float((told["true"] == told["predicted"]).mean())
    except (KeyError, ValueError):  # pandas' own errors of a damaged file are of the latter kind
        right = math.nan
    if not abs(right - _accuracy(run)) <= _ROUNDING:
        raise TrackingError(
            f"run '{run.info.run_id}': its predictions.csv is not that of its accuracy; delete the "
            f"run in the MLflow UI and tell of it again with vgg16-transfer publish"
        )
    return told

"""Compares runs: settings, accuracies, and the test pictures that they classify differently.

A run is that of a trial or of a study. A study's run stands for all its trials.
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

from vgg16_transfer.rounding import fixed
from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.logged_runs import every_run, failure
from vgg16_transfer.tracking.mlflow_store import TrackingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

_MAJORITY = 0.5
"""A picture counts as correct if more than this share of a run's trials classified it correctly."""

_ID = re.compile("[0-9a-f]{32}")
_LISTED = 5

_ROUNDING = 1e-5  # records have six digits


class Compared(NamedTuple):
    """The differences between runs. The columns of each frame are the runs, in the given order.

    Attributes:
        settings: One row per setting that differs.
        accuracies: One row per point of the grids: mean ± standard deviation over the seeds, in %.
        changed: One row per test picture that some runs classified correctly and others wrongly.
            The values are the share of the run's trials that were correct, 0 to 1. The index is
            the path of the picture.
        common: Number of pictures that all runs were tested on.
    """

    settings: pd.DataFrame
    accuracies: pd.DataFrame
    changed: pd.DataFrame
    common: int


def find_run(client: mlflow.MlflowClient, name: str) -> Run:
    """A run by its id, or the newest one by a name.

    Args:
        client: Client of the store.
        name: An id; the name of a study, of a trial, or of both as in the UI; or the name of a DVC
            experiment.

    Raises:
        TrackingError: The store has no such run, or runs of several trials or studies.
    """
    if _ID.fullmatch(name):
        try:
            return client.get_run(name)
        except MlflowException as error:
            if not mlflow_private.is_missing_run(error):
                raise
            raise TrackingError(
                f"run '{name}': {mlflow.get_tracking_uri()} has none with that id; copy it from "
                f"the run's page in the MLflow UI"
            ) from None
    found = _named(client, name)
    meant = {(run.data.tags.get("study"), run.data.tags.get("trial")): run for run in found}
    if not meant:
        raise TrackingError(
            f"run '{name}': {mlflow.get_tracking_uri()} has none of that id or name; name a study, "
            f"a trial as in the MLflow UI, or a DVC experiment"
        )
    if len(meant) > 1:
        names = sorted(str(run.info.run_name) for run in meant.values())
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise TrackingError(
            f"run '{name}': may be one of several: {'; '.join(names[:_LISTED])}{more}; write one "
            f"of these names, or an id"
        )
    return found[0]


def _named(client: mlflow.MlflowClient, name: str) -> list[Run]:
    """The runs with a name, the newest first. Names of studies and experiments are theirs alone."""
    quote = '"' if "'" in name else "'"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, Run] = {}
    for key in ("attributes.run_name", "tags.study", "tags.trial", "tags.`dvc.exp_name`"):
        for run in client.search_runs(experiments, f"{key} = {quote}{name}{quote}"):
            if "trial" not in run.data.tags or key in {"attributes.run_name", "tags.trial"}:
                found[run.info.run_id] = run
        if found:
            break
    return sorted(found.values(), key=lambda run: -run.info.start_time)


def compare(client: mlflow.MlflowClient, run_ids: Sequence[str]) -> Compared:
    """Compares runs of trials, of studies, or of both.

    Args:
        client: Client of the store.
        run_ids: Ids or names of two or more runs; see :func:`find_run`.

    Raises:
        TrackingError: The store has no such run, the run belongs to neither a trial nor a study,
            its trial failed, or its predictions are missing or do not match its accuracy.
    """
    trials = {}
    for run_id in run_ids:
        run = find_run(client, run_id)
        trials[f"{run.info.run_name} {run.info.run_id[:8]}"] = _trials(client, run)
    settings = _join({name: _settings(runs) for name, runs in trials.items()}).fillna("")
    tested = _join({name: _correct(runs) for name, runs in trials.items()}).dropna()
    return Compared(
        settings[_differ(settings)],
        _join({name: _accuracies(runs) for name, runs in trials.items()}).fillna(""),
        tested[_differ(tested > _MAJORITY)],
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
        raise TrackingError(f"run '{run_id}': belongs to neither a trial nor a study")
    succeeded = [trial for trial in trials if failure(trial) is None]
    if not succeeded:
        raise TrackingError(
            f"run '{run_id}': all trials of its study failed; name a study with one that finished"
        )
    return sorted(succeeded, key=_natural_order)


def _natural_order(run: Run) -> list[tuple[float, str]]:
    """A sort key that puts 2 before 16."""
    parts = re.split(r"(\d+)", run.info.run_name)
    return [(float(part), "") if part.isdigit() else (0.0, part) for part in parts]


def _join(columns: dict[str, pd.Series]) -> pd.DataFrame:
    """Joins columns into a frame. Rows keep the order of their first appearance."""
    return pd.concat(columns, axis="columns", sort=False)


def _differ(frame: pd.DataFrame) -> pd.Series:
    """Whether the values of a row differ between columns, for each row."""
    return frame.ne(frame.iloc[:, 0], axis="index").any(axis="columns")


def _settings(trials: Sequence[Run]) -> pd.Series:
    """For each setting, its values in a run's trials, in their order."""
    values = pd.DataFrame([run.data.params for run in trials])
    return values.apply(lambda column: ", ".join(column.dropna().drop_duplicates()))


def _accuracies(trials: Sequence[Run]) -> pd.Series:
    """Accuracy by point of the grid. Its name is the settings that vary, without the seed."""
    rows = pd.DataFrame([run.data.params for run in trials])
    # A kind of head may not have a setting at all, which is then no axis.
    varying = [key for key in rows.columns if key != "seed" and len(set(rows[key].dropna())) > 1]
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
            f"run '{run.info.run_id}': has no accuracy; vgg16-transfer publish completes "
            f"interrupted runs"
        ) from None


def _spread(seeds: pd.Series) -> str:
    mean = fixed(seeds.mean())
    return f"{mean} ± {fixed(seeds.std())} ({len(seeds)} seeds)" if len(seeds) > 1 else mean


def _correct(trials: Sequence[Run]) -> pd.Series:
    """For each test picture, the share of the trials tested on it that classified it correctly."""
    bar = tqdm(trials, desc="predictions", unit="trial", disable=None)
    predictions = pd.concat([_predictions(run) for run in bar])
    correct = predictions["true"] == predictions["predicted"]
    return correct.groupby(predictions["path"]).mean()


def _predictions(run: Run) -> pd.DataFrame:
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/predictions.csv")
    except (MlflowException, OSError):
        raise TrackingError(
            f"run '{run.info.run_id}': its predictions.csv can't be read; vgg16-transfer publish "
            f"completes interrupted runs"
        ) from None
    try:
        predictions = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        accuracy = float((predictions["true"] == predictions["predicted"]).mean())
    except (KeyError, ValueError):  # pandas raises a ValueError for a damaged file
        accuracy = math.nan
    if not abs(accuracy - _accuracy(run)) <= _ROUNDING:
        raise TrackingError(
            f"run '{run.info.run_id}': its predictions.csv does not match its accuracy; delete "
            f"the run in the MLflow UI and log it again with vgg16-transfer publish"
        )
    return predictions

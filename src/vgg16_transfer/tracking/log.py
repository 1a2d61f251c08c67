"""Logs the results of a workspace to MLflow, and says in sentences what was logged.

Importing this module does not import MLflow. So a broken MLflow installation fails inside
:func:`or_later`, where it costs a stage no result.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vgg16_transfer.errors import InputError
from vgg16_transfer.tracking.background import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Params
    from vgg16_transfer.tracking.mlflow_store import Store
    from vgg16_transfer.tracking.study_runs import StudyRuns
    from vgg16_transfer.workspace import Workspace


def log_study(
    store: Store,
    params: Params,
    workspace: Workspace,
    study: str,
    parent_run_id: str | None,
    lineage: Lineage,
    completed: Collection[str] = (),
) -> str:
    """Logs the runs of a study that the store does not have yet, and its dataset's data card.

    Args:
        store: The MLflow store.
        params: Params of the workspace.
        workspace: Paths of the workspace.
        study: Study name.
        parent_run_id: Run to put the study's run under, such as that of ``mlflow run``, or None.
        lineage: Lineage of the study's results.
        completed: Names of the trials whose runs were logged completely while the study trained.

    Returns:
        A sentence with the number of runs that were added or completed.

    Raises:
        CardError: The data card can't be read.
        RecordError: The study has no results.
        TrackingError: The store can't be used.
    """
    from vgg16_transfer.tracking.publish import publish_card, publish_study
    from vgg16_transfer.tracking.reach import reached

    dataset = params.study(study).dataset
    with reached(store):
        count = publish_study(
            store,
            params.study(study),
            lineage,
            results=workspace.record(study),
            heads=workspace.heads(study),
            splits=workspace.splits(dataset),
            weights=workspace.weights_of(params.backbones),
            parent_run_id=parent_run_id,
            completed=completed,
        )
        publish_card(store, dataset, workspace.splits(dataset))
    return f"{study}: {count + len(completed)} runs logged to MLflow at {store}"


def open_runs(
    store: Store,
    params: Params,
    workspace: Workspace,
    study: str,
    starting: Callable[[], Lineage],
    parent_run_id: str | None,
) -> StudyRuns:
    """Opens the runs of a study that begins to train.

    Args:
        store: The MLflow store.
        params: Params of the workspace.
        workspace: Paths of the workspace.
        study: Study name.
        starting: Returns the lineage of the stage that starts.
        parent_run_id: Run to put the study's run under, such as that of ``mlflow run``, or None.

    Raises:
        LineageError: dvc.yaml has no such stage.
        TrackingError: The store can't be used.
    """
    from vgg16_transfer.tracking.logged_runs import end_abandoned
    from vgg16_transfer.tracking.reach import reached
    from vgg16_transfer.tracking.study_runs import StudyRuns

    dataset = params.study(study).dataset
    with reached(store):
        splits = workspace.splits(dataset)
        runs = StudyRuns(store, params.study(study), starting(), splits, parent_run_id)
        known = {run.info.run_id for run in runs.existing.values()}
        end_abandoned(runs.client, runs.experiment, study, known)
    return runs


def log_pages(
    store: Store, params: Params, workspace: Workspace, origin: Lineage, *, check: bool
) -> list[str]:
    """Logs data cards, figures, gradient checks and the report that the store does not have yet.

    Args:
        store: The MLflow store.
        params: Params of the workspace.
        workspace: Paths of the workspace.
        origin: Lineage of the report.
        check: Whether to check that the store still has the files of earlier calls. This is slow.

    Returns:
        A sentence for each study and for the report, if anything of it was logged.

    Raises:
        CardError: A data card can't be read.
        DamagedError: A figure, a table or the report is missing or can't be read.
        LineageError: dvc.lock has no entry of a stage, or can't be read.
        TrackingError: The store can't be used.
    """
    from vgg16_transfer.lineage.lineage import locked_stages
    from vgg16_transfer.tracking import pages
    from vgg16_transfer.tracking.publish import publish_card
    from vgg16_transfer.tracking.reach import reached

    datasets = {study.dataset for study in params.studies.values()}
    locked = locked_stages(
        workspace.root,
        [
            *(f"{stage}@{study}" for stage in ("train", "explain") for study in params.studies),
            *(f"{stage}@{dataset}" for stage in ("filters", "gradients") for dataset in datasets),
        ],
    )
    trained = {name: locked[f"train@{name}"] for name in params.studies}
    sentences = []
    with reached(store):
        for dataset in sorted(datasets):
            publish_card(store, dataset, workspace.splits(dataset))
        for name, study in params.studies.items():
            dataset = study.dataset
            drawn = (
                (pages.publish_filters, workspace.filters(dataset), f"filters@{dataset}"),
                (pages.publish_gradients, workspace.gradients(dataset), f"gradients@{dataset}"),
                (pages.publish_explained, workspace.explained(name), f"explain@{name}"),
            )
            added = [
                publish(store, study, path, trained[name], locked[stage], check=check)
                for publish, path, stage in drawn
            ]
            if any(added):
                sentences.append(f"{name}: pictures added to its run at {store}")
        report = workspace.reports / "report.html"
        if pages.publish_report(store, report, params.studies, trained, origin, check=check):
            sentences.append(f"report: logged to MLflow at {store}")
    return sentences


class PagesLogger(Logger):
    """Logs what a report shows, once it is drawn. It imports what it needs meanwhile.

    Args:
        store: The MLflow store.
        params: Params of the workspace.
        workspace: Paths of the workspace.
    """

    def __init__(self, store: Store, params: Params, workspace: Workspace) -> None:
        from vgg16_transfer.tracking import pages  # noqa: F401

        self._where = store, params, workspace

    def log(self, origin: Lineage) -> list[str]:
        """See :func:`log_pages`."""
        return log_pages(*self._where, origin, check=False)


def drawing_stages(params: Params) -> list[str]:
    """Names of the stages, other than training and the report, whose outputs are logged."""
    of_datasets = [
        f"{stage}@{dataset}"
        for stage in ("splits", "filters", "gradients")
        for dataset in params.datasets
    ]
    return [*of_datasets, *(f"explain@{study}" for study in params.studies)]


@contextmanager
def or_later(stage: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Turns any failure of logging into a warning, so that it costs a stage no result.

    Args:
        stage: Name of the stage, whose results are written already.
        warn: Is called with the warning, a single line.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no failure of logging costs a training
        problem = str(error)
        if not isinstance(error, InputError):
            reason = " ".join(str(error).partition("\n")[0].split())
            problem = (
                f"unexpected {type(error).__name__} ({reason}), whose traceback vgg16-transfer "
                "publish shows"
            )
        warn(
            f"warning: {stage}: {problem}; nothing is lost: the results are in results/, models/ "
            "and reports/, and vgg16-transfer publish logs them to MLflow once this is fixed"
        )

"""What is drawn after training → MLflow: a study's explained pictures, and the page of all studies.

Both are known by the digest of their own stage's lock entry: the same is told once, another one
replaces it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.reporting.runs import with_runs
from vgg16_transfer.tracking.runs import finished, known_runs, now, remove_twins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.lineage import Lineage
    from vgg16_transfer.tracking.store import Store

REPORT = "report"
"""The experiment of the page, with one run per version of it."""

_EXPLAINED = "explained"


def publish_explained(
    store: Store, study: Study, folder: Path, trained: Lineage, drawn: Lineage
) -> bool:
    """Adds explained pictures to the run of the study that they explain.

    Args:
        store: Where to.
        study: Which study.
        folder: The pictures and their captions.
        trained: Where the study comes from: finds its run.
        drawn: Where the pictures come from.

    Returns:
        Whether there was anything to tell: not if it is known, or if the study has no run.

    Raises:
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = known_runs(client, store.experiment(client, study.dataset), trained).get("")
    if parent is None or parent.data.tags.get(_EXPLAINED) == drawn.lock_digest:
        return False
    client.log_artifacts(parent.info.run_id, str(folder), _EXPLAINED)
    client.set_tag(parent.info.run_id, _EXPLAINED, drawn.lock_digest)
    return True


def publish_report(
    store: Store,
    page: Path,
    studies: Mapping[str, Study],
    trained: Mapping[str, Lineage],
    made: Lineage,
) -> bool:
    """Logs the page as a run of its own, with the run ids and lock digests of all its numbers.

    Args:
        store: Where to.
        page: The page that the stage ``report`` made.
        studies: By name.
        trained: By study, where its numbers come from.
        made: Where the page comes from.

    Returns:
        Whether there was anything to tell: not if it is known, or if a number has no run yet.

    Raises:
        TrackingError: The store can't be used.
    """
    client = store.client()
    experiment = store.experiment(client, REPORT)
    known = known_runs(client, experiment, made)
    run = known.get("")
    if run is not None and finished(run):
        remove_twins(client, experiment, made, known)
        return False
    run_ids = {
        (name, trial): run.info.run_id
        for name, study in studies.items()
        for trial, run in known_runs(
            client, store.experiment(client, study.dataset), trained[name]
        ).items()
    }
    trials = {
        (name, study.trial_name(t)) for name, study in studies.items() for t in study.trials()
    }
    if trials - run_ids.keys():
        return False
    filled = with_runs(
        page.read_text(encoding="utf-8"),
        run_ids,
        {name: lineage.lock_digest for name, lineage in trained.items()},
    )
    if run is None:
        run = client.create_run(experiment, run_name=REPORT, tags=made.tags(), start_time=now())
    client.log_text(run.info.run_id, filled, page.name)
    client.set_terminated(run.info.run_id)
    remove_twins(client, experiment, made, known)
    return True

"""The addresses in MLflow's UI that show a dataset's runs as one wants to read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.mlflow_store import Store

_SHARED = "mlflow.sharedViewState."
"""Beginning of an experiment's tags with the views that MLflow's UI shares by address."""

_VIEW = "vgg16-transfer"
_METRICS = ("accuracy", "validation_accuracy", "fit_seconds")
_PARAMS = ("samples_per_class", "layer", "seed")


def address(store: Store, dataset: str, studies: Iterable[Study]) -> str | None:
    """The address of a dataset's runs in the UI, from its ``#`` on; None if it has no runs yet.

    The experiment's own page is made for traces of language models. The view has columns for what
    the studies vary and measure, the newest runs first, and the trials of each study unfolded.

    Args:
        store: The MLflow store. The view is written to it.
        dataset: Dataset name.
        studies: Studies of the dataset.

    Raises:
        TrackingError: The store can't be used.
    """
    client = store.client()
    experiment = client.get_experiment_by_name(dataset)
    if experiment is None:
        return None
    params = dict.fromkeys([*_PARAMS, *(axis for study in studies for axis in study.axes)])
    view = json.dumps(_view(params))
    tag = f"{_SHARED}{_VIEW}"
    if experiment.tags.get(tag) != view:
        client.set_experiment_tag(experiment.experiment_id, tag, view)
    page = f"#/experiments/{experiment.experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def _view(params: Iterable[str]) -> dict[str, object]:
    """What the UI calls a view: the keys are those of its version 3."""
    columns = [f"metrics.`{name}`" for name in _METRICS]
    columns += [f"params.`{name}`" for name in params]
    return {
        "selectedColumns": columns,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": "tags.trial != ''",
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [
                {"mode": "param", "groupByData": name}
                for name in ("study", *params)
                if name != "seed"
            ],
        },
    }

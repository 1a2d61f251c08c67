"""Which keys of a trial make a difference to it: only those are logged as its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.params.contradictions import BY_APPROACH

if TYPE_CHECKING:
    from vgg16_transfer.params.study import Trial

_OF_A_KIND = frozenset().union(*(row.keys for row in HEAD_KINDS.values()))
_MOVING = ("sgd", "nesterov")  # the optimisers with momentum


def settings_in_use(trial: Trial) -> dict[str, Any]:
    """The keys of a trial that its result depends on, with their values.

    Args:
        trial: The trial's setting.
    """
    settings = trial.model_dump()
    unused = set(_OF_A_KIND - HEAD_KINDS[trial.head].keys)
    unused |= {key for key, approach in BY_APPROACH.items() if approach != trial.approach}
    if trial.fine_tune_from == "none":
        unused |= {"fine_tune_learning_rate", "log_filters_every"}
    if trial.teacher_layer == "none":
        unused |= {key for key in settings if key.startswith("teacher_")}
        unused |= {"unlabelled_per_class"}
    if trial.layer != "predictions":
        unused |= {"temperature"}
    if trial.optimizer not in _MOVING:
        unused |= {"momentum"}
    return {key: value for key, value in settings.items() if key not in unused}

"""The layout knows the paths that dvc.yaml names."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.heads.records import ACCURACIES, FRAMES, METRICS, PROBABILITIES
from vgg16_transfer.images.cards import card_path
from vgg16_transfer.workspace import Workspace

ROOT = Path(__file__).parents[1]
STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
LAYOUT = Workspace(Path())


def paths(stage: str, *kinds: str) -> set[str]:
    """What a stage of dvc.yaml names, for the dataset ``d`` or the study ``s``."""
    definition = STAGES[stage].get("do", STAGES[stage])
    key = "s" if STAGES[stage].get("foreach") == "${studies}" else "d"
    named: list[Any] = [entry for kind in kinds for entry in definition.get(kind, [])]
    flat = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in named]
    return {path.replace("${key}", key).replace("${item.dataset}", "d") for path in flat}


@pytest.mark.parametrize(
    ("stage", "written"),
    [
        ("fetch", [LAYOUT.source("d")]),
        ("splits", [LAYOUT.splits("d"), card_path(LAYOUT.splits("d"))]),
        ("sources", [LAYOUT.weights_sources]),
        ("weights", [LAYOUT.weights, LAYOUT.other_weights]),
        ("features", [LAYOUT.features("d")]),
        ("filters", [LAYOUT.filters("d")]),
        ("gradients", [LAYOUT.gradients("d")]),
        ("explain", [LAYOUT.explained("s")]),
        (
            "train",
            [
                LAYOUT.heads("s"),
                LAYOUT.record("s") / ACCURACIES,
                LAYOUT.record("s") / METRICS,
                LAYOUT.record("s") / PROBABILITIES,
                *(LAYOUT.record("s") / f"{name}.csv" for name in FRAMES),
            ],
        ),
        (
            "report",
            [LAYOUT.reports / name for name in ("report.html", "figures", "accuracies.csv")],
        ),
    ],
)
def test_a_stage_writes_where_dvc_looks(stage: str, written: list[Path]) -> None:
    assert paths(stage, "outs", "metrics", "plots") == {path.as_posix() for path in written}


def test_every_stage_of_dvc_yaml_is_looked_at() -> None:
    by_dataset = {"fetch", "splits", "features", "filters", "gradients"}
    others = {"sources", "weights", "train", "explain", "report"}
    assert set(STAGES) == by_dataset | others


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_reads_another_one_writes(stage: str) -> None:
    written = [Path(path) for other in STAGES for path in paths(other, "outs", "metrics", "plots")]
    read = {path for path in paths(stage, "deps") if not path.startswith("src/")}
    # A folder that holds outputs will do as well: the report reads the results of all studies.
    strange = {path for path in read if not any(out.is_relative_to(path) for out in written)}
    assert strange == set()


def test_params_yaml_lies_beside_dvc_yaml() -> None:
    assert Workspace(ROOT).params.is_file()
    assert LAYOUT.record("s").parent == LAYOUT.results

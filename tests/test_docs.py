"""What the documentation says is so."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from vgg16_transfer import params
from vgg16_transfer.engines import ENGINES
from vgg16_transfer.heads import records
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.images.splits import write_splits
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.reporting import intervals, published
from vgg16_transfer.rounding import percent

ROOT = Path(__file__).parents[1]


def rows(model: type[params.Trial]) -> list[str]:
    """The table of a section's keys, as docs/params.md has it."""
    return [
        f"| `{key}` | {default(field.default)} | {field.description} |"
        for key, field in model.model_fields.items()
        if key != "split"
    ]


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{value}`"


@pytest.mark.parametrize(
    "section", [params.Backbone, params.Dataset, params.Split, params.Trial], ids=str
)
def test_every_key_of_params_yaml_is_explained(section: type[params.Trial]) -> None:
    text = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    assert "\n".join(rows(section)) in text


def test_every_network_is_explained() -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for name, row in NETWORKS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.published in line
        for layer in (*row.layers, *row.dense, *row.fine_tune):
            assert f"`{layer}`" in line


def test_every_engine_is_explained() -> None:
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for name, row in ENGINES.items():
        precisions = ", ".join(f"`{precision}`" for precision in row.precisions)
        extra = "–" if row.extra is None else f"`{row.extra}`"
        assert f"| `{name}` | {row.what} | {precisions} | {extra} |" in text


def test_every_dataset_with_published_numbers_is_listed() -> None:
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name, known in published.read().datasets.items():
        start = f"| `{name}` | {known.title} | {known.classes}"
        (line,) = [line for line in text.splitlines() if line.startswith(start)]
        assert line.endswith(f"| {known.comparable_from} |")


def test_the_sample_profile_is_what_params_yaml_holds() -> None:
    sample = (ROOT / "profiles" / "sample.yaml").read_bytes()
    assert sample == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.name)
def test_every_profile_is_in_order(path: Path) -> None:
    assert params.read_params(path).studies


def test_the_additions_that_contributing_shows_are_those_of_the_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        code: list[str] = []
        for line in block.splitlines():
            if line.startswith("+++ "):
                code = (ROOT / line.removeprefix("+++ ")).read_text(encoding="utf-8").splitlines()
            else:
                assert line.removeprefix("+") in code, line


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["docs/own-pictures.md"])
def test_the_own_pictures_example_is_valid(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    raw = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    for example in examples:
        for section, entries in YAML(typ="safe", pure=True).load(example).items():
            raw[section] |= entries
    assert examples
    assert params.check_params(raw).studies.keys() > {"clipart-samples"}


def accuracies_of(study: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / study / records.ACCURACIES)


def test_the_study_of_the_first_steps_is_valid() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    raw = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    raw["studies"] |= YAML(typ="safe", pure=True).load(example)
    assert "clipart-heads" in params.check_params(raw).studies


def test_the_table_of_the_readme_is_what_was_measured() -> None:
    def reached(study: str, point: str) -> str:
        accuracies = accuracies_of(study).query("point == @point")["accuracy"]
        return f"{percent(accuracies.mean())} ± {percent(accuracies.std())}"

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ours = [reached("clipart-samples", f"samples_per_class={n}") for n in (2, 4, 8, 16)]
    assert f"| test accuracy, % (mean ± std) | {' | '.join(ours)} |" in readme
    for head, title in (
        ("logistic", "logistic regression, its C tuned"),
        ("nearest_mean", "nearest class mean"),
    ):
        points = [f"head={head},samples_per_class={n}" for n in (2, 16)]
        low, high = (reached("clipart-baselines", point) for point in points)
        assert f"| {title} | {low} | | | {high} |" in readme
    taught = reached("clipart-distillation", "teacher_pictures=disjoint,teacher_weight=0.9")
    assert f"that a teacher of 8 other labels labels (5 splits) | {taught} |" in readme


def test_the_intervals_of_the_readme_are_those_of_the_page(tmp_path: Path) -> None:
    raw = params.read_params(ROOT / "params.yaml")
    write_splits("clipart", raw.dataset("clipart"), ROOT / "data/clipart.tar", tmp_path / "clipart")
    trials = accuracies_of("clipart-samples")
    tests = {}
    for seed in raw.study("clipart-samples").grid["seed"]:
        frame = read_manifest(tmp_path / "clipart" / f"{seed}.csv")
        tests[seed] = frozenset(frame.loc[frame["role"] == "test", "path"])
    cells = []
    for _, rows in trials.groupby("point", sort=False):
        interval = intervals.over_splits(rows.set_index("seed")["accuracy"], tests)
        cells.append(f"{percent(interval.low or 0)} to {percent(interval.high or 0)}")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| 95 % interval of the mean | {' | '.join(cells)} |" in readme


def test_the_tests_that_paper_md_names_are_there() -> None:
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]*test_[a-z_]+\.py)`", text))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / "tests" / name).exists()} == set()

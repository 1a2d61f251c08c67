"""profiles/paper.yaml: all of the report's studies on both datasets, and that all of it runs.

At full size that takes hours, so here it is shrunk: few classes and pictures, few epochs, random
weights.
"""

import copy
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from dvc.repo import Repo
from PIL import Image
from ruamel.yaml import YAML

from vgg16_transfer.heads import records

from .conftest import ARCHIVE, ROOT, Workspace, caltech256_sample

pytestmark = pytest.mark.pipeline

PROFILE = ROOT / "profiles" / "paper.yaml"
DATASETS = ["caltech256", "urban_tribes"]
KINDS = ["samples", "first-approach", "end-to-end", "augmented", "layers", "pooling", "temperature"]
KINDS += ["distillation", "shallow-students"]
CLASSES = ["003.backpack", "027.calculator", "145.motorbikes-101", "251.airplanes-101"]
TRIBES = ["biker", "country", "heavy_metal", "surfer"]


def profile() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(PROFILE)


def write_tribes(path: Path) -> None:
    """An archive of the layout of Urban Tribes: flat, the class before the first underscore."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for tribe in TRIBES:
            for number in range(4):
                buffer = io.BytesIO()
                pixels = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "JPEG")
                name = f"pictures_all/{tribe.replace('_', '')}_group_pic{number:05}.jpg"
                member = tarfile.TarInfo(name)
                member.size = buffer.tell()
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def shrunk(tribes: Path) -> dict[str, Any]:
    """The profile with its studies and axes, but 2 training pictures a class and one epoch.

    A head with a fine-tuned block has half a gigabyte, so there is one, for one dataset.
    """
    params = copy.deepcopy(profile())
    params["backbone"]["weights"] = "random"
    sources = {"caltech256": ARCHIVE, "urban_tribes": tribes}
    for name, dataset in params["datasets"].items():
        content = sources[name].read_bytes()
        dataset["source"] = str(sources[name])
        dataset["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        dataset["split"] = {"seeds": [0], "train_per_class": 2, "test_per_class": 1}
    params["datasets"]["caltech256"]["classes"] = CLASSES
    blocks = {"caltech256": ["none", "block5"], "urban_tribes": ["none"]}
    for study in params["studies"].values():
        if "augment" in study:
            study |= {"augment": ["flip+crop+colour"], "fine_tune_from": blocks[study["dataset"]]}
        several = isinstance(study["samples_per_class"], list)
        study |= {"samples_per_class": [1, 2] if several else 1, "seed": 0, "epochs": 1}
        if "teacher_layer" in study:
            unlabelled = min(study["unlabelled_per_class"], 1)
            study |= {"teacher_samples_per_class": 2, "unlabelled_per_class": unlabelled}
    return params


def stages(folder: Path) -> list[Any]:
    """What DVC makes of the params, each stage behind those that it reads from."""
    with Repo(str(folder)) as repo:
        return list(reversed(list(nx.topological_sort(repo.index.graph))))


@pytest.fixture
def archive() -> Path:
    return caltech256_sample()


def test_every_study_of_the_report_is_there_for_both_datasets(
    make_clone: Callable[..., Workspace],
) -> None:
    workspace = make_clone(profile())
    names = {stage.name for stage in stages(workspace.root)}
    studies = {f"{dataset}-{kind}" for dataset in DATASETS for kind in KINDS}
    studies.add("caltech256-literature")
    expected = {f"{stage}@{study}" for stage in ("train", "explain") for study in studies}
    by_dataset = ("fetch", "splits", "features", "filters", "gradients")
    expected |= {f"{stage}@{dataset}" for stage in by_dataset for dataset in DATASETS}
    assert names == expected | {"sources", "weights", "report"}


def test_the_studies_ask_what_the_report_asked() -> None:
    studies = profile()["studies"]
    for dataset in DATASETS:
        assert studies[f"{dataset}-samples"]["samples_per_class"] == [2, 4, 8, 16]
        assert studies[f"{dataset}-samples"]["epochs"] == 200
        assert studies[f"{dataset}-temperature"]["temperature"] == [1.0, 2.0, 4.0, 8.0, 16.0]
        assert studies[f"{dataset}-temperature"]["samples_per_class"] == 8
        first, streamed = (studies[f"{dataset}-{kind}"] for kind in KINDS[1:3])
        # The others take the same steps on stored features.
        assert streamed == first | {"approach": "end_to_end", "seed": 0}
        assert first["epochs"] == 11
        assert studies[f"{dataset}-augmented"]["seed"] == [0, 1, 2]
    several = [study for name, study in studies.items() if not name.endswith("-end-to-end")]
    assert {tuple(study["seed"]) for study in several} == {(0, 1, 2)}
    assert studies["caltech256-literature"]["samples_per_class"] == [15, 30, 45, 60]


def test_the_whole_of_it_runs(
    archive: Path,
    make_clone: Callable[..., Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tribes(tmp_path / "tribes.tar")
    params = shrunk(tmp_path / "tribes.tar")
    workspace = make_clone(params)
    monkeypatch.chdir(workspace.root)
    *planned, report = stages(workspace.root)
    for stage in planned:  # by themselves: DVC would copy gigabytes to its cache
        _, _, item = stage.name.partition("@")
        workspace.run(*stage.cmd.split(), *([item] if item else []))
    workspace.run("dvc", "repro", "--single-item", report.addressing)
    for stage in [*planned, report]:
        for out in stage.outs:
            assert Path(out.fs_path).exists(), (stage.name, str(out))
    page = Path("reports/report.html").read_text(encoding="utf-8")
    for name, study in params["studies"].items():
        trials = records.read(Path("results", name)).trials
        axes = [values for key, values in study.items() if isinstance(values, list) and key]
        assert len(trials) == np.prod([len(values) for values in axes], dtype=int)
        assert trials["accuracy"].between(0, 1).all()
        assert name in page

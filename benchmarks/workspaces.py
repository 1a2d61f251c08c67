"""Workspaces of benchmarks: clones of this repository with params of their own."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CLIPART = ROOT / "data" / "clipart.tar"
_STAGE = re.compile(r"Running stage '([^'@]+)")
_CALTECH256 = "256_ObjectCategories"


def cloned(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """A clone of this repository, in which nothing was run yet.

    Args:
        folder: Where to; it does not exist.
        params: What params.yaml holds instead of the sample profile.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "rm", "--quiet", "--cached", "dvc.lock"], cwd=folder, check=True)
    (folder / "dvc.lock").unlink()
    if params is not None:
        write_params(folder, params)
    return folder


def write_params(workspace: Path, params: dict[str, Any]) -> None:
    """Replaces params.yaml."""
    YAML().dump(params, workspace / "params.yaml")


def photographs(pictures: Path, **changes: Any) -> dict[str, Any]:
    """A dataset at 224 pixels: that of profiles/photographs.yaml, or folders of classes.

    Args:
        pictures: The archive.
        **changes: Keys of ``split`` and their values.
    """
    split = {"train_per_class": 16, "validation_per_class": 6, "test_per_class": 8}
    dataset = {"source": str(pictures.resolve()), "layout": "class_folders"}
    if pictures == CLIPART:
        split["group"] = "^clipart/([a-z]+/[a-z0-9_]+?)__"
    if tarfile.is_tarfile(pictures):
        with tarfile.open(pictures) as archive:
            first = archive.next()
        if first is not None and first.name.startswith(_CALTECH256):
            profile = YAML(typ="safe").load(ROOT / "profiles" / "photographs.yaml")
            of_profile = profile["datasets"]["photographs"]
            dataset |= {key: of_profile[key] for key in ("layout", "classes")}
            split = of_profile["split"]
    return dataset | {"split": split | changes}


def repro(workspace: Path, *targets: str) -> dict[str, float]:
    """Runs ``dvc repro``.

    Returns:
        Seconds by kind of stage, such as ``train``, with what DVC does meanwhile; and ``total``.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    seconds: dict[str, float] = {}
    began = last = time.perf_counter()
    stage = "dvc"
    lines = []
    with subprocess.Popen(
        ["dvc", "repro", *targets],
        cwd=workspace,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout or ():
            lines.append(line)
            if match := _STAGE.search(line):
                now = time.perf_counter()
                seconds[stage] = seconds.get(stage, 0) + now - last
                stage, last = match[1], now
    now = time.perf_counter()
    if running.returncode:
        raise SystemExit("".join(lines[-20:]))
    seconds[stage] = seconds.get(stage, 0) + now - last
    return seconds | {"total": now - began}

"""A repository whose splits are what a file of it says: quick to change, real to git and DVC."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vgg16_transfer.images.manifests import COLUMNS

ROOT = Path(__file__).parents[2]

# The names are those of the repository's own dvc.yaml: a stage per dataset, and one that reads all.
DVC_YAML = """
stages:
  splits:
    foreach: ${datasets}
    do:
      cmd: PYTHON splits.py ${key}
      deps: [pictures.json]
      outs: ["data/splits/${key}"]
  report:
    cmd: mkdir -p reports && ls data/splits > reports/report.html
    deps: [data/splits]
    outs: [reports/report.html]
"""

SPLITS = """
import json, pathlib, sys
folder = pathlib.Path("data", "splits", sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for seed, manifest in json.loads(pathlib.Path("pictures.json").read_text()).items():
    (folder / f"{seed}.csv").write_text(manifest, newline="")
(folder / "left_out.csv").write_text("path,class_name,reason\\n")
"""

PARAMS = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"animals": {"source": "animals.tar", "layers": ["block5_pool"]}},
    "studies": {"few": {"dataset": "animals"}},
}

TRAIN, TEST = ["a/1", "a/2", "b/3"], ["a/4", "b/5"]


def manifest(train: list[str], test: list[str]) -> pd.DataFrame:
    """Pictures in the order of their ranks, of the class that their path begins with."""
    rows = [
        (path, 0, path.partition("/")[0], path.replace("/", "") * 32, role, rank)
        for role, paths in (("train", train), ("test", test))
        for rank, path in enumerate(paths)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass
class Repository:
    """A repository of git and DVC with a remote.

    Attributes:
        root: Of the repository.
        remote: A folder that stands in for a server.
    """

    root: Path
    remote: Path

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def git(self, *command: str) -> str:
        return self.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command)

    def dvc(self, *command: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *command)

    def split(self, *manifests: pd.DataFrame) -> None:
        """Runs the pipeline with other splits, one for each of the seeds 0, 1, …."""
        texts = {
            seed: one.to_csv(index=False, lineterminator="\n") for seed, one in enumerate(manifests)
        }
        (self.root / "pictures.json").write_text(json.dumps(texts))
        self.dvc("repro", "--quiet")
        self.git("add", "pictures.json")

    def commit(self, tag: str | None = None) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "m")
        if tag:
            self.git("tag", "--annotate", tag, "--message", tag)


def make_repository(folder: Path) -> Repository:
    """A repository with one version of the splits, committed but not tagged."""
    repository = Repository(folder / "repository", folder / "remote")
    repository.root.mkdir(parents=True)
    for name in (".dvcignore", ".gitignore"):
        shutil.copyfile(ROOT / name, repository.root / name)
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet", "--force")
    repository.dvc("remote", "add", "--quiet", "--default", "lab", str(repository.remote))
    (repository.root / "dvc.yaml").write_text(DVC_YAML.replace("PYTHON", sys.executable))
    (repository.root / "params.yaml").write_text(json.dumps(PARAMS))
    (repository.root / "splits.py").write_text(SPLITS)
    repository.split(manifest(TRAIN, TEST))
    repository.commit()
    return repository


def isolate(monkeypatch, folder: Path) -> None:
    """Keeps DVC and git from what the machine's user has set up."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

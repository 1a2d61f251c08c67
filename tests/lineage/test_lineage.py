"""What a stage says of its lineage while it runs, against what DVC then writes to dvc.lock."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.lineage.lineage import (
    Lineage,
    LineageError,
    lock_digest,
    locked_stages,
    running_stage,
)
from vgg16_transfer.lineage.lineage import committed as find_committed


def locked_stage(workspace: Path, stage: str) -> Lineage:
    return locked_stages(workspace, [stage])[stage]


# Its shape is that of the repository's own: stages for each dataset and study, folders and single
# files, outputs in and outside the cache, one that persists, and a stage that stands alone.
DVC_YAML = """
stages:
  splits:
    foreach: ${datasets}
    do:
      cmd: PYTHON splits.py ${key}
      params: ["datasets.${key}"]
      outs: ["data/splits/${key}", {"data/features/${key}": {persist: true}}]
  train:
    foreach: ${studies}
    do:
      cmd: PYTHON train.py ${key}
      params: ["studies.${key}"]
      deps: ["data/features/${item.dataset}", "data/splits/${item.dataset}", train.py]
      outs: ["models/heads/${key}", {"results/${key}/trials.csv": {cache: false}}]
      metrics: [{"results/${key}/metrics.json": {cache: false}}]
      plots: [{"results/${key}/history.csv": {cache: false, x: epoch, y: loss}}]
  report:
    cmd: PYTHON train.py report
    deps: [results, train.py]
    outs: [models/heads/report, reports]
"""

PARAMS = {
    "datasets": {"animals": {"seeds": [0, 1]}},
    "studies": {
        "few": {"dataset": "animals", "rate": 0.5},
        "many": {"dataset": "animals", "rate": 1.0},
    },
}

SPLITS = """
import sys
from pathlib import Path

for room in ("splits", "features"):
    folder = Path("data", room, sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0.csv").write_text(f"{room} of {sys.argv[1]}")
"""

TRAIN = """
import json
import os
import sys
from pathlib import Path

from vgg16_transfer.lineage.lineage import running_stage, starting_stage
from vgg16_transfer.tracking.mlflow_store import find_store

stage = os.environ["DVC_STAGE"]
started = starting_stage(Path.cwd(), stage, os.environ.get("DVC_EXP_NAME"))
study = sys.argv[1]
setting = Path("params.yaml").read_text()
results = Path("reports") if study == "report" else Path("results", study)
for folder in (Path("models", "heads", study), results):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trials.csv").write_text(setting)
(results / "history.csv").write_text("epoch,loss\\n1,0.5\\n")
(results / "metrics.json").write_text(json.dumps({"accuracy": 0.5}))

lineage = running_stage(Path.cwd(), stage, os.environ.get("DVC_EXP_NAME"))
store = find_store(Path(os.environ["DVC_ROOT"]), None)
written = {"tags": lineage.tags(), "started": started.tags()}
written |= {"cwd": str(Path.cwd()), "store": store.uri}
Path(os.environ["WRITTEN"], f"{stage}.json").write_text(json.dumps(written))
"""

STAGES = ["train@few", "train@many", "report"]


@dataclass
class Workspace:
    """A git repository with a DVC pipeline whose stages write down what they take their origin for.

    Attributes:
        root: Of the repository.
        written: Folder of one file per stage.
    """

    root: Path
    written: Path

    def run(self, *command: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
        own = {
            "WRITTEN": str(self.written),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        own["DVC_SITE_CACHE_DIR"] = str(self.root.parent / "site")
        done = subprocess.run(
            command, cwd=self.root, env=clean | own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def dvc(self, *command: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *command)

    def git(self, *command: str) -> str:
        return self.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "m")
        return self.git("rev-parse", "HEAD")

    def said(self, stage: str) -> dict[str, Any]:
        written: dict[str, Any] = json.loads((self.written / f"{stage}.json").read_text())
        return written

    def locked(self, stage: str, text: str | None = None) -> dict[str, Any]:
        """The entry in dvc.lock, or in that text of it."""
        lock = text or (self.root / "dvc.lock").read_text()
        entry: dict[str, Any] = YAML(typ="safe", pure=True).load(lock)["stages"][stage]
        return entry


def make_workspace(folder: Path) -> Workspace:
    workspace = Workspace(folder / "repository", folder / "written")
    for made in (workspace.root, workspace.written):
        made.mkdir(parents=True)
    workspace.git("init", "--quiet")
    workspace.dvc("init", "--quiet")
    (workspace.root / "dvc.yaml").write_text(DVC_YAML.replace("PYTHON", sys.executable))
    (workspace.root / "params.yaml").write_text(json.dumps(PARAMS))
    (workspace.root / "splits.py").write_text(SPLITS)
    (workspace.root / "train.py").write_text(TRAIN)
    return workspace


@dataclass
class Reproduced:
    """A workspace after ``dvc repro``, and the commit that it started from."""

    workspace: Workspace
    commit: str


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    workspace = make_workspace(tmp_path_factory.mktemp("lineage"))
    commit = workspace.commit()
    workspace.dvc("repro")
    return Reproduced(workspace, commit)


@dataclass
class Experiment:
    """What ``dvc exp run --temp`` left: dvc.lock of its commit, and of the workspace it was applied
    to; the workspace is another one than that of :class:`Reproduced`.
    """

    workspace: Workspace
    committed: str
    applied: str


@pytest.fixture(scope="module")
def experiment(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("experiment")
    shutil.copytree(reproduced.workspace.root, folder / "repository")
    workspace = Workspace(folder / "repository", folder / "written")
    workspace.written.mkdir()
    workspace.commit()
    changed = PARAMS | {"studies": PARAMS["studies"] | {"few": {"dataset": "animals", "rate": 2}}}
    (workspace.root / "params.yaml").write_text(json.dumps(changed))
    workspace.dvc("exp", "run", "--temp", "--name", "brave-ant")
    revision = workspace.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/brave-ant")
    committed = workspace.git("show", f"{revision}:dvc.lock")
    workspace.dvc("exp", "apply", "brave-ant")
    return Experiment(workspace, committed, (workspace.root / "dvc.lock").read_text())


@pytest.mark.parametrize("stage", STAGES)
def test_a_running_stage_knows_the_digest_of_what_dvc_will_lock(
    stage: str, reproduced: Reproduced
) -> None:
    workspace = reproduced.workspace
    assert workspace.said(stage)["tags"]["dvc.lock_digest"] == lock_digest(workspace.locked(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_when_it_starts_what_goes_into_it(stage: str, reproduced: Reproduced) -> None:
    workspace = reproduced.workspace
    inputs = {key: value for key, value in workspace.locked(stage).items() if key != "outs"}
    said = workspace.said(stage)
    assert said["started"]["dvc.input_digest"] == lock_digest(inputs)
    kept = {key: value for key, value in said["tags"].items() if key in said["started"]}
    assert said["started"] == kept
    assert {"dvc.lock_digest"} <= said["tags"].keys() - said["started"].keys()


def test_stages_of_one_foreach_have_digests_of_their_own(reproduced: Reproduced) -> None:
    tags = [reproduced.workspace.said(stage)["tags"] for stage in STAGES]
    assert [one["dvc.stage"] for one in tags] == STAGES
    assert len({one["dvc.lock_digest"] for one in tags}) == len(STAGES)


@pytest.mark.parametrize("room", ["splits", "features"])
def test_the_tags_hold_the_md5_that_dvc_knows_the_inputs_by(
    room: str, reproduced: Reproduced
) -> None:
    deps = {dep["path"]: dep["md5"] for dep in reproduced.workspace.locked("train@few")["deps"]}
    tags = reproduced.workspace.said("train@few")["tags"]
    assert tags[f"dvc.{room}_md5"] == deps[f"data/{room}/animals"]


@pytest.mark.parametrize("stage", STAGES)
def test_what_dvc_repro_writes_makes_no_commit_dirty(stage: str, reproduced: Reproduced) -> None:
    tags = reproduced.workspace.said(stage)["tags"]
    assert (tags["git.commit"], tags["git.dirty"]) == (reproduced.commit, "false")


def test_plain_repro_is_no_experiment(reproduced: Reproduced) -> None:
    assert "dvc.exp_name" not in reproduced.workspace.said("train@few")["tags"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_locked_stage_reads_what_the_running_one_said(stage: str, reproduced: Reproduced) -> None:
    lineage = locked_stage(reproduced.workspace.root, stage)
    assert lineage.tags() == reproduced.workspace.said(stage)["tags"]


@pytest.mark.parametrize("stage", ["train@many", "../dvc.yaml:train@many"])
def test_a_stage_is_the_same_by_whatever_name_dvc_calls_it(
    stage: str, reproduced: Reproduced
) -> None:
    root = reproduced.workspace.root
    assert running_stage(root, stage, None) == locked_stage(root, "train@many")


@pytest.mark.parametrize("stage", ["train@few", "report"])
def test_an_experiment_in_a_folder_of_its_own_knows_its_digest(
    stage: str, experiment: Experiment
) -> None:
    said = experiment.workspace.said(stage)["tags"]
    for lock in (experiment.committed, experiment.applied):
        assert said["dvc.lock_digest"] == lock_digest(experiment.workspace.locked(stage, lock))


def test_an_experiment_logs_its_name(experiment: Experiment) -> None:
    assert experiment.workspace.said("train@few")["tags"]["dvc.exp_name"] == "brave-ant"


def test_an_experiment_reruns_only_what_changed(experiment: Experiment) -> None:
    written = sorted(path.stem for path in experiment.workspace.written.iterdir())
    assert written == ["report", "train@few"]


def test_the_store_of_an_experiment_outlives_its_folder(experiment: Experiment) -> None:
    said = experiment.workspace.said("train@few")
    assert said["cwd"] != str(experiment.workspace.root)
    assert not Path(said["cwd"]).exists()
    assert said["store"] == f"sqlite:///{experiment.workspace.root / 'mlflow.db'}"


def test_an_unknown_running_stage_is_named(reproduced: Reproduced) -> None:
    with pytest.raises(LineageError, match="'train@none' not found"):
        running_stage(reproduced.workspace.root, "train@none", None)


def test_a_missing_output_is_named(reproduced: Reproduced, tmp_path) -> None:
    root = tmp_path / "repository"
    shutil.copytree(reproduced.workspace.root, root)
    shutil.rmtree(root / "models")
    with pytest.raises(LineageError, match=r"'train@few'.*models/heads/few"):
        running_stage(root, "train@few", None)


def test_a_folder_without_dvc_is_named(tmp_path) -> None:
    with pytest.raises(LineageError, match="train@few"):
        running_stage(tmp_path, "train@few", None)


ENTRY = {
    "cmd": "train",
    "deps": [{"path": "data/splits/animals", "md5": "5" * 32, "hash": "md5"}],
    "outs": [{"path": "models/heads/few", "md5": "1" * 32, "hash": "md5"}],
}


def locked_folder(folder: Path) -> Path:
    """A folder in which dvc.lock knows one stage; not a repository yet."""
    (folder / "results").mkdir()
    (folder / "results" / "trials.csv").write_text("before")
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"train": ENTRY}}))
    (folder / "code.py").write_text("before")
    return folder


@pytest.fixture
def committed(tmp_path) -> Workspace:
    workspace = Workspace(locked_folder(tmp_path), tmp_path)
    workspace.git("init", "--quiet")
    workspace.commit()
    return workspace


def test_a_commit_as_it_is_is_clean(committed: Workspace) -> None:
    lineage = locked_stage(committed.root, "train")
    assert (lineage.commit, lineage.dirty) == (committed.git("rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("code.py", True),
        ("dvc.lock", False),
        ("results/trials.csv", False),
        ("results/new.csv", False),
        ("new.py", False),
    ],
)
def test_dirty_is_what_git_tracks_and_dvc_does_not_write(
    path: str, dirty: bool, committed: Workspace
) -> None:
    with (committed.root / path).open("a") as file:
        file.write("\n")
    assert locked_stage(committed.root, "train").dirty is dirty


def test_a_file_that_is_gone_is_dirty(committed: Workspace) -> None:
    (committed.root / "code.py").unlink()
    assert locked_stage(committed.root, "train").dirty is True


def test_outside_a_repository_there_is_no_commit(tmp_path) -> None:
    lineage = locked_stage(locked_folder(tmp_path), "train")
    assert (lineage.commit, lineage.dirty) == (None, False)
    assert lineage.tags() == {
        "dvc.stage": "train",
        "dvc.lock_digest": lock_digest(ENTRY),
        "dvc.input_digest": lock_digest({key: ENTRY[key] for key in ENTRY if key != "outs"}),
        "dvc.splits_md5": "5" * 32,
        "dvc.heads_md5": "1" * 32,
        "git.dirty": "false",
    }


def test_without_git_there_is_no_commit(committed: Workspace, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert locked_stage(committed.root, "train").commit is None


def test_an_unknown_locked_stage_is_named(tmp_path) -> None:
    with pytest.raises(LineageError, match="no entry for 'train@none'; run dvc repro"):
        locked_stage(locked_folder(tmp_path), "train@none")


def test_without_a_lock_file_the_remedy_is_named(tmp_path) -> None:
    with pytest.raises(LineageError, match="run dvc repro"):
        locked_stage(tmp_path, "train")


def test_the_digest_is_that_of_the_content_and_not_of_its_order() -> None:
    backwards = dict(reversed(ENTRY.items()))
    assert list(backwards) != list(ENTRY)
    assert lock_digest(backwards) == lock_digest(ENTRY)
    assert lock_digest(ENTRY | {"cmd": "train harder"}) != lock_digest(ENTRY)


def test_tags_leave_out_what_is_not_known() -> None:
    lineage = Lineage("train", "0" * 64, {}, None, dirty=True, experiment=None)
    assert lineage.tags() == {
        "dvc.stage": "train",
        "dvc.lock_digest": "0" * 64,
        "git.dirty": "true",
    }


def test_the_commit_that_holds_the_lock_entry_is_found(committed: Workspace) -> None:
    first = committed.git("rev-parse", "HEAD")
    assert locked_stage(committed.root, "train").committed == first
    lock = committed.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("1" * 32, "2" * 32))
    assert locked_stage(committed.root, "train").committed is None
    second = committed.commit()
    now = locked_stage(committed.root, "train")
    assert now.committed == second
    assert now.tags()["checkout"] == f"git checkout {second} && dvc checkout"
    assert find_committed(committed.root, ["5" * 32, "1" * 32]) == first
    assert find_committed(committed.root, ["5" * 32, "2" * 32]) == second
    assert find_committed(committed.root, ["5" * 32, "3" * 32]) is None

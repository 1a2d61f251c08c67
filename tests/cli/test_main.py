"""The command line: bad input is one sentence per mistake and exit code 2, and changes no file."""

import copy
import csv
import errno
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML
from tensorflow.errors import ResourceExhaustedError

from vgg16_transfer import cli
from vgg16_transfer.cli.app import QUIET, VERBOSE
from vgg16_transfer.images import fetch

from .conftest import Run

SCRIPT = Path(sys.executable).with_name("vgg16-transfer")
HEAVY = {"tensorflow", "keras", "mlflow", "dvc", "numpy", "pandas", "sklearn"}
ALL = [str(command.callback.__name__) for command in cli.app.registered_commands]

PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 224},
    "datasets": {
        "animals": {
            "source": "animals.tar",
            "split": {"seeds": [0], "train_per_class": 1, "test_per_class": 1},
            "layers": ["block5_pool"],
        }
    },
    "studies": {"few": {"dataset": "animals", "samples_per_class": 1, "epochs": 1}},
}

Changes = dict[str, Any]


Refused = Callable[..., list[str]]


def clean_environment() -> dict[str, str]:
    leaking = ("DVC_", "MLFLOW_", "TF_")
    return {key: value for key, value in os.environ.items() if not key.startswith(leaking)}


def files() -> dict[Path, bytes]:
    """Every file below the current folder."""
    return {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> None:
    """The current folder holds nothing but the params."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # main() would set it for good
    monkeypatch.setenv("COLUMNS", "200")  # usage errors are not wrapped
    monkeypatch.chdir(tmp_path)
    write_params({})


@pytest.fixture
def refused(run) -> Refused:
    """Runs a command that must fail for its input; what it says, mistake by mistake."""

    def run_command(*arguments: str) -> list[str]:
        before = files()
        outcome = run(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        lines = outcome.err.splitlines()
        assert lines
        assert [line for line in lines if not line.startswith("error: ")] == []
        assert files() == before
        return [line.removeprefix("error: ") for line in lines]

    return run_command


def write_params(changes: Changes) -> None:
    """The params above, with other values at some paths like ``datasets/animals/md5``."""
    raw: Any = copy.deepcopy(PARAMS)
    for path, value in changes.items():
        *above, key = path.split("/")
        section = raw
        for name in above:
            section = section[name]
        section[key] = value
    YAML(typ="safe", pure=True).dump(raw, Path("params.yaml"))


def picture(grey: int, size: tuple[int, int] = (24, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """200 megapixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def good_pictures() -> dict[str, bytes]:
    names = [f"{name}/{index}.png" for name in ("ant", "bee") for index in range(3)]
    return {name: picture(grey) for grey, name in enumerate(names)}


def write_tar(contents: dict[str, bytes], *strange: tarfile.TarInfo) -> None:
    with tarfile.open("animals.tar", "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in strange:
            tar.addfile(member)


def link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("ant/link.png")
    member.type = kind
    member.linkname = "/etc/passwd"
    return member


def write_bytes(content: bytes) -> None:
    Path("animals.tar").write_bytes(content)


def write_truncated_tar() -> None:
    write_tar(good_pictures())
    write_bytes(Path("animals.tar").read_bytes()[:2500])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: None, "source: no such file or folder: animals.tar"),
        (lambda: write_bytes(b""), "is empty"),
        (lambda: write_bytes(b"<html>Not found</html>" * 99), "is not a .tar, .tar.gz, .zip or"),
        (write_truncated_tar, "incomplete"),
        (
            lambda: write_tar({"../../x.png": picture(0)}),
            r"'../../x.png' points outside of the archive",
        ),
        (
            lambda: write_tar({"/etc/x.png": picture(0)}),
            r"'/etc/x.png' points outside of the archive",
        ),
        (lambda: write_tar({}, link(tarfile.SYMTYPE)), "'ant/link.png' is a link"),
        (lambda: write_tar({}, link(tarfile.LNKTYPE)), "'ant/link.png' is a link"),
    ],
    ids=["missing", "empty", "HTML", "truncated", "up", "absolute", "symbolic link", "hard link"],
)
def test_a_bad_archive_is_not_brought_in(
    refused: Refused, make: Callable[[], None], reason: str
) -> None:
    make()
    (mistake,) = refused("fetch", "animals")
    assert "animals" in mistake
    assert reason in mistake


def test_an_archive_of_another_md5_is_not_brought_in(refused: Refused) -> None:
    write_tar(good_pictures())
    write_params({"datasets/animals/md5": "0" * 32})
    (mistake,) = refused("fetch", "animals")
    expected = (
        rf"params.yaml: datasets.animals.md5 is {'0' * 32}, but animals.tar has [0-9a-f]{{32}}; "
    )
    assert re.match(expected, mistake)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"datasets/animals/source": "https://localhost/a.tar"}, "datasets.animals.md5 is missing"),
        ({"datasets/animals/source": None}, "datasets.animals.source is missing"),
    ],
)
def test_a_download_that_could_not_be_trusted_is_not_begun(
    refused: Refused, monkeypatch, changes: Changes, key: str
) -> None:
    def begin(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr(fetch.requests, "get", begin)
    write_params(changes)
    (mistake,) = refused("fetch", "animals")
    assert mistake.startswith(f"params.yaml: {key}")


def test_a_class_with_too_few_pictures_is_named(run: Run, refused: Refused) -> None:
    write_tar({"bat/0.png": picture(99)} | good_pictures())
    run("fetch", "animals")
    (mistake,) = refused("splits", "animals")
    assert "datasets.animals: too few usable pictures for 1 train" in mistake
    assert "class 'bat' has 1" in mistake


def test_pictures_that_cant_be_used_are_left_out_and_listed(run: Run) -> None:
    bad = {
        "ant/bomb.png": bomb(),
        "ant/dot.png": picture(9, size=(1, 1)),
        "ant/empty.jpg": b"",
        "bee/page.jpg": b"<!doctype html><title>404</title>",
    }
    write_tar(bad | good_pictures())
    assert run("fetch", "animals").code == 0
    outcome = run("splits", "animals")
    assert outcome.code == 0
    counted, *left_out = outcome.err.splitlines()
    assert counted == "6 usable pictures of 2 classes; the splits use 4"
    assert left_out == [
        "left out, 1: is empty (ant/empty.jpg)",
        "left out, 1: is no picture (bee/page.jpg)",
        "left out, 1: measures less than 16 pixels on a side (ant/dot.png)",
        "left out, 1: unfolds to more than 50 megapixels (ant/bomb.png)",
        "data/splits/animals/left_out.csv lists what was left out",
    ]
    with Path("data/splits/animals/left_out.csv").open(encoding="utf-8", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == bad.keys()
    manifest = Path("data/splits/animals/0.csv").read_text(encoding="utf-8")
    assert [name for name in bad if name in manifest] == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"studies/few/epoch": 3}, "studies.few.epoch: unknown key; did you mean 'epochs'?"),
        ({"backbone/image_size": "32"}, "backbone.image_size: input should be a valid integer"),
        ({"studies/few/seed": []}, "studies.few.seed: is an empty list; give at least one value"),
        ({"studies/few/layer": "blok5_pool"}, "unknown value 'blok5_pool'; did you mean 'block5_"),
        ({"studies/few/dataset": "animal"}, "no dataset 'animal'; did you mean 'animals'?"),
        ({"datasets/animals/layers": ["block5_pool", "fc2"]}, "set backbone.weights: random, or"),
        (
            {"datasets/animals/layout": "folders"},
            "datasets.animals.layout: unknown value 'folders'",
        ),
    ],
)
@pytest.mark.parametrize("command", [["fetch", "animals"], ["train", "few"], ["results"]], ids=str)
def test_a_mistake_in_the_params_is_one_sentence(
    refused: Refused, command: list[str], changes: Changes, sentence: str
) -> None:
    write_params(changes)
    (mistake,) = refused(*command)
    assert mistake.startswith("params.yaml: ")
    assert sentence in mistake


def test_every_mistake_in_the_params_is_a_sentence_of_its_own(refused: Refused) -> None:
    write_params({"backbone/dtype": "int8", "studies/few/epochs": True, "studies/few/seed": []})
    keys = [mistake.split(": ")[1] for mistake in refused("train", "few")]
    assert keys == ["backbone.dtype", "studies.few.seed", "studies.few.epochs"]


def test_params_that_are_no_yaml_are_one_sentence(refused: Refused) -> None:
    Path("params.yaml").write_text("studies:\n  few: [", encoding="utf-8")
    (mistake,) = refused("results")
    assert "params.yaml: is not readable as YAML: line 2: " in mistake


@pytest.mark.parametrize("command", ["fetch", "splits", "features", "filters"])
def test_an_unknown_dataset_gets_the_nearest_name(refused: Refused, command: str) -> None:
    assert refused(command, "animal") == [
        "params.yaml: no dataset 'animal'; did you mean 'animals'?"
    ]


def test_an_unknown_study_gets_the_nearest_name(refused: Refused) -> None:
    assert refused("train", "fwe") == ["params.yaml: no study 'fwe'; did you mean 'few'?"]


@pytest.mark.parametrize("command", ["weights", "report", "publish", "results", "ui"])
def test_outside_of_the_repository_it_says_where_to_run_it(refused: Refused, command: str) -> None:
    path = Path.cwd() / "params.yaml"
    path.unlink()
    assert refused(command) == [f"{path}: no such file; run this in the repository's root"]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["splits", "animals"], "data/raw/animals: no such file"),
        (["features", "animals"], "models/vgg16.weights.h5: no such file"),
        (["filters", "animals"], "models/vgg16.weights.h5: no such file"),
        (["train", "few"], "data/features/animals/index.jsonl: no such file; run dvc repro"),
        (["report"], "dvc.lock: has no entry for 'train@few'; run dvc repro first"),
        (["results"], "dvc.lock: has no entry for 'train@few'; run dvc repro first"),
        (["publish"], "dvc.lock: has no entry for 'train@few'; run dvc repro first"),
    ],
    ids=str,
)
def test_a_stage_names_what_the_one_before_has_not_written(
    refused: Refused, command: list[str], missing: str
) -> None:
    (mistake,) = refused(*command)
    assert missing in mistake


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "mine.h5: no such file"), (b"no HDF5", "mine.h5: does not hold the weights of vgg")],
)
def test_bad_weights_are_not_brought_in(
    run: Run, refused: Refused, content: bytes | None, reason: str
) -> None:
    if content is not None:
        Path("mine.h5").write_bytes(content)
    write_params({"backbone/weights": "mine.h5"})
    if content is not None:
        assert run("sources").code == 0
    (mistake,) = refused("weights" if content else "sources")
    assert reason in mistake


def test_a_disk_without_room_for_the_features_is_said_and_nothing_is_published(
    run: Run, monkeypatch
) -> None:
    from vgg16_transfer.backbones.store import FeatureStore

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_params({"backbone/image_size": 32})
    write_tar(good_pictures())
    for command in (["fetch", "animals"], ["splits", "animals"], ["sources"], ["weights"]):
        assert run(*command).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", full)
        outcome = run("features", "animals")
    (line,) = outcome.err.splitlines()
    assert outcome.code == 2
    assert re.match(r"error: .*data/features/animals: no room to write it .* run this again", line)
    assert not Path("data/features/animals").exists()
    outcome = run("features", "animals")
    assert (outcome.code, outcome.err) == (0, "4 pictures went through the network\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "out of memory; what is complete is kept; free some memory, or make"),
        (ResourceExhaustedError(None, None, "OOM"), "out of memory; what is complete is kept"),
        (OSError(errno.EMFILE, "Too many open files", "x.csv"), "x.csv: Too many open files"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x: can't be written (Read-only"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(
    refused: Refused, monkeypatch, error: Exception, sentence: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fetch, "fetch", fail)
    (mistake,) = refused("fetch", "animals")
    assert mistake.startswith(sentence)


@pytest.mark.parametrize(
    ("command", "in_the_way"),
    [("sources", "models"), ("fetch animals", "data"), ("splits animals", "data/splits")],
)
def test_a_file_in_the_place_of_a_folder_is_named(
    run: Run, refused: Refused, command: str, in_the_way: str
) -> None:
    write_tar(good_pictures())
    if command.startswith("splits"):
        run("fetch", "animals")
    Path(in_the_way).parent.mkdir(exist_ok=True)
    Path(in_the_way).write_text("mine")
    (mistake,) = refused(*command.split())
    assert in_the_way in mistake
    assert "move away what is there instead of a folder" in mistake


def test_check_says_what_params_yaml_asks_for(run: Run, refused: Refused) -> None:
    (mistake,) = refused("check")
    assert mistake == (
        f"{Path.cwd()}: is not a git repository, which DVC needs; clone it with git, or run git "
        "init, git add --all and git commit"
    )
    Path(".git").mkdir()
    outcome = run("check")
    assert outcome.err == "params.yaml is valid: 1 network, 1 dataset, 1 trial in few\n"
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"studies/few/dataset": None}, "studies.few.dataset: must name one of the datasets"),
        ({"studies/few/dataset": ["animals"]}, "studies.few.dataset: must be one name; a second"),
        ({"studies": None}, "studies: must map at least one name to its settings"),
    ],
)
def test_check_names_the_key_where_dvc_has_words_of_its_own(
    refused: Refused, changes: Changes, sentence: str
) -> None:
    write_params(changes)
    (mistake,) = refused("check")
    assert mistake.startswith(f"params.yaml: {sentence}")


def test_a_params_file_that_is_none_is_not_waited_for(refused: Refused) -> None:
    Path("params.yaml").unlink()
    os.mkfifo("params.yaml")
    (mistake,) = refused("splits", "animals")
    assert mistake.endswith("params.yaml: is not readable as YAML: it is no file")


def test_a_source_with_too_long_a_name_is_one_sentence(refused: Refused) -> None:
    write_params({"datasets/animals/source": "x" * 5000})
    (mistake,) = refused("fetch", "animals")
    assert mistake.endswith("xxx: File name too long")


def test_a_bug_is_not_taken_for_bad_input(run: Run, monkeypatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fetch, "fetch", crash)
    with pytest.raises(RuntimeError, match="a bug"):
        run("fetch", "animals")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["trian", "few"], "No such command 'trian'"),
        (["train"], "Missing argument 'STUDY'"),
        (["fetch"], "Missing argument 'DATASET'"),
        (["results", "few"], "unexpected extra argument"),
        (["filters", "animals", "--every"], "No such option"),
        (["ui", "--port", "http"], "Invalid value for '--port'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    run: Run, arguments: list[str], problem: str
) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert problem in outcome.err


def test_the_console_script_prints_one_sentence_and_exits_with_2(tmp_path) -> None:
    (tmp_path / "params.yaml").unlink()
    done = subprocess.run(
        [SCRIPT, "results"],
        capture_output=True,
        check=False,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    path = tmp_path / "params.yaml"
    expected = f"error: {path}: no such file; run this in the repository's root\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def imported_by(*arguments: str) -> tuple[set[str], str]:
    """The heavy libraries that a command imports in a process of its own, and what it prints."""
    code = """
import sys
from vgg16_transfer import cli
try:
    cli.main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        text=True,
        env=clean_environment(),
    )
    assert "vgg16_transfer.cli" in done.stderr.split()
    return HEAVY & set(done.stderr.split()), done.stdout


def test_help_lists_every_command_and_answers_at_once() -> None:
    heavy, printed = imported_by("--help")
    assert heavy == set()
    assert {"fetch", "splits", "weights", "features", "train", "report", "publish"} < set(ALL)
    for name in ALL:
        assert re.search(rf"^\W*{name} +[A-Z]", printed, flags=re.MULTILINE), name


def test_what_trains_reads_and_logs_results_needs_no_tensorflow() -> None:
    modules = [
        "diagnostics.explain",
        "heads.kinds.softmax",
        "heads.studies",
        "lineage.locked",
        "reporting.report",
        "tracking.comparison",
        "tracking.pages",
        "tracking.publish",
    ]
    names = ", ".join(f"vgg16_transfer.{module}" for module in modules)
    code = f"import sys, {names}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env=clean_environment(),
    )
    imported = set(done.stdout.split())
    assert {f"vgg16_transfer.{module}" for module in modules} <= imported
    assert imported & {"tensorflow", "keras", "sklearn", "scipy.stats"} == set()


def test_commands_are_listed_as_one_works(run: Run) -> None:
    printed = run("-h").out
    listed = re.findall(r"^\W*([a-z]+) +[A-Z]", printed, flags=re.MULTILINE)
    names = [name for name in listed if name in ALL]
    assert sorted(names) == sorted(ALL)
    assert names[:4] == ["init", "check", "results", "ui"]
    assert names[-3:] == ["train", "explain", "report"]


def test_the_version_is_that_of_the_package_also_as_a_module(run: Run) -> None:
    expected = f"vgg16-transfer {metadata.version('vgg16-transfer')}\n"
    assert run("--version").out == expected
    done = subprocess.run(
        [sys.executable, "-m", "vgg16_transfer", "--version"],
        capture_output=True,
        check=True,
        text=True,
        env=clean_environment(),
    )
    assert done.stdout == expected


def test_pictures_that_do_not_exist_are_named_before_anything_is_loaded(run: Run) -> None:
    outcome = run("predict", "nope.jpg", "gone.jpg")  # there is no head and no study's record
    assert outcome.code == 2
    assert outcome.err == "".join(
        f"error: {name}: No such file or directory\n" for name in ("nope.jpg", "gone.jpg")
    )


@pytest.mark.parametrize(
    "command",
    [["features", "plants"], ["filters", "plants"], ["train", "many"], ["weights"], ["publish"]],
    ids=str,
)
def test_a_mistake_is_reported_before_anything_heavy_is_imported(command: list[str]) -> None:
    if len(command) == 1:
        write_params({"backbone/dtype": "int8"})
    assert imported_by(*command)[0] == set()


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What --quiet and --verbose set in this process does not outlive the test."""
    for name in (QUIET, VERBOSE):
        monkeypatch.setenv(name, "0")


@pytest.mark.usefixtures("switches")
def test_quiet_prints_results_and_errors_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert run("check").err == "params.yaml is valid: 1 network, 1 dataset, 1 trial in few\n"
    assert run("--quiet", "check") == (0, "", "")
    refused = run("-q", "predict", "nowhere.jpg")
    assert (refused.code, refused.err) == (2, "error: nowhere.jpg: No such file or directory\n")


@pytest.mark.usefixtures("switches")
def test_verbose_prints_the_traceback_of_an_error(run: Run) -> None:
    refused = run("--verbose", "predict", "nowhere.jpg")
    assert refused.code == 2
    assert refused.err.startswith("Traceback (most recent call last):")
    assert refused.err.endswith("error: nowhere.jpg: No such file or directory\n")


@pytest.mark.usefixtures("switches")
def test_quiet_and_verbose_exclude_each_other(run: Run) -> None:
    assert run("-q", "-v", "check").code == 2


@pytest.mark.usefixtures("switches")
def test_quiet_draws_no_progress_bar_on_a_terminal(run: Run) -> None:
    run("--quiet", "predict", "nowhere.jpg")
    assert not sys.stderr.isatty()

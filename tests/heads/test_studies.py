import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from vgg16_transfer.artifacts import ArtifactError
from vgg16_transfer.backbones.store import FeaturesError, FeatureStore
from vgg16_transfer.heads import model_files, records, studies
from vgg16_transfer.heads.kinds import softmax
from vgg16_transfer.heads.saved import HeadError, MadeOf, made_of
from vgg16_transfer.heads.studies import BrokenError, Streamed, train_study
from vgg16_transfer.heads.watching import Ended, Nobody, Times, Watch
from vgg16_transfer.images.manifests import COLUMNS, ManifestError, read_manifest
from vgg16_transfer.images.source import Source
from vgg16_transfer.params import Study, check_params

CLASSES = ["ant", "bee", "cat"]
TRAIN, TEST, VALIDATION = 4, 3, 2
RECIPE = {"dtype": "float16"}


class Inputs(NamedTuple):
    splits: Path
    features: Path


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing in the package may catch it."""


def make_inputs(folder: Path, noise: float = 1) -> Inputs:
    """Two splits of three classes, and a store with features that tell them apart."""
    shapes = {"block4_pool": (2, 2, 8), "block5_pool": (1, 1, 16)}
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(27)]
    features = FeatureStore.create(folder / "features", RECIPE, shapes)
    random = np.random.default_rng(0)
    labels = np.arange(27) % 3
    values = {
        layer: np.float16(
            noise * random.standard_normal((27, width)) + 3 * np.eye(3, width)[labels]
        )
        for layer, width in (("block4_pool", 32), ("block5_pool", 16))
    }
    features.append(ids, values)
    (folder / "splits").mkdir()
    for seed in (0, 1):
        rows = []
        for label, name in enumerate(CLASSES):
            own = np.random.default_rng(seed).permutation(np.flatnonzero(labels == label))
            roles = ["train"] * TRAIN + ["test"] * TEST + ["validation"] * VALIDATION
            ranks = [*range(TRAIN), *range(TEST), *range(VALIDATION)]
            rows += [
                (f"{name}/{row}.jpg", label, name, ids[row], role, rank)
                for row, role, rank in zip(own, roles, ranks, strict=True)
            ]
        frame = pd.DataFrame(rows, columns=COLUMNS)
        frame.to_csv(folder / "splits" / f"{seed}.csv", index=False)
    return Inputs(folder / "splits", folder / "features")


def make_study(**axes: Any) -> Study:
    raw = {
        "backbone": {
            name: {"network": "vgg16", "weights": "random-conv"} for name in ("vgg16", "large")
        },
        "datasets": {
            "d": {
                "source": "d.tar",
                "layers": ["block4_pool", "block5_pool"],
                "split": {"seeds": [0, 1], "train_per_class": TRAIN},
            }
        },
        "studies": {"s": {"dataset": "d", "epochs": 5, "samples_per_class": 4} | axes},
    }
    return check_params(raw).studies["s"]


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return make_inputs(tmp_path)


GRID = {"layer": ["block4_pool", "block5_pool"], "samples_per_class": [2, 4], "seed": [0, 1]}


class Watching(Nobody):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.over: dict[str, Ended] = {}
        self.started: dict[str, int] = {}

    def began(self, trial: str, started: int) -> None:
        self.started[trial] = started
        self.told.append(("began", trial))

    def ended(self, trial: str, ended: Ended) -> None:
        self.told.append(("ended", trial))
        assert ended.times.started == self.started[trial]  # the live run and the record agree
        self.over[trial] = ended
        assert ended.heads[0].exists() == (ended.record.trials["status"].item() == "finished")


def run(study: Study, inputs: Inputs, folder: Path, watch: Watch | None = None) -> dict[str, bytes]:
    """Trains a study and returns every file it leaves."""
    train_study(
        study,
        splits=inputs.splits,
        features={"vgg16": inputs.features},
        streamed=Streamed(Source(folder / "unread"), {}),
        heads=folder / "heads" / "s",
        results=folder / "results" / "s",
        watch=watch,
    )
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for room in ("heads", "results")
        for path in sorted((folder / room).rglob("*"))
        if path.is_file()
    }


def test_every_trial_of_the_grid_has_a_head_and_a_row(inputs, tmp_path) -> None:
    run(make_study(**GRID), inputs, tmp_path)
    trials = records.read(tmp_path / "results" / "s").trials
    heads = {path.stem for path in (tmp_path / "heads" / "s").iterdir()}
    assert set(trials["trial"]) == heads
    assert len(heads) == 8
    assert "layer=block4_pool,samples_per_class=2,seed=1" in heads


def test_a_watcher_hears_of_every_trial_what_the_record_says(inputs, tmp_path) -> None:
    watching = Watching()
    run(make_study(**DIVERGING), inputs, tmp_path, watching)
    record = records.read(tmp_path / "results" / "s")
    names = record.trials["trial"].tolist()
    assert watching.told == [(what, name) for name in names for what in ("began", "ended")]
    for name in names:
        heard, times = watching.over[name].record, watching.over[name].times
        for title in ("history", "predictions", "confusion", "per_class"):
            whole = getattr(record, title)
            pd.testing.assert_frame_equal(
                getattr(heard, title).reset_index(drop=True),
                whole[whole["trial"] == name].reset_index(drop=True),
                check_dtype=False,
            )
        assert times.started <= times.ended
        seen = 4 * len(CLASSES) * len(heard.history)
        assert times.pictures_per_second * times.fit_seconds == pytest.approx(seen)


def test_times_survive_a_resumed_study(inputs, tmp_path) -> None:
    times: dict[str, Times] = {}

    class Stopped(Watching):
        def ended(self, trial: str, ended: Ended) -> None:
            times[trial] = ended.times
            raise KeyboardInterrupt

    folders = {"heads": tmp_path / "heads" / "s", "results": tmp_path / "results" / "s"}
    inputs_of = {
        "splits": inputs.splits,
        "features": {"vgg16": inputs.features},
        "streamed": Streamed(Source(tmp_path / "unread"), {}),
    }
    with pytest.raises(KeyboardInterrupt):
        train_study(make_study(seed=[0, 1]), **inputs_of, **folders, watch=Stopped())
    watching = Watching()
    done = train_study(make_study(seed=[0, 1]), **inputs_of, **folders, watch=watching)
    assert watching.told == [("began", "seed=1"), ("ended", "seed=1")]
    assert done.times["seed=0"] == times["seed=0"]


def test_a_saved_head_reaches_the_accuracy_that_is_reported(inputs, tmp_path) -> None:
    study = make_study(**GRID)
    run(study, inputs, tmp_path)
    trials = records.read(tmp_path / "results" / "s").trials.set_index("trial")
    store = FeatureStore.open(inputs.features)
    for trial in study.trials():
        name = study.trial_name(trial)
        manifest = read_manifest(inputs.splits / f"{trial.seed}.csv")
        test = manifest[manifest["role"] == "test"]
        head = model_files.load(tmp_path / "heads" / "s" / f"{name}.keras")
        odds = model_files.probabilities(head, store.rows(trial.layer, test["sha256"].tolist()))
        reached = np.mean(odds.argmax(axis=1) == test["label"])
        assert trials.loc[name, "accuracy"] == pytest.approx(reached, rel=1e-5)


def test_the_last_epoch_of_the_curves_is_what_is_reported(inputs, tmp_path) -> None:
    run(make_study(**GRID), inputs, tmp_path)
    record = records.read(tmp_path / "results" / "s")
    last = record.history[record.history["epoch"] == 5].set_index("trial")
    trials = record.trials.set_index("trial")
    pd.testing.assert_series_equal(
        last["test_accuracy"], trials["accuracy"], check_names=False, rtol=1e-5
    )
    assert "validation_accuracy" in trials


def test_a_head_sees_the_training_pictures_below_its_rank_only(inputs, tmp_path, monkeypatch):
    seen = []
    fit = softmax.fit

    def spy(trial: Any, data: Any) -> Any:
        seen.append((trial.samples_per_class, len(data.training.labels)))
        return fit(trial, data)

    monkeypatch.setattr(softmax, "fit", spy)
    run(make_study(samples_per_class=[1, 2, 4]), inputs, tmp_path)
    assert sorted(seen) == [(1, 3), (2, 6), (4, 12)]


def test_a_head_is_written_once_and_copied_only_where_a_file_can_not_have_two_names(
    inputs, tmp_path, monkeypatch
) -> None:
    copied = []
    copyfile = studies.shutil.copyfile
    monkeypatch.setattr(studies.shutil, "copyfile", lambda *of: copied.append(of) or copyfile(*of))
    run(make_study(), inputs, tmp_path / "linked")
    assert copied == []

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run(make_study(), inputs, tmp_path / "copied")
    assert len(copied) == 1
    heads = [(tmp_path / name / "heads" / "s" / "only.keras") for name in ("linked", "copied")]
    assert heads[0].read_bytes() == heads[1].read_bytes()


def test_the_same_study_gives_the_same_bytes(inputs, tmp_path) -> None:
    study = make_study(**GRID)
    assert run(study, inputs, tmp_path) == run(study, inputs, tmp_path)


@pytest.mark.parametrize("killed_after", [0, 1, 5])
def test_a_killed_study_is_continued_and_ends_in_the_same_bytes(
    inputs, tmp_path, monkeypatch, killed_after: int
) -> None:
    study = make_study(**GRID)
    unkilled = run(study, inputs, tmp_path)
    fit = softmax.fit
    trained: list[Any] = []

    def mortal(trial: Any, *rest: Any) -> Any:
        if len(trained) == killed_after:
            raise Killed
        trained.append(trial)
        return fit(trial, *rest)

    for room in ("heads", "results"):
        (tmp_path / room / "s").rename(tmp_path / f"old-{room}")
    with monkeypatch.context() as patch:
        patch.setattr(softmax, "fit", mortal)
        with pytest.raises(Killed):
            run(study, inputs, tmp_path)
    assert not (tmp_path / "results" / "s").exists()
    with monkeypatch.context() as patch:
        killed_after = len(study.trials())
        patch.setattr(softmax, "fit", mortal)
        assert run(study, inputs, tmp_path) == unkilled
    assert len(trained) == 8


class Breaking(Watching):
    """Notes what broke as well."""

    def broke(self, trial: str, why: str) -> None:
        self.told.append(("broke", trial, why))


def breaking(error: BaseException, broken: Callable[[Any], bool]) -> Callable[..., Any]:
    """Takes the place of ``softmax.fit``, and raises an error in some trials."""
    fit = softmax.fit

    def mortal(trial: Any, *rest: Any) -> Any:
        if broken(trial):
            raise error
        return fit(trial, *rest)

    return mortal


def test_a_trial_that_breaks_costs_no_other_and_is_repeated_alone(
    inputs, tmp_path, monkeypatch
) -> None:
    study = make_study(seed=[0, 1], samples_per_class=[2, 4])
    unbroken = run(study, inputs, tmp_path)
    for room in ("heads", "results"):
        (tmp_path / room / "s").rename(tmp_path / f"old-{room}")
    names = [f"samples_per_class={n},seed={seed}" for seed in (0, 1) for n in (2, 4)]
    watching = Breaking()
    with monkeypatch.context() as patch:
        fit = breaking(RuntimeError("no\nmore"), lambda t: t.seed + t.samples_per_class == 4)
        patch.setattr(softmax, "fit", fit)
        with pytest.raises(BrokenError) as caught:
            run(study, inputs, tmp_path, watching)
    assert caught.value.broken == {names[1]: "RuntimeError: no"}
    first, last = str(caught.value).splitlines()
    assert first.startswith(f"s: trial {names[1]} broke: RuntimeError: no; ")
    traceback = Path(first.removesuffix(" has the traceback").rpartition("; ")[2])
    assert traceback.read_text(encoding="utf-8").endswith("RuntimeError: no\nmore\n")
    assert last == "s: 3 of 4 trials are kept; run this again to repeat the rest"
    began = [("began", name) for name in names]
    over: list[Any] = [("ended", name) for name in names]
    over[1] = ("broke", names[1], "RuntimeError: no")
    assert watching.told == [one for pair in zip(began, over, strict=True) for one in pair]
    assert not (tmp_path / "results" / "s").exists()
    again = Breaking()
    assert run(study, inputs, tmp_path, again) == unbroken
    assert again.told == [("began", names[1]), ("ended", names[1])]


@pytest.mark.parametrize(
    ("error", "axes"),
    [
        (OSError(errno.EIO, "Input/output error"), {"samples_per_class": [2, 4]}),
        (OSError(errno.ENOSPC, "No space left on device"), {"samples_per_class": [2, 4]}),
        (MemoryError(), {"samples_per_class": [2, 4]}),
        (FeaturesError("damaged"), {"samples_per_class": [2, 4]}),
        (KeyboardInterrupt(), {"samples_per_class": [2, 4]}),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), {"seed": [0, 1]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_every_trial_would_meet_stops_the_study_at_once(
    inputs, tmp_path, monkeypatch, error: BaseException, axes: dict[str, Any]
) -> None:
    watching = Breaking()
    monkeypatch.setattr(softmax, "fit", breaking(error, lambda _: True))
    with pytest.raises((ArtifactError, type(error))) as caught:
        run(make_study(**axes), inputs, tmp_path, watching)
    assert not isinstance(caught.value, BrokenError)
    assert [what for what, *_ in watching.told] == ["began"]


def test_tensors_too_large_for_one_trial_cost_no_smaller_trial(
    inputs, tmp_path, monkeypatch
) -> None:
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    monkeypatch.setattr(softmax, "fit", breaking(error, lambda trial: trial.batch_size == 256))
    watching = Breaking()
    with pytest.raises(BrokenError) as caught:
        run(make_study(batch_size=[256, 1]), inputs, tmp_path, watching)
    assert caught.value.broken == {"batch_size=256": "out of memory"}
    assert watching.told[-1] == ("ended", "batch_size=1")


def test_an_error_within_a_graph_is_told_by_what_it_says(inputs, tmp_path, monkeypatch) -> None:
    def fail() -> None:
        raise ValueError("they differ")

    fit = tf.function(lambda: tf.numpy_function(fail, [], tf.float32))
    monkeypatch.setattr(softmax, "fit", lambda *_: fit())
    with pytest.raises(BrokenError) as caught:
        run(make_study(), inputs, tmp_path)
    assert caught.value.broken == {"only": "InvalidArgumentError: ValueError: they differ"}


def test_a_student_learns_from_pictures_that_only_its_teacher_labels(
    inputs, tmp_path, monkeypatch
) -> None:
    seen_data = []
    fit = softmax.fit

    def spy(trial: Any, data: Any) -> Any:
        training, taught = data.training, data.teacher_logits is not None
        seen_data.append((training.labels.tolist(), training.features.shape, taught))
        return fit(trial, data)

    monkeypatch.setattr(softmax, "fit", spy)
    study = make_study(
        layer="block4_pool",
        samples_per_class=1,
        unlabelled_per_class=2,
        teacher_layer="block5_pool",
        teacher_samples_per_class=4,
        teacher_weight=[0.0, 0.5],
    )
    run(study, inputs, tmp_path)
    alone, teacher, student = seen_data
    assert alone == ([0, 1, 2], (3, 32), False)
    assert teacher == ([0] * 4 + [1] * 4 + [2] * 4, (12, 16), False)
    assert student == ([0, -1, -1, 1, -1, -1, 2, -1, -1], (9, 32), True)
    record = records.read(tmp_path / "results" / "s")
    reached = record.trials.set_index("trial")["teacher_accuracy"]
    assert 0 <= reached["teacher_weight=0.5"] <= 1
    assert np.isnan(reached["teacher_weight=0.0"])


def test_trials_of_another_setting_are_not_continued(inputs, tmp_path, monkeypatch) -> None:
    def mortal(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(studies, "_publish", mortal)
        with pytest.raises(Killed):
            run(make_study(**GRID), inputs, tmp_path)
    run(make_study(**GRID, epochs=3), inputs, tmp_path)
    assert records.read(tmp_path / "results" / "s").history["epoch"].max() == 3


def test_a_trial_that_is_gone_leaves_no_head_behind(inputs, tmp_path) -> None:
    run(make_study(**GRID), inputs, tmp_path)
    run(make_study(samples_per_class=[2, 4]), inputs, tmp_path)
    assert len(list((tmp_path / "heads" / "s").iterdir())) == 2


def test_missing_features_are_named(inputs, tmp_path) -> None:
    nowhere = inputs._replace(features=tmp_path / "nowhere")
    with pytest.raises(FeaturesError, match=r"nowhere/index\.jsonl: no such file; run dvc repro"):
        run(make_study(), nowhere, tmp_path)


def test_a_missing_split_is_named(inputs, tmp_path) -> None:
    (inputs.splits / "1.csv").unlink()
    with pytest.raises(ManifestError, match=r"1.csv: no such split; run dvc repro"):
        run(make_study(**GRID), inputs, tmp_path)


DIVERGING = {"weight_decay": [0.0, 1e4], "epochs": 60, "normalise": "none"}


def test_a_trial_that_diverges_fails_and_the_others_go_on(inputs, tmp_path) -> None:
    study = make_study(**DIVERGING, layer=["block4_pool", "block5_pool"])
    run(study, inputs, tmp_path)
    record = records.read(tmp_path / "results" / "s")
    trials = record.trials.set_index("trial")
    assert trials["status"].tolist() == ["finished", "failed"] * 2
    assert trials["failure"].iloc[1].startswith("the loss is not finite after epoch ")
    assert "learning_rate 1.0, weight_decay 10000.0" in trials["failure"].iloc[1]
    epochs = record.history.groupby("trial")["epoch"].max()
    for name, failure in trials["failure"].dropna().items():
        assert f"after epoch {epochs[name] + 1} of 60" in failure
    assert np.isfinite(record.history.filter(like="loss").to_numpy()).all()
    heads = {path.stem for path in (tmp_path / "heads" / "s").iterdir()}
    assert heads == set(trials.index[trials["status"] == "finished"])
    assert set(record.predictions["trial"]) == heads
    assert trials.loc[list(heads), "accuracy"].notna().all()


def test_what_finished_is_the_same_whether_another_trial_failed_or_not(inputs, tmp_path) -> None:
    alone = run(make_study(**DIVERGING | {"weight_decay": 0.0}), inputs, tmp_path)
    beside = run(make_study(**DIVERGING), inputs, tmp_path)
    assert beside["heads/s/weight_decay=0.0.keras"] == alone["heads/s/only.keras"]


def test_a_student_of_a_teacher_that_diverges_fails(inputs, tmp_path) -> None:
    study = make_study(
        samples_per_class=1,
        teacher_layer="block4_pool",
        teacher_samples_per_class=4,
        **DIVERGING | {"weight_decay": 1e4},
    )
    run(study, inputs, tmp_path)
    record = records.read(tmp_path / "results" / "s")
    (failure,) = record.trials["failure"]
    assert failure.startswith("the loss of its teacher is not finite after epoch ")
    assert record.history.empty


def test_a_head_says_what_it_is_made_of(inputs, tmp_path) -> None:
    run(make_study(seed=[0, 1]), inputs, tmp_path)
    result = made_of(tmp_path / "heads" / "s" / "seed=1.keras")
    split = inputs.splits / "1.csv"
    md5 = hashlib.md5(split.read_bytes(), usedforsecurity=False).hexdigest()
    assert result == MadeOf("block5_pool", RECIPE, tuple(CLASSES), md5)


@pytest.mark.parametrize("cut", [10, 3000, -1])
def test_a_damaged_head_is_named(inputs, tmp_path, cut: int) -> None:
    run(make_study(), inputs, tmp_path)
    path = tmp_path / "heads" / "s" / "only.keras"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HeadError, match=r"only\.keras: is damaged .*; run dvc repro or dvc pull"):
        model_files.load(path)


def test_a_head_with_a_changed_weight_is_named(inputs, tmp_path) -> None:
    run(make_study(), inputs, tmp_path)
    path = tmp_path / "heads" / "s" / "only.keras"
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(HeadError, match=r"only\.keras: is damaged"):
        model_files.load(path)


def test_heads_of_a_study_of_networks_are_those_of_a_study_of_each(inputs, tmp_path) -> None:
    """Each head is trained on the features of its own network."""
    (tmp_path / "other").mkdir()
    other = make_inputs(tmp_path / "other", noise=4)
    stores = {"vgg16": inputs.features, "large": other.features}

    def heads(*names: str) -> dict[str, bytes]:
        study = make_study(backbone=list(names), seed=[0, 1])
        folder = tmp_path / "-".join(names)
        train_study(
            study,
            splits=inputs.splits,
            features=stores,
            streamed=Streamed(Source(folder / "unread"), {}),
            heads=folder / "heads" / "s",
            results=folder / "results" / "s",
        )
        return {path.stem: path.read_bytes() for path in (folder / "heads" / "s").iterdir()}

    both = heads("vgg16", "large")
    for name in stores:
        for stem, content in heads(name).items():
            assert both[f"backbone={name},{stem}"] == content
    assert both["backbone=vgg16,seed=0"] != both["backbone=large,seed=0"]

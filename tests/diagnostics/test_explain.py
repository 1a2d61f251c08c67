"""One trial of a study, explained in pictures and in words."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.backbones.store import FeaturesError, FeatureStore
from vgg16_transfer.diagnostics import explain
from vgg16_transfer.diagnostics.explain import CAPTIONS
from vgg16_transfer.heads import records
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.heads.records import RecordError
from vgg16_transfer.heads.saved import HeadError, MadeOf
from vgg16_transfer.images.manifests import COLUMNS, ManifestError
from vgg16_transfer.images.source import Source, SourceError
from vgg16_transfer.params import Study, check_params

CLASSES = ["ant", "bee", "c$t$"]
TRAIN, TEST = 2, 4
RECIPE = {"dtype": "float32", "image_size": 32, "resize": "squash"}
SHAPES = {"block5_pool": (2, 2, 3), "fc2": (12,)}
WIDTH = 12


class Inputs(NamedTuple):
    splits: Path
    source: Path
    features: Path
    heads: Path
    results: Path


def write_explained(study: Study, inputs: Inputs, out: Path) -> None:
    given = inputs._asdict() | {"source": Source(inputs.source)}
    given["features"] = {"vgg16": inputs.features}
    explain.write_explained(study, **given, out=out)


def read_explained(study: Study, inputs: Inputs) -> explain.Explained:
    return explain.read_explained(
        study,
        study.trials()[0],
        splits=inputs.splits,
        features={"vgg16": inputs.features},
        results=inputs.results,
    )


def make_study(**axes: Any) -> Study:
    dataset = {"layers": list(SHAPES), "split": {"seeds": [0], "train_per_class": TRAIN}}
    raw = {
        "backbone": {"weights": "random"},
        "datasets": {"d": dataset | {"source": "d.tar"}},
        "studies": {"s": {"dataset": "d", "samples_per_class": TRAIN} | axes},
    }
    return check_params(raw).studies["s"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A dataset of three classes, as far as it goes without a study."""
    folder = tmp_path_factory.mktemp("given")
    rows, random = [], np.random.default_rng(0)
    with tarfile.open(folder / "d.tar", "w") as tar:
        for label, name in enumerate(CLASSES):
            for number in range(TRAIN + TEST):
                pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                member = tarfile.TarInfo(f"{name}/{number}.png")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))
                sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
                role, rank = ("train", number) if number < TRAIN else ("test", number - TRAIN)
                rows.append((member.name, label, name, sha256, role, rank))
    (folder / "splits").mkdir()
    manifest = pd.DataFrame(rows, columns=COLUMNS)
    manifest.to_csv(folder / "splits" / "0.csv", index=False)
    store = FeatureStore.create(folder / "features", RECIPE, SHAPES)
    ids = manifest["sha256"].tolist()
    values = random.random((len(rows), WIDTH), dtype=np.float32)
    store.append(ids, dict.fromkeys(SHAPES, values))
    return Inputs(
        folder / "splits", folder / "d.tar", folder / "features", Path("unset"), Path("unset")
    )


def measure(study: Study, given: Inputs, folder: Path, mistakes: int) -> Inputs:
    """Heads, and predictions for every trial, the first few of which are wrong."""
    manifest = pd.read_csv(given.splits / "0.csv")
    test = manifest[manifest["role"] == "test"]
    predictions = pd.DataFrame(
        {"path": test["path"], "true": test["class_name"], "probability": 0.5}
    )
    wrong = np.arange(len(predictions)) < mistakes
    predictions["predicted"] = predictions["true"].where(~wrong, "bee")
    names = [study.trial_name(trial) for trial in study.trials()]
    frame = pd.concat([predictions.assign(trial=name) for name in names])
    inputs = given._replace(heads=folder / "heads", results=folder / "results")
    for room in (inputs.heads, inputs.results):
        room.mkdir()
    records.write_frame(frame, inputs.results / "predictions.csv")
    trials = pd.DataFrame({"trial": names, "status": records.FINISHED})
    records.write_frame(trials, inputs.results / "trials.csv")
    for trial, name in zip(study.trials(), names, strict=True):
        kernel = np.random.default_rng(1).standard_normal((WIDTH, 3)).astype(np.float32)
        head = Linear(trial, SHAPES[trial.layer], kernel, np.zeros(3, np.float32))
        made_of = MadeOf(trial.layer, RECIPE, tuple(CLASSES), "0" * 32)
        head.save(inputs.heads / f"{name}.keras", made_of)
    return inputs


def explained(study: Study, given: Inputs, folder: Path, mistakes: int = 3) -> dict[str, str]:
    """Captions by picture, after a look at whether each has the other."""
    out = folder / "explained" / "s"
    write_explained(study, measure(study, given, folder, mistakes), out)
    captions: dict[str, str] = json.loads((out / CAPTIONS).read_text(encoding="utf-8"))
    drawings = {path.with_suffix(".svg").name for path in map(Path, captions)}
    assert {path.name for path in out.iterdir()} == {CAPTIONS, *captions, *drawings}
    assert [path.name for path in out.parent.iterdir()] == ["s"]
    for name in captions:
        with Image.open(out / name) as picture:
            picture.verify()
    return captions


def test_every_picture_has_a_caption_that_says_what_is_in_it(given, tmp_path) -> None:
    captions = explained(make_study(), given, tmp_path)
    assert list(captions) == ["confusions.png", "nearest.png", "activation_maps.png"]
    assert "it takes 3 of 4 test pictures of ant for bee" in captions["confusions.png"]
    assert "of 15 are of the class of 3 test pictures" in captions["nearest.png"]
    assert "ant (taken for bee)" in captions["activation_maps.png"]
    assert "on block5_pool" in captions["activation_maps.png"]


def test_captions_name_the_trial(given, tmp_path) -> None:
    captions = explained(make_study(samples_per_class=[1, 2]), given, tmp_path)
    head = "the head of s with samples_per_class=2 "
    assert all(head in caption for caption in captions.values())


def test_a_perfect_head_has_no_confusions_to_show(given, tmp_path) -> None:
    captions = explained(make_study(), given, tmp_path, mistakes=0)
    assert list(captions) == ["nearest.png", "activation_maps.png"]
    assert "mistakes" not in captions["nearest.png"]


def test_a_head_that_is_always_wrong_can_be_explained(given, tmp_path) -> None:
    study = make_study(samples_per_class=1)
    inputs = measure(study, given, tmp_path, mistakes=0)
    frame = records.read_frame(inputs.results / "predictions.csv")
    frame["predicted"] = frame["true"].map(dict(zip(CLASSES, CLASSES[1:] + CLASSES, strict=False)))
    records.write_frame(frame, inputs.results / "predictions.csv")
    write_explained(study, inputs, tmp_path / "explained")
    captions = json.loads((tmp_path / "explained" / CAPTIONS).read_text(encoding="utf-8"))
    assert "4 of 4 test pictures of bee for c$t$" in captions["confusions.png"]
    assert "recognises" not in captions["nearest.png"]


def test_a_dense_layer_has_no_maps(given, tmp_path) -> None:
    captions = explained(make_study(layer="fc2"), given, tmp_path)
    assert list(captions) == ["confusions.png", "nearest.png"]


def test_a_map_is_that_of_the_class_that_was_predicted(given, tmp_path) -> None:
    study = make_study(normalise="none")
    explained = read_explained(study, measure(study, given, tmp_path, mistakes=3))
    probes = explained.predictions.iloc[:1]
    kernel = np.zeros((WIDTH, 3), dtype=np.float32)
    classes = ("cat", "ant", "bee")  # the head's own order is what counts
    kernel[:, classes.index("bee")] = 1.0
    head = Linear(explained.trial, SHAPES["block5_pool"], kernel, np.zeros(3, np.float32))
    path = tmp_path / "head.keras"
    head.save(path, MadeOf("block5_pool", RECIPE, classes, "0" * 32))
    (shares,) = explain.predicted_maps(explained, probes, path)
    row = explained.store.rows("block5_pool", probes["sha256"].tolist())
    assert probes["predicted"].tolist() == ["bee"]
    np.testing.assert_allclose(shares, row.reshape(2, 2, 3).sum(axis=2), rtol=1e-6)


def test_only_pictures_that_the_trial_learned_from_are_neighbours(given, tmp_path) -> None:
    study = make_study(samples_per_class=1)
    explained = read_explained(study, measure(study, given, tmp_path, mistakes=0))
    assert explained.train["path"].tolist() == [f"{name}/0.png" for name in CLASSES]


def test_the_same_study_gives_the_same_bytes(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=3)
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        write_explained(study, inputs, out)
    first, second = ({p.name: p.read_bytes() for p in out.iterdir()} for out in outs)
    assert first == second


def test_what_is_no_longer_true_is_gone(given, tmp_path) -> None:
    out = tmp_path / "explained" / "s"
    out.mkdir(parents=True)
    (out / "confusions.png").write_bytes(b"of another study")
    explained(make_study(), given, tmp_path, mistakes=0)


def test_missing_features_are_named(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=0)._replace(features=tmp_path / "nowhere")
    with pytest.raises(FeaturesError, match=r"nowhere/index\.jsonl: no such file; run dvc"):
        write_explained(study, inputs, tmp_path / "out")


def test_a_missing_split_is_named(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=0)._replace(splits=tmp_path)
    with pytest.raises(ManifestError, match=r"0\.csv: no such split"):
        write_explained(study, inputs, tmp_path / "out")


def test_results_of_other_pictures_are_refused(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=0)
    path = inputs.results / "predictions.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("ant/3", "ant/9"), encoding="utf-8")
    with pytest.raises(RecordError, match="holds no trial only on the pictures of"):
        write_explained(study, inputs, tmp_path / "out")


def test_what_can_not_be_explained_leaves_what_was_there(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=0)
    (inputs.heads / "only.keras").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.png").touch()
    with pytest.raises(HeadError):
        write_explained(study, inputs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old.png"]


def test_a_study_whose_trials_all_failed_has_nothing_to_show(given, tmp_path) -> None:
    study = make_study()
    inputs = measure(study, given, tmp_path, mistakes=0)
    trials = pd.DataFrame({"trial": ["only"], "status": records.FAILED})
    records.write_frame(trials, inputs.results / "trials.csv")
    write_explained(study, inputs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [CAPTIONS]
    assert json.loads((tmp_path / "out" / CAPTIONS).read_text(encoding="utf-8")) == {}


def test_a_picture_that_is_another_one_by_now_is_not_shown(given, tmp_path) -> None:
    study = make_study()
    other = tmp_path / "other.tar"
    with tarfile.open(given.source) as old, tarfile.open(other, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            changed = content.read()[:-1] + b"x"
            member.size = len(changed)
            new.addfile(member, io.BytesIO(changed))
    inputs = measure(study, given._replace(source=other), tmp_path, mistakes=0)
    with pytest.raises(SourceError, match="is not the picture that was split; run dvc repro"):
        write_explained(study, inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()

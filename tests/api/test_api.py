"""The Python interface gives the same heads as the stages, and says mistakes in one sentence."""

import dataclasses
import html.parser
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vgg16_transfer as vt
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import records

SPLIT = {
    "seeds": [0, 1],
    "train_per_class": 2,
    "validation_per_class": 2,
    "test_per_class": 2,
    "near_duplicates": "list",
}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(cached, trained) -> vt.Data:
    return vt.dataset(trained.layout.source("animals"), split=SPLIT)


@pytest.fixture(scope="module")
def features(data) -> vt.Features:
    layers = ["block4_pool", "block5_pool"]
    return vt.features(data, layers=layers, weights="random-conv", image_size=32)


@pytest.fixture(scope="module")
def head(features) -> vt.Head:
    return vt.fit(features, samples_per_class=2, epochs=3)


def test_a_study_is_the_one_that_dvc_repro_trains_byte_for_byte(features, trained):
    results = vt.study(features, samples_per_class=[1, 2], seed=[0, 1], epochs=3)
    recorded = records.read(trained.layout.record("few"))
    for name in records.FRAMES:
        pd.testing.assert_frame_equal(getattr(results.record, name), getattr(recorded, name))
    heads = sorted(trained.layout.heads("few").iterdir())
    assert len(heads) == 4
    assert {path.name: file_md5(path) for path in sorted(results._heads.iterdir())} == {
        path.name: file_md5(path) for path in heads
    }
    assert list(results.table["samples per class"]) == [1, 2]
    assert list(results.table["splits"]) == [2, 2]


def test_a_head_is_that_of_the_study_and_so_is_its_file(features, head, trained, tmp_path):
    path = head.save(tmp_path / "head.keras")
    assert file_md5(path) == file_md5(
        trained.layout.heads("few") / "samples_per_class=2,seed=0.keras"
    )
    row = records.read(trained.layout.record("few")).trials.query(
        "samples_per_class == 2 and seed == 0"
    )
    assert head.accuracy == pytest.approx(row["accuracy"].iloc[0], abs=1e-6)
    assert head.class_names == ("ant", "bee", "cat")


def test_the_best_head_is_chosen_on_validation_pictures(features):
    results = vt.study(features, samples_per_class=[1, 2], seed=[0, 1], epochs=3)
    best = results.best()
    chosen = results.trials.sort_values("validation_accuracy", ascending=False).iloc[0]
    row = results.trials.set_index("trial").loc[
        f"samples_per_class={best.trial.samples_per_class},seed={best.trial.seed}"
    ]
    assert row["validation_accuracy"] == chosen["validation_accuracy"]
    assert best.accuracy == row["accuracy"]


def test_the_same_study_is_not_trained_again(features, monkeypatch):
    first = vt.study(features, samples_per_class=[1, 2], seed=[0, 1], epochs=3)
    monkeypatch.setattr("vgg16_transfer.api.heads.train_study", None)
    assert vt.study(features, samples_per_class=[1, 2], seed=(0, 1), epochs=3).trials.equals(
        first.trials
    )
    with pytest.raises(TypeError):
        vt.study(features, samples_per_class=[1, 2], seed=[0, 1], epochs=4)


def test_predictions_are_what_the_head_gives_for_the_features(data, features, head):
    tests = data.split(0).query("role == 'test'")
    x, labels = features.arrays("test", seed=0, layer="block5_pool")
    expected = head.model(x).numpy()
    assert [data.class_names[label] for label in labels] == list(tests["class_name"])
    for picture, row in zip(tests["path"], expected, strict=True):
        (answer,) = head.predict(data.read(picture)).answers
        assert dict(answer.classes) == pytest.approx(
            dict(zip(head.class_names, map(float, row), strict=True)), abs=1e-5
        )


def test_pictures_folders_and_broken_files_are_classified(data, head, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(data.read("ant/0.jpg"))
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "broken.jpg").write_bytes(data.read("ant/0.jpg")[:300])
    predictions = head.predict([folder, tmp_path / "broken.jpg", tmp_path / "gone.jpg"], top=2)
    frame = predictions.frame
    assert list(frame["picture"]) == [str(folder / "a.jpg")] * 2
    assert list(frame["rank"]) == [1, 2]
    assert frame["probability"].is_monotonic_decreasing
    assert predictions.skipped == (str(folder / "notes.txt"),)
    assert [mistake.rpartition("/")[2] for mistake in predictions.mistakes] == [
        predictions.mistakes[0].rpartition("/")[2],
        "gone.jpg: No such file or directory",
    ]
    assert predictions.mistakes[0].startswith(f"{tmp_path / 'broken.jpg'}: is damaged")


def test_features_are_computed_once(data, features):
    again = vt.features(
        data, layers=["block4_pool", "block5_pool"], weights="random-conv", image_size=32
    )
    assert (features.computed, again.computed) == (18, 0)
    x, y = again.arrays("train", samples_per_class=1)
    assert (x.shape, list(y)) == ((3, 512), [0, 1, 2])
    assert np.array_equal(x, again.arrays("train", samples_per_class=2)[0][[0, 2, 4]])


def test_no_picture_that_is_tested_calibrates_an_engine(data):
    roles = data.manifest().set_index("path")["role"]
    tested = {path for seed in (0, 1) for path in data.split(seed).query("role == 'test'")["path"]}
    assert set(roles[roles == "test"].index) == tested
    assert len(roles) == 18


def test_damaged_weights_in_the_cache_are_made_again(data, features):
    good = features.weights.read_bytes()
    features.weights.write_bytes(good[:-1] + b"?")
    again = vt.features(data, layers=["block5_pool"], weights="random-conv", image_size=32)
    assert again.weights.read_bytes() == good


def test_pictures_that_changed_on_disk_are_noticed(cached, trained, tmp_path):
    shutil.unpack_archive(trained.layout.source("animals"), tmp_path / "animals", "tar")
    data = vt.dataset(tmp_path / "animals", split=SPLIT)
    (tmp_path / "animals" / "ant" / "0.jpg").write_bytes(data.read("bee/0.jpg"))
    with pytest.raises(vt.InputError, match=r"ant/0\.jpg is not the picture that was split"):
        vt.features(data, weights="random-conv", image_size=32)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"samples_per_clas": 2},
            "samples_per_clas: unknown key; did you mean 'samples_per_class'?",
        ),
        (
            {"samples_per_class": 3},
            "samples_per_class: 3 is more than the 2 of split.train_per_class",
        ),
        ({"layer": "block3_pool"}, "layer: block3_pool is not among layers; add it there"),
        ({"seed": 7}, "seed: 7 is not among split.seeds; add it there"),
        ({"head": ["softmax", "logistic"]}, "head: fit takes one value; study takes several"),
        (
            {"approach": "end_to_end"},
            "approach: fit trains on features; study has other approaches",
        ),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, but it is 0"),
    ],
)
def test_a_mistake_in_a_setting_is_one_sentence(features, settings, sentence):
    with pytest.raises(vt.InputError) as caught:
        vt.fit(features, **settings)
    assert str(caught.value).startswith(f"settings: {sentence}")


def test_mistakes_about_sources_networks_and_files_are_one_sentence(data, head, tmp_path):
    with pytest.raises(vt.InputError, match=r"nowhere: no such file or folder"):
        vt.dataset(tmp_path / "nowhere")
    with pytest.raises(vt.InputError, match=r"settings: split\.trian: unknown key"):
        vt.dataset(data.source.path, split={"trian": 2})
    with pytest.raises(vt.InputError, match=r"backbone\.network: unknown value 'vgg17'; did you"):
        vt.features(data, network="vgg17")
    with pytest.raises(vt.InputError, match=r"w\.h5: no such file; known are: imagenet"):
        vt.features(data, weights=str(tmp_path / "w.h5"))
    with pytest.raises(vt.InputError, match=r"a head's file ends in \.keras"):
        head.save(tmp_path / "head.h5")
    with pytest.raises(vt.InputError, match=r"x\.jpg: is not among the pictures of animals"):
        data.read("x.jpg")


def test_a_head_that_diverges_is_one_sentence(features):
    with pytest.raises(vt.InputError, match="the loss is not finite after epoch"):
        vt.fit(features, learning_rate=1e4, weight_decay=1e4, normalise="none")


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, _):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def shown(thing) -> _Tags:
    tags = _Tags()
    tags.feed(thing._repr_html_())
    assert "script" not in tags.tags
    return tags


def test_everything_shows_in_a_notebook(data, features, head):
    results = vt.study(features, samples_per_class=[1, 2], seed=[0, 1], epochs=3)
    assert shown(data).tags.count("img") == 3 * 4
    assert "block5_pool" in shown(features).words
    assert f"{100 * head.accuracy:.1f}" in shown(head).words[0]
    assert shown(results).tags.count("img") == 1
    prediction = shown(head.predict(data.read("ant/0.jpg"), top=2))
    assert prediction.tags.count("img") == 1
    assert repr(data) == "<Data animals: 18 pictures of 3 classes>"
    assert repr(features) == "<Features of 18 pictures: block4_pool, block5_pool of vgg16>"
    assert repr(head).startswith("<Head softmax on block5_pool: ")
    assert repr(results).startswith("<Results of 4 trials>\n")


def test_names_of_classes_and_files_are_no_markup(cached, data, tmp_path):
    for name in ("<b>cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(3):
            source = f"{'ant' if name == 'dog' else 'bee'}/{number}.jpg"
            (tmp_path / "pets" / name / f"<i>{number}.jpg").write_bytes(data.read(source))
    tags = shown(vt.dataset(tmp_path / "pets"))
    assert "b" not in tags.tags
    assert "i" not in tags.tags
    assert "<b>cat" in tags.words


def test_the_package_is_imported_without_tensorflow():
    script = "import sys, vgg16_transfer as vt; print('tensorflow' in sys.modules, dir(vt)[-1])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("False study\n", "")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = vt.nothing


def test_values_of_the_interface_do_not_change(data):
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert Path(data.folder).name.startswith("animals-")

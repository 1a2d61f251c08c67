"""A picture's bytes → probabilities: those that the study recorded, whatever else is asked."""

import io
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.heads import classifier, model_files, records
from vgg16_transfer.heads.classifier import Classifier
from vgg16_transfer.heads.saved import HeadError
from vgg16_transfer.heads.selection import assemble
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.pictures import PictureError


def classifier_of(trained, study: str, trial: int = 0) -> tuple[str, Classifier]:
    chosen_study, layout = trained.params.study(study), trained.layout
    setting = chosen_study.trials()[trial]
    name = chosen_study.trial_name(setting)
    return name, assemble(layout.heads(study) / f"{name}.keras", layout.weights)


def recorded(trained, study: str, name: str) -> pd.DataFrame:
    predictions = records.read(trained.layout.record(study)).predictions
    return predictions[predictions["trial"] == name]


@pytest.fixture(scope="module")
def model(trained) -> Classifier:
    return classifier_of(trained, "few")[1]


@pytest.fixture(scope="module")
def picture(trained) -> bytes:
    with open_archive(trained.layout.source("animals")) as archive:
        return archive.read("bee/3.jpg")


@pytest.mark.parametrize(("study", "trial"), [("few", 0), ("few", 3), ("tuned", 0)])
def test_probabilities_are_those_that_the_study_recorded(trained, study: str, trial: int) -> None:
    name, model = classifier_of(trained, study, trial)
    predictions = recorded(trained, study, name)
    assert len(predictions) == 6
    with open_archive(trained.layout.source("animals")) as archive:
        for row in predictions.to_dict("records"):
            result = model.probabilities(archive.read(row["path"]))
            assert model.recipe.class_names[result.argmax()] == row["predicted"]
            assert result.max() == pytest.approx(row["probability"], rel=1e-5)


def test_probabilities_sum_to_one_over_the_classes(model: Classifier, picture: bytes) -> None:
    result = model.probabilities(picture)
    assert model.recipe.class_names == ("ant", "bee", "cat")
    assert result.shape == (3,)
    assert result.sum() == pytest.approx(1, abs=1e-6)
    assert result.min() > 0


def test_features_are_rounded_to_the_format_of_the_store(model: Classifier, picture: bytes) -> None:
    exact = classifier.make(
        model.recipe._replace(dtype="float32"), model.backbone, model.head
    ).probabilities(picture)
    rounded = model.probabilities(picture)
    assert model.recipe.dtype == "float16"
    assert np.abs(exact - rounded).max() > 0
    np.testing.assert_allclose(exact, rounded, atol=1e-3)


def test_a_head_with_fine_tuned_blocks_takes_what_lies_below_them(trained) -> None:
    _, model = classifier_of(trained, "tuned")
    assert model.recipe.layer == "block4_pool"
    assert model.backbone.layers[-1].name == "block4_pool"
    assert "block5_conv1" in {layer.name for layer in model.head.layers}


def test_one_that_was_saved_gives_the_same_to_the_last_bit(
    model: Classifier, picture: bytes, tmp_path: Path
) -> None:
    classifier.save(model, tmp_path / "saved")
    loaded = classifier.load(tmp_path / "saved")
    assert loaded.recipe == model.recipe
    np.testing.assert_array_equal(loaded.probabilities(picture), model.probabilities(picture))


def test_the_same_one_has_the_same_bytes(model: Classifier, tmp_path: Path) -> None:
    for name in ("a", "b"):
        classifier.save(model, tmp_path / name)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert first.keys() == {"backbone.keras", "head.keras", "recipe.json"}
    assert first == second


def encoded(size: tuple[int, int], mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>Not found</html>", "is no picture"),
        (encoded((4, 4)), "measures 4 x 4 pixels"),
        (encoded((20_000, 10_000), "1"), "megapixels"),
        (encoded((99, 99))[:60], "is damaged"),
    ],
    ids=["empty", "HTML", "dot", "bomb", "cut off"],
)
def test_what_is_no_usable_picture_is_refused(
    model: Classifier, content: bytes, reason: str
) -> None:
    with pytest.raises(PictureError, match=reason):
        model.probabilities(content)


def test_activations_beyond_the_number_format_are_refused(
    model: Classifier, picture: bytes
) -> None:
    loud = classifier.make(model.recipe, model.backbone, model.head)
    kernels = model.backbone.get_layer("block1_conv1").get_weights()
    try:
        loud.backbone.get_layer("block1_conv1").set_weights([1e6 * kernels[0], kernels[1]])
        with pytest.raises(PictureError, match=r"makes block5_pool reach .*, and float16 ends at"):
            loud.probabilities(picture)
    finally:
        model.backbone.get_layer("block1_conv1").set_weights(kernels)


@pytest.mark.parametrize("name", [classifier.HEAD, classifier.BACKBONE])
def test_a_part_that_was_replaced_by_another_one_is_not_believed(
    model: Classifier, tmp_path: Path, name: str
) -> None:
    classifier.save(model, tmp_path / "a")
    part = model.head if name == classifier.HEAD else model.backbone
    part = keras.models.clone_model(part)
    part.set_weights([-weights for weights in part.get_weights()])
    model_files.save(part, tmp_path / "a" / name)
    with pytest.raises(HeadError, match=f"{name}: is not the file that was registered"):
        classifier.load(tmp_path / "a")

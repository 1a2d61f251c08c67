"""Every row of HEAD_KINDS gets every check: 7 classes, fewer pictures than numbers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.heads import base, model_files, saved, tuned
from vgg16_transfer.heads.base import Fitted, Pictures
from vgg16_transfer.heads.kinds import nearest_neighbours
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.heads.measures import measure
from vgg16_transfer.params import Trial

from .conftest import CLASSES, SHAPE, pictures

ROOT = Path(__file__).parents[2]
KINDS = list(HEAD_KINDS)


@pytest.fixture(scope="module")
def roles() -> dict[str, Pictures]:
    return {"train": pictures(0, 28), "validation": pictures(2, 21), "test": pictures(1, 35)}


def fit(kind: str, roles: dict[str, Pictures], classes: int = CLASSES) -> Fitted:
    trial = Trial(head=kind, epochs=15)
    return base.fit_of(kind)(trial, base.Data(roles["train"], roles, SHAPE, classes))


def predict(fitted: Fitted, features: np.ndarray) -> np.ndarray:
    return fitted.head.probabilities(features).argmax(axis=1)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_tells_classes_apart(kind: str, roles) -> None:
    result = predict(fit(kind, roles), roles["test"].features)
    assert (result == roles["test"].labels).mean() > 0.8  # by chance 1 in 7


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one(kind: str, roles) -> None:
    odds = fit(kind, roles).head.probabilities(roles["test"].features)
    assert odds.shape == (35, CLASSES)
    np.testing.assert_allclose(odds.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_row_of_the_history_is_what_the_model_reaches(kind: str, roles) -> None:
    fitted = fit(kind, roles)
    assert fitted.finished
    last = fitted.history.iloc[-1]
    for role, (features, labels) in roles.items():
        odds = fitted.head.probabilities(features)
        logits = np.log(np.maximum(odds, np.finfo(np.float32).tiny))
        for name, value in measure(labels, logits, every_epoch=True).items():
            assert last[f"{role}_{name}"] == pytest.approx(value, rel=1e-4), (role, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_does_not_depend_on_the_test_pictures(kind: str, roles) -> None:
    others = roles | {"test": pictures(5, 14)}
    for weights, same in zip(
        fit(kind, roles).head.to_keras().get_weights(),
        fit(kind, others).head.to_keras().get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(weights, same)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_training_gives_the_same_bytes_and_loads_by_keras_alone(
    kind: str, roles, tmp_path: Path
) -> None:
    fitted = fit(kind, roles)
    fitted.head.save(tmp_path / "a.keras")
    fit(kind, roles).head.save(tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(
        model_files.probabilities(loaded, roles["test"].features),
        fitted.head.probabilities(roles["test"].features),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", [kind for kind, row in HEAD_KINDS.items() if row.linear])
def test_a_linear_head_has_weights_per_class_for_its_activation_maps(
    kind: str, roles, tmp_path: Path
) -> None:
    fit(kind, roles).head.save(tmp_path / "a.keras")
    assert saved.kernel(tmp_path / "a.keras").shape == (50, CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_are_enough(kind: str) -> None:
    two = {"train": pictures(0, 8, 2), "test": pictures(1, 30, 2)}
    result = predict(fit(kind, two, 2), two["test"].features)
    assert (result == two["test"].labels).mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_of_each_class_is_enough(kind: str, roles) -> None:
    one = {"train": pictures(0, 7), "test": roles["test"]}
    fitted = fit(kind, one)
    assert (predict(fitted, one["train"].features) == one["train"].labels).all()


@pytest.mark.parametrize("kind", KINDS)
def test_more_pictures_than_numbers_are_no_harm(kind: str) -> None:
    many = {"train": pictures(0, 70, width=8), "test": pictures(1, 35, width=8)}
    fitted = base.fit_of(kind)(
        Trial(head=kind, epochs=15), base.Data(many["train"], many, (1, 1, 8), CLASSES)
    )
    assert (predict(fitted, many["test"].features) == many["test"].labels).mean() > 0.5


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize(
    ("kind", "sklearn", "c"),
    [
        ("logistic", LogisticRegression, 0.1),
        ("logistic", LogisticRegression, 10.0),
        ("logistic", LogisticRegression, tuned.CS[-1]),  # needs small steps towards the minimum
        ("linear_svm", LinearSVC, 0.1),
        ("linear_svm", LinearSVC, 10.0),
    ],
)
def test_a_classifier_of_sklearn_is_the_one_that_sees_the_features_themselves(
    kind: str, sklearn: type, classes: int, c: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = pictures(0, 28, classes), pictures(1, 35, classes)
    theirs = sklearn(C=c, max_iter=1000, tol=1e-8).fit(
        unit(train.features.astype(float)), train.labels
    )
    logits = theirs.decision_function(unit(test.features.astype(float)))
    if classes == 2:
        logits = np.stack([-logits, logits], axis=1) / 2
    monkeypatch.setattr(tuned, "CS", (c,))
    fitted = fit(kind, {"train": train, "test": test}, classes)
    result = fitted.head.probabilities(test.features)
    np.testing.assert_allclose(result, softmax(logits, axis=1), atol=2e-4)


@pytest.mark.parametrize("kind", ["logistic", "linear_svm"])
def test_c_is_chosen_by_validation_pictures(kind: str, roles) -> None:
    """All validation pictures say that labels are noise: the strongest penalty loses least."""
    random = np.random.default_rng(0)
    noise = Pictures(roles["validation"].features, random.permutation(roles["validation"].labels))
    lengths = [
        np.linalg.norm(fit(kind, roles | {"validation": v}).head.to_keras().get_weights()[0])
        for v in (noise, roles["validation"])
    ]
    assert lengths[0] < lengths[1]


def test_nearest_mean_is_the_nearest_centroid_of_unit_vectors(roles) -> None:
    train, test = unit(roles["train"].features), unit(roles["test"].features)
    centroids = np.stack([train[roles["train"].labels == c].mean(axis=0) for c in range(CLASSES)])
    expected = KNeighborsClassifier(1).fit(unit(centroids), np.arange(CLASSES)).predict(test)
    result = predict(fit("nearest_mean", roles), roles["test"].features)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("neighbours", [1, 5, 100])
def test_nearest_neighbours_vote_as_in_sklearn(neighbours: int, roles) -> None:
    train, test = roles["train"], roles["test"]
    model = KNeighborsClassifier(
        min(neighbours, len(train.labels)),
        metric="cosine",
        weights=lambda distances: np.exp((1 - distances) / nearest_neighbours.TEMPERATURE),
    )
    expected = model.fit(train.features, train.labels).predict_proba(test.features)
    trial = Trial(head="nearest_neighbours", neighbours=neighbours)
    fitted = nearest_neighbours.fit(trial, base.Data(train, roles, SHAPE, CLASSES))
    result = fitted.head.probabilities(test.features)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_docs_have_every_kind(kind: str) -> None:
    row = HEAD_KINDS[kind]
    keys = ", ".join(f"`{key}`" for key in sorted(row.keys)) or "–"
    maps = "yes" if row.linear else "no"
    line = f"| `{kind}` | {row.what} | {row.source} | {keys} | {maps} |"
    assert line in (ROOT / "docs" / "heads.md").read_text(encoding="utf-8").splitlines()


def test_a_head_that_saturates_is_measured_by_its_logits(roles) -> None:
    kernel = np.zeros((50, CLASSES), np.float32)
    kernel[:, 6] = 1e6  # every picture is taken for the last class, beyond doubt
    model = Linear(Trial(normalise="none"), SHAPE, kernel, np.arange(7, 0, -1.0, np.float32))
    features, labels = roles["test"]
    measured = measure(labels, model.logits(features))
    assert measured["loss"] > 1e4
    assert measured["top5_accuracy"] == pytest.approx((np.isin(labels, [6, 0, 1, 2, 3])).mean())

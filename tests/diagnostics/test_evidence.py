"""What a head goes by, against heads whose answers are known."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.diagnostics import evidence
from vgg16_transfer.heads import saved
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.heads.saved import HeadError
from vgg16_transfer.params import Study, Trial, check_params

SHAPE = (2, 3, 4)
RANDOM = np.random.default_rng(0)
ACTIVATIONS = RANDOM.random(SHAPE, dtype=np.float32)
BIAS = np.array([0.5, -0.25, 0.0], dtype=np.float32)


def make_study(**axes: Any) -> Study:
    layers = ["block4_pool", "block5_pool"]
    split = {"seeds": [3, 1], "train_per_class": 8}
    raw = {
        "backbone": {"weights": "random-conv"},
        "datasets": {"d": {"source": "d.tar", "layers": layers, "split": split}},
        "studies": {"s": {"dataset": "d", "seed": 3} | axes},
    }
    return check_params(raw).studies["s"]


def test_the_trial_that_is_shown_has_most_samples_and_the_first_seed() -> None:
    study = make_study(
        samples_per_class=[2, 8, 4], seed=[3, 1], layer=["block4_pool", "block5_pool"]
    )
    names = [study.trial_name(trial) for trial in study.trials()]
    trial = evidence.chosen_trial(study, names)
    assert trial is not None
    assert (trial.samples_per_class, trial.seed, trial.layer) == (8, 3, "block5_pool")
    assert trial in study.trials()


def test_a_trial_that_failed_is_not_shown() -> None:
    study = make_study(samples_per_class=[2, 4], seed=[3, 1], weight_decay=[0.0, 10.0])
    names = [study.trial_name(trial) for trial in study.trials()]
    trial = evidence.chosen_trial(study, [name for name in names if "decay=10" not in name])
    assert trial is not None
    assert (trial.samples_per_class, trial.seed, trial.weight_decay) == (4, 3, 0.0)
    assert evidence.chosen_trial(study, []) is None


def predictions(*rows: tuple[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["true", "predicted"])
    return frame.assign(path=[f"{number}.jpg" for number in range(len(rows))])


def test_the_pair_that_is_confused_most_often_comes_first() -> None:
    rows = [("a", "b"), ("b", "a"), ("b", "a"), ("b", "b"), ("a", "a"), ("c", "a")]
    pairs = evidence.confused_pairs(predictions(*rows))
    assert [(pair.true, pair.predicted, len(pair.paths), pair.of) for pair in pairs] == [
        ("b", "a", 2, 3),
        ("a", "b", 1, 2),
        ("c", "a", 1, 1),
    ]
    assert pairs[0].paths == ("1.jpg", "2.jpg")


def test_who_makes_no_mistake_confuses_nothing() -> None:
    assert evidence.confused_pairs(predictions(("a", "a"), ("b", "b"))) == []


@pytest.mark.parametrize(
    ("right", "wrong", "expected"), [(9, 9, (3, 3)), (9, 1, (5, 1)), (2, 9, (2, 4)), (1, 0, (1, 0))]
)
def test_probes_are_half_right_as_far_as_may_be(
    right: int, wrong: int, expected: tuple[int, int]
) -> None:
    frame = predictions(*[("a", "b")] * wrong, *[("a", "a")] * right)
    probes = evidence.chosen_probes(frame, 6)
    is_right = probes["true"] == probes["predicted"]
    assert (is_right.sum(), (~is_right).sum()) == expected
    assert is_right.is_monotonic_decreasing
    assert probes["path"].is_unique


def test_probes_are_spread_evenly() -> None:
    probes = evidence.chosen_probes(predictions(*[("a", "a")] * 60), 6)
    assert probes.index.tolist() == [0, 10, 20, 30, 40, 50]


def make_store(folder: Path, rows: np.ndarray, layer: str = "block5_pool") -> FeatureStore:
    shape = SHAPE if layer.startswith("block") else (rows.shape[1],)
    store = FeatureStore.create(folder / "features", {"dtype": "float32"}, {layer: shape})
    for start in range(0, len(rows), 32):
        ids = [sha256(row) for row in range(start, min(start + 32, len(rows)))]
        store.append(ids, {layer: rows[start : start + 32]})
    return store


def sha256(row: int) -> str:
    return hashlib.sha256(str(row).encode()).hexdigest()


def make_train(rows: range) -> pd.DataFrame:
    frame = pd.DataFrame({"sha256": [sha256(row) for row in rows]})
    return frame.assign(path=[f"{row}.jpg" for row in rows], class_name="a")


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_the_nearest_are_those_of_the_largest_cosine(tmp_path, monkeypatch, pooling) -> None:
    monkeypatch.setattr(evidence, "_BATCH", 7)
    rows = RANDOM.standard_normal((40, 24)).astype(np.float32)
    trial = Trial(pooling=pooling)
    store, train = make_store(tmp_path, rows), make_train(range(2, 40))
    by_query = evidence.nearest(trial, store, [sha256(0), sha256(1)], train, 5)
    space = rows if pooling == "flatten" else rows.reshape(40, 6, 4).mean(axis=1)
    for query, neighbours in enumerate(by_query):
        lengths = np.linalg.norm(space, axis=1) * np.linalg.norm(space[query])
        cosines = (space @ space[query] / lengths)[2:]
        best = np.argsort(-cosines)[:5]
        assert [neighbour.path for neighbour in neighbours] == [f"{row + 2}.jpg" for row in best]
        similarities = [neighbour.similarity for neighbour in neighbours]
        np.testing.assert_allclose(similarities, cosines[best], rtol=1e-4)


def test_a_class_of_few_pictures_has_few_neighbours(tmp_path) -> None:
    store = make_store(tmp_path, RANDOM.random((3, 24), dtype=np.float32))
    by_query = evidence.nearest(Trial(), store, [sha256(0)], make_train(range(1, 3)), 5)
    assert len(by_query[0]) == 2


@pytest.mark.parametrize(
    ("trial", "width"),
    [
        (Trial(), 24),
        (Trial(normalise="none"), 24),
        (Trial(pooling="average"), 4),
        (Trial(pooling="average", normalise="none"), 4),
    ],
    ids=["flatten", "flatten, as it is", "average", "average, as it is"],
)
def test_the_map_and_the_bias_sum_to_the_logit_of_the_saved_head(
    tmp_path, trial: Trial, width: int
) -> None:
    kernel = np.random.default_rng(1).standard_normal((width, 3)).astype(np.float32)
    head = Linear(trial, SHAPE, kernel, BIAS)
    head.save(tmp_path / "head.keras")
    read = saved.kernel(tmp_path / "head.keras")
    logits = [
        evidence.activation_map(trial, ACTIVATIONS, read[:, label]).sum() + BIAS[label]
        for label in range(3)
    ]
    odds = head.probabilities(ACTIVATIONS.reshape(1, -1))[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), odds, rtol=1e-5)


def test_a_map_is_what_the_formula_says() -> None:
    weights = np.arange(24, dtype=np.float32)
    shares = evidence.activation_map(Trial(normalise="none"), ACTIVATIONS, weights)
    assert shares.shape == (2, 3)
    expected = sum(ACTIVATIONS[1, 2, channel] * (20 + channel) for channel in range(4))
    assert shares[1, 2] == pytest.approx(expected, rel=1e-6)


def test_an_averaged_pool_has_the_same_weights_everywhere() -> None:
    weights = np.array([1, -2, 0, 0.5], dtype=np.float32)
    trial = Trial(pooling="average", normalise="none")
    shares = evidence.activation_map(trial, ACTIVATIONS, weights)
    expected = sum(ACTIVATIONS[0, 1, channel] * weights[channel] for channel in range(4)) / 6
    assert shares[0, 1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (Trial(layer="block3_pool"), True),
        (Trial(layer="fc2"), False),
        (Trial(layer="predictions"), False),
        (Trial(approach="end_to_end"), True),
        (Trial(approach="end_to_end", fine_tune_from="block5"), False),
    ],
)
def test_there_are_maps_of_stored_activations_that_have_positions(
    trial: Trial, *, expected: bool
) -> None:
    assert evidence.has_maps(trial) == expected


def test_vgg16s_own_softmax_is_softened_before_pictures_are_compared() -> None:
    trial = Trial(layer="predictions", temperature=4.0)
    rows = RANDOM.standard_normal((2, 5)).astype(np.float32)
    powers = np.exp(rows / 4)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(evidence.pooled(trial, rows, (5,)), expected, rtol=1e-5)


def test_half_of_the_evidence_may_come_from_one_position() -> None:
    shares = np.array([[5, 1, 1], [1, 1, -9]], dtype=np.float32)
    assert evidence.focus(shares) == pytest.approx(1 / 6)
    assert evidence.focus(np.ones((2, 3), dtype=np.float32)) == pytest.approx(0.5)


def test_a_missing_head_is_named(tmp_path) -> None:
    with pytest.raises(HeadError, match=r"only\.keras: no such head; run dvc repro"):
        saved.kernel(tmp_path / "only.keras")


def test_a_damaged_head_is_named(tmp_path) -> None:
    (tmp_path / "only.keras").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(HeadError, match=r"only\.keras: is damaged"):
        saved.kernel(tmp_path / "only.keras")

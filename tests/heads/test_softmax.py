"""The rows are few and wide, as features are: 20 pictures of 50 numbers, in 3 classes."""

from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from vgg16_transfer.heads import base, loss, measures
from vgg16_transfer.heads.base import Data, Fitted, Pictures
from vgg16_transfer.heads.kinds import softmax
from vgg16_transfer.params import Trial

from .conftest import CLASSES, SHAPE, pictures


@pytest.fixture(scope="module")
def roles() -> dict[str, Pictures]:
    return {"train": pictures(0, 21), "test": pictures(1, 14)}


def fit(roles: dict[str, Pictures], **settings: Any) -> Fitted:
    settings = {"epochs": 15, "batch_size": 8, "learning_rate": 0.5} | settings
    return softmax.fit(Trial(**settings), Data(roles["train"], roles, SHAPE, CLASSES))


def kernel_of(fitted: Fitted) -> np.ndarray:
    return fitted.head.to_keras().get_layer("softmax").get_weights()[0]


def bias_of(fitted: Fitted) -> np.ndarray:
    return fitted.head.to_keras().get_layer("softmax").get_weights()[1]


def by_keras(roles: dict[str, Pictures], trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """The same steps by ordinary Keras on the whole features, in the same order of pictures."""
    features, labels = roles["train"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    regularizer = keras.regularizers.L2(trial.weight_decay / 2)
    dense = keras.layers.Dense(
        CLASSES, activation="softmax", kernel_initializer="zeros", kernel_regularizer=regularizer
    )
    model = keras.Sequential([keras.Input((features.shape[1],)), dense])
    optimizer = {
        "sgd": keras.optimizers.SGD(trial.learning_rate, momentum=trial.momentum),
        "adam": keras.optimizers.Adam(trial.learning_rate),
    }[trial.optimizer]
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    for epoch in base.orders(trial, len(labels)):
        for chosen in epoch:
            model.train_on_batch(unit[chosen], labels[chosen])
    kernel, bias = dense.get_weights()
    return kernel, bias


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.0},
        {"weight_decay": 0.01},
        {"batch_size": 100},
        {"optimizer": "adam", "learning_rate": 0.01},
    ],
    ids=str,
)
def test_row_space_training_gives_the_weights_that_keras_gives(roles, settings) -> None:
    trial = Trial(**({"epochs": 15, "batch_size": 8, "learning_rate": 0.5} | settings))
    kernel, bias = by_keras(roles, trial)
    result = softmax.fit(trial, Data(roles["train"], roles, SHAPE, CLASSES))
    np.testing.assert_allclose(kernel_of(result), kernel, atol=2e-5)
    np.testing.assert_allclose(bias_of(result), bias, atol=2e-5)


def test_pictures_that_are_the_same_but_for_scale_do_no_harm(roles) -> None:
    features, labels = roles["train"]
    twice = Pictures(np.concatenate([features, 2 * features]), np.concatenate([labels, labels]))
    kernel = kernel_of(fit({"train": twice, "test": roles["test"]}))
    once = kernel_of(fit(roles, batch_size=100))
    full = kernel_of(fit({"train": twice, "test": roles["test"]}, batch_size=100))
    assert np.isfinite(kernel).all()
    np.testing.assert_allclose(full, once, atol=2e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_more_pictures_than_numbers_give_the_weights_that_keras_gives(optimizer: str) -> None:
    roles = {"train": pictures(0, 35, width=20), "test": pictures(1, 14, width=20)}
    trial = Trial(epochs=10, batch_size=8, learning_rate=0.05, optimizer=optimizer)
    kernel, bias = by_keras(roles, trial)
    result = softmax.fit(trial, Data(roles["train"], roles, (1, 1, 20), CLASSES))
    np.testing.assert_allclose(kernel_of(result), kernel, atol=2e-5)
    np.testing.assert_allclose(bias_of(result), bias, atol=2e-5)


def test_the_kernel_lies_in_the_span_of_the_training_features(roles) -> None:
    features, kernel = roles["train"].features, kernel_of(fit(roles))
    within = features.T @ np.linalg.lstsq(features.T, kernel)[0]
    np.testing.assert_allclose(kernel, within, atol=1e-4)


def test_average_pooling_trains_on_the_mean_over_positions(roles) -> None:
    pooled = {
        role: Pictures(features.reshape(-1, 5, 10).mean(axis=1), labels)
        for role, (features, labels) in roles.items()
    }
    trial = Trial(epochs=5, pooling="average")
    result = softmax.fit(trial, Data(roles["train"], roles, SHAPE, CLASSES))
    flat = trial.model_copy(update={"pooling": "flatten"})
    expected = softmax.fit(flat, Data(pooled["train"], pooled, (1, 1, 10), CLASSES))
    np.testing.assert_allclose(kernel_of(result), kernel_of(expected), atol=1e-5)


def test_of_unlabelled_pictures_the_head_learns_what_the_teacher_says(roles) -> None:
    features, labels = roles["train"]
    unlabelled = Pictures(features, np.full(len(labels), loss.UNLABELLED))
    says = 20 * np.eye(CLASSES, dtype=np.float32)[(labels + 1) % CLASSES]
    trial = Trial(epochs=100, teacher_layer="block5_pool", teacher_weight=1.0)
    result = softmax.fit(trial, Data(unlabelled, roles, SHAPE, CLASSES, says))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    predicted = (unit @ kernel_of(result) + bias_of(result)).argmax(axis=1)
    np.testing.assert_array_equal(predicted, (labels + 1) % CLASSES)


def test_every_epoch_is_measured_on_every_role(roles) -> None:
    with_validation = roles | {"validation": pictures(2, 7)}
    history = fit(with_validation).history
    assert history["epoch"].tolist() == list(range(1, 16))
    expected = {f"{role}_{m}" for role in with_validation for m in measures.EVERY_EPOCH}
    assert set(history.columns) == {"epoch", *expected}


def test_the_last_row_is_what_the_weights_reach(roles) -> None:
    result = fit(roles)
    for role, (features, labels) in roles.items():
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        logits = unit @ kernel_of(result) + bias_of(result)
        odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        last = result.history.iloc[-1]
        assert last[f"{role}_accuracy"] == pytest.approx(accuracy_score(labels, odds.argmax(1)))
        assert last[f"{role}_loss"] == pytest.approx(log_loss(labels, odds), rel=1e-4)
        top5 = top_k_accuracy_score(labels, odds, k=5)
        assert last[f"{role}_top5_accuracy"] == pytest.approx(top5)


def test_training_is_the_same_every_time_and_another_for_another_seed(roles) -> None:
    first, again, other = fit(roles), fit(roles), fit(roles, seed=1)
    np.testing.assert_array_equal(kernel_of(first), kernel_of(again))
    assert first.history.equals(again.history)
    assert not np.array_equal(kernel_of(first), kernel_of(other))


def test_weight_decay_shortens_the_kernel(roles) -> None:
    assert np.linalg.norm(kernel_of(fit(roles, weight_decay=0.1))) < np.linalg.norm(
        kernel_of(fit(roles))
    )


def test_an_epoch_sees_every_picture_once() -> None:
    orders = base.orders(Trial(epochs=3, batch_size=8), 21)
    assert [[len(batch) for batch in order] for order in orders] == [[8, 8, 5]] * 3
    for order in orders:
        assert sorted(np.concatenate(order).tolist()) == list(range(21))
    assert not np.array_equal(orders[0][0], orders[1][0])


def test_what_is_learned_does_not_depend_on_the_test_pictures(roles) -> None:
    others = roles | {"test": pictures(5, 14)}
    np.testing.assert_array_equal(kernel_of(fit(roles)), kernel_of(fit(others)))

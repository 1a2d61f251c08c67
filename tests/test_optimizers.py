"""Every row of OPTIMIZERS and every schedule takes the steps that Keras's own takes."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from vgg16_transfer.optimizers import OPTIMIZERS, move, rates
from vgg16_transfer.params import Trial

STEPS = 12
GRADIENTS = np.random.default_rng(0).standard_normal((STEPS, 5, 3)).astype(np.float32)
START = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
KERAS = {
    "sgd": lambda trial, rate: keras.optimizers.SGD(rate, trial.momentum),
    "nesterov": lambda trial, rate: keras.optimizers.SGD(rate, trial.momentum, nesterov=True),
    "adam": lambda _, rate: keras.optimizers.Adam(rate),
    "adamw": lambda trial, rate: keras.optimizers.AdamW(rate, weight_decay=trial.weight_decay),
}


def make_trial(**settings: Any) -> Trial:
    return Trial(**({"epochs": STEPS, "learning_rate": 0.05} | settings))


def own(trial: Trial, convert: Any = np.asarray) -> np.ndarray:
    weights = convert(START)
    slots: tuple[Any, ...] = (0 * weights,) * OPTIMIZERS[trial.optimizer].slots
    sizes = rates(trial, 1, trial.learning_rate)
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, sizes, strict=True), start=1):
        weights, slots = move(trial, weights, convert(gradient), slots, step, rate, decay=True)
    return np.asarray(weights)


def by_keras(trial: Trial, optimizer: keras.optimizers.Optimizer) -> np.ndarray:
    variable = keras.Variable(START)
    coupled = trial.weight_decay * (not OPTIMIZERS[trial.optimizer].decoupled)
    for gradient in GRADIENTS:
        optimizer.apply([tf.constant(gradient) + coupled * variable.value], [variable])
    return np.asarray(variable.value)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("convert", [np.asarray, tf.convert_to_tensor])
def test_an_optimiser_takes_kerass_steps(name: str, weight_decay: float, convert: Any) -> None:
    trial = make_trial(optimizer=name, weight_decay=weight_decay)
    expected = by_keras(trial, KERAS[name](trial, trial.learning_rate))
    np.testing.assert_allclose(own(trial, convert), expected, atol=1e-5)


@pytest.mark.parametrize("warmup_epochs", [0, 4])
def test_cosine_is_kerass_cosine(warmup_epochs: int) -> None:
    trial = make_trial(schedule="cosine", warmup_epochs=warmup_epochs)
    warm = {"warmup_target": 0.05, "warmup_steps": warmup_epochs} if warmup_epochs else {}
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warm else 0.05, STEPS - warmup_epochs, **warm
    )
    expected = [float(schedule(step)) for step in range(STEPS)]
    np.testing.assert_allclose(rates(trial, 1, 0.05), expected, rtol=1e-5, atol=1e-8)


def test_a_constant_rate_is_reached_after_the_warm_up() -> None:
    trial = make_trial(epochs=3, warmup_epochs=1)
    assert rates(trial, 4, 0.8) == pytest.approx([0, 0.2, 0.4, 0.6] + [0.8] * 8)


def test_weights_and_slots_that_are_passed_in_stay_as_they_are() -> None:
    weights, slots = START.copy(), (np.ones_like(START),)
    move(make_trial(weight_decay=0.1), weights, GRADIENTS[0], slots, 1, 0.1, decay=True)
    np.testing.assert_array_equal(weights, START)
    np.testing.assert_array_equal(slots[0], 1)


def test_weight_decay_is_for_weights_that_ask_for_it() -> None:
    trial = make_trial(optimizer="adamw", weight_decay=0.1)
    slots = (np.zeros_like(START),) * 2
    plain = move(trial.model_copy(update={"weight_decay": 0.0}), START, GRADIENTS[0], slots, 1, 0.1)
    np.testing.assert_array_equal(move(trial, START, GRADIENTS[0], slots, 1, 0.1)[0], plain[0])

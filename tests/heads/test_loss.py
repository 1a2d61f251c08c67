import numpy as np
import pytest

from vgg16_transfer.heads import loss
from vgg16_transfer.heads.loss import Soft

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((6, 4))
TEACHER = 3 * RANDOM.standard_normal((6, 4))
LABELS = np.array([0, 1, loss.UNLABELLED, 3, loss.UNLABELLED, 2])


def numeric(labels: np.ndarray, soft: Soft | None) -> np.ndarray:
    """Central differences of the loss by every logit."""
    slope = np.zeros_like(LOGITS)
    for index in np.ndindex(*LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[index] = 1e-5
        above, below = (loss.loss(LOGITS + sign * step, labels, soft) for sign in (1, -1))
        slope[index] = (above - below) / 2e-5
    return slope


@pytest.mark.parametrize(
    "soft",
    [None, Soft(TEACHER, 1.0, 0.5), Soft(TEACHER, 4.0, 0.9), Soft(TEACHER, 2.0, 1.0)],
    ids=["labels", "half", "soft", "teacher alone"],
)
def test_the_gradient_is_that_of_the_loss(soft: Soft | None) -> None:
    result = loss.gradient(LOGITS, LABELS, soft)
    np.testing.assert_allclose(result, numeric(LABELS, soft), atol=1e-7)


def test_pictures_without_a_label_teach_nothing_without_a_teacher() -> None:
    nobody = np.full(6, loss.UNLABELLED)
    assert loss.loss(LOGITS, nobody) == 0
    assert not loss.gradient(LOGITS, nobody).any()
    assert not loss.gradient(LOGITS, LABELS)[[2, 4]].any()


def test_a_teacher_of_no_weight_leaves_the_labels_alone() -> None:
    silent = Soft(TEACHER, 4.0, 0.0)
    assert loss.loss(LOGITS, LABELS, silent) == pytest.approx(loss.loss(LOGITS, LABELS))
    result = loss.gradient(LOGITS, LABELS, silent)
    np.testing.assert_allclose(result, loss.gradient(LOGITS, LABELS), rtol=1e-6)


def test_a_head_that_says_what_the_teacher_says_is_at_the_bottom() -> None:
    agreed = loss.gradient(TEACHER, LABELS, Soft(TEACHER, 3.0, 1.0))
    np.testing.assert_allclose(agreed, 0, atol=1e-12)


def test_the_factor_keeps_the_size_of_the_gradient_about_constant_in_t() -> None:
    sizes = {
        temperature: np.linalg.norm(loss.gradient(LOGITS, LABELS, Soft(TEACHER, temperature, 1.0)))
        for temperature in (4.0, 8.0, 16.0, 32.0)
    }
    with_factor = np.array(list(sizes.values()))
    without = with_factor / np.array(list(sizes)) ** 2
    assert with_factor.max() / with_factor.min() < 1.25
    assert without.max() / without.min() > 50


def test_the_loss_weighs_teacher_and_labels_as_hinton_et_al_do() -> None:
    cold = -np.log(loss.softmax(LOGITS)[[0, 1, 3, 5], LABELS[[0, 1, 3, 5]]]).mean()
    warm = -(loss.softmax(TEACHER / 4) * np.log(loss.softmax(LOGITS / 4))).sum(axis=1).mean()
    result = loss.loss(LOGITS, LABELS, Soft(TEACHER, 4.0, 0.7))
    assert result == pytest.approx(0.7 * 16 * warm + 0.3 * cold)


def test_large_logits_do_not_overflow() -> None:
    huge = np.array([[1e4, -1e4, 0.0, 0.0]])
    assert np.isfinite(loss.log_softmax(huge)).all()
    assert loss.softmax(huge).sum() == pytest.approx(1)

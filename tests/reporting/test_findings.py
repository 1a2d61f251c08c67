"""Sentences say what the numbers show, and no more."""

from typing import Any

import pandas as pd
import pytest

from vgg16_transfer.heads import records
from vgg16_transfer.params import Study, Trial, check_params
from vgg16_transfer.reporting import findings


def make_study(**axes: Any) -> Study:
    dataset = {
        "layers": ["block3_pool", "block4_pool", "block5_pool", "predictions"],
        "split": {"seeds": [0, 1, 2], "train_per_class": 32},
    }
    raw = {
        "backbone": {"weights": "random"},
        "datasets": {"d": dataset},
        "studies": {"s": {"dataset": "d"} | axes},
    }
    return check_params(raw).studies["s"]


def reached(study: Study, percents: list[float], **columns: Any) -> pd.DataFrame:
    """The trials of a study with these test accuracies: the seeds of one setting, then the next."""
    settings: dict[str, list[Trial]] = {}
    for trial in study.trials():
        settings.setdefault(str(trial.model_copy(update={"seed": 0})), []).append(trial)
    trials = [trial for seeds in settings.values() for trial in seeds]
    rows = [
        trial.model_dump()
        | dict.fromkeys(records.AVERAGED, 1.0)
        | {"trial": study.trial_name(trial), "accuracy": percent / 100}
        for trial, percent in zip(trials, percents, strict=True)
    ]
    return pd.DataFrame(rows).assign(**columns)


def sentences(percents: list[float], **axes: Any) -> list[str]:
    study = make_study(**axes)
    return findings.sentences(study, reached(study, percents), {})


SEEDS = {"seed": [0, 1, 2]}
COUNTS = {"samples_per_class": [2, 4, 8]} | SEEDS
TEACHER = {"samples_per_class": 2, "teacher_layer": "block5_pool"}


def test_a_rise_is_described_from_end_to_end_and_step_by_step() -> None:
    ends, steps, *_ = sentences([40, 42, 44, 50, 53, 53, 60, 60, 66], **COUNTS)
    assert ends == (
        "From 2 to 8 training pictures per class, test accuracy rises from 42.0 ± 2.0 % to "
        "62.0 ± 3.5 % (3 splits): +20.0 ± 2.0 points (95 %: +15.0 to +25.0), up in all 3 splits."
    )
    assert steps == (
        "Step by step, 2 → 4: +10.0 ± 1.0 points (95 %: +7.5 to +12.5), up in all 3 splits; "
        "4 → 8: +10.0 ± 3.0 points (95 %: +2.5 to +17.5), up in all 3 splits. "
        "Every interval excludes 0."
    )


def test_a_fall_is_a_fall() -> None:
    ends, *_ = sentences([60, 61, 62, 50, 51, 53, 40, 41, 42], **COUNTS)
    assert "test accuracy falls from 61.0 ± 1.0 % to 41.0 ± 1.0 %" in ends
    assert ends.endswith("−20.0 ± 0.0 points (95 %: −20.0 to −20.0), down in all 3 splits.")


def test_differences_within_their_spread_have_no_clear_order() -> None:
    ends, steps, *_ = sentences([40, 50, 45, 46, 44, 46, 45, 44, 49], **COUNTS)
    assert "test accuracy shows no clear order, from " in ends
    assert ends.endswith("+1.0 ± 6.1 points (95 %: −14.1 to +16.1), up in 2 of 3 splits.")
    assert steps.endswith("No interval excludes 0.")


def test_a_peak_is_not_called_a_rise_nor_a_fall() -> None:
    ends, steps, *_ = sentences(
        [49, 50, 51, 53, 54, 55, 30, 31, 32],
        layer="predictions",
        temperature=[1.0, 2.0, 16.0],
        **SEEDS,
    )
    assert ends.startswith(
        "From temperature 1 to 16 of the network's softmax, test accuracy goes up and"
    )
    assert "1 → 2: +4.0 ± 0.0 points (95 %: +4.0 to +4.0), up in all 3 splits; 2 → 16" in steps


def test_a_rise_with_a_step_within_its_spread_says_so() -> None:
    ends, steps, *_ = sentences([40, 41, 42, 50, 51, 52, 53, 48, 55], **COUNTS)
    assert "test accuracy rises" in ends
    assert "4 → 8: +1.0 ± 3.5 points (95 %: −7.6 to +9.6), up in 2 of 3 splits" in steps
    assert steps.endswith("Of these intervals, 1 of 2 excludes 0.")


def test_equal_accuracies_stay_the_same() -> None:
    (one, *_) = sentences([50, 60, 70, 50, 60, 70], pooling=["flatten", "average"], **SEEDS)
    assert "test accuracy stays the same, from 60.0 ± 10.0 % to 60.0 ± 10.0 %" in one
    assert one.endswith("+0.0 ± 0.0 points (95 %: +0.0 to +0.0), the same in all 3 splits.")


def test_pairs_are_of_the_same_split() -> None:
    ends, *_ = sentences([20, 40, 60, 21, 41, 61], pooling=["flatten", "average"], **SEEDS)
    assert ends.startswith("From pooling flatten to average, test accuracy rises from 40.0 ± 20.0 ")
    assert ends.endswith("+1.0 ± 0.0 points (95 %: +1.0 to +1.0), up in all 3 splits.")


def test_numbers_rise_and_names_keep_the_order_of_the_params() -> None:
    ends, *_ = sentences([60, 61, 50, 51, 40, 41], samples_per_class=[8, 4, 2], seed=[0, 1])
    assert ends.startswith("From 2 to 8 training pictures per class, test accuracy rises")
    ends, *_ = sentences([60, 61, 40, 41], layer=["block5_pool", "block3_pool"], seed=[0, 1])
    assert ends.startswith("From block5_pool to block3_pool, test accuracy falls")


def test_one_split_has_numbers_without_spread_and_no_verdict() -> None:
    ends, gap, caution = sentences([40, 45, 60], samples_per_class=[2, 4, 8])
    assert ends == (
        "From 2 to 8 training pictures per class, test accuracy goes from 40.0 % to 60.0 %, "
        "with 45.0 % at 4."
    )
    assert "points on average" in gap
    assert (
        caution == "All numbers are from one split, so the differences between splits are unknown."
    )


def test_several_axes_are_described_one_after_the_other_over_matching_pairs() -> None:
    layers = ["block4_pool", "block5_pool"]
    percents = [40, 42, 50, 52, 60, 62, 70, 74]
    count, layer, *_ = sentences(percents, layer=layers, samples_per_class=[2, 4], seed=[0, 1])
    # Two splits: their differences are +10 and +11, and t with one degree of freedom is 12.7.
    assert count == (
        "From 2 to 4 training pictures per class, test accuracy rises from 51.0 ± 1.4 % to "
        "61.5 ± 2.1 % (averaged over layer; 2 splits): "
        "+10.5 ± 0.7 points (95 %: +4.1 to +16.9), up in both splits."
    )
    assert layer.startswith("From block4_pool to block5_pool, test accuracy rises from 46.0 ± 1.4 ")
    assert "averaged over samples per class" in layer


def test_a_study_without_an_axis_has_one_number() -> None:
    first, gap, _ = sentences([50, 60, 70], **SEEDS)
    assert (
        first == "With 16 training pictures per class, test accuracy is 60.0 ± 10.0 % (3 splits)."
    )
    assert gap.endswith("test accuracy is 40.0 points lower.")
    first, _, caution = sentences([50])
    assert first == "With 16 training pictures per class, test accuracy is 50.0 %."
    assert "one split" in caution


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ([1.0, 1.0], "reach 100.0 % in every trial"),
        ([0.5, 1.0], "reach between 50.0 % and 100.0 %"),
    ],
)
def test_the_gap_to_the_training_pictures_is_described(train: list[float], text: str) -> None:
    study = make_study(seed=[0, 1])
    gap = findings.gap(study, reached(study, [50, 50], train_accuracy=train))
    assert gap.startswith("On their training pictures, the heads ")
    assert text in gap


def test_every_weight_of_a_teacher_is_compared_with_labels_alone() -> None:
    study = make_study(teacher_weight=[0.0, 0.5, 0.9], **TEACHER, **SEEDS)
    trials = reached(study, [40, 41, 42, 39, 44, 43, 50, 51, 52])
    taught = trials["teacher_weight"] != 0
    first, teacher, *_ = findings.sentences(
        study, trials.assign(teacher_accuracy=(0.6 + 0.1 * trials["seed"]).where(taught)), {}
    )
    assert first == (
        "With labels only (α = 0), the student's test accuracy is 41.0 ± 1.0 %; with the teacher, "
        "α = 0.5: 42.0 ± 2.6 % (+1.0 ± 2.0 points (95 %: −4.0 to +6.0), up in 2 of 3 splits); "
        "α = 0.9: 51.0 ± 1.0 % "
        "(+10.0 ± 0.0 points (95 %: +10.0 to +10.0), up in all 3 splits)."
    )
    assert teacher == "The teacher itself reaches 70.0 ± 10.0 %."


def test_splits_that_share_test_pictures_have_wider_intervals_and_it_is_said() -> None:
    study = make_study(**COUNTS)
    trials = reached(study, [40, 42, 44, 50, 53, 53, 60, 60, 66])
    half = {seed: frozenset({"all", str(seed)}) for seed in (0, 1, 2)}
    ends, *_, about = findings.sentences(study, trials, half)
    # 1/3 + ½/(1 - ½) is four times 1/3, so the interval is twice as wide.
    assert "+20.0 ± 2.0 points (95 %: +10.1 to +29.9), up in all 3 splits." in ends
    assert about == (
        "3 splits test on 4 distinct pictures; two of them share 50 % on average, which widens the "
        "intervals."
    )
    one = dict.fromkeys((0, 1, 2), frozenset("abc"))
    ends, *_, about = findings.sentences(study, trials, one)
    assert "(95 %: +15.0 to +25.0)" in ends
    assert about == (
        "3 splits test on 3 distinct pictures; all of them share these, so that the intervals are "
        "about training pictures."
    )
    apart = {seed: frozenset({str(seed)}) for seed in (0, 1, 2)}
    assert findings.sentences(study, trials, apart)[-1] == (
        "3 splits test on 3 distinct pictures; no two of them share one."
    )


def test_a_teacher_without_labels_alone_is_an_axis_like_any_other() -> None:
    first, *_ = sentences([40, 50], teacher_weight=[0.5, 0.9], **TEACHER)
    assert first == "From α = 0.5 to 0.9, test accuracy goes from 40.0 % to 50.0 %."


def test_a_teachers_temperature_is_judged_by_those_who_listen_to_it() -> None:
    axes = {"teacher_temperature": [1.0, 4.0], "teacher_weight": [0.0, 0.5], "seed": [0, 1]}
    *_, temperature, _, _ = sentences([40, 40, 50, 50, 40, 40, 60, 60], **TEACHER, **axes)
    assert temperature.startswith("From temperature 1 to 4 of the teacher, test accuracy rises")
    assert "+10.0 ± 0.0 points (95 %: +10.0 to +10.0), up in both splits" in temperature


def test_numbers_that_lost_their_last_digits_in_the_file_are_found() -> None:
    study = make_study(learning_rate=[1 / 3, 2 / 3], seed=[0, 1])
    trials = reached(study, [40, 41, 50, 51])
    trials["learning_rate"] = trials["learning_rate"].map("{:.6g}".format).astype(float)
    first, *_ = findings.sentences(study, trials, {})
    assert first.startswith("From learning rate 0.333333 to 0.666667, test accuracy rises")

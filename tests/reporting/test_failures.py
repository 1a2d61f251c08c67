"""Trials that failed are counted and named; none of their numbers is shown or compared."""

import re
from typing import Any

import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import AVERAGED, Record
from vgg16_transfer.params import Params, Study
from vgg16_transfer.reporting import (
    alternatives,
    answers,
    failures,
    figures,
    findings,
    line_labels,
    study_figures,
    tables,
)
from vgg16_transfer.reporting.report import write_report
from vgg16_transfer.reporting.study_figures import Drawn

from .conftest import folders_in, make_params, make_record, measure
from .test_page import alternatives as alt_texts
from .test_page import text

NAN = float("nan")
SENTENCE = "the loss is not finite after epoch 1; weight_decay is 10.0"


def study(**axes: Any) -> Study:
    return make_params("caltech256", {"s": axes}).studies["s"]


DECAY = {"samples_per_class": [2, 4], "weight_decay": [0.0, 10.0], "seed": [0, 1, 2]}
SOME = study(**DECAY)
COUNTS = study(samples_per_class=[2, 4, 8], seed=[0, 1])


def fail(record: Record, *patterns: str) -> Record:
    """The record as it is written if the trials whose names match failed after an epoch."""
    trials = record.trials
    failed = trials["trial"].str.contains("|".join(patterns) or "^$")
    status = failed.map({True: "failed", False: "finished"})
    trials = trials.assign(status=status, failure=failed.map({True: SENTENCE, False: NAN}))
    trials.loc[failed, list(AVERAGED)] = NAN
    lost = set(trials.loc[failed, "trial"])
    history = record.history
    kept = history[~history["trial"].isin(lost) | (history["epoch"] == 1)]
    rest = [frame[~frame["trial"].isin(lost)] for frame in record[2:]]
    return Record(trials, kept, *rest)


def failed_trials(of: Study, *patterns: str) -> pd.DataFrame:
    return fail(make_record(of), *patterns).trials


def test_a_record_without_a_status_has_no_failures() -> None:
    trials = make_record(SOME).trials
    assert not records.has_failed(trials).any()
    assert failures.sentences(trials) == []
    assert records.summarise(SOME, trials)["failed"].tolist() == [0] * 4


def test_a_mean_is_that_of_the_trials_that_finished() -> None:
    trials = failed_trials(SOME, "class=2,seed=1,", "class=4.*decay=10").reset_index(drop=True)
    trials.loc[records.has_failed(trials), "accuracy"] = 1.0  # whatever it says
    summary = records.summarise(SOME, trials).set_index(["samples_per_class", "weight_decay"])
    finished = trials[(trials["samples_per_class"] == 2) & (trials["seed"] != 1)]
    expected = finished.groupby("weight_decay")["accuracy"].mean()
    assert summary.loc[2, "accuracy_mean"].tolist() == pytest.approx(expected.tolist())
    assert summary["seeds"].tolist() == [2, 2, 3, 0]
    assert summary["failed"].tolist() == [1, 1, 0, 3]
    assert pd.isna(summary.loc[(4, 10.0), "accuracy_mean"])


def test_a_summary_is_in_the_order_of_the_params_whatever_failed() -> None:
    summary = records.summarise(SOME, failed_trials(SOME, "decay=0.0"))
    assert list(summary.columns[:4]) == ["samples_per_class", "weight_decay", "seeds", "failed"]
    assert summary["weight_decay"].tolist() == [0.0, 10.0] * 2


def test_a_table_marks_what_failed() -> None:
    rows = tables.table(SOME, fail(make_record(SOME), "class=2,seed=1,.*=0.0", "class=4.*decay=10"))
    cells = [row["accuracy, %"] for row in rows]
    assert cells[0].endswith(" (failed: 1 of 3 trials)")
    assert "failed" not in cells[1] + cells[2]
    assert cells[3] == "failed: 3 of 3 trials"
    values = list(rows[3].values())[3:]
    assert values == [""] * (len(values) - 2) + [0, 0]
    assert [row["splits"] for row in rows] == [2, 3, 3, 0]


def test_a_teachers_mean_is_that_of_the_trials_that_finished() -> None:
    record = fail(make_record(COUNTS), "seed=1")
    taught = record._replace(trials=record.trials.assign(teacher_accuracy=[0.5, 1.0] * 3))
    assert [row["teacher, %"] for row in tables.table(COUNTS, taught)] == ["50.0"] * 3


def points(figure: Figure) -> list[list[float]]:
    (axes,) = figure.axes
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    return [list(bar.lines[0].get_xdata()) for bar in bars]


def words(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    return [one.get_text() for one in axes.texts]


def names(figure: Figure) -> set[str]:
    texts = [one for one in figure.axes[0].texts if one.get_gid() == line_labels.MARK]
    return {one.get_text() for one in texts}


def test_a_point_without_a_finished_trial_is_marked_and_not_drawn() -> None:
    figure = study_figures.draw_all(Drawn(COUNTS, fail(make_record(COUNTS), "class=4")))[
        "accuracy_against_samples_per_class"
    ]
    assert points(figure) == [[2, 8]]
    assert [one for one in words(figure) if "failed" in one] == ["failed: 2 of 2 trials"]
    labels = [one.get_text() for one in figure.axes[0].get_xticklabels()]
    assert labels == ["2", "4", "8"]


def test_names_keep_their_places_where_one_failed() -> None:
    layers = study(layer=["block4_pool", "block5_pool", "predictions"], samples_per_class=[2])
    record = fail(make_record(layers), "block4_pool")
    figure = study_figures.draw_all(Drawn(layers, record))["accuracy_against_layer"]
    assert points(figure) == [[1, 2]]
    labels = [one.get_text() for one in figure.axes[0].get_xticklabels()]
    assert labels == ["block4_pool", "block5_pool", "predictions"]


def test_curves_are_means_of_finished_trials_and_name_the_points_that_failed() -> None:
    record = make_record(COUNTS)
    history = record.history.copy()
    history.loc[history["trial"].str.contains("class=2,seed=1"), "test_loss"] = 1e9
    failed = fail(record._replace(history=history), "class=2,seed=1", "class=4")
    figure = study_figures.draw_all(Drawn(COUNTS, failed))["loss_curves"]
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert [max(line.get_ydata()) for line in solid] == [0.75, 0.75]
    assert names(figure) == {
        "training pictures per class",
        "2 (failed: 1 of 2 trials)",
        "8",
        "4 (failed: 2 of 2 trials)",
    }


@pytest.mark.parametrize("axes", [DECAY, {"layer": ["block4_pool", "predictions"]}, {}], ids=str)
def test_figures_can_be_drawn_where_everything_failed(axes: dict[str, Any]) -> None:
    every = study(**axes)
    record = fail(make_record(every), ".")
    drawn = list(study_figures.draw_all(Drawn(every, record)).values())
    if "samples_per_class" in axes:
        drawn.append(figures.answer(answers.lines(every, record), []))
    for figure in drawn:
        figure.draw_without_rendering()
        legend = figure.axes[0].get_legend()
        named = [one.get_text() for one in legend.get_texts()] if legend else []
        assert any("failed: " in one for one in [*words(figure), *named])
        assert not any(map(len, points(figure)))


def test_alternative_texts_mark_what_failed() -> None:
    lines = answers.lines(COUNTS, fail(make_record(COUNTS), "class=2,seed=1", "class=4"))
    text = alternatives.answer(lines, [])
    assert "50.0 % (failed: 1 of 2 trials) at 2, failed: 2 of 2 trials at 4" in text
    against = alternatives.accuracy_against(lines["s"], "samples_per_class")
    assert "2: 50.0 % (failed: 1 of 2 trials); 4: failed: 2 of 2 trials; 8: " in against
    row = answers.table(lines, [])[0]
    assert row["2"] == "50.0 (failed: 1 of 2 trials)"
    assert row["4"] == "failed: 2 of 2 trials"


def test_a_value_without_a_finished_trial_is_in_no_comparison() -> None:
    sentences = findings.sentences(COUNTS, failed_trials(COUNTS, "class=8"), {})
    assert sentences[0].startswith("From 2 to 4 training pictures per class, test accuracy rises")
    assert "At samples per class 8 every trial failed." in sentences
    assert "Of 6 trials, 2 failed; no number includes them." in sentences


def test_a_single_value_with_finished_trials_is_compared_with_nothing() -> None:
    sentences = findings.sentences(COUNTS, failed_trials(COUNTS, "class=[48]"), {})
    assert sentences[0].startswith("At samples per class 2 test accuracy is 53.1 ± 4.4 %")
    assert sentences[1] == "At samples per class 4 and 8 every trial failed."


def test_trials_are_compared_only_where_all_of_them_finished() -> None:
    """Without the trials that match those that failed, the others would be means of other sets."""
    trials = failed_trials(SOME, "class=4.*decay=10")
    text = " ".join(findings.sentences(SOME, trials, {}))
    accuracies = trials.set_index(["samples_per_class", "weight_decay", "seed"])["accuracy"]
    low, high = (100 * accuracies.sort_index()[n, 0.0].mean() for n in (2, 4))
    assert f"from {low:.1f} ± " in text
    assert f"to {high:.1f} ± " in text
    assert "averaged over weight decay; 3 splits" in text


def test_trials_of_which_none_match_are_not_compared() -> None:
    trials = failed_trials(COUNTS, "class=2,seed=0", "class=4,seed=1")
    sentences = findings.along(COUNTS, trials, "samples_per_class", {})
    assert sentences == ["Along samples per class no trials that finished can be compared."]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("weight=0.0", "The effect of the teacher is unknown: no trials can be compared."),
        ("weight=0.[59]", "The effect of the teacher is unknown: no trials can be compared."),
        ("weight=0.9", "At teacher weight 0.9 every trial failed."),
    ],
)
def test_a_teacher_is_compared_only_with_heads_that_finished(pattern: str, sentence: str) -> None:
    taught = study(
        teacher_layer="block5_pool",
        teacher_weight=[0.0, 0.5, 0.9],
        samples_per_class=2,
        seed=[0, 1],
    )
    assert sentence in findings.sentences(taught, failed_trials(taught, pattern), {})


@pytest.mark.parametrize("patterns", [("class=4",), ("seed=1",), (".",), ("class=2,seed=0", "=8")])
def test_no_sentence_holds_a_number_that_is_none(patterns: tuple[str, ...]) -> None:
    for every in (COUNTS, SOME):
        trials = failed_trials(every, *patterns)
        sentences = findings.sentences(every, trials, {})
        sentences += findings.along(every, trials, "samples_per_class", {})
        assert not [one for one in sentences if "nan" in one.lower()]


def written(folder: Any, params: Params, *patterns: str) -> str:
    folders = folders_in(folder)
    measure(params, folders)
    for name, each in params.studies.items():
        records.write(each, fail(make_record(each), *patterns), folders["results"] / name)
    write_report(params, folder, **folders)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("published_as", ["caltech256", None])
def test_a_page_of_failures_only_is_a_page(tmp_path, published_as: str | None) -> None:
    page = written(tmp_path, make_params(published_as, {"s": DECAY}), ".")
    seen = text(page)
    assert "Every trial failed, so there is nothing to compare." in seen
    assert seen.count(SENTENCE) == 12
    assert not re.search(r"\bnan\b", " ".join([seen, *alt_texts(page)]), re.IGNORECASE)


def test_the_page_lists_the_trials_that_failed_and_says_why(tmp_path) -> None:
    page = written(tmp_path, make_params("caltech256", {"s": DECAY, "t": {}}), "decay=10")
    seen = text(page)
    assert seen.count("Trials that failed") == 1
    assert f"samples_per_class=2,seed=0,weight_decay=10.0: {SENTENCE}" in seen
    assert seen.count(f": {SENTENCE}") == 6
    assert " | failed: 3 of 3 trials | " in seen
    assert "samples_per_class=2,seed=0,weight_decay=10.0 | 0 | failed | " in seen
    assert not re.search(r"\bnan\b", " ".join([seen, *alt_texts(page)]), re.IGNORECASE)


def test_a_page_without_failures_does_not_speak_of_them(page) -> None:
    assert "failed" not in text(page)

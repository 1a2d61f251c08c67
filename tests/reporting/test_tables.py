"""The table that the page and the terminal show."""

import pandas as pd

from vgg16_transfer.heads.records import AVERAGED, Record
from vgg16_transfer.params import check_params
from vgg16_transfer.reporting.tables import narrow, table

STUDY = check_params(
    {
        "backbone": {"weights": "random-conv"},
        "datasets": {
            "animals": {
                "layers": ["block5_pool"],
                "split": {"seeds": [0, 1, 2], "train_per_class": 4},
            }
        },
        "studies": {"s": {"dataset": "animals", "samples_per_class": [2, 4], "seed": [0, 1, 2]}},
    }
).studies["s"]


def record(**columns: list[float]) -> Record:
    """A record in which all splits test on the same four pictures."""
    settings = pd.DataFrame([trial.model_dump() for trial in STUDY.trials()])
    names = [STUDY.trial_name(trial) for trial in STUDY.trials()]
    trials = settings.assign(trial=names, **dict.fromkeys(AVERAGED, 0.25)).assign(**columns)
    pictures = [{"trial": name, "path": f"{n}.jpg"} for name in names for n in range(4)]
    nothing, classes = pd.DataFrame(), pd.DataFrame({"class_name": list("abcdef")})
    return Record(trials, nothing, pd.DataFrame(pictures), nothing, classes)


def test_a_table_is_about_percent() -> None:
    rows = table(STUDY, record(accuracy=[0.5, 0.6, 0.7, 1.0, 1.0, 1.0]))
    assert [row["samples per class"] for row in rows] == [2, 4]
    assert [row["accuracy, %"] for row in rows] == ["60.0 ± 10.0", "100.0 ± 0.0"]
    assert [row["train, %"] for row in rows] == ["25.0", "25.0"]
    assert [row["splits"] for row in rows] == [3, 3]
    assert [row["test pictures"] for row in rows] == [4, 4]
    # By hand: 4.303 is the quantile of t with two degrees of freedom; 10 / √3 is the error.
    assert [row["95 % interval"] for row in rows] == ["35.2 to 84.8", "100.0 to 100.0"]


def test_top_5_is_left_out_of_five_classes_or_fewer() -> None:
    six = record()
    five = six._replace(per_class=six.per_class.head(5))
    assert "top 5, %" in table(STUDY, six)[0]
    assert "top 5, %" not in table(STUDY, five)[0]


def test_class_recall_is_shown_only_where_it_differs_from_accuracy() -> None:
    same = record()
    other = record(mean_class_recall=[0.25, 0.25, 0.25, 0.25, 0.25, 0.5])
    assert "class recall, %" not in table(STUDY, same)[0]
    assert [row["class recall, %"] for row in table(STUDY, other)] == ["25.0 ± 0.0", "33.3 ± 14.4"]


def test_a_narrow_table_leaves_out_counts_that_are_the_same_everywhere() -> None:
    rows = [{"accuracy, %": "1", "splits": 3, "test pictures": count} for count in (4, 5)]
    assert list(narrow(rows)[0]) == ["accuracy, %", "test pictures"]
    assert list(narrow(rows[:1])[0]) == ["accuracy, %"]


def test_a_teachers_accuracy_stands_beside_its_students() -> None:
    taught = record(teacher_accuracy=[0.9, 0.8, 0.7, float("nan"), float("nan"), float("nan")])
    assert [row["teacher, %"] for row in table(STUDY, taught)] == ["80.0", ""]

"""The table that the page and the terminal show."""

import pandas as pd

from vgg16_transfer.heads.records import AVERAGED
from vgg16_transfer.params import check_params
from vgg16_transfer.reporting.tables import table

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


def trials(**columns: list[float]) -> pd.DataFrame:
    settings = pd.DataFrame([trial.model_dump() for trial in STUDY.trials()])
    names = [STUDY.trial_name(trial) for trial in STUDY.trials()]
    return settings.assign(trial=names, **dict.fromkeys(AVERAGED, 0.25), **columns)


def test_a_table_is_about_percent() -> None:
    rows = table(STUDY, trials().assign(accuracy=[0.5, 0.6, 0.7, 1.0, 1.0, 1.0]))
    assert [row["samples per class"] for row in rows] == [2, 4]
    assert [row["accuracy, %"] for row in rows] == ["60.0 ± 10.0", "100.0 ± 0.0"]
    assert [row["train, %"] for row in rows] == ["25.0", "25.0"]
    assert [row["seeds"] for row in rows] == [3, 3]


def test_a_teachers_accuracy_stands_beside_its_students() -> None:
    taught = trials(teacher_accuracy=[0.9, 0.8, 0.7, float("nan"), float("nan"), float("nan")])
    assert [row["teacher, %"] for row in table(STUDY, taught)] == ["80.0", ""]

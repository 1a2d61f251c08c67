"""A trial of ``end_to_end`` may end before its last epoch."""

from typing import Any

import keras
import pytest
from tests.heads import small
from tests.heads.small import Killed, Watching, contents, make_study

from vgg16_transfer.heads import end_to_end, records
from vgg16_transfer.images.manifests import ManifestError

AXES: dict[str, Any] = {"schedule": "constant", "epochs": 12}
AXES |= {"optimizer": "sgd", "learning_rate": 5.0}  # too large a step: the loss goes up and down


def stops_at(losses: list[float], patience: int) -> int:
    """The epoch after which Keras would stop a training with these losses."""
    model = keras.Sequential()
    callback = keras.callbacks.EarlyStopping("val_loss", patience=patience)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if getattr(model, "stop_training", False):
            return epoch + 1
    return len(losses)


def test_training_stops_where_keras_would_with_the_head_of_that_epoch(
    small_inputs, tmp_path, monkeypatch
) -> None:
    patience = 3
    whole, stopping = Watching(), Watching()
    small.train(make_study(**AXES), small_inputs, tmp_path / "whole", whole)
    last = stops_at([row["validation_loss"] for row in whole.measured], patience)
    assert patience < last < 12

    stopped = make_study(**AXES, early_stopping=patience)
    small.train(stopped, small_inputs, tmp_path / "stopped", stopping)
    assert stopping.measured == whole.measured[:last]
    (trial,) = records.read(tmp_path / "stopped" / "results" / "s").trials.to_dict("records")
    assert trial["status"] == "finished"

    small.train(make_study(**AXES | {"epochs": last}), small_inputs, tmp_path / "short")
    left, expected = (contents(tmp_path / folder) for folder in ("stopped", "short"))
    for path in ("heads/s/only.keras", "results/s/history.csv", "results/s/predictions.csv"):
        assert left[path] == expected[path]

    with pytest.raises(Killed):
        small.train(stopped, small_inputs, tmp_path / "again", Watching(last))
    monkeypatch.setattr(end_to_end, "_read", lambda *_: pytest.fail("it went on"))
    small.train(stopped, small_inputs, tmp_path / "again")
    assert contents(tmp_path / "again") == left


def test_a_loss_that_only_improves_stops_nothing(small_inputs, tmp_path) -> None:
    watching = Watching()
    study = make_study(optimizer="sgd", learning_rate=1e-4, epochs=3, early_stopping=1)
    small.train(study, small_inputs, tmp_path, watching)
    losses = [row["validation_loss"] for row in watching.measured]
    assert sorted(losses, reverse=True) == losses
    assert watching.epochs == [1, 2, 3]


def test_a_source_that_gives_no_validation_pictures_is_named(small_inputs, tmp_path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    inputs = small.make_inputs(folder, ["train"] * 4 + ["test"])
    with pytest.raises(ManifestError) as caught:
        small.train(make_study(early_stopping=1), inputs, tmp_path)
    assert str(caught.value) == (
        f"{inputs.splits / '0.csv'}: has no validation pictures, which studies.s.early_stopping "
        "needs; set datasets.d.split.validation_per_class"
    )

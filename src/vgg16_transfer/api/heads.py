"""Heads trained on features, and studies of many of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vgg16_transfer.api import html
from vgg16_transfer.api.checked import STUDY, check
from vgg16_transfer.api.predictions import Asked, ask, files_in
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import base, classifier, model_files, records
from vgg16_transfer.heads.classifier import Recipe
from vgg16_transfer.heads.saved import MadeOf
from vgg16_transfer.heads.selection import choose
from vgg16_transfer.heads.studies import Streamed, digest, ranks_seen, train_study, train_trial
from vgg16_transfer.heads.watching import Progress
from vgg16_transfer.params import ParamsError
from vgg16_transfer.reporting.study_figures import FIGURES, Drawn
from vgg16_transfer.reporting.tables import table
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import keras
    from matplotlib.figure import Figure

    from vgg16_transfer.api.activations import Features
    from vgg16_transfer.api.predictions import Predictions
    from vgg16_transfer.heads.classifier import Classifier
    from vgg16_transfer.heads.studies import Material
    from vgg16_transfer.params import Study, Trial

_TOP = 5
_MISTAKES = 6


@dataclass(frozen=True, repr=False)
class Head:
    """A trained head.

    Attributes:
        trial: Its setting.
        class_names: Class names, in the order of the outputs.
        measures: What was measured on test pictures, by name; see docs/training.md.
        history: One row per epoch: the measures of training, validation and test pictures.
        predictions: One row per test picture: ``path``, ``true``, ``predicted``, ``probability``.
    """

    trial: Trial
    class_names: tuple[str, ...]
    measures: dict[str, float]
    history: pd.DataFrame
    predictions: pd.DataFrame
    _head: base.Head
    _features: Features
    _made_of: MadeOf

    @property
    def accuracy(self) -> float:
        """Share of test pictures that are classified correctly, 0 to 1."""
        return self.measures["accuracy"]

    @functools.cached_property
    def model(self) -> keras.Model:
        """Flattened activations, shape (n, height * width * channels) → probabilities.

        Their shape is (n, classes).
        """
        return self._head.to_keras()

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The network and the head together: bytes of a picture → probabilities."""
        backbone = self._features.backbone
        recipe = Recipe(
            backbone.network,
            self._made_of.layer,
            backbone.image_size,
            backbone.resize,
            backbone.dtype,
            self.class_names,
        )
        return classifier.make(recipe, self._features.network, self.model)

    def predict(
        self, pictures: str | Path | bytes | Iterable[str | Path], *, top: int = _TOP
    ) -> Predictions:
        """Classifies pictures.

        Args:
            pictures: A picture, a folder of pictures, or several of them; or the bytes of one
                picture.
            top: Number of classes to keep for each picture.

        Returns:
            The most likely classes of each picture. Pictures that can't be read are among its
            ``mistakes``.
        """
        files: Iterable[Asked]
        if isinstance(pictures, bytes):
            files = [Asked("picture", lambda: pictures)]
        else:
            several = [pictures] if isinstance(pictures, str | Path) else pictures
            files = files_in(Path(path).expanduser() for path in several)
        return ask(files, self.class_names, self.classifier.probabilities, top)

    def save(self, path: str | Path) -> Path:
        """Writes the head as a ``.keras`` file, which holds its class names too.

        Args:
            path: File to write; its name ends in ``.keras``.

        Raises:
            InputError: The name has another ending, or the file can't be written.
        """
        out = Path(path).expanduser()
        if out.suffix != ".keras":
            raise InputError(f"{path}: a head's file ends in .keras")
        self._head.save(out, self._made_of)
        return out

    def __repr__(self) -> str:
        return f"<Head {self.trial.head} on {self._made_of.layer}: {self._summary}>"

    @property
    def _summary(self) -> str:
        return (
            f"{percent(self.accuracy)} % of {len(self.predictions)} test pictures are right, from "
            f"{self.trial.samples_per_class} pictures of each class"
        )

    def _repr_html_(self) -> str:
        """What was measured, and a few pictures that were classified wrongly."""
        rows = [[html.text(name), f"{value:.4f}"] for name, value in self.measures.items()]
        measures = html.table(["measure", "of test pictures"], rows)
        return f"<p>{self._summary}</p>{measures}{self._mistakes()}"

    def _mistakes(self) -> str:
        """The test pictures that the head is most wrong about."""
        wrong = self.predictions[self.predictions["true"] != self.predictions["predicted"]]
        if wrong.empty:
            return ""
        shown = wrong.sort_values(["probability", "path"], ascending=[False, True]).head(_MISTAKES)
        pictures = self._features.data.thumbnails([str(path) for path in shown["path"]])
        columns = [pictures, shown["true"], shown["predicted"], shown["probability"]]
        rows = [
            [picture, html.text(true), f"{html.text(predicted)}, {percent(float(sure))} %"]
            for picture, true, predicted, sure in zip(*columns, strict=True)
        ]
        return html.table(["most wrong", "is", "taken for"], rows)


@dataclass(frozen=True, repr=False)
class Results:
    """A study: what was measured at each point of its grid.

    Attributes:
        study: The study.
        record: Everything that was measured; see :mod:`~vgg16_transfer.heads.records`.
    """

    study: Study
    record: records.Record
    _features: Features
    _heads: Path

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial: its setting and its measures."""
        return self.record.trials

    @property
    def table(self) -> pd.DataFrame:
        """Means over the splits in per cent, one row per point of the grid."""
        return pd.DataFrame(table(self.study, self.record))

    def plot(self) -> Figure:
        """Test accuracy against the study's first axis, with 95 % intervals."""
        return FIGURES[0].draw(Drawn(self.study, self.record))

    def best(self) -> Head:
        """The head with the highest accuracy on validation pictures.

        Raises:
            InputError: There are no validation pictures, or all trials failed.
        """
        chosen = choose(self.study, self.record)
        rows = {
            name: frame[frame["trial"] == chosen.name].drop(columns="trial").reset_index(drop=True)
            for name, frame in self.record._asdict().items()
        }
        measured = rows["trials"].iloc[0][list(records.AVERAGED)].astype(float).to_dict()
        material = _material(self._features, chosen.trial)
        return _head(
            self._features,
            chosen.trial,
            material,
            {name: value for name, value in measured.items() if value == value},  # noqa: PLR0124
            (rows["history"], rows["predictions"]),
            model_files.KerasHead(model_files.load(self._heads / f"{chosen.name}.keras")),
        )

    def __repr__(self) -> str:
        return f"<Results of {len(self.trials)} trials>\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        """The figure, and the table below it."""
        figure = FIGURES[0]
        drawn = Drawn(self.study, self.record)
        failed = self.trials[records.has_failed(self.trials)]
        failures = "".join(f"<p>failed: {html.text(one)}</p>" for one in failed["failure"])
        shown = html.picture(figure.draw(drawn), figure.describe(drawn))
        return shown + self.table.to_html(index=False) + failures


def fit(
    features: Features, *, samples_per_class: int | None = None, seed: int = 0, **settings: Any
) -> Head:
    """Trains one head, and measures it on test pictures.

    Args:
        features: What it is trained on.
        samples_per_class: Training pictures of each class; all of the split by default.
        seed: Seed of the split and of the order of the batches.
        settings: Further keys of a study in params.yaml, one value each: ``head``, ``layer``,
            ``epochs``, ``learning_rate`` … docs/params.md explains all of them.

    Raises:
        InputError: A setting is wrong, or the head's loss became infinite.
    """
    study = _study(features, {"samples_per_class": samples_per_class, "seed": seed, **settings})
    if study.axes:
        raise ParamsError(
            "settings", [f"{study.axes[0]}: fit takes one value; study takes several"]
        )
    (trial,) = study.trials()
    if trial.approach != "features":
        raise ParamsError(
            "settings", ["approach: fit trains on features; study has other approaches"]
        )
    material = _material(features, trial)
    trained = train_trial(
        trial,
        material,
        functools.partial(_of_teacher, features, trial),
        _streamed(features),
        Progress(),
    )
    if trained.head is None:
        raise InputError(f"{trained.outcome.failure}")
    measured = trained.outcome.measured
    frames = (trained.history, trained.predictions)
    return _head(features, trial, material, measured, frames, trained.head)


def study(features: Features, **settings: Any) -> Results:
    """Trains a head at every point of a grid.

    Heads and measures are kept: the same study is not trained again.

    Args:
        features: What the heads are trained on.
        settings: Keys of a study in params.yaml. A list makes a key an axis of the grid, as in
            ``samples_per_class=[2, 4, 8], seed=range(10)``.

    Raises:
        InputError: A setting is wrong.
    """
    asked = _study(features, settings)
    stores = {features.backbone.network: features.path}
    made_of = digest(asked, features.data.splits, stores)
    folder = features.data.folder / "studies" / made_of[:12]
    heads, results = folder / "heads", folder / "results"
    if not (heads.exists() and results.exists()):
        train_study(
            asked,
            splits=features.data.splits,
            features=stores,
            streamed=_streamed(features),
            heads=heads,
            results=results,
        )
    return Results(asked, records.read(results), features, heads)


def _study(features: Features, settings: Mapping[str, Any]) -> Study:
    data = features.data
    given = {
        key: list(value) if isinstance(value, range | tuple) else value
        for key, value in settings.items()
        if value is not None
    }
    dataset = data.settings.model_copy(update={"layers": list(features.layers)})
    backbone = features.backbone.model_dump()
    return check(data.name, dataset, backbone=backbone, study=given).study(STUDY)


def _material(features: Features, trial: Trial) -> Material:
    return features.material(trial.layer, trial.seed, ranks_seen(trial))


def _of_teacher(features: Features, trial: Trial, _: str, layer: str, seed: int) -> Material:
    return features.material(layer, seed, ranks_seen(trial))


def _streamed(features: Features) -> Streamed:
    return Streamed(features.data.source, {features.backbone.network: features.weights})


def _head(
    features: Features,
    trial: Trial,
    material: Material,
    measured: Mapping[str, float],
    frames: Sequence[pd.DataFrame],
    head: base.Head,
) -> Head:
    names = tuple(map(str, material.class_names))
    made_of = MadeOf(material.layer, material.recipe, names, material.split_md5)
    history, predictions = frames
    return Head(trial, names, dict(measured), history, predictions, head, features, made_of)

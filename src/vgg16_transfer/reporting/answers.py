"""The answer for a dataset: accuracy against samples per class, with published accuracies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.reporting import alternatives, findings, intervals, learning_curves, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Dataset, Study
    from vgg16_transfer.reporting.published import Curve, Published, Source

AXIS = "samples_per_class"


class Row(NamedTuple):
    """A table row with published numbers.

    Attributes:
        method: Method that was measured.
        numbers: The numbers, as text.
        source: Authors, year and place of the publication.
        remark: What a reader must know before comparing.
    """

    method: str
    numbers: str
    source: str
    remark: str


def lines(study: Study, record: Record) -> dict[str, pd.DataFrame]:
    """A study's curves against samples per class by name: one curve per point of the other axes."""
    summary = intervals.summarise(study, record)
    others = [axis for axis in study.compared if axis != AXIS]
    if not others:
        return {study.name: summary}
    return {
        f"{study.name}: "
        + ", ".join(f"{axis} {value}" for axis, value in zip(others, point, strict=True)): line
        for point, line in summary.groupby(others, sort=False)
    }


def main(studies: Sequence[Study]) -> list[Study]:
    """The studies that the answer shows: those with one curve or, if there are none, all.

    Other studies have their curves in their own cards.
    """
    return [study for study in studies if _is_one_curve(study)] or list(studies)


def laws(studies: Sequence[Study], measured: Mapping[str, Record]) -> dict[str, pd.DataFrame]:
    """Fitted learning curves to draw, by name of a curve of :func:`lines`.

    A study with other axes has several curves, which are not fitted.
    """
    fitted = {
        study.name: learning_curves.fit(*_measured(measured[study.name]))
        for study in studies
        if _is_one_curve(study)
    }
    return {name: learning_curves.drawn(law) for name, law in fitted.items() if law is not None}


def sentences(
    name: str,
    dataset: Dataset,
    studies: Sequence[Study],
    measured: Mapping[str, Record],
    numbers: Published,
) -> list[str]:
    """Sentences about a dataset's curves, and about whether published numbers are comparable."""
    texts = []
    for study in studies:
        record = measured[study.name]
        start = "" if len(studies) == 1 else f"{study.name}: "
        along = findings.along(study, record.trials, AXIS, intervals.test_sets(record))
        texts.append(start + along[0])
        if _is_one_curve(study):
            law = learning_curves.sentences(*_measured(record))
            texts += [start + " ".join(law)] if law else []
    texts += dataset.remarks
    if dataset.published_as is None:
        key = f"datasets.{name}.published_as"
        return [*texts, f"No published numbers are shown, because {key} names no known dataset."]
    known = numbers.datasets[dataset.published_as]
    classes = max(measured[study.name].per_class["class_name"].nunique() for study in studies)
    if 0 < classes < known.comparable_from:  # it is 0 if no head finished
        subset = f"{name} has {classes} of the {known.classes} classes of {known.title}, "
        return [*texts, f"{subset}so the published numbers are shown but are not comparable."]
    return texts


def curves(dataset: Dataset, numbers: Published) -> list[Curve]:
    """Published curves to show together with our curves."""
    return numbers.curves(dataset.published_as, AXIS, "none")


def table(ours: Mapping[str, pd.DataFrame], published: Sequence[Curve]) -> list[dict[str, str]]:
    """Accuracies in % by training pictures per class: one row per curve, ours first."""
    rows: list[dict[str, Any]] = []
    for name, line in ours.items():
        cells = {float(row[AXIS]): _cell(row) for row in line.to_dict("records")}
        rows.append({"method": name, "cells": cells})
    for curve in published:
        cells = {
            point.at: f"{point.accuracy:g}" + (f" ± {point.spread:g}" if point.spread else "")
            for point in curve.points
            if point.at is not None
        }
        rows.append({"method": curve.method, "cells": cells})
    columns = sorted({at for row in rows for at in row["cells"]})
    return [
        {"accuracy, % at": row["method"]} | {f"{at:g}": row["cells"].get(at, "") for at in columns}
        for row in rows
        if row["cells"]
    ]


def key_table(ours: Mapping[str, pd.DataFrame]) -> dict[str, list[dict[str, str]]]:
    """Our accuracies in %, by curve: one row per number of pictures, so that a phone shows all."""
    return {
        name: [
            {
                "pictures per class": f"{row[AXIS]:g}",
                "accuracy, %": _cell(row),
                "95 % interval": tables.interval(row),
            }
            for row in line.sort_values(AXIS).to_dict("records")
        ]
        for name, line in ours.items()
    }


def sources(published: Sequence[Curve], numbers: Published) -> list[Row]:
    """Table rows with the numbers and sources of published curves."""
    return [
        Row(
            curve.method,
            alternatives.points(curve),
            _source(curve.source, curve.place, numbers),
            curve.remark,
        )
        for curve in published
    ]


def cited(datasets: Iterable[Dataset], numbers: Published) -> list[Source]:
    """Sources of all published numbers on the page, if it shows these datasets."""
    known = {dataset.published_as for dataset in datasets}
    keys = {check.source for check in numbers.gradient_checks}
    keys |= {curve.source for curve in numbers.accuracies if curve.dataset in known}
    keys |= {time.source for time in numbers.wall_times if time.dataset in known}
    return [source for key, source in numbers.sources.items() if key in keys]


def others(dataset: Dataset, numbers: Published) -> list[Row]:
    """Table rows with other published numbers on a dataset: along other axes, and wall times."""
    rows = sources(numbers.curves(dataset.published_as, "layer", "temperature"), numbers)
    for time in numbers.times(dataset.published_as):
        minutes = ", ".join(f"{value:g} min at {count}" for count, value in time.minutes.items())
        source = _source(time.source, time.place, numbers)
        rows.append(Row(f"wall time: {time.method}", minutes, source, ""))
    return rows


def _is_one_curve(study: Study) -> bool:
    return study.compared == (AXIS,)


def _measured(record: Record) -> tuple[pd.DataFrame, int | None]:
    """Trials, and the number of test pictures of the smallest split."""
    pictures = record.predictions.groupby("trial").size()
    return record.trials, int(pictures.min()) if len(pictures) else None


def _source(key: str, place: str, numbers: Published) -> str:
    source = numbers.sources[key]
    return f"{source.authors} {source.year}, {place}"


def _cell(row: Mapping[Any, Any]) -> str:
    return alternatives.accuracy(row).replace(" %", "")

"""[stage] Results → reports/report.html, a self-contained page, and reports/figures/<study>/."""

from __future__ import annotations

import base64
import math
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from vgg16_transfer.heads import records
from vgg16_transfer.reporting import figures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Dataset, Study


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        alternative: What it shows, for those who can't see it.
        uri: Its bytes, as a data URI.
    """

    alternative: str
    uri: str


def write_report(
    datasets: Mapping[str, Dataset],
    studies: Mapping[str, Study],
    results: Path,
    filters: Path,
    out: Path,
) -> None:
    """Writes the page and the figures it shows.

    Args:
        datasets: By name.
        studies: By name, in the order of the page.
        results: Folder of the studies' records.
        filters: Folder of one folder of pictures per dataset.
        out: Folder to write ``report.html`` and ``figures/`` to.

    Raises:
        RecordError: A study has no results.
    """
    measured = {study: records.read(results / study) for study in studies}
    shutil.rmtree(out / "figures", ignore_errors=True)
    sections = []
    for name, study in studies.items():
        shown = []
        for title, figure in study_figures(study, measured[name]).items():
            path = out / "figures" / name / f"{title}.png"
            figures.save(figure, path)
            shown.append(_picture(path, f"{name}: {title.replace('_', ' ')}"))
        rows = table(study, measured[name].trials)
        sections.append({"study": study, "table": rows, "pictures": shown})
    environment = Environment(
        loader=PackageLoader("vgg16_transfer.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        sections=sections,
        filters={
            name: [
                _picture(path, f"{name}: {path.stem.replace('_', ' ')}")
                for path in _in_network_order((filters / name).glob("*.png"))
            ]
            for name in datasets
        },
    )
    unnamed = out / ".report.html"
    unnamed.write_text(page, encoding="utf-8")
    unnamed.replace(out / "report.html")


def study_figures(study: Study, record: Record) -> dict[str, Figure]:
    """A study's figures by file name: the answer first, then the curves."""
    summary = records.summarise(study, record.trials)
    axis = "samples_per_class" if "samples_per_class" in study.compared else study.compared[0]
    points = record.trials.set_index("trial").apply(
        lambda row: records.point_name(study, row), axis="columns"
    )
    return {
        f"accuracy_against_{axis}": figures.accuracy_against(summary, axis),
        "accuracy_curves": figures.study_curves(record.history, points, "accuracy"),
        "loss_curves": figures.study_curves(record.history, points, "loss"),
    }


def table(study: Study, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """A study's results for people to read: one row per point of the grid."""
    summary = records.summarise(study, trials)
    return [
        {axis.replace("_", " "): row[axis] for axis in study.compared}
        | {
            "accuracy, %": _with_spread(row, "accuracy"),
            "class recall, %": _with_spread(row, "mean_class_recall"),
            "top 5, %": _with_spread(row, "top5_accuracy"),
            "train, %": f"{100 * row['train_accuracy_mean']:.1f}",
            "seeds": row["seeds"],
        }
        for row in summary.to_dict("records")
    ]


def _with_spread(row: Mapping[Any, Any], measure: str) -> str:
    mean, std = 100 * row[f"{measure}_mean"], 100 * row[f"{measure}_std"]
    return f"{mean:.1f}" if math.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def _picture(path: Path, alternative: str) -> Picture:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return Picture(alternative, f"data:image/png;base64,{encoded}")


def _in_network_order(paths: Any) -> list[Path]:
    """The probe first, then the kernels, then the convolutions from the picture upwards."""
    return sorted(
        paths, key=lambda path: (path.stem.startswith("block"), path.stem != "probe", path)
    )

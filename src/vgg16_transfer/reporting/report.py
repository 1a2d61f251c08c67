"""[stage] Results → reports/report.html, a self-contained page, and reports/figures/.

The page depends only on its inputs, so it has no dates and no run ids. It has placeholders for run
ids, which :func:`~vgg16_transfer.reporting.run_links.with_runs` fills in.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.engines import DEFAULT_ENGINE
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import records
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.params import Trial
from vgg16_transfer.reporting import (
    alternatives,
    answers,
    confusions,
    data_cards,
    embedded,
    failures,
    figures,
    findings,
    headlines,
    intervals,
    near_duplicates,
    published,
    reading,
    run_links,
    study_figures,
    tables,
)
from vgg16_transfer.reporting.study_figures import Drawn
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Dataset, Params, Study
    from vgg16_transfer.reporting.embedded import Picture
    from vgg16_transfer.reporting.published import Curve, Published

_EXPONENT = re.compile(r"\bn\^(−?\d+\.\d+)")
_GRADIENTS = {"weights": str, "layer": str, "checked": int, "average": float, "max": float}
ACCURACIES = "accuracies.csv"
_ALWAYS_LISTED = ("layer", "samples_per_class", "epochs")


def write_report(
    params: Params,
    out: Path,
    *,
    results: Path,
    splits: Path,
    filters: Path,
    gradients: Path,
    explained: Path,
) -> None:
    """Writes the page, its figures, and the mean accuracies of all studies for dvc plots.

    Filters, gradients, explained pictures, near-duplicates and data cards are optional: the page
    leaves out what is missing.

    Args:
        params: Datasets, networks and studies; the page has them in this order.
        out: Folder to write ``report.html``, ``figures/`` and ``accuracies.csv`` to.
        results: Folder with one folder per study: its record.
        splits: Folder with one folder per dataset: its manifests and near-duplicates; and with one
            file per dataset: its data card.
        filters: Folder with one folder per dataset: pictures of kernels and activations.
        gradients: Folder with one CSV file per dataset: its gradient check.
        explained: Folder with one folder per study: pictures that explain a head.

    Raises:
        ReadError: A study has no results, its split is missing, or a file is damaged.
    """
    datasets, studies = params.datasets, params.studies
    numbers = published.read()
    measured = {name: reading.record(results / name, study) for name, study in studies.items()}
    lineages = {
        name: lineage(study, measured[name], results=results, splits=splits)
        for name, study in studies.items()
    }
    explained_pictures = {name: embedded.explained(explained / name, name) for name in studies}
    filter_pictures = {name: embedded.filters(filters / name, name) for name in datasets}
    gradient_rows = {
        name: reading.table(path, _GRADIENTS, f"dvc repro gradients@{name}").to_dict("records")
        for name in datasets
        if (path := gradients / f"{name}.csv").exists()
    }
    pairs_by_dataset = {
        name: near_duplicates.read(splits / name, name, dataset.split.seeds)
        for name, dataset in datasets.items()
    }
    cards = {
        name: data_cards.read(splits / name, filters / name, name, dataset.split.seeds[0])
        for name, dataset in datasets.items()
    }
    environment = Environment(
        loader=PackageLoader("vgg16_transfer.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = _typeset
    environment.filters["scientific"] = _scientific
    environment.filters["percent"] = percent
    with replacing(out / "figures") as folder:
        folder.mkdir()
        page = environment.get_template("report.html.j2").render(
            answers=[
                _answer(name, dataset, sample_studies, measured, numbers, folder)
                for name, dataset in datasets.items()
                if (sample_studies := _sample_studies(name, studies))
            ],
            sections=[
                {
                    "study": study,
                    "headline": headlines.headline(study, measured[name]),
                    "setting": setting(study),
                    "findings": findings.sentences(
                        study, measured[name].trials, intervals.test_sets(measured[name])
                    ),
                    "table": tables.narrow(tables.table(study, measured[name])),
                    "confusions": confusions.confusions(study, measured[name]),
                    "pictures": _study_pictures(
                        Drawn(study, measured[name], _beside(study, datasets, numbers)), folder
                    ),
                    "failures": failures.sentences(measured[name].trials),
                    "explained": explained_pictures[name],
                    "lineage": lineages[name],
                }
                for name, study in studies.items()
            ],
            networks=_networks(params),
            about={
                name: (cards[name], pairs_by_dataset[name], filter_pictures[name])
                for name in datasets
                if cards[name] or pairs_by_dataset[name] or filter_pictures[name]
            },
            gradients=gradient_rows,
            published=numbers,
            cited=answers.cited(datasets.values(), numbers),
            run_marker=run_links.run_marker,
            lock_marker=run_links.lock_marker,
        )
    with replacing(out / "report.html") as fresh:
        fresh.write_text(page, encoding="utf-8")
    with replacing(out / ACCURACIES) as fresh:
        records.write_frame(tables.accuracies(measured, studies), fresh)


def setting(study: Study) -> list[str]:
    """Settings of a study that vary, differ from the default, or are in ``_ALWAYS_LISTED``."""
    settings = []
    for key, values in study.grid.items():
        is_default = values == (Trial.model_fields[key].default,)
        if not is_default or key in _ALWAYS_LISTED:
            listed = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
            settings.append(f"{key.replace('_', ' ')} {listed}")
    return settings


def lineage(study: Study, record: Record, *, results: Path, splits: Path) -> dict[str, Any]:
    """Stage, files with their md5, and trials that a study's numbers come from.

    Args:
        study: The study.
        record: Its results.
        results: Folder with one folder per study: its record.
        splits: Folder with one folder per dataset: its manifests.

    Raises:
        ReadError: A file is missing or can't be read.
    """
    files = {}
    for seed in study.grid["seed"]:
        path = splits / study.dataset / f"{seed}.csv"
        with reading.checked(path, f"dvc repro splits@{study.dataset}"):
            files[f"data/splits/{study.dataset}/{seed}.csv"] = file_md5(path)
    path = results / study.name / "trials.csv"
    with reading.checked(path, f"dvc repro train@{study.name}"):
        files[f"results/{study.name}/trials.csv"] = file_md5(path)
    trials = record.trials[["trial", "seed", "accuracy"]]
    return {
        "stage": f"train@{study.name}",
        "files": files,
        "trials": trials.assign(failed=records.has_failed(record.trials)).to_dict("records"),
    }


def _networks(params: Params) -> list[str]:
    """A sentence on each network that a study uses: what it learned before."""
    used = {one for study in params.studies.values() for one in study.grid["backbone"]}
    sentences = set()
    for settings in (params.backbones[one] for one in used):
        title, weights = NETWORKS[settings.network].title, settings.weights
        if weights.startswith("imagenet"):
            sentences.add(
                f"{title} was trained on the photographs of ImageNet. It has seen what is in "
                "one of ImageNet's 1,000 classes before."
            )
        elif weights.startswith("random"):
            sentences.add(f"{title} has random weights: it was not trained on anything.")
        else:
            sentences.add(f"{title} has the weights of {PurePath(weights).name}.")
        if settings.engine != DEFAULT_ENGINE:
            sentences.add(
                f"Features of {title} were computed by {settings.engine} in {settings.precision}."
            )
    return sorted(sentences)


def _sample_studies(dataset: str, studies: Mapping[str, Study]) -> list[Study]:
    """Studies of a dataset that vary the number of training pictures per class."""
    return [s for s in studies.values() if s.dataset == dataset and answers.AXIS in s.axes]


def _answer(
    name: str,
    dataset: Dataset,
    studies: Sequence[Study],
    measured: Mapping[str, Record],
    numbers: Published,
    folder: Path,
) -> dict[str, Any]:
    lines = {study.name: answers.lines(study, measured[study.name]) for study in studies}
    main = answers.main(studies)
    ours = {name: line for study in main for name, line in lines[study.name].items()}
    every = {name: line for study in lines.values() for name, line in study.items()}
    published_curves = answers.curves(dataset, numbers)
    laws = answers.laws(studies, measured)
    caption = f"{name}: test accuracy against training pictures per class, with 95 % intervals"
    if laws:
        caption += "; dotted: power law; band: its 95 % prediction interval, from three splits on"
    drawing = _saved(figures.answer(ours, published_curves, laws), folder / f"answer_{name}")
    alternative = alternatives.answer(ours, published_curves, laws)
    table = answers.table(every, published_curves)
    return {
        "dataset": name,
        "sentences": answers.sentences(name, dataset, main, measured, numbers),
        "picture": embedded.drawing(drawing, alternative, caption),
        "key": answers.key_table(ours),
        "table": table if len(every) > len(ours) or published_curves else [],
        "ours": len(every),
        "sources": answers.sources(published_curves, numbers),
        "others": answers.others(dataset, numbers),
    }


def _study_pictures(drawn: Drawn, folder: Path) -> list[Picture]:
    study = drawn.study
    pictures = []
    for figure in study_figures.FIGURES:
        if not figure.has(drawn):
            continue
        path = folder / study.name / study_figures.file_name(figure, study)
        drawing = _saved(figure.draw(drawn), path)
        alternative = f"{study.name}: {figure.describe(drawn)}"
        caption = study_figures.caption(figure, study)
        pictures.append(embedded.drawing(drawing, alternative, caption))
    return pictures


def _saved(figure: Figure, path: Path) -> str:
    """Writes a figure as SVG, for the page, and as PNG, for all else. Returns the former.

    Args:
        figure: The figure.
        path: Path of the files without an ending; a dot is a part of a name.
    """
    drawing, picture = (path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png"))
    figures.save(figure, picture)
    figure.set_layout_engine("none")  # places stay: they are not computed again
    figures.save(figure, drawing)
    return drawing.read_text(encoding="utf-8")


def _beside(study: Study, datasets: Mapping[str, Dataset], numbers: Published) -> list[Curve]:
    """Published curves for a study's main figure.

    Curves along samples per class are shown only in the section of the answer.
    """
    if study_figures.answer_axis(study) != "temperature":
        return []
    return numbers.curves(datasets[study.dataset].published_as, "temperature")


def _typeset(sentence: str) -> Markup:
    """A sentence with raised exponents, and with no break between a number and what follows it."""
    kept = sentence.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
    return Markup(_EXPONENT.sub(r"n<sup>\1</sup>", str(escape(kept))))  # noqa: S704 (escaped)


def _scientific(number: float) -> Markup:
    """A small number, such as 2.58 × 10⁻⁷."""
    digits, _, exponent = f"{number:.2e}".partition("e")
    power = str(int(exponent)).replace("-", "−")
    return Markup(f"{digits}\u00a0×\u00a010<sup>{power}</sup>")  # noqa: S704 (of numbers)

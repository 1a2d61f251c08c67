"""The page says what the studies measured, in one file that needs no network."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import METRICS
from vgg16_transfer.params import Params, Study, check_params
from vgg16_transfer.reporting import study_figures
from vgg16_transfer.reporting.reading import ReadError
from vgg16_transfer.reporting.report import write_report
from vgg16_transfer.reporting.study_figures import Drawn
from vgg16_transfer.rounding import percent

from .conftest import record_of

CLASSES = ["ant", "bee", "cat"]


def make_params(**studies: dict[str, Any]) -> Params:
    dataset = {
        "layers": ["block4_pool", "block5_pool"],
        "split": {"seeds": [0, 1, 2], "train_per_class": 16},
    }
    raw = {
        "backbone": {"weights": "random-conv"},
        "datasets": {"animals": dataset},
        "studies": {
            name: {"dataset": "animals", "epochs": 2} | study for name, study in studies.items()
        },
    }
    return check_params(raw)


def make_record(study: Study) -> records.Record:
    """Heads that take every picture for an ant, but more pictures rightly with every trial."""
    true = [name for name in CLASSES for _ in range(4)]
    of_trials = []
    for index, trial in enumerate(study.trials()):
        right = index % 5 + 4
        predictions = pd.DataFrame(
            {
                "path": [f"{number}.jpg" for number in range(len(true))],
                "true": true,
                "predicted": true[:right] + ["ant"] * (len(true) - right),
                "probability": 0.5,
            }
        )
        of_trials.append(record_of(study, trial, predictions))
    return records.join(of_trials)


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"th", "td"}:
            self.tables[-1][-1].append(data)
        elif self._inside in {"h2", "h3"}:
            self.headings.append(data)

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


class Workspace:
    """The folders that a report is made of."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"
        self.splits = folder / "splits"
        self.out = folder / "reports"
        self.filters = self.out / "filters"

    def measure(self, *studies: Study) -> None:
        for study in studies:
            records.write(study, make_record(study), self.results / study.name)
            for seed in study.grid["seed"]:
                path = self.splits / study.dataset / f"{seed}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"split {seed}", encoding="utf-8")

    def draw_filters(self, dataset: str, *names: str) -> None:
        (self.filters / dataset).mkdir(parents=True)
        for name in names:
            colour = (0, 0, sum(name.encode()) % 256)
            Image.new("RGB", (8, 8), colour).save(self.filters / dataset / f"{name}.png")

    def write(self, params: Params, **studies: Study) -> None:
        write_report(
            replace(params, studies=studies or params.studies),
            self.out,
            results=self.results,
            splits=self.splits,
            filters=self.filters,
            gradients=self.out / "gradients",
            explained=self.out / "explained",
        )

    def text(self) -> str:
        return (self.out / "report.html").read_text(encoding="utf-8")

    def page(self) -> Page:
        return Page(self.text())

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.out.rglob("*") if path.is_file()]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


PARAMS = make_params(
    samples={"samples_per_class": [2, 4], "seed": [0, 1, 2]},
    layers={"layer": ["block4_pool", "block5_pool"]},
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of two studies and the filters of a dataset, drawn once."""
    folder = tmp_path_factory.mktemp("original")
    workspace = Workspace(folder)
    workspace.measure(*PARAMS.studies.values())
    workspace.draw_filters("animals", "block1_conv1", "probe", "kernels", "block1_conv2")
    workspace.write(PARAMS)
    return folder


@pytest.fixture
def written(original, tmp_path) -> Workspace:
    """A copy of that report."""
    shutil.copytree(original, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_a_page_needs_nothing_but_itself(written) -> None:
    linking = {"src", "href", "srcset", "data", "action", "poster"}
    for tag, attributes in written.page().tags:
        assert tag not in {"script", "iframe", "base"}
        for name in linking & attributes.keys():
            assert (attributes[name] or "").startswith(("data:", "#"))
    outside = re.sub(r'src="data:[^"]*"', "", written.text())
    assert "url(" not in outside
    drawings = "".join(f.decode() for name, f in written.files().items() if name.endswith(".svg"))
    assert set(re.findall(r"(?:url\(|href=.)(.)", drawings)) <= {"#", "d"}  # or a data URI
    assert "<script" not in drawings
    assert "@import" not in written.text()


def test_every_picture_says_what_it_shows(written) -> None:
    alt_texts = [str(picture.get("alt") or "") for picture in written.page().images()]
    assert all(alt_texts)
    assert len(set(alt_texts)) == len(alt_texts)
    counts = {
        name: len([alt for alt in alt_texts if alt.startswith(f"{name}: ")])
        for name in PARAMS.studies
    }
    assert counts == {"samples": 4, "layers": 4}  # a single difference is a sentence


def test_pictures_of_the_page_are_those_of_the_folders(written) -> None:
    sources = [str(picture["src"]) for picture in written.page().images()]
    on_page = [unquote(one.partition(",")[2]) for one in sources if "svg+xml" in one]
    files = {name: content for name, content in written.files().items() if name.endswith(".svg")}
    assert sorted(on_page) == sorted(one.decode().replace("\n", " ") for one in files.values())


def test_each_figure_is_there_for_the_page_and_for_slides(written) -> None:
    paths = [path for path in (written.out / "figures").rglob("*") if path.is_file()]
    drawings, pictures = (
        {path.with_suffix("") for path in paths if path.suffix == kind} for kind in (".svg", ".png")
    )
    assert drawings == pictures
    assert len(paths) == 2 * len(drawings) == 18
    assert {"samples", "layers"} == {
        path.name for path in (written.out / "figures").iterdir() if path.is_dir()
    }


def test_filters_are_shown_from_the_picture_upwards(written) -> None:
    texts = [str(picture["alt"]) for picture in written.page().images()]
    shown = [one for one in texts if "animals" in one and "accuracy" not in one]
    starts = [
        "The probe picture",
        "The 64 kernels",
        "Six activation maps of convolution 1 of set 1",
    ]
    assert len(shown) == 4
    assert all(one.startswith(start) for one, start in zip(shown, starts, strict=False))
    assert "convolution 2 of set 1" in shown[3]


def test_headings_are_the_studies_in_the_order_of_the_params(written) -> None:
    studies = [text for text in written.page().headings if text in PARAMS.studies]
    assert studies[:2] == ["samples", "layers"]


def test_the_table_holds_what_metrics_json_holds(written) -> None:
    columns = ["accuracy, %", "95 % interval", "calibration error, %", "train, %"]
    samples, layers = (table for table in written.page().tables if table[0][1:] == columns)
    metrics = json.loads((written.results / "samples" / METRICS).read_text(encoding="utf-8"))
    assert [samples[0][0], layers[0][0]] == ["samples per class", "layer"]
    for row, count in zip(samples[1:], (2, 4), strict=True):
        assert row[0] == str(count)
        accuracy = metrics["samples"][f"samples_per_class={count}"]
        assert row[1].startswith(f"{percent(accuracy)} ± ")
        assert row[3:] == ["75.0 ± 0.0", "75.0"]
    assert [row[0] for row in layers[1:]] == ["block4_pool", "block5_pool"]
    assert [row[1] for row in layers[1:]] == ["33.3", "41.7"]  # one seed has no spread


def test_the_answer_comes_first_and_is_drawn_against_samples_per_class() -> None:
    grid = {"layer": ["block4_pool", "block5_pool"], "samples_per_class": [2, 4]}
    for axes, axis in (
        (grid, "samples_per_class"),
        ({"layer": grid["layer"], "optimizer": ["sgd", "adam"]}, "layer"),
    ):
        study = make_params(s=axes).studies["s"]
        titles = list(study_figures.draw_all(Drawn(study, make_record(study))))
        assert titles[0] == f"accuracy_against_{axis}"
        possible = [study_figures.file_name(figure, study) for figure in study_figures.FIGURES]
        assert titles == [title for title in possible if title in titles]


def test_curves_are_averaged_over_the_seeds_of_a_point() -> None:
    study = PARAMS.studies["samples"]
    (axes,) = study_figures.draw_all(Drawn(study, make_record(study)))["loss_curves"].axes
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["2", "4"]


def test_the_same_results_give_the_same_bytes(written) -> None:
    before = written.files()
    written.write(PARAMS)
    assert written.files() == before


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("imagenet-conv", "VGG16 was trained on the photographs of ImageNet."),
        ("random", "VGG16 has random weights: it was not trained on anything."),
        ("/home/ann/secret/places.weights.h5", "VGG16 has the weights of places.weights.h5."),
    ],
)
def test_the_page_says_what_the_network_learned_before(
    written, weights: str, sentence: str
) -> None:
    backbone = PARAMS.backbone.model_copy(update={"weights": weights})
    written.write(replace(PARAMS, backbones={"vgg16": backbone}))
    assert sentence in written.text()
    assert "secret" not in written.text()


def test_the_page_says_what_computed_the_features_if_it_was_not_tensorflow(written) -> None:
    assert "were computed by" not in written.text()
    other = PARAMS.backbone.model_copy(update={"engine": "openvino", "precision": "int8"})
    written.write(replace(PARAMS, backbones={"vgg16": other}))
    assert "Features of VGG16 were computed by openvino in int8." in written.text()


def test_remarks_on_a_dataset_stand_beside_the_answer(written) -> None:
    assert "templates" not in written.text()
    remarks = {"remarks": ["Half of them are drawn from templates."]}
    animals = PARAMS.datasets["animals"].model_copy(update=remarks)
    written.write(replace(PARAMS, datasets={"animals": animals}))
    answer = written.text().partition('<section id="answer">')[2].partition("</section>")[0]
    assert "<p>Half of them are drawn from templates.</p>" in answer.replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_names_are_text_and_never_html(workspace) -> None:
    name = '<b onclick="x">&\'s'
    study = replace(PARAMS.studies["samples"], name=name, dataset="<evil>")
    workspace.measure(study)
    workspace.draw_filters("animals", "<u>")
    workspace.write(PARAMS, **{name: study})
    page = workspace.page()
    assert name in page.headings
    assert any(str(picture["alt"]).startswith(f"{name}: ") for picture in page.images())
    assert not {"evil", "u"} & {tag for tag, _ in page.tags}
    assert not any("onclick" in attributes for _, attributes in page.tags)


def test_a_study_without_results_is_an_error_that_leaves_the_old_page_alone(written) -> None:
    before = written.files()
    more = make_params(
        samples={"samples_per_class": [2, 4], "seed": [0, 1, 2]}, newer={"epochs": 3}
    )
    with pytest.raises(
        ReadError, match=r"newer/trials.csv: no such file; run dvc repro train@newer"
    ):
        written.write(more)
    assert written.files() == before


def test_a_missing_split_is_an_error_that_leaves_the_old_page_alone(written) -> None:
    before = written.files()
    (written.splits / "animals" / "2.csv").unlink()
    with pytest.raises(
        ReadError, match=r"animals/2.csv: no such file; run dvc repro splits@animals"
    ):
        written.write(PARAMS)
    assert written.files() == before


def test_figures_of_a_study_that_is_gone_are_gone(written) -> None:
    written.write(make_params(layers={"layer": ["block4_pool", "block5_pool"]}))
    assert not (written.out / "figures" / "samples").exists()
    assert "samples" not in written.page().headings


def test_filters_that_were_not_drawn_are_not_missed(workspace) -> None:
    workspace.measure(*PARAMS.studies.values())
    workspace.write(PARAMS)
    assert len(workspace.page().images()) == len(list((workspace.out / "figures").rglob("*.svg")))


def test_nothing_but_the_page_and_its_figures_is_left_behind(written) -> None:
    assert sorted(path.name for path in written.out.iterdir()) == [
        "accuracies.csv",
        "figures",
        "filters",
        "report.html",
    ]

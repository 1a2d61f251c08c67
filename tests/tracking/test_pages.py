import io
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.tracking._tracking_service import utils
from PIL import Image

from vgg16_transfer.params import Study
from vgg16_transfer.reporting.run_links import lock_marker, run_marker
from vgg16_transfer.tracking.known_runs import known_runs
from vgg16_transfer.tracking.mlflow_store import Store, find_store
from vgg16_transfer.tracking.pages import (
    REPORT,
    DamagedError,
    publish_explained,
    publish_filters,
    publish_gradients,
    publish_report,
)

from .conftest import (
    FILTERS,
    Killed,
    Outputs,
    make_lineage,
    make_study,
    outputs_of,
    tell,
    write_outputs,
)

ONE = {"samples_per_class": 2, "seed": [0, 1]}


class Told:
    """A study that MLflow was told of, and what was drawn beside it."""

    def __init__(self, store: Store, study: Study, outputs: Outputs) -> None:
        self.store, self.study, self.outputs = store, study, outputs
        self.lineage = make_lineage(study)
        self.client = store.client()

    def runs(self) -> dict[str, Run]:
        experiment = self.store.experiment(self.client, self.study.dataset)
        return known_runs(self.client, experiment, self.lineage)

    def parent(self) -> Run:
        return self.runs()[""]

    def trials(self) -> dict[str, Run]:
        return {name: run for name, run in self.runs().items() if name}

    def filters(self, digest: str = "b", *, check: bool = False) -> int:
        drawn = make_lineage(self.study, digest, "filters@animals")
        given = self.store, self.study, self.outputs.filters, self.lineage, drawn
        return publish_filters(*given, check=check)

    def gradients(self, digest: str = "b", *, check: bool = False) -> bool:
        drawn = make_lineage(self.study, digest, "gradients@animals")
        given = self.store, self.study, self.outputs.gradients, self.lineage, drawn
        return publish_gradients(*given, check=check)

    def grid(self) -> list[dict[str, bytes]]:
        """For every trial, the pictures of the UI's grid by key: large ones and small ones."""
        return [
            {
                f"{Path(path).name.partition('+')[0]}{Path(path).suffix}": content
                for path, content in files(self.client, run.info.run_id, "images").items()
            }
            for run in self.trials().values()
        ]

    def folder(self, run: Run) -> Path:
        return Path(unquote(run.info.artifact_uri.removeprefix("file://")))


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(**ONE)


@pytest.fixture(scope="module")
def once(make_store, study: Study, tmp_path_factory) -> Path:
    """Told once, since heads take seconds; every test works on a copy, which MLflow mends."""
    root = tmp_path_factory.mktemp("told")
    outputs = write_outputs(study, root / "outputs")
    tell(make_store(root), study, outputs, make_lineage(study))
    return root


@pytest.fixture
def told(once: Path, study: Study, tmp_path: Path) -> Told:
    root = tmp_path / "workspace"
    shutil.copytree(once, root)
    utils._artifact_repos_cache.clear()  # MLflow has seen the runs where they were
    return Told(find_store(root, None), study, outputs_of(study, root / "outputs"))


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    folder = tmp_path / "explained"
    folder.mkdir()
    (folder / "nearest.png").write_bytes(b"a picture")
    (folder / "captions.json").write_text("{}")
    return folder


@pytest.fixture
def page(study: Study, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    markers = [run_marker(study.name, f"seed={seed}") for seed in (0, 1)]
    path.write_text("".join(f"<td>{one}</td>" for one in [*markers, lock_marker(study.name)]))
    return path


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> dict[str, bytes]:
    found = client.list_artifacts(run_id, folder)
    paths = [item.path for item in found if not item.is_dir]
    return {path: Path(client.download_artifacts(run_id, path)).read_bytes() for path in paths}


def test_every_trial_shows_the_filters_under_the_same_keys(told: Told) -> None:
    assert told.filters() == 2
    shown = [(told.outputs.filters / f"{key}.png").read_bytes() for key in FILTERS]
    for grid in told.grid():
        assert set(grid) == {f"{key}{end}" for key in FILTERS for end in (".png", ".webp")}
        assert [grid[f"{key}.png"] for key in FILTERS] == shown
        for key in FILTERS:
            assert Image.open(io.BytesIO(grid[f"{key}.webp"])).size == (8, 8)
    assert {run.data.tags["mlflow.loggedImages"] for run in told.trials().values()} == {"True"}
    assert told.filters() == 0


def test_the_grids_files_are_named_as_mlflow_names_them(told: Told, tmp_path) -> None:
    """Its UI takes key, step and time out of the name; the pattern is that of ``log_image``."""
    told.filters()
    run = next(iter(told.trials().values()))
    ours = sorted(files(told.client, run.info.run_id, "images"))
    other = told.client.create_run(run.info.experiment_id).info.run_id
    for key in FILTERS:
        picture = Image.open(told.outputs.filters / f"{key}.png")
        told.client.log_image(other, picture, key=key, step=0)
    theirs = sorted(files(told.client, other, "images"))
    told.client.delete_run(other)

    def pattern(path: str) -> str:
        named = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", path)
        return re.sub(r"\d{9,}", "T", named)

    assert list(map(pattern, ours)) == list(map(pattern, theirs))


def test_filters_that_were_drawn_anew_replace_the_old(told: Told) -> None:
    told.filters("b")
    changed = told.outputs.filters / f"{FILTERS[0]}.png"
    Image.new("RGB", (8, 8), (250, 0, 0)).save(changed)
    assert told.filters("c") == 2
    for grid in told.grid():
        assert len(grid) == 2 * len(FILTERS)
        assert grid[f"{FILTERS[0]}.png"] == changed.read_bytes()


def test_filters_that_broke_off_are_completed(told: Told, monkeypatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    for where in ("log_artifacts", "set_tag"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, where, die)
            with pytest.raises(Killed):
                told.filters()
    assert told.filters() == 2
    assert [len(grid) for grid in told.grid()] == [2 * len(FILTERS)] * 2


def test_filters_that_a_store_lost_are_put_back_when_it_is_asked(told: Told) -> None:
    told.filters()
    one, other = told.trials().values()
    shutil.rmtree(told.folder(one) / "images")
    next((told.folder(other) / "images").glob("*.webp")).write_bytes(b"")
    assert told.filters() == 0
    assert told.filters(check=True) == 2
    assert [len(grid) for grid in told.grid()] == [2 * len(FILTERS)] * 2
    assert told.filters(check=True) == 0


@pytest.mark.parametrize("damage", [b"", b"not a picture", "half", "gone"])
def test_a_damaged_filter_picture_is_named_with_the_command(told: Told, damage) -> None:
    path = told.outputs.filters / f"{FILTERS[0]}.png"
    if damage == "gone":
        shutil.rmtree(told.outputs.filters)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    named = str(told.outputs.filters if damage == "gone" else path)
    with pytest.raises(DamagedError) as caught:
        told.filters()
    assert str(caught.value).startswith(f"{named}: ")
    assert str(caught.value).endswith("; run dvc repro filters@animals")
    assert all("filters" not in run.data.tags for run in told.trials().values())


def test_the_gradient_check_joins_the_run_of_its_study_once(told: Told) -> None:
    assert told.gradients()
    assert not told.gradients()
    parent = told.parent()
    measured = {"gradient_check softmax average": 1e-9, "gradient_check softmax max": 2e-8}
    assert measured.items() <= parent.data.metrics.items()
    table = files(told.client, parent.info.run_id)["gradient_check.csv"]
    assert table == told.outputs.gradients.read_bytes()


def test_another_gradient_check_replaces_the_old(told: Told) -> None:
    told.gradients("b")
    text = told.outputs.gradients.read_text(encoding="utf-8")
    told.outputs.gradients.write_text(text.replace("2e-08", "1e-08"), encoding="utf-8")
    assert told.gradients("c")
    assert told.parent().data.metrics["gradient_check softmax max"] == 1e-8
    (told.folder(told.parent()) / "gradient_check.csv").unlink()
    assert told.gradients("c", check=True)
    assert not told.gradients("c", check=True)


@pytest.mark.parametrize("damage", ["", "layer\nsoftmax\n", "layer,average,max\ns,nan,1\n", "\xff"])
def test_a_damaged_gradient_check_is_named_with_the_command(told: Told, damage: str) -> None:
    told.outputs.gradients.write_bytes(damage.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"damaged; run dvc repro gradients@animals$") as caught:
        told.gradients()
    assert str(caught.value).startswith(f"{told.outputs.gradients}: ")


def test_what_was_drawn_of_a_study_without_a_run_waits(store, study, tmp_path) -> None:
    outputs = write_outputs(study, tmp_path / "outputs")
    given = store, study
    lineages = make_lineage(study), make_lineage(study, "b", "filters@animals")
    assert publish_filters(*given, outputs.filters, *lineages, check=True) == 0
    assert not publish_gradients(*given, outputs.gradients, *lineages, check=True)


def explain(told: Told, folder: Path, digest: str = "b", *, check: bool = False) -> bool:
    drawn = make_lineage(told.study, digest, "explain@samples")
    return publish_explained(told.store, told.study, folder, told.lineage, drawn, check=check)


def test_explained_pictures_join_the_run_of_their_study_once(told, explained) -> None:
    assert explain(told, explained)
    assert not explain(told, explained)
    assert files(told.client, told.parent().info.run_id, "explained") == {
        "explained/nearest.png": b"a picture",
        "explained/captions.json": b"{}",
    }
    assert told.parent().info.status == "FINISHED"


def test_pictures_that_were_drawn_anew_replace_the_old(told, explained) -> None:
    explain(told, explained, "b")
    (explained / "nearest.png").write_bytes(b"another")
    assert explain(told, explained, "c")
    found = files(told.client, told.parent().info.run_id, "explained")
    assert found["explained/nearest.png"] == b"another"


def test_explained_pictures_that_a_store_lost_are_put_back_when_it_is_asked(
    told, explained
) -> None:
    explain(told, explained)
    (told.folder(told.parent()) / "explained" / "nearest.png").unlink()
    assert not explain(told, explained)
    assert explain(told, explained, check=True)
    assert len(files(told.client, told.parent().info.run_id, "explained")) == 2
    assert not explain(told, explained, check=True)


def test_pictures_of_a_study_without_a_run_wait(store, study, explained) -> None:
    drawn = make_lineage(study, "b")
    assert not publish_explained(store, study, explained, make_lineage(study), drawn, check=False)


def report(told: Told, page: Path, digest: str = "d", *, check: bool = False) -> bool:
    studies, trained = {told.study.name: told.study}, {told.study.name: told.lineage}
    made = make_lineage(told.study, digest, "report")
    return publish_report(told.store, page, studies, trained, made, check=check)


def test_the_page_names_run_and_lock_entry_of_every_number(told, page) -> None:
    assert report(told, page)
    ids = [told.trials()[f"seed={seed}"].info.run_id for seed in (0, 1)]
    made = make_lineage(told.study, "d")
    run = known_runs(told.client, told.store.experiment(told.client, REPORT), made)[""]
    told_page = "".join(f"<td>{one}</td>" for one in [*ids, "a" * 64])
    assert files(told.client, run.info.run_id) == {"report.html": told_page.encode()}
    assert run.info.status == "FINISHED"


def test_a_page_is_told_once_and_another_one_again(told, page) -> None:
    assert [report(told, page, digest) for digest in "dde"] == [True, False, True]


def test_a_page_that_a_store_lost_is_put_back_under_its_run(told, page) -> None:
    report(told, page)
    experiment = told.store.experiment(told.client, REPORT)
    (before,) = told.client.search_runs([experiment])
    shutil.rmtree(told.folder(before))
    assert not report(told, page)
    assert report(told, page, check=True)
    (after,) = told.client.search_runs([experiment])
    assert (after.info.run_id, after.info.end_time) == (before.info.run_id, before.info.end_time)
    assert set(files(told.client, after.info.run_id)) == {"report.html"}


def test_a_page_that_is_not_there_is_named_with_the_command(told, page) -> None:
    page.unlink()
    with pytest.raises(
        DamagedError, match=r"report\.html: is missing or damaged; run dvc repro rep"
    ):
        report(told, page)


def test_a_page_with_a_number_that_has_no_run_yet_waits(store, study, page) -> None:
    made = make_lineage(study, "d")
    studies, trained = {study.name: study}, {study.name: made}
    assert not publish_report(store, page, studies, trained, made, check=False)
    client = store.client()
    assert client.search_runs([store.experiment(client, REPORT)]) == []


def test_the_page_itself_stays_as_it_is(told, page) -> None:
    before = page.read_bytes()
    report(told, page)
    assert page.read_bytes() == before

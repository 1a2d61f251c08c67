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
from vgg16_transfer.tracking.logged_runs import logged_runs
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
    log,
    make_lineage,
    make_study,
    outputs_of,
    write_outputs,
)

ONE = {"samples_per_class": 2, "seed": [0, 1]}


class Logged:
    """A study that was logged to MLflow, and what was drawn beside it."""

    def __init__(self, store: Store, study: Study, outputs: Outputs) -> None:
        self.store, self.study, self.outputs = store, study, outputs
        self.lineage = make_lineage(study)
        self.client = store.client()

    def runs(self) -> dict[str, Run]:
        experiment = self.store.experiment(self.client, self.study.dataset)
        return logged_runs(self.client, experiment, self.lineage)

    def parent(self) -> Run:
        return self.runs()[""]

    def trials(self) -> dict[str, Run]:
        return {name: run for name, run in self.runs().items() if name}

    def filters(self, digest: str = "b", *, check: bool = False) -> bool:
        drawn = make_lineage(self.study, digest, "filters@animals")
        given = self.store, self.study, self.outputs.filters, self.lineage, drawn
        return publish_filters(*given, check=check)

    def gradients(self, digest: str = "b", *, check: bool = False) -> bool:
        drawn = make_lineage(self.study, digest, "gradients@animals")
        given = self.store, self.study, self.outputs.gradients, self.lineage, drawn
        return publish_gradients(*given, check=check)

    def grid(self) -> dict[str, bytes]:
        """The pictures of the UI's grid of the study, by key: large ones and small ones."""
        shown = files(self.client, self.parent().info.run_id, "images")
        return {
            f"{Path(path).name.partition('+')[0]}{Path(path).suffix}": content
            for path, content in shown.items()
        }

    def folder(self, run: Run) -> Path:
        return Path(unquote(run.info.artifact_uri.removeprefix("file://")))


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(**ONE)


@pytest.fixture(scope="module")
def once(make_store, study: Study, tmp_path_factory) -> Path:
    """Logged once, since heads take seconds; every test works on a copy of it."""
    root = tmp_path_factory.mktemp("logged")
    outputs = write_outputs(study, root / "outputs")
    log(make_store(root), study, outputs, make_lineage(study))
    return root


@pytest.fixture
def logged(once: Path, study: Study, tmp_path: Path) -> Logged:
    root = tmp_path / "workspace"
    shutil.copytree(once, root)
    utils._artifact_repos_cache.clear()  # MLflow has seen the runs where they were
    return Logged(find_store(root, None), study, outputs_of(study, root / "outputs"))


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
    result = client.list_artifacts(run_id, folder)
    paths = [item.path for item in result if not item.is_dir]
    return {path: Path(client.download_artifacts(run_id, path)).read_bytes() for path in paths}


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def test_the_study_shows_the_filters_once_for_all_its_trials(logged: Logged) -> None:
    trials = [files(logged.client, run.info.run_id, "images") for run in logged.trials().values()]
    assert logged.filters()
    grid = logged.grid()
    assert set(grid) == {f"{key}{end}" for key in FILTERS for end in (".png", ".webp")}
    for key in FILTERS:
        drawn = (logged.outputs.filters / f"{key}.png").read_bytes()
        assert pixels(grid[f"{key}.png"]) == pixels(drawn)
        assert Image.open(io.BytesIO(grid[f"{key}.webp"])).size == (8, 8)
    assert logged.parent().data.tags["mlflow.loggedImages"] == "True"
    assert not logged.filters()
    assert trials == [
        files(logged.client, run.info.run_id, "images") for run in logged.trials().values()
    ]


def test_the_grids_files_are_named_as_mlflow_names_them(logged: Logged, tmp_path) -> None:
    """Its UI takes key, step and time out of the name; the pattern is that of ``log_image``."""
    logged.filters()
    run = logged.parent()
    names = sorted(files(logged.client, run.info.run_id, "images"))
    other = logged.client.create_run(run.info.experiment_id).info.run_id
    for key in FILTERS:
        picture = Image.open(logged.outputs.filters / f"{key}.png")
        logged.client.log_image(other, picture, key=key, step=0)
    expected = sorted(files(logged.client, other, "images"))
    logged.client.delete_run(other)

    def pattern(path: str) -> str:
        named = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", path)
        return re.sub(r"\d{9,}", "T", named)

    assert list(map(pattern, names)) == list(map(pattern, expected))


def test_filters_that_were_drawn_anew_replace_the_old(logged: Logged) -> None:
    logged.filters("b")
    changed = logged.outputs.filters / f"{FILTERS[0]}.png"
    Image.new("RGB", (8, 8), (250, 0, 0)).save(changed)
    assert logged.filters("c")
    assert len(logged.grid()) == 2 * len(FILTERS)
    assert pixels(logged.grid()[f"{FILTERS[0]}.png"]) == pixels(changed.read_bytes())


def test_filters_that_broke_off_are_completed(logged: Logged, monkeypatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    for where in ("log_artifacts", "set_tag"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, where, die)
            with pytest.raises(Killed):
                logged.filters()
    assert logged.filters()
    assert len(logged.grid()) == 2 * len(FILTERS)


def test_filters_that_a_store_lost_are_put_back_when_it_is_asked(logged: Logged) -> None:
    logged.filters()
    next((logged.folder(logged.parent()) / "images").glob("*.webp")).write_bytes(b"")
    assert not logged.filters()
    assert logged.filters(check=True)
    assert len(logged.grid()) == 2 * len(FILTERS)
    assert not logged.filters(check=True)


@pytest.mark.parametrize("damage", [b"", b"not a picture", "half", "gone"])
def test_a_damaged_filter_picture_is_named_with_the_command(logged: Logged, damage) -> None:
    path = logged.outputs.filters / f"{FILTERS[0]}.png"
    if damage == "gone":
        shutil.rmtree(logged.outputs.filters)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    named = str(logged.outputs.filters if damage == "gone" else path)
    with pytest.raises(DamagedError) as caught:
        logged.filters()
    assert str(caught.value).startswith(f"{named}: ")
    assert str(caught.value).endswith("; run dvc repro filters@animals")
    assert "filters" not in logged.parent().data.tags


def test_the_gradient_check_joins_the_run_of_its_study_once(logged: Logged) -> None:
    assert logged.gradients()
    assert not logged.gradients()
    parent = logged.parent()
    measured = {"gradient_check_average": 1e-9, "gradient_check_max": 2e-8}
    assert measured.items() <= parent.data.metrics.items()
    table = files(logged.client, parent.info.run_id)["gradient_check.csv"]
    assert table == logged.outputs.gradients.read_bytes()


def test_another_gradient_check_replaces_the_old(logged: Logged) -> None:
    logged.gradients("b")
    text = logged.outputs.gradients.read_text(encoding="utf-8")
    logged.outputs.gradients.write_text(text.replace("2e-08", "1e-08"), encoding="utf-8")
    assert logged.gradients("c")
    assert logged.parent().data.metrics["gradient_check_max"] == 1e-8
    (logged.folder(logged.parent()) / "gradient_check.csv").unlink()
    assert logged.gradients("c", check=True)
    assert not logged.gradients("c", check=True)


@pytest.mark.parametrize("damage", ["", "layer\nsoftmax\n", "layer,average,max\ns,nan,1\n", "\xff"])
def test_a_damaged_gradient_check_is_named_with_the_command(logged: Logged, damage: str) -> None:
    logged.outputs.gradients.write_bytes(damage.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"damaged; run dvc repro gradients@animals$") as caught:
        logged.gradients()
    assert str(caught.value).startswith(f"{logged.outputs.gradients}: ")


def test_what_was_drawn_of_a_study_without_a_run_waits(store, study, tmp_path) -> None:
    outputs = write_outputs(study, tmp_path / "outputs")
    given = store, study
    lineages = make_lineage(study), make_lineage(study, "b", "filters@animals")
    assert not publish_filters(*given, outputs.filters, *lineages, check=True)
    assert not publish_gradients(*given, outputs.gradients, *lineages, check=True)


def explain(logged: Logged, folder: Path, digest: str = "b", *, check: bool = False) -> bool:
    drawn = make_lineage(logged.study, digest, "explain@samples")
    return publish_explained(logged.store, logged.study, folder, logged.lineage, drawn, check=check)


def test_explained_pictures_join_the_run_of_their_study_once(logged, explained) -> None:
    assert explain(logged, explained)
    assert not explain(logged, explained)
    assert files(logged.client, logged.parent().info.run_id, "explained") == {
        "explained/nearest.png": b"a picture",
        "explained/captions.json": b"{}",
    }
    assert logged.parent().info.status == "FINISHED"


def test_pictures_that_were_drawn_anew_replace_the_old(logged, explained) -> None:
    explain(logged, explained, "b")
    (explained / "nearest.png").write_bytes(b"another")
    assert explain(logged, explained, "c")
    result = files(logged.client, logged.parent().info.run_id, "explained")
    assert result["explained/nearest.png"] == b"another"


def test_explained_pictures_that_a_store_lost_are_put_back_when_it_is_asked(
    logged, explained
) -> None:
    explain(logged, explained)
    (logged.folder(logged.parent()) / "explained" / "nearest.png").unlink()
    assert not explain(logged, explained)
    assert explain(logged, explained, check=True)
    assert len(files(logged.client, logged.parent().info.run_id, "explained")) == 2
    assert not explain(logged, explained, check=True)


def test_pictures_of_a_study_without_a_run_wait(store, study, explained) -> None:
    drawn = make_lineage(study, "b")
    assert not publish_explained(store, study, explained, make_lineage(study), drawn, check=False)


def report(logged: Logged, page: Path, digest: str = "d", *, check: bool = False) -> bool:
    studies, trained = {logged.study.name: logged.study}, {logged.study.name: logged.lineage}
    made = make_lineage(logged.study, digest, "report")
    return publish_report(logged.store, page, studies, trained, made, check=check)


def test_the_page_names_run_and_lock_entry_of_every_number(logged, page) -> None:
    assert report(logged, page)
    ids = [logged.trials()[f"seed={seed}"].info.run_id for seed in (0, 1)]
    made = make_lineage(logged.study, "d")
    run = logged_runs(logged.client, logged.store.experiment(logged.client, REPORT), made)[""]
    filled_page = "".join(f"<td>{one}</td>" for one in [*ids, "a" * 64])
    assert files(logged.client, run.info.run_id) == {"report.html": filled_page.encode()}
    assert run.info.status == "FINISHED"


def test_a_page_is_logged_once_and_another_one_again(logged, page) -> None:
    assert [report(logged, page, digest) for digest in "dde"] == [True, False, True]


def test_a_page_that_a_store_lost_is_put_back_under_its_run(logged, page) -> None:
    report(logged, page)
    experiment = logged.store.experiment(logged.client, REPORT)
    (before,) = logged.client.search_runs([experiment])
    shutil.rmtree(logged.folder(before))
    assert not report(logged, page)
    assert report(logged, page, check=True)
    (after,) = logged.client.search_runs([experiment])
    assert (after.info.run_id, after.info.end_time) == (before.info.run_id, before.info.end_time)
    assert set(files(logged.client, after.info.run_id)) == {"report.html"}


def test_a_page_that_is_not_there_is_named_with_the_command(logged, page) -> None:
    page.unlink()
    with pytest.raises(
        DamagedError, match=r"report\.html: is missing or damaged; run dvc repro rep"
    ):
        report(logged, page)


def test_a_page_with_a_number_that_has_no_run_yet_waits(store, study, page) -> None:
    made = make_lineage(study, "d")
    studies, trained = {study.name: study}, {study.name: made}
    assert not publish_report(store, page, studies, trained, made, check=False)
    client = store.client()
    assert client.search_runs([store.experiment(client, REPORT)]) == []


def test_the_page_itself_stays_as_it_is(logged, page) -> None:
    before = page.read_bytes()
    report(logged, page)
    assert page.read_bytes() == before

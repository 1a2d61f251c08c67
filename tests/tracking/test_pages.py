from pathlib import Path

import pytest
from mlflow import MlflowClient

from vgg16_transfer.params import Study
from vgg16_transfer.reporting.runs import lock_marker, run_marker
from vgg16_transfer.tracking.lineage import Lineage
from vgg16_transfer.tracking.pages import REPORT, publish_explained, publish_report
from vgg16_transfer.tracking.runs import known_runs
from vgg16_transfer.tracking.store import Store

from .conftest import make_lineage, make_study, tell, write_outputs

ONE = {"samples_per_class": 2, "seed": 0}


@pytest.fixture
def study() -> Study:
    return make_study(**ONE)


@pytest.fixture
def told(store: Store, study: Study, tmp_path: Path) -> Lineage:
    """The lineage of a study that MLflow was told of."""
    lineage = make_lineage(study)
    tell(store, study, write_outputs(study, tmp_path / "outputs"), lineage)
    return lineage


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
    path.write_text(f"<td>{run_marker(study.name, 'only')}</td><td>{lock_marker(study.name)}</td>")
    return path


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> dict[str, bytes]:
    found = client.list_artifacts(run_id, folder)
    paths = [item.path for item in found if not item.is_dir]
    return {path: Path(client.download_artifacts(run_id, path)).read_bytes() for path in paths}


def test_explained_pictures_join_the_run_of_their_study_once(store, study, told, explained) -> None:
    drawn = make_lineage(study, "b")
    assert publish_explained(store, study, explained, told, drawn)
    assert not publish_explained(store, study, explained, told, drawn)
    client = store.client()
    parent = known_runs(client, store.experiment(client, study.dataset), told)[""]
    assert files(client, parent.info.run_id, "explained") == {
        "explained/nearest.png": b"a picture",
        "explained/captions.json": b"{}",
    }
    assert parent.info.status == "FINISHED"


def test_pictures_that_were_drawn_anew_replace_the_old(store, study, told, explained) -> None:
    publish_explained(store, study, explained, told, make_lineage(study, "b"))
    (explained / "nearest.png").write_bytes(b"another")
    assert publish_explained(store, study, explained, told, make_lineage(study, "c"))
    client = store.client()
    parent = known_runs(client, store.experiment(client, study.dataset), told)[""]
    assert files(client, parent.info.run_id, "explained")["explained/nearest.png"] == b"another"


def test_pictures_of_a_study_without_a_run_wait(store, study, explained) -> None:
    drawn = make_lineage(study, "b")
    assert not publish_explained(store, study, explained, make_lineage(study), drawn)


def test_the_page_names_run_and_lock_entry_of_every_number(store, study, told, page) -> None:
    made = make_lineage(study, "d")
    assert publish_report(store, page, {study.name: study}, {study.name: told}, made)
    client = store.client()
    trial = known_runs(client, store.experiment(client, study.dataset), told)["only"]
    run = known_runs(client, store.experiment(client, REPORT), made)[""]
    assert files(client, run.info.run_id) == {
        "report.html": f"<td>{trial.info.run_id}</td><td>{'a' * 64}</td>".encode()
    }
    assert run.info.status == "FINISHED"


def test_a_page_is_told_once_and_another_one_again(store, study, told, page) -> None:
    def tell(digest: str) -> bool:
        lineages = {study.name: told}
        made = make_lineage(study, digest)
        return publish_report(store, page, {study.name: study}, lineages, made)

    assert [tell("d"), tell("d"), tell("e")] == [True, False, True]


def test_a_page_with_a_number_that_has_no_run_yet_waits(store, study, page) -> None:
    made = make_lineage(study, "d")
    assert not publish_report(store, page, {study.name: study}, {study.name: made}, made)
    client = store.client()
    assert client.search_runs([store.experiment(client, REPORT)]) == []


def test_the_page_itself_stays_as_it_is(store, study, told, page) -> None:
    before = page.read_bytes()
    made = make_lineage(study, "d")
    publish_report(store, page, {study.name: study}, {study.name: told}, made)
    assert page.read_bytes() == before

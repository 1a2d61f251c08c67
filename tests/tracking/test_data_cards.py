"""A dataset's data card is the description of its experiment."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from vgg16_transfer.images.cards import EXAMPLES, TITLE, card_path, read_facts, write_card
from vgg16_transfer.lineage import lineage
from vgg16_transfer.tracking.log import log_pages
from vgg16_transfer.tracking.mlflow_store import Store, find_store
from vgg16_transfer.tracking.publish import CardError, publish_card

from .conftest import DATASET, make_lineage, make_study

NOTE = "mlflow.note.content"
FACTS = {"origin": "https://example.org", EXAMPLES: "ant/0.jpg (ant)"}


def description(store: Store, dataset: str = DATASET) -> str | None:
    experiment = store.client().get_experiment_by_name(dataset)
    return None if experiment is None else experiment.tags.get(NOTE)


@pytest.fixture
def log(store: Store, tmp_path) -> Callable[..., str | None]:
    """Logs a data card of these facts, and gives the description of the experiment."""

    def run(**facts: str) -> str | None:
        write_card(card_path(tmp_path / DATASET), DATASET, facts | FACTS)
        publish_card(store, DATASET, tmp_path / DATASET)
        return description(store)

    return run


def test_the_description_is_the_card_word_for_word(log, tmp_path) -> None:
    text = log(licence="CC BY 4.0 | see `here`")
    assert text == card_path(tmp_path / DATASET).read_text(encoding="utf-8")
    assert read_facts(text)["licence"] == "CC BY 4.0 | see `here`"


def test_another_card_takes_the_place_of_the_old_one(log) -> None:
    log(licence="CC BY 4.0")
    assert read_facts(log(licence="CC0 1.0"))["licence"] == "CC0 1.0"


def test_the_same_card_is_not_written_again(log, monkeypatch) -> None:
    text = log()
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", None)
    assert log() == text


def test_a_description_that_somebody_wrote_stays(log, store) -> None:
    client = store.client()
    client.set_experiment_tag(store.experiment(client, DATASET), NOTE, "Ask Ann first.")
    assert log() == "Ask Ann first."


def test_a_card_that_is_too_long_for_mlflow_loses_its_last_facts(log) -> None:
    text = log(first="a" * 3000, second="b" * 3000)
    assert text.startswith(f"{TITLE}{DATASET}\n")
    assert text.endswith(f"\n| first | {'a' * 3000} |")


def test_without_a_card_no_store_is_asked(tmp_path) -> None:
    store = Store("http://127.0.0.1:1", None)
    assert publish_card(store, DATASET, tmp_path / DATASET) is None


def test_a_damaged_card_is_named_with_the_command(store, tmp_path) -> None:
    path = card_path(tmp_path / DATASET)
    path.write_bytes(b"\xff")
    with pytest.raises(CardError) as caught:
        publish_card(store, DATASET, tmp_path / DATASET)
    assert str(caught.value).startswith(f"{path}: is damaged (")
    assert str(caught.value).endswith("; run dvc repro splits@animals")


def test_training_and_the_report_log_the_cards_of_their_datasets(
    trained, publish, tmp_path, monkeypatch
) -> None:
    workspace = trained.copy(tmp_path / "workspace")
    store, card = find_store(workspace.root, None), card_path(workspace.layout.splits("animals"))
    text = card.read_text(encoding="utf-8")
    assert read_facts(text)["classes"] == "3: ant, bee, cat"
    publish(workspace, "few")
    assert description(store, "animals") == text

    changed = text.replace("not stated", "CC BY 4.0")
    card.write_text(changed, encoding="utf-8")
    made = make_lineage(make_study(), stage="report")
    locked = {"train@few": made, "train@tuned": made}
    monkeypatch.setattr(
        lineage,
        "locked_stages",
        lambda _, stages: {stage: replace(made, stage=stage) for stage in stages} | locked,
    )
    log_pages(store, workspace.params, workspace.layout, made, check=False)
    assert description(store, "animals") == changed

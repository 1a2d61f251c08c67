"""When and from which commit results were made is kept beside them."""

from dataclasses import replace

import pytest

from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.lineage.origins import OriginError, recall, remember, rounded

TIMES = {
    "seed=0": {"started": 1000, "ended": 1500, "fit_seconds": 0.3333},
    'n="1"': {"started": 1500, "ended": 2000, "fit_seconds": 12.0},
}
MADE = Lineage(
    "train@s",
    "a" * 64,
    {},
    "c" * 40,
    dirty=False,
    experiment=None,
    started=1000,
    ended=2000,
    times=TIMES,
)
BAD_TIMES = (
    b'{"lock_digest": "a", "commit": null, "dirty": false, "experiment": null, '
    b'"started": 1, "ended": 2, "times": {"seed=0": {"fit_seconds": "long"}}}'
)
TOLD = Lineage("train@s", "a" * 64, {}, "d" * 40, dirty=True, experiment="x", replayed=True)


def test_a_clone_recalls_time_and_commit(tmp_path) -> None:
    remember(tmp_path / "s", MADE)
    assert recall(tmp_path / "s", TOLD) == replace(MADE, replayed=True)


def test_a_trial_takes_one_line(tmp_path) -> None:
    remember(tmp_path / "s", MADE)
    lines = (tmp_path / "s.origin.json").read_text().splitlines()
    assert [line for line in lines if "fit_seconds" in line] == [
        '    "seed=0": {"started": 1000, "ended": 1500, "fit_seconds": 0.3333},',
        '    "n=\\"1\\"": {"started": 1500, "ended": 2000, "fit_seconds": 12.0}',
    ]
    assert rounded({"fit_seconds": 1 / 3}) == {"fit_seconds": 0.3333}


def test_a_file_of_before_there_were_times_is_read(tmp_path) -> None:
    remember(tmp_path / "s", replace(MADE, times={}))
    assert "times" not in (tmp_path / "s.origin.json").read_text()
    assert recall(tmp_path / "s", TOLD) == replace(MADE, replayed=True, times={})


def test_other_results_have_another_origin(tmp_path) -> None:
    remember(tmp_path / "s", MADE)
    other = replace(TOLD, lock_digest="b" * 64)
    assert recall(tmp_path / "s", other) == other


def test_without_a_note_nothing_is_made_up(tmp_path) -> None:
    assert recall(tmp_path / "s", TOLD) == TOLD


def test_the_same_results_keep_their_first_origin(tmp_path) -> None:
    remember(tmp_path / "s", MADE)
    before = (tmp_path / "s.origin.json").read_bytes()
    remember(tmp_path / "s", replace(MADE, started=9000, commit="e" * 40))
    assert (tmp_path / "s.origin.json").read_bytes() == before
    remember(tmp_path / "s", replace(MADE, started=9000, lock_digest="b" * 64))
    assert (tmp_path / "s.origin.json").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["s.origin.json"]


def write_results(folder, accuracy: float) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(f'{{"s": {{"seed=0": {accuracy}}}}}', encoding="utf-8")
    (folder / "accuracies.csv").write_text(f"seed=0,0,{accuracy}\n", encoding="utf-8")


def test_equal_results_of_another_cpu_keep_their_first_origin_and_other_results_do_not(tmp_path):
    write_results(tmp_path / "s", 0.5)
    remember(tmp_path / "s", MADE)
    before = (tmp_path / "s.origin.json").read_bytes()
    elsewhere = replace(MADE, started=9000, commit="e" * 40, lock_digest="b" * 64)
    remember(tmp_path / "s", elsewhere)
    assert (tmp_path / "s.origin.json").read_bytes() == before
    locked = replace(TOLD, lock_digest="b" * 64)
    assert recall(tmp_path / "s", locked) == replace(MADE, lock_digest="b" * 64, replayed=True)
    write_results(tmp_path / "s", 0.75)
    assert recall(tmp_path / "s", locked) == locked
    remember(tmp_path / "s", elsewhere)
    assert recall(tmp_path / "s", locked) == replace(elsewhere, replayed=True)


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        ({"committed": "f" * 40}, f"git checkout {'f' * 40} && dvc checkout"),
        ({"experiment": "brave-ant"}, "dvc exp apply brave-ant"),
        ({}, f"git checkout {'c' * 40} && dvc repro train@s"),
        ({"dirty": True}, None),
        ({"commit": None}, None),
    ],
)
def test_the_commands_that_lead_back(changes, commands) -> None:
    lineage = replace(MADE, **changes)
    assert lineage.checkout() == commands
    assert lineage.tags().get("checkout") == commands


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"lock_digest": 3}',
        b"<<<<<<< ours\n{}\n",
        BAD_TIMES,
    ],
)
def test_a_note_that_can_not_be_read_is_named_and_costs_no_result(tmp_path, content) -> None:
    path = tmp_path / "s.origin.json"
    path.write_bytes(content)
    with pytest.raises(OriginError, match=r"s\.origin\.json: is damaged .*; restore it"):
        recall(tmp_path / "s", TOLD)
    remember(tmp_path / "s", MADE)
    assert recall(tmp_path / "s", TOLD) == replace(MADE, replayed=True)

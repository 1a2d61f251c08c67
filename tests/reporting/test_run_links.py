"""Runs and lock digests come to stand where the page has room for them, and nowhere else."""

import re

from vgg16_transfer.reporting.run_links import lock_marker, run_marker, with_runs


def cells(page: str, kind: str) -> dict[tuple[str, ...], str]:
    """What stands in the cells of a kind, by the names that they belong to."""
    cells = re.findall(rf'<td class="{kind}"([^>]*)>(.*?)</td>', page)
    return {tuple(re.findall(r'="([^"]*)"', names)): content for names, content in cells}


def test_there_is_room_for_every_trial_and_study(page) -> None:
    text = page.read_text(encoding="utf-8")
    runs, locks = cells(text, "run"), cells(text, "lock")
    assert len(runs) == 8 + 12
    assert ("samples", "samples_per_class=2,seed=0") in runs
    assert len(locks) == 2
    contents = [*runs.values(), *locks.values()]
    assert all(re.fullmatch(r"<!--[^<]*-->", content) for content in contents)
    assert len(set(contents)) == len(contents)


def test_runs_and_digests_are_filled_in_and_nothing_else_changes(page) -> None:
    text = page.read_text(encoding="utf-8")
    trial = "samples_per_class=2,seed=0"
    filled = with_runs(text, {("samples", trial): "a1b2"}, {"samples": "c3d4"})
    assert cells(filled, "run")["samples", trial] == "a1b2"
    assert cells(filled, "lock")[("samples",)] == "c3d4"
    back = filled.replace("a1b2", run_marker("samples", trial))
    assert back.replace("c3d4", lock_marker("samples")) == text


def test_a_run_that_has_no_place_is_left_out(page) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_runs(text, {("samples", "gone"): "a1b2"}, {"gone": "c3d4"}) == text


def test_trials_whose_names_begin_alike_are_kept_apart() -> None:
    page = f"{run_marker('s', 'n=1')}|{run_marker('s', 'n=16')}"
    assert with_runs(page, {("s", "n=1"): "one"}, {}) == f"one|{run_marker('s', 'n=16')}"


def test_no_name_ends_a_marker_before_its_time() -> None:
    for marker in (run_marker("a--b", "x=-->y"), lock_marker("a-->b")):
        assert marker.count(">") == 1


def test_what_is_filled_in_is_text_and_never_html() -> None:
    assert with_runs(lock_marker("s"), {}, {"s": "<b>"}) == "&lt;b&gt;"

"""``vgg16-transfer results`` prints the tables, and what happened to the trials that failed."""

import pandas as pd

from vgg16_transfer.heads.records import AVERAGED


def test_a_trial_that_failed_is_marked_and_said(
    run, trained, relock, tmp_path, monkeypatch
) -> None:
    workspace = trained.copy(tmp_path / "copy")
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("COLUMNS", "200")
    path = workspace.layout.record("few") / "trials.csv"
    trials = pd.read_csv(path).assign(status="finished", failure="")
    row = trials["trial"] == "samples_per_class=2,seed=1"
    trials.loc[row, ["status", "failure"]] = ["failed", "the loss is not finite [after epoch 2]"]
    trials.loc[row, list(AVERAGED)] = float("nan")
    trials.to_csv(path, index=False)
    relock(workspace.root)
    outcome = run("results")
    assert outcome.code == 0
    assert outcome.out.count("(failed: 1 of 2 trials)") == 1
    sentence = "failed: samples_per_class=2,seed=1: the loss is not finite [after epoch 2]\n"
    assert sentence in outcome.out
    assert "nan" not in outcome.out

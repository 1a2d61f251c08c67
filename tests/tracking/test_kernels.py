"""What publish logs of a fine-tuned trial whose training nobody watched."""

import io
import re

import numpy as np
from PIL import Image

from vgg16_transfer.backbones import base
from vgg16_transfer.diagnostics.kernels import before_and_after
from vgg16_transfer.diagnostics.tiles import deep_kernel_sheet
from vgg16_transfer.heads import model_files
from vgg16_transfer.tracking.mlflow_store import find_store


def test_kernels_before_are_those_of_the_network_and_kernels_after_those_of_the_head(
    trained, tmp_path
):
    model = model_files.load(trained.layout.heads("tuned") / "only.keras")
    last = base.convolutions(model)[-1]
    kernel, bias = last.get_weights()
    last.set_weights([kernel + 1, bias])
    model_files.save(model, tmp_path / "head.keras")
    before, after = before_and_after(tmp_path / "head.keras", "vgg16", trained.layout.weights)
    assert list(before) == list(after) == ["block5_conv1", "block5_conv3"]
    network = base.load("vgg16", trained.layout.weights, 32)
    for name, frozen in before.items():
        assert np.array_equal(frozen, network.get_layer(name).get_weights()[0])
    assert np.array_equal(after["block5_conv3"], kernel + 1)


def test_publish_draws_them_once_for_each_step(trained, publish, tmp_path):
    workspace = trained.copy(tmp_path / "workspace")
    publish(workspace, "tuned")
    client = find_store(workspace.root, None).client()
    experiment = client.get_experiment_by_name("animals").experiment_id
    (run,) = client.search_runs([experiment], "tags.trial = 'only'")
    files = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    drawn = [
        (match[1], int(match[2]))
        for path in sorted(files)
        if (match := re.match(r"images/kernels_(\w+)\+step\+(\d+)\+.*\.png", path))
    ]
    assert drawn == [(layer, step) for layer in ("block5_conv1", "block5_conv3") for step in (0, 1)]
    before, _ = before_and_after(
        workspace.layout.heads("tuned") / "only.keras", "vgg16", workspace.layout.weights
    )
    (first,) = [path for path in files if re.search(r"kernels_block5_conv1\+step\+0\+.*png", path)]
    local = client.download_artifacts(run.info.run_id, first, str(tmp_path))
    with open(local, "rb") as file:  # noqa: PTH123
        shown = Image.open(io.BytesIO(file.read())).convert("RGB")
    expected = deep_kernel_sheet(before["block5_conv1"]).convert("RGB")
    assert shown.tobytes() == expected.tobytes()
    publish(workspace, "tuned")
    assert [file.path for file in client.list_artifacts(run.info.run_id, "images")] == files

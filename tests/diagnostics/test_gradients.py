"""Back-propagation gives what central differences give, and a wrong gradient would be seen."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.diagnostics import gradients
from vgg16_transfer.diagnostics.gradients import Linear
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.images.source import Source
from vgg16_transfer.params import Backbone

BAR = 1e-9
PICTURES, CLASSES = 5, 3
SHAPES = {
    "convolution": ((PICTURES, 4, 4, 6), (3, 3, 6, 7)),
    "dense": ((PICTURES, 9), (9, 8)),
}


def make_chain(kind: str, step: float = gradients.STEP) -> tuple[Linear, Linear]:
    """A tiny network, whose output is nowhere so near to a kink that a step would cross it."""
    random = np.random.default_rng(0)
    below_shape, kernel_shape = SHAPES[kind]
    below = random.random(below_shape)
    weights = random.standard_normal(kernel_shape), random.standard_normal(kernel_shape[-1])
    labels = np.arange(PICTURES) % CLASSES
    return gradients.chain(kind, below, weights, labels, CLASSES, random)


def every_place(linear: Linear) -> list[tuple[int, ...]]:
    return list(np.ndindex(linear.kernel.shape))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("which", [0, 1], ids=["ω_ij", "ω_jk"])
def test_backpropagation_lies_within_the_bar_of_central_differences(kind: str, which: int) -> None:
    linear = make_chain(kind)[which]
    row = gradients.compare(linear, every_place(linear))
    assert row["checked"] == linear.kernel.size
    assert float(row["max"]) <= BAR
    assert float(row["gradient"]) > 1e6 * BAR


def scaled(above: Any, by: float) -> Any:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sabotaged(outputs: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = above(outputs)
        slope = tape.gradient(loss, outputs)
        return loss, lambda upstream: upstream * slope * by

    return sabotaged


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("which", [0, 1], ids=["ω_ij", "ω_jk"])
def test_a_gradient_that_is_wrong_by_a_thousandth_is_seen(kind: str, which: int) -> None:
    right = make_chain(kind)[which]
    wrong = right._replace(above=scaled(right.above, 1.001))
    assert float(gradients.compare(wrong, every_place(wrong))["max"]) > 100 * BAR


def test_a_gradient_that_is_wrong_in_one_channel_only_is_seen() -> None:
    right = make_chain("convolution")[0]
    factors = np.ones(7)
    factors[2] = 1.01
    wrong = right._replace(above=lambda outputs: right.above(turned(outputs, factors)))
    apart = gradients.differentiate(wrong, every_place(wrong)).reshape(wrong.kernel.shape)
    apart -= gradients.backpropagate(wrong)
    assert np.abs(apart[..., 2]).max() > 100 * BAR
    assert np.abs(np.delete(apart, 2, axis=-1)).max() <= BAR


@tf.custom_gradient  # type: ignore[untyped-decorator]
def turned(outputs: tf.Tensor, factors: np.ndarray) -> Any:
    return tf.identity(outputs), lambda upstream: (upstream * factors, None)


def test_a_difference_is_that_of_the_whole_network() -> None:
    linear, _ = make_chain("convolution")
    place, step = (1, 2, 3, 4), 1e-4

    def loss(by: float) -> float:
        kernel = linear.kernel.copy()
        kernel[place] += by
        outputs = tf.nn.conv2d(linear.below, kernel, 1, "SAME") + linear.bias
        return float(linear.above(outputs))

    slopes = gradients.differentiate(linear, [place], step)
    assert slopes == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=1e-9)


def test_a_head_alone_has_the_gradient_that_is_in_every_textbook() -> None:
    _, head = make_chain("dense")
    logits = head.below @ head.kernel + head.bias
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = odds - np.eye(CLASSES)[np.arange(PICTURES) % CLASSES]
    expected = head.below.T @ residual / PICTURES
    np.testing.assert_allclose(gradients.backpropagate(head), expected, atol=1e-15)


def test_a_sample_holds_no_weight_twice() -> None:
    linear, _ = make_chain("convolution")
    places = gradients.sample(linear, 50, np.random.default_rng(0))
    assert len(set(places)) == 50
    assert places == gradients.sample(linear, 50, np.random.default_rng(0))
    assert len(gradients.sample(linear, 10**6, np.random.default_rng(0))) == linear.kernel.size


def make_pictures(folder: Path) -> tuple[Path, Path]:
    """A manifest of three classes, two training pictures and a broken test picture of each."""
    rows = []
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for label, name in enumerate(["ant", "bee", "cat"]):
            for rank in range(3):
                pixels = np.random.default_rng(3 * label + rank).integers(0, 256, (40, 40, 3))
                buffer = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
                role = "train" if rank < 2 else "test"
                content = buffer.getvalue() if role == "train" else b"broken"
                member = tarfile.TarInfo(f"{name}/{rank}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                sha256 = hashlib.sha256(content).hexdigest()
                rows.append((member.name, label, name, sha256, role, rank % 2))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "0.csv", index=False)
    return folder / "0.csv", folder / "pictures.tar"


def test_the_table_is_the_reports_and_the_same_every_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gradients, "CHECKED", 4)
    weights = tmp_path / "vgg16.weights.h5"
    write_weights("vgg16", "random-conv", weights)
    backbone = Backbone(weights="random-conv", image_size=32)
    manifest, archive = make_pictures(tmp_path)
    outs = [tmp_path / "reports" / f"{number}.csv" for number in range(2)]
    for out in outs:
        gradients.write_gradients(
            backbone, weights=weights, manifest=manifest, source=Source(archive), out=out
        )
    table = pd.read_csv(outs[0])
    assert table["weights"].tolist() == ["ω_ij", "ω_jk"]
    assert table["layer"].tolist() == ["block5_conv3", "softmax"]
    assert list(table) == ["weights", "layer", "checked", "average", "max", "gradient"]
    assert (table["checked"] == 4).all()
    assert (table["average"] <= table["max"]).all()
    assert (table["max"] <= 1e-6).all()
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert sorted(outs[0].parent.iterdir()) == outs

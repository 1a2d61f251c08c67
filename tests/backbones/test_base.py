import keras
import numpy as np
import pytest

from vgg16_transfer.backbones import base
from vgg16_transfer.errors import WeightsError

SHAPES = {
    "block1_pool": (112, 112, 64),
    "block2_pool": (56, 56, 128),
    "block3_pool": (28, 28, 256),
    "block4_pool": (14, 14, 512),
    "block5_pool": (7, 7, 512),
    "fc1": (4096,),
    "fc2": (4096,),
    "predictions": (1000,),
}


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return base.architecture("vgg16", dense=True, image_size=224)


def test_the_architecture_has_the_published_number_of_parameters(full: keras.Model) -> None:
    assert full.count_params() == 138_357_544


def test_the_convolutions_have_the_published_number_of_parameters() -> None:
    assert base.architecture("vgg16", dense=False, image_size=224).count_params() == 14_714_688


def test_the_multiply_adds_of_a_picture_are_the_published_ones(full: keras.Model) -> None:
    adds = 0
    for layer in base.weighted(full):
        positions = np.prod(layer.output.shape[1:-1])  # 1 for a dense layer
        adds += int(positions * np.prod(layer.kernel.shape))
    assert adds / 1e9 == pytest.approx(15.5, abs=0.05)


@pytest.mark.parametrize(("layer", "shape"), SHAPES.items())
def test_a_layer_can_be_tapped_and_has_its_shape(
    full: keras.Model, layer: str, shape: tuple[int, ...]
) -> None:
    assert base.tap("vgg16", full, [layer]).shapes == {layer: shape}


def test_predictions_are_logits(full: keras.Model) -> None:
    assert full.get_layer("predictions").activation is keras.activations.linear


def test_several_layers_come_from_one_pass_and_equal_single_ones(random_weights) -> None:
    network = base.load("vgg16", random_weights, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    together = base.tap("vgg16", network, ["block3_pool", "block5_pool"]).forward(pictures)
    for layer, output in together.items():
        np.testing.assert_array_equal(
            output, base.tap("vgg16", network, [layer]).forward(pictures)[layer]
        )


def test_pictures_enter_as_bgr_less_the_mean_of_imagenet() -> None:
    network = base.architecture("vgg16", dense=False, image_size=32)
    kernel = np.zeros((3, 3, 3, 64), dtype=np.float32)
    for channel in range(3):
        kernel[1, 1, channel, channel] = 1  # hands the network's channels through
    network.get_layer("block1_conv1").set_weights([kernel, np.zeros(64, dtype=np.float32)])
    red, green, blue = 200, 150, 110
    pictures = np.full((1, 32, 32, 3), (red, green, blue), dtype=np.uint8)
    seen = base.tap("vgg16", network, ["block1_conv1"]).forward(pictures)["block1_conv1"][
        0, 5, 5, :3
    ]
    np.testing.assert_allclose(seen, [blue - 103.939, green - 116.779, red - 123.68], rtol=1e-5)


def test_what_a_picture_gives_does_not_depend_on_those_it_comes_with(random_weights) -> None:
    tapped = base.tap("vgg16", base.load("vgg16", random_weights, 32), ["block5_pool"])
    pictures = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert tapped.batch_size in {1, 32}
    alone = [tapped.forward(one[np.newaxis])["block5_pool"][0] for one in pictures]
    again = [tapped.forward(one[np.newaxis])["block5_pool"][0] for one in pictures[::-1]]
    np.testing.assert_array_equal(alone, again[::-1])


def test_a_layer_that_the_weights_lack_is_refused_with_what_would_do(random_weights) -> None:
    with pytest.raises(WeightsError, match=r"hold no fc2; set backbone.weights: imagenet"):
        base.tap("vgg16", base.load("vgg16", random_weights, 224), ["fc2"])


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89HDF\r\n\x1a\n broken"])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path, content: bytes) -> None:
    path = tmp_path / "w.weights.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w.weights.h5: does not hold the weights of vgg16"):
        base.load("vgg16", path, 224)


def test_another_networks_weights_are_refused(tmp_path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(WeightsError, match="does not hold the weights of vgg16"):
        base.load("vgg16", tmp_path / "w.weights.h5", 224)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"gone.weights.h5: no such file"):
        base.load("vgg16", tmp_path / "gone.weights.h5", 224)

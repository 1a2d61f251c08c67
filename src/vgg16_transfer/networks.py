"""The networks that can be the backbone, one row each. To add a network, add a row.

A row is data, so that params.yaml can be checked without Keras, which takes seconds to import.
:mod:`vgg16_transfer.backbones.base` builds the model that a row describes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST = "last"
"""Name, in params.yaml, of the last convolutional layer of any network.

It is also the name of a layer that is added to networks in which Keras gives that layer no fixed
name.
"""


class Network(NamedTuple):
    """A network of :mod:`keras.applications`.

    Attributes:
        model: Module and class below ``keras.applications``. The module also has the function
            ``preprocess_input``.
        published: Paper that introduced the network.
        layers: Convolutional layers that can feed a head, in the order of the forward pass. Each is
            the last layer of a block. No connection skips it, so that fine-tuning can begin above
            it.
        dense: Layers behind the convolutions that can feed a head. They need the full weights.
            ``predictions`` gives logits.
        image_size: Side of the pictures that the network was trained on, in pixels.
        fixed_size: Whether the layers of ``dense`` take pictures of that size only.
        fine_tune: The layer below each block that ``fine_tune_from`` may name, by block.
        shown: Convolutions whose activations are drawn, in the order of the forward pass. The
            kernels of the first one are drawn too, because its input is colours.
        channels: Order of the colours in the input of the first convolution.
        checked: A layer whose weights the gradient check compares, and the layer below it: for the
            full weights, and for the convolutions alone. None if the layers up to the head are not
            simple enough for the check.
        address: Address of the ImageNet weights and their md5. If None, Keras downloads them.
        convolutions_sha256: sha256 of the ImageNet convolutions; see
            :func:`~vgg16_transfer.backbones.base.digest`. None if it is not known.
    """

    model: str
    published: str
    layers: tuple[str, ...]
    fine_tune: dict[str, str]
    shown: tuple[str, ...]
    dense: tuple[str, ...] = ()
    image_size: int = 224
    fixed_size: bool = False
    channels: str = "RGB"
    checked: tuple[tuple[str, str], tuple[str, str]] | None = None
    address: tuple[str, str] | None = None
    convolutions_sha256: str | None = None

    @property
    def title(self) -> str:
        """Name of the network for readers, such as ``VGG16``."""
        return self.model.rpartition(".")[2]


_VGG_POOLS = tuple(f"block{block}_pool" for block in range(1, 6))
_VGG_BLOCKS = {f"block{block}": f"block{block - 1}_pool" for block in range(2, 6)}
_VGG_SHOWN = ("block1_conv1", "block1_conv2", *(f"block{block}_conv1" for block in range(2, 6)))
_VGG_DENSE = ("fc1", "fc2", "predictions")
_VGG16_WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
)

NETWORKS = {
    "vgg16": Network(
        model="vgg16.VGG16",
        published="Simonyan & Zisserman 2014, configuration D",
        layers=_VGG_POOLS,
        fine_tune=_VGG_BLOCKS,
        shown=_VGG_SHOWN,  # the layers in the report of 2017
        dense=_VGG_DENSE,
        fixed_size=True,
        channels="BGR",
        checked=(("fc2", "fc1"), ("block5_conv3", "block5_conv2")),
        address=(_VGG16_WEIGHTS, "64373286793e3c8b2b4e3219cbf3544b"),
        convolutions_sha256="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    ),
    "vgg19": Network(
        model="vgg19.VGG19",
        published="Simonyan & Zisserman 2014, configuration E",
        layers=_VGG_POOLS,
        fine_tune=_VGG_BLOCKS,
        shown=_VGG_SHOWN,
        dense=_VGG_DENSE,
        fixed_size=True,
        channels="BGR",
        checked=(("fc2", "fc1"), ("block5_conv4", "block5_conv3")),
    ),
    "resnet50v2": Network(
        model="resnet_v2.ResNet50V2",
        published="He et al. 2016, Identity Mappings in Deep Residual Networks",
        layers=("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "post_relu"),
        fine_tune={
            "conv3": "conv2_block3_out",
            "conv4": "conv3_block4_out",
            "conv5": "conv4_block6_out",
        },
        shown=("conv1_conv", "conv2_block1_1_conv", "conv3_block1_1_conv", "conv5_block1_1_conv"),
        dense=("avg_pool", "predictions"),
    ),
    "mobilenetv2": Network(
        model="mobilenet_v2.MobileNetV2",
        published="Sandler et al. 2018",
        layers=("block_2_add", "block_5_add", "block_12_add", "out_relu"),
        fine_tune={"block_6": "block_5_add", "block_13": "block_12_add"},
        shown=("Conv1", "block_1_expand", "block_6_expand", "block_13_expand", "Conv_1"),
        dense=("predictions",),
    ),
    "efficientnetv2b0": Network(
        model="efficientnet_v2.EfficientNetV2B0",
        published="Tan & Le 2021",
        layers=("block2b_add", "block3b_add", "block5e_add", "top_activation"),
        fine_tune={"block3": "block2b_add", "block4": "block3b_add", "block6": "block5e_add"},
        shown=("stem_conv", "block2a_expand_conv", "block4a_expand_conv", "block6a_expand_conv"),
        dense=("avg_pool", "predictions"),
    ),
    "convnexttiny": Network(
        model="convnext.ConvNeXtTiny",
        published="Liu et al. 2022",
        # The last layer of a stage has no fixed name. The downsampling at its start has one.
        layers=(
            "convnext_tiny_downsampling_block_0",
            "convnext_tiny_downsampling_block_1",
            "convnext_tiny_downsampling_block_2",
            LAST,
        ),
        fine_tune={
            "stage_1": "convnext_tiny_downsampling_block_0",
            "stage_2": "convnext_tiny_downsampling_block_1",
            "stage_3": "convnext_tiny_downsampling_block_2",
        },
        shown=(
            "convnext_tiny_stage_0_block_0_depthwise_conv",
            "convnext_tiny_stage_1_block_0_depthwise_conv",
            "convnext_tiny_stage_3_block_0_depthwise_conv",
        ),
    ),
    "densenet121": Network(
        model="densenet.DenseNet121",
        published="Huang et al. 2017",
        layers=("pool2_pool", "pool3_pool", "pool4_pool", "relu"),
        fine_tune={"conv3": "pool2_pool", "conv4": "pool3_pool", "conv5": "pool4_pool"},
        shown=("conv1_conv", "conv2_block1_1_conv", "conv3_block1_1_conv", "conv5_block1_1_conv"),
        dense=("avg_pool", "predictions"),
    ),
}
"""The networks, by the name that params.yaml uses."""

DEFAULT = "vgg16"
"""The network of the report."""

DENSE_LAYERS = frozenset(layer for network in NETWORKS.values() for layer in network.dense)
"""Layers behind the convolutions, of all networks.

They need the full weights. Their activations are not maps.
"""


def layer_name(network: str, layer: str) -> str:
    """A network's own name of a layer.

    Args:
        network: A key of ``NETWORKS``.
        layer: A layer of the network, or :data:`LAST`.
    """
    return NETWORKS[network].layers[-1] if layer == LAST else layer


def stored_layers(network: str, layers: Sequence[str]) -> list[str]:
    """The layers of a dataset that a network has, in the network's own names.

    Args:
        network: A key of ``NETWORKS``.
        layers: The key ``layers`` of a dataset. Some may belong to other networks.
    """
    row = NETWORKS[network]
    names = [layer_name(network, layer) for layer in layers]
    return [name for name in dict.fromkeys(names) if name in (*row.layers, *row.dense)]


def cached_layer(network: str, layer: str, fine_tune_from: str) -> str:
    """The layer whose activations are cached: the deepest layer with no trained layer below.

    Args:
        network: A key of ``NETWORKS``.
        layer: The layer that feeds the head.
        fine_tune_from: The first block that is trained with the head, or ``none``.
    """
    return layer if fine_tune_from == "none" else NETWORKS[network].fine_tune[fine_tune_from]

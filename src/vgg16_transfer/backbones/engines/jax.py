"""JAX: float32 or bfloat16, by XLA, on a GPU or TPU if there is one.

JAX reads no Keras model. The layers are translated one by one into functions of JAX, which has the
same layout as Keras: height, width, channels. A layer that is not in the table below is refused by
name.

On a GPU all batches have the same size, because the order of sums, and so the last bits of a
picture's activations, may depend on it. The last batch is filled up with black pictures. Pictures
are sent as bytes and preprocessed there.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vgg16_transfer.backbones.engines.base import AT_ONCE, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vgg16_transfer.backbones.engines.base import Pictures, Prepare, Run

    Arrays = list[Any]  # arrays of JAX, or of NumPy
    Apply = Callable[..., Any]  # weights of a layer, then its inputs → its output

_OPTIONS = {"xla_gpu_exclude_nondeterministic_ops": True}
"""The same kernels give the same bits. XLA still chooses them by which is the fastest when it
starts. To choose by rule (``xla_gpu_autotune_level``) makes VGG16 90 times as slow on an H200."""

_AXES = ("NHWC", "HWIO", "NHWC")


def open_run(model: keras.Model, precision: str, calibrated: Path | None, prepare: Prepare) -> Run:
    """Makes a model ready to run: see :class:`~vgg16_transfer.backbones.engines.base.OpenRun`.

    The activations that it gives are on the device, and may not be computed yet.
    """
    jax = _library()
    del calibrated  # no precision needs it
    weights, forward = translated(model)
    weights = jax.device_put(jax.tree.map(lambda each: jax.numpy.asarray(each, precision), weights))
    on_cpu = not uses_gpu()
    matrix, offset = _affine(prepare)

    def call(weights: Any, pictures: Any) -> dict[str, Any]:
        # Otherwise a GPU rounds the factors of float32 products to 10 bits (TF32).
        with jax.default_matmul_precision("highest"):
            prepared = pictures.astype("float32") @ matrix + offset
            outputs = forward(weights, prepared.astype(precision))
        return {layer: output.astype("float32") for layer, output in outputs.items()}

    compiled = jax.jit(call, compiler_options={} if on_cpu else _OPTIONS)
    size = 1 if on_cpu else AT_ONCE

    def run(pictures: Pictures) -> dict[str, Any]:
        missing = -len(pictures) % size
        filled = np.pad(pictures, ((0, missing), *[(0, 0)] * 3)) if missing else pictures
        parts = [
            compiled(weights, filled[start : start + size]) for start in range(0, len(filled), size)
        ]
        joined = {
            layer: jax.numpy.concatenate([part[layer] for part in parts])[: len(pictures)]
            for layer in parts[0]
        }
        # NumPy narrows faster than JAX does on a CPU.
        return {layer: np.asarray(each) for layer, each in joined.items()} if on_cpu else joined

    return run


def _affine(prepare: Prepare) -> tuple[Any, Any]:
    """Preprocessing as a matrix and an offset of the colours, float32.

    That is what it is for each network of Keras. A network where it is not would be noticed when it
    is compared.
    """
    black_and_primary = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.uint8)
    offset, *primary = prepare(black_and_primary.reshape(1, 1, 4, 3))[0, 0].astype(float)
    matrix = (np.array(primary) - offset) / 255
    return matrix.astype(np.float32), offset.astype(np.float32)


def uses_gpu() -> bool:
    """Whether JAX has found a GPU, or another accelerator."""
    return bool(_library().default_backend() != "cpu")


def _library() -> Any:
    """JAX, which takes as much of a GPU's memory as it needs, and not three quarters of it."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax  # noqa: PLC0415 - only this engine needs the extra ``jax``

    return jax


def translated(
    model: keras.Model,
) -> tuple[dict[str, Any], Callable[[dict[str, Any], Any], dict[str, Any]]]:
    """A Keras model as a function of JAX.

    Args:
        model: A model of one input, which gives activations by layer.

    Returns:
        The weights by layer, and a function of such weights and of preprocessed pictures that gives
        the activations by layer.

    Raises:
        EngineError: The table below has no such layer.
    """
    below = {
        each["name"]: list(_sources(each["inbound_nodes"])) for each in model.get_config()["layers"]
    }
    start, *operations = model.operations  # layers, and "+" between their outputs
    steps = {each.name: _translated(each) for each in operations}

    def forward(weights: dict[str, Arrays], pictures: Any) -> dict[str, Any]:
        values = {start.name: pictures}
        for name, (_, apply) in steps.items():
            values[name] = apply(weights[name], *(values[each] for each in below[name]))
        return {layer: values[layer] for layer in model.output}

    return {name: weights for name, (weights, _) in steps.items()}, forward


def _sources(nodes: Any) -> Iterator[str]:
    """The layers whose outputs a layer takes, in a configuration of Keras."""
    if isinstance(nodes, dict) and nodes.get("class_name") == "__keras_tensor__":
        yield nodes["config"]["keras_history"][0]
    elif isinstance(nodes, dict | list | tuple):
        for each in nodes.values() if isinstance(nodes, dict) else nodes:
            yield from _sources(each)


def _translated(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    """The weights of a layer, and what it does with them."""
    kind = type(layer).__name__
    if kind not in _KINDS:
        raise _unknown(layer, kind)
    weights, apply = _KINDS[kind](layer)
    function = getattr(layer, "activation", None)
    name = "linear" if function is None else function.__name__
    if name == "linear":
        return weights, apply
    if name not in _FUNCTIONS:
        raise _unknown(layer, f"{kind} with {name}")
    return weights, lambda *values: _FUNCTIONS[name](apply(*values))


def _sequence(model: keras.Sequential) -> tuple[Arrays, Apply]:
    """Layers one after the other, as one layer."""
    inner = [_translated(layer) for layer in model.layers]

    def apply(weights: Arrays, values: Any) -> Any:
        for own, (_, function) in zip(weights, inner, strict=True):
            values = function(own, values)
        return values

    return [weights for weights, _ in inner], apply


def _convolution(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    kernel, *bias = layer.get_weights()  # height, width, input, output
    return [kernel, *bias], _convolved(layer, layer.groups)


def _depthwise(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    kernel, *bias = layer.get_weights()  # height, width, channel, outputs of a channel
    height, width, channels, each = kernel.shape
    kernel = kernel.reshape(height, width, 1, channels * each)
    return [kernel, *bias], _convolved(layer, channels)


def _convolved(layer: keras.layers.Layer, groups: int) -> Apply:
    def apply(weights: Arrays, values: Any) -> Any:
        from jax import lax  # noqa: PLC0415 - see open_run

        kernel, *bias = weights
        output = lax.conv_general_dilated(
            values,
            kernel,
            layer.strides,
            layer.padding.upper(),
            rhs_dilation=layer.dilation_rate,
            dimension_numbers=_AXES,
            feature_group_count=groups,
        )
        return sum(bias, output)

    return apply


def _dense(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    return layer.get_weights(), lambda weights, values: sum(weights[1:], values @ weights[0])


def _batch_normalisation(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    mean, variance = (
        np.asarray(each, float) for each in (layer.moving_mean, layer.moving_variance)
    )
    scale = (1 if layer.gamma is None else np.asarray(layer.gamma)) / np.sqrt(
        variance + layer.epsilon
    )
    shift = (0 if layer.beta is None else np.asarray(layer.beta)) - mean * scale
    return [scale, shift], lambda weights, values: values * weights[0] + weights[1]


def _layer_normalisation(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    def apply(weights: Arrays, values: Any) -> Any:
        mean = values.mean(-1, keepdims=True)
        variance = values.var(-1, keepdims=True)
        return (values - mean) * (variance + layer.epsilon) ** -0.5 * weights[0] + weights[1]

    return layer.get_weights(), apply


def _standardisation(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    mean, variance = (np.asarray(each, float).reshape(-1) for each in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return [scale, -mean * scale], lambda weights, values: values * weights[0] + weights[1]


def _pooling(mean: bool) -> Callable[[keras.layers.Layer], tuple[Arrays, Apply]]:
    def translate(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
        if mean and layer.padding != "valid":
            raise _unknown(layer, "AveragePooling2D with padding")
        window, strides = (1, *layer.pool_size, 1), (1, *layer.strides, 1)

        def apply(_: Arrays, values: Any) -> Any:
            from jax import lax  # noqa: PLC0415 - see open_run

            least, function = (0.0, lax.add) if mean else (-np.inf, lax.max)
            start = np.asarray(least, values.dtype)
            padding = layer.padding.upper()
            output = lax.reduce_window(values, start, function, window, strides, padding)
            return output / int(np.prod(window)) if mean else output

        return [], apply

    return translate


def _global_pooling(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    return [], lambda _, values: values.mean((1, 2), keepdims=layer.keepdims)


def _relu(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    if layer.negative_slope or layer.threshold:
        raise _unknown(layer, "ReLU with a slope or a threshold")
    return [], lambda _, values: values.clip(0, layer.max_value)


def _rescaling(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    return [], lambda _, values: values * layer.scale + layer.offset


def _padding(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    def apply(_: Arrays, values: Any) -> Any:
        from jax import numpy as jnp  # noqa: PLC0415 - see open_run

        return jnp.pad(values, ((0, 0), *layer.padding, (0, 0)))

    return [], apply


def _concatenation(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    def apply(_: Arrays, *values: Any) -> Any:
        from jax import numpy as jnp  # noqa: PLC0415 - see open_run

        return jnp.concatenate(values, layer.axis)

    return [], apply


def _product(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    return layer.get_weights(), lambda weights, *values: _multiplied([*weights, *values])


def _multiplied(values: Arrays) -> Any:
    return list(itertools.accumulate(values, lambda one, other: one * other))[-1]


def _shaped(layer: keras.layers.Layer) -> tuple[Arrays, Apply]:
    shape = layer.output.shape[1:]
    return [], lambda _, values: values.reshape(len(values), *shape)


def _unchanged(_: keras.layers.Layer) -> tuple[Arrays, Apply]:
    return [], lambda _, values: values


_KINDS: dict[str, Callable[[keras.layers.Layer], tuple[Arrays, Apply]]] = {
    "Sequential": _sequence,
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "BatchNormalization": _batch_normalisation,
    "LayerNormalization": _layer_normalisation,
    "Normalization": _standardisation,
    "Rescaling": _rescaling,
    "MaxPooling2D": _pooling(mean=False),
    "AveragePooling2D": _pooling(mean=True),
    "GlobalAveragePooling2D": _global_pooling,
    "ReLU": _relu,
    "Activation": _unchanged,  # and then its function
    "Add": lambda _: ([], lambda _, *values: sum(values[1:], values[0])),
    "Multiply": _product,
    "LayerScale": _product,
    "Concatenate": _concatenation,
    "ZeroPadding2D": _padding,
    "Flatten": _shaped,
    "Reshape": _shaped,
    "Dropout": _unchanged,
    "Identity": _unchanged,
}
"""What becomes of each kind of Keras's layers."""


def _sigmoid(values: Any) -> Any:
    from jax import nn  # noqa: PLC0415 - see open_run

    return nn.sigmoid(values)


def _gelu(values: Any) -> Any:
    from jax import nn  # noqa: PLC0415 - see open_run

    return nn.gelu(values, approximate=False)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda values: values.clip(0),
    "silu": lambda values: values * _sigmoid(values),
    "sigmoid": _sigmoid,
    "gelu": _gelu,
}
"""What becomes of the functions at the end of a layer."""


def _unknown(layer: keras.layers.Layer, kind: str) -> EngineError:
    return EngineError(
        f"params.yaml: backbone.engine: jax can't run {kind}, which {layer.name} is; set engine: "
        "openvino, which runs every network, or engine: tensorflow"
    )

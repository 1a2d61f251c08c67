"""ncnn: float32, with Winograd convolutions.

ncnn reads no Keras model. The layers are translated one by one, from the model itself: a text with
a line per layer, and a file with the weights in the order of the lines. A layer that is not in the
table below is refused by name.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from vgg16_transfer.backbones.engines.base import EngineError, cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vgg16_transfer.backbones.engines.base import Floats, Pictures, Prepare, Run

_MAGIC = 7767517  # the first line of ncnn's text format
_SAME = -233  # padding like Keras's "same"
_SHORT = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
    "use_int8_inference",
)
"""Options of ncnn that allow shorter numbers than float32. All are switched off."""


class _Line(NamedTuple):
    """A layer of ncnn.

    Attributes:
        kind: The name of ncnn's layer.
        values: Its parameters, by number.
        weights: Bytes of its weights.
    """

    kind: str
    values: dict[int, Any]
    weights: bytes = b""


def open_run(model: keras.Model, precision: str, calibrated: Path | None, prepare: Prepare) -> Run:
    """Makes a model ready to run: see :class:`~vgg16_transfer.backbones.engines.base.OpenRun`."""
    import ncnn  # noqa: PLC0415 - only this engine needs the extra ``ncnn``

    del precision, calibrated  # it has one, which needs none
    text, weights = translated(model)
    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in _SHORT:
        setattr(net.opt, option, False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.bin"
        file.write_bytes(weights)
        if net.load_param_mem(text) or net.load_model(str(file)):
            raise RuntimeError("it refuses the translation of the network")
    layers = [layer.name for layer in model.layers if layer.name in model.output]
    flat = {layer for layer in layers if len(model.output[layer].shape) == 2}  # noqa: PLR2004
    name = model.inputs[0].name
    pool = ThreadPoolExecutor(cores())

    def one(picture: Floats) -> dict[str, Floats]:
        channels_first = np.ascontiguousarray(picture.transpose(2, 0, 1))  # ncnn does not copy it
        extractor = net.create_extractor()
        extractor.input(name, ncnn.Mat(channels_first))
        outputs = {}
        for layer in layers:  # from the picture upwards: what lies below is computed once
            failed, output = extractor.extract(layer)
            if failed:
                raise RuntimeError(f"it can't compute {layer}")
            values = np.array(output)
            outputs[layer] = values if layer in flat else values.transpose(1, 2, 0)
        return outputs

    def run(pictures: Pictures) -> dict[str, Floats]:
        rows = list(pool.map(one, prepare(pictures)))
        return {layer: np.stack([row[layer] for row in rows]) for layer in layers}

    return run


def translated(model: keras.Model) -> tuple[str, bytes]:
    """A Keras model in ncnn's format: its text, and its weights.

    Args:
        model: A model of one input.

    Raises:
        EngineError: The table below has no such layer.
    """
    for layer in model.layers:
        if type(layer).__name__ not in _KINDS:
            raise _unknown(layer, type(layer).__name__)
    names = {id(layer.output): layer.name for layer in model.layers}
    inputs = {layer.name: _inputs(layer, names) for layer in model.layers}
    readers = Counter(itertools.chain.from_iterable(inputs.values()))
    copies = {name: iter(range(count)) for name, count in readers.items() if count > 1}

    def taken(name: str) -> str:
        """A name under which one reader finds the output of a layer: ncnn wants one each."""
        return f"{name}.{next(copies[name])}" if name in copies else name

    lines: list[str] = []
    weights: list[bytes] = []
    for layer in model.layers:
        below = [taken(name) for name in inputs[layer.name]]
        for number, line in enumerate(chain := _lines(layer)):
            name = layer.name if line is chain[-1] else f"{layer.name}.part{number}"
            lines.append(_text(line, name, below, [name]))
            weights.append(line.weights)
            below = [name]
        if layer.name in copies:
            several = [f"{layer.name}.{number}" for number in range(readers[layer.name])]
            lines.append(_text(_Line("Split", {}), f"{layer.name}.split", below, several))
    blobs = sum(int(line.split()[3]) for line in lines)
    return "\n".join([str(_MAGIC), f"{len(lines)} {blobs}", *lines, ""]), b"".join(weights)


def _inputs(layer: keras.layers.Layer, names: dict[int, str]) -> list[str]:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [names[id(tensor)] for tensor in tensors]


def _text(line: _Line, name: str, below: Sequence[str], above: Sequence[str]) -> str:
    values = [f"{number}={value}" for number, value in line.values.items()]
    counts = [str(len(below)), str(len(above))]
    return " ".join([line.kind, name, *counts, *below, *above, *values])


def _lines(layer: keras.layers.Layer) -> list[_Line]:
    """The layers of ncnn that do what a layer of Keras does."""
    return [*_KINDS[type(layer).__name__](layer), *_activation(layer)]


def _activation(layer: keras.layers.Layer) -> list[_Line]:
    function = getattr(layer, "activation", None)
    name = "linear" if function is None else function.__name__
    if name not in {"linear", "relu"}:
        raise _unknown(layer, f"{type(layer).__name__} with {name}")
    return [_Line("ReLU", {})] if name == "relu" else []


def _convolution(layer: keras.layers.Layer) -> list[_Line]:
    kernel, *bias = layer.get_weights()  # height, width, input, output
    if getattr(layer, "groups", 1) != 1:
        raise _unknown(layer, "Conv2D with groups")
    return [_Line("Convolution", *_convolved(layer, kernel.transpose(3, 2, 0, 1), bias))]


def _depthwise(layer: keras.layers.Layer) -> list[_Line]:
    kernel, *bias = layer.get_weights()  # height, width, channel, 1
    values, weights = _convolved(layer, kernel.transpose(2, 3, 0, 1), bias)
    return [_Line("ConvolutionDepthWise", values | {7: kernel.shape[2]}, weights)]


def _convolved(
    layer: keras.layers.Layer, kernel: Floats, bias: list[Floats]
) -> tuple[dict[int, Any], bytes]:
    values = {
        0: kernel.shape[0],
        1: kernel.shape[3],
        11: kernel.shape[2],
        2: layer.dilation_rate[1],
        12: layer.dilation_rate[0],
        3: layer.strides[1],
        13: layer.strides[0],
        4: _SAME if layer.padding == "same" else 0,
        5: len(bias),
        6: kernel.size,
    }
    return values, _bytes(kernel, tagged=True) + b"".join(map(_bytes, bias))


def _dense(layer: keras.layers.Layer) -> list[_Line]:
    kernel, *bias = layer.get_weights()
    values = {0: kernel.shape[1], 1: len(bias), 2: kernel.size}
    weights = _bytes(kernel.T, tagged=True) + b"".join(map(_bytes, bias))
    return [_Line("InnerProduct", values, weights)]


def _normalisation(layer: keras.layers.Layer) -> list[_Line]:
    mean, variance = (np.asarray(each) for each in (layer.moving_mean, layer.moving_variance))
    scale = np.ones_like(mean) if layer.gamma is None else np.asarray(layer.gamma)
    shift = np.zeros_like(mean) if layer.beta is None else np.asarray(layer.beta)
    weights = b"".join(map(_bytes, (scale, mean, variance, shift)))
    return [_Line("BatchNorm", {0: len(mean), 1: layer.epsilon}, weights)]


def _pooling(kind: int) -> Callable[[keras.layers.Layer], list[_Line]]:
    def line(layer: keras.layers.Layer) -> list[_Line]:
        height, width = layer.pool_size
        values = {0: kind, 1: width, 11: height, 2: layer.strides[1], 12: layer.strides[0]}
        return [_Line("Pooling", values | {5: 2 if layer.padding == "same" else 1})]

    return line


def _relu(layer: keras.layers.Layer) -> list[_Line]:
    if layer.negative_slope or layer.threshold:
        raise _unknown(layer, "ReLU with a slope or a threshold")
    if layer.max_value is None:
        return [_Line("ReLU", {})]
    return [_Line("Clip", {0: 0.0, 1: float(layer.max_value)})]


def _padding(layer: keras.layers.Layer) -> list[_Line]:
    (top, bottom), (left, right) = layer.padding
    return [_Line("Padding", {0: top, 1: bottom, 2: left, 3: right})]


def _plainly(kind: str, *, values: dict[int, Any]) -> Callable[[Any], list[_Line]]:
    return lambda _: [_Line(kind, values)]


_KINDS: dict[str, Callable[[keras.layers.Layer], list[_Line]]] = {
    "InputLayer": _plainly("Input", values={}),
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "BatchNormalization": _normalisation,
    "MaxPooling2D": _pooling(0),
    "AveragePooling2D": _pooling(1),
    "GlobalAveragePooling2D": _plainly("Pooling", values={0: 1, 4: 1}),
    "ReLU": _relu,
    "Activation": _plainly("Noop", values={}),  # and then its function
    "Add": _plainly("Eltwise", values={0: 1}),
    # Of channels: no network concatenates anything else.
    "Concatenate": _plainly("Concat", values={0: 0}),
    "ZeroPadding2D": _padding,
    # Keras flattens height, width, channels. ncnn has the channels first.
    "Flatten": lambda _: [_Line("Permute", {0: 3}), _Line("Flatten", {})],
    "Dropout": _plainly("Noop", values={}),
}
"""What becomes of each kind of Keras's layers."""


def _bytes(values: Any, *, tagged: bool = False) -> bytes:
    """Weights as ncnn reads them. A tag of 0 says that they are float32."""
    tag = np.zeros(1, "<u4").tobytes() if tagged else b""
    return tag + np.ascontiguousarray(values, dtype="<f4").tobytes()


def _unknown(layer: keras.layers.Layer, kind: str) -> EngineError:
    return EngineError(
        f"params.yaml: backbone.engine: ncnn can't run {kind}, which {layer.name} is; set engine: "
        "openvino, which runs every network, or engine: tensorflow"
    )

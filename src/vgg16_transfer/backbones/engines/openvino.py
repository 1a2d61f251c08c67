"""OpenVINO: float32, bfloat16, and int8 that NNCF calibrates. Keras exports the model."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vgg16_transfer.backbones.engines.base import EngineError, cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from vgg16_transfer.backbones.engines.base import Floats, Pictures, Prepare, Run

_MODEL = "model.xml"  # beside it, OpenVINO writes model.bin

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""The format of what is not calibrated, in OpenVINO's words."""

_NEEDED = {"bfloat16": ("BF16", "AVX-512 BF16 or AMX"), "int8": ("INT8", "SSE 4.2")}
"""What OpenVINO must say that this CPU has, and which instructions that is about."""


def open_run(model: keras.Model, precision: str, calibrated: Path | None, prepare: Prepare) -> Run:
    """Makes a model ready to run: see :class:`~vgg16_transfer.backbones.engines.base.OpenRun`."""
    openvino = _library()
    core = openvino.Core()
    _check_instructions(core, precision)
    graph = _exported(model) if calibrated is None else core.read_model(calibrated / _MODEL)
    compiled = core.compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # A stream is one thread, and computes one picture at a time.
            "NUM_STREAMS": cores(),
            "INFERENCE_NUM_THREADS": cores(),
        },
    )
    places = {
        layer: place
        for place, output in enumerate(compiled.outputs)
        for layer in model.output
        if layer in output.get_names()
    }
    if len(places) < len(model.output):
        raise RuntimeError("the export has lost a layer")
    queue = openvino.AsyncInferQueue(compiled, cores())

    def run(pictures: Pictures) -> dict[str, Floats]:
        rows: list[dict[str, Floats]] = [{} for _ in pictures]

        def keep(request: Any, row: int) -> None:
            for layer, place in places.items():
                rows[row][layer] = request.get_output_tensor(place).data[0].copy()

        queue.set_callback(keep)
        for row, picture in enumerate(prepare(pictures)):
            queue.start_async({0: picture[np.newaxis]}, row)
        queue.wait_all()
        return {layer: np.stack([row[layer] for row in rows]) for layer in places}

    return run


def calibrate(model: keras.Model, precision: str, pictures: Sequence[Floats], out: Path) -> None:
    """Converts a model: see :class:`~vgg16_transfer.backbones.engines.base.Calibrate`.

    Activations and weights become 8-bit integers. NNCF chooses the scale of each layer by the
    activations of the pictures, and then corrects the biases.
    """
    openvino = _library()
    import nncf  # noqa: PLC0415 - only this function needs it

    del precision
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own call changes handlers of others
    # Weights take 7 of the 8 bits. On a CPU without VNNI, sums of two products overflow otherwise.
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    with contextlib.redirect_stdout(sys.stderr):  # the bars of its progress
        quantized = nncf.quantize(
            _exported(model),
            nncf.Dataset([picture[np.newaxis] for picture in pictures]),
            subset_size=len(pictures),
            advanced_parameters=advanced,
        )
    # OpenVINO numbers operations by what the process did before.
    for number, operation in enumerate(quantized.get_ordered_ops()):
        operation.set_friendly_name(f"operation{number}")
    openvino.save_model(quantized, out / _MODEL, compress_to_fp16=False)


def _library() -> Any:
    """OpenVINO, which sends nothing to anyone.

    Its converter and NNCF report each use to Google Analytics if they find ``openvino_telemetry``.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as documented
    import openvino  # noqa: PLC0415 - only this engine needs the extra ``openvino``

    return openvino


def _exported(model: keras.Model) -> Any:
    """A model as Keras exports it, for one picture at a time."""
    openvino = _library()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / _MODEL)
        model.export(path, format="openvino", verbose=False)
        graph = openvino.Core().read_model(path)
    graph.reshape([1, *model.inputs[0].shape[1:]])
    return graph


def _check_instructions(core: Any, precision: str) -> None:
    """Raises an error if OpenVINO would silently compute in another format on this CPU."""
    if precision not in _NEEDED:
        return
    capability, instructions = _NEEDED[precision]
    if capability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            f"params.yaml: backbone.precision: {precision} needs a CPU with {instructions}, and "
            "this one has neither; set precision: float32"
        )

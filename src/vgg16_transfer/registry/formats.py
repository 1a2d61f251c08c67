"""The formats that a classifier can be exported to, one row each. To add a format, add a row.

This module imports only the standard library, so that the command line knows the formats at once.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Squares = npt.NDArray[np.uint8]

INPUT, OUTPUT = "pictures", "probabilities"
"""Names of the only input and the only output of an exported model."""

_OPSET = 17  # of ONNX; runtimes since 2022 have it
_COUNTED = re.compile(r"__\d+")


class FormatError(InputError):
    """A format that is not known, or that needs a package which is not installed."""


class Format(NamedTuple):
    """A file format of models.

    Attributes:
        suffix: Ending of the file or folder.
        what: Who reads it, for the help.
        write: Writes a Keras model to a path with that ending. It takes the model, the path, and
            the signature of the model's inputs.
        is_folder: Whether it is a folder.
        packages: Packages of the extra ``export`` that it needs.
    """

    suffix: str
    what: str
    write: Callable[[Any, Path, list[Any]], None]
    run: Callable[[Path, Squares], Any]
    is_folder: bool = False
    packages: tuple[str, ...] = ()


def _onnx(model: Any, path: Path, signature: list[Any]) -> None:
    import onnx  # noqa: PLC0415 - of the extra export

    with warnings.catch_warnings():
        # Keras looks for np.object, which NumPy warns of.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(
            path, format="onnx", verbose=False, input_signature=signature, opset_version=_OPSET
        )
    converted = onnx.load(path)
    _rename(converted.graph)
    onnx.checker.check_model(converted)
    onnx.save(converted, path)


def _run_onnx(path: Path, squares: Squares) -> Any:
    import onnxruntime  # noqa: PLC0415 - of the extra export

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: squares})[0]


def _rename(graph: Any) -> None:
    """Gives an ONNX graph names that do not depend on the run, and its output a name for people.

    The converter numbers values in the order of sets of names, which Python chooses anew in every
    process. They are numbered in the order of their use instead.
    """
    (output,) = graph.output
    names = {output.name: OUTPUT}

    def stable(name: str) -> str:
        if _COUNTED.search(name):
            return names.setdefault(name, f"value_{len(names)}")
        return names.get(name, name)

    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = map(stable, node.input)
        node.output[:] = map(stable, node.output)
    for constant in graph.initializer:
        constant.name = stable(constant.name)
    graph.initializer.sort(key=lambda constant: constant.name)
    output.name = OUTPUT
    for value in (*graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _tflite(model: Any, path: Path, signature: list[Any]) -> None:
    import tensorflow as tf  # noqa: PLC0415 - takes seconds

    # Keras also permits operations that a phone's runtime lacks.
    own = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    model.export(path, format="litert", verbose=False, input_signature=signature, target_spec=own)


def _run_tflite(path: Path, squares: Squares) -> Any:
    import tensorflow as tf  # noqa: PLC0415 - takes seconds

    with warnings.catch_warnings():
        # It is about to move to a package of its own, which has no wheels for all systems.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(str(path))
    return interpreter.get_signature_runner()(**{INPUT: squares})[OUTPUT]


def _savedmodel(model: Any, path: Path, signature: list[Any]) -> None:
    model.export(path, format="tf_saved_model", verbose=False, input_signature=signature)


def _run_savedmodel(path: Path, squares: Squares) -> Any:
    import tensorflow as tf  # noqa: PLC0415 - takes seconds

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return serve(**{INPUT: tf.constant(squares)})[OUTPUT].numpy()


FORMATS = {
    "onnx": Format(
        suffix=".onnx",
        what="ONNX Runtime, also in browsers",
        write=_onnx,
        run=_run_onnx,
        packages=("tf2onnx", "onnx", "onnxruntime"),
    ),
    "tflite": Format(suffix=".tflite", what="LiteRT on phones", write=_tflite, run=_run_tflite),
    "savedmodel": Format(
        suffix=".savedmodel",
        what="TensorFlow and TensorFlow Serving",
        write=_savedmodel,
        run=_run_savedmodel,
        is_folder=True,
    ),
}
"""The formats, by the name that ``vgg16-transfer export --format`` takes."""


def usable(name: str) -> Format:
    """A format whose packages are installed.

    Args:
        name: A key of ``FORMATS``.

    Raises:
        FormatError: There is no such format, or a package is missing.
    """
    if name not in FORMATS:
        raise FormatError(f"--format {name}: must be one of {', '.join(FORMATS)}")
    for package in FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            raise FormatError(
                f"--format {name}: needs the Python package {package}; run pip install "
                "'vgg16-transfer[export]'"
            )
    return FORMATS[name]

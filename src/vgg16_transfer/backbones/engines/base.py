"""What all engines share: how one is opened, compared with TensorFlow, and described in a recipe.

An engine computes the activations of pictures one by one, each in one thread, and as many pictures
at once as there are cores. So a picture's activations depend on nothing but the picture: not on the
pictures beside it, and not on the number of cores.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from vgg16_transfer.backbones import base
from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from vgg16_transfer.backbones.base import Tapped
    from vgg16_transfer.params import Backbone

    Floats = npt.NDArray[np.float32]
    Pictures = npt.NDArray[np.uint8]
    Prepare = Callable[[Pictures], Floats]
    Run = Callable[[Pictures], dict[str, Floats]]

AT_ONCE = 32
"""Pictures per call of an engine. Each core takes the next one when it is done."""

_COMPARED = 4  # pictures that are computed by TensorFlow too


class EngineError(InputError):
    """An engine that is not installed, can't run a network here, or gives other activations."""


class Network(Protocol):
    """A network that gives the activations of several layers, by whatever engine.

    Attributes:
        shapes: Shape of one picture's activations, by layer: (height, width, channels) or (units,).
        batch_size: Pictures per call.
    """

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...  # noqa: D102 - see the class

    @property
    def batch_size(self) -> int: ...  # noqa: D102 - see the class

    def forward(self, pictures: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """Computes the activations of a few pictures: see ``Tapped.forward``."""
        ...


class OpenRun(Protocol):
    """The function ``open_run`` of an engine's module.

    The module may have a function ``calibrate`` too: see :class:`Calibrate`. If it has a function
    ``uses_gpu``, that says whether it would compute on a GPU here.
    """

    def __call__(
        self, model: keras.Model, precision: str, calibrated: Path | None, prepare: Prepare
    ) -> Run:
        """Makes a model ready to run.

        Args:
            model: Preprocessed pictures → activations by layer.
            precision: One of the row's precisions.
            calibrated: Folder that ``calibrate`` wrote. None if the precision needs none.
            prepare: Pictures → preprocessed pictures.

        Returns:
            A function that takes pictures of shape (n, height, width, 3), RGB, 0 to 255, and gives
            the activations by layer, shape (n, …), float32. They may be arrays of another library
            that have the methods of NumPy's, so that a GPU narrows what it computed.

        Raises:
            EngineError: The engine can't run the model, or not on this CPU.
        """
        ...


class Calibrate(Protocol):
    """The function ``calibrate`` of a module whose engine has calibrated precisions."""

    def __call__(
        self, model: keras.Model, precision: str, pictures: Sequence[Floats], out: Path
    ) -> None:
        """Converts a model. The same model and pictures give the same bytes.

        Args:
            model: Preprocessed pictures → activations by layer.
            precision: One of the row's calibrated precisions.
            pictures: Preprocessed pictures, shape (height, width, 3) each, float32.
            out: The folder to write, which exists and is empty.
        """
        ...


class Checked:
    """A network that an engine runs. It is opened, and compared, when the first pictures come.

    So a run that has nothing to compute opens nothing.

    Attributes:
        shapes: Shape of one picture's activations, by layer.
        batch_size: Pictures per call.
    """

    def __init__(
        self,
        backbone: Backbone,
        reference: Tapped,
        model: keras.Model,
        calibrated: Path | None,
    ) -> None:
        self.shapes = reference.shapes
        self.batch_size = AT_ONCE
        self._backbone = backbone
        self._reference = reference
        self._model = model
        self._calibrated = calibrated
        self._run: Run | None = None

    def forward(self, pictures: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """Computes the activations of a few pictures.

        Args:
            pictures: Shape (n, image_size, image_size, 3), RGB, 0 to 255.

        Returns:
            Activations by layer, shape (n, …) as in ``shapes``, float32.

        Raises:
            EngineError: The engine can't run the network here, or gives other activations than
                TensorFlow.
        """
        if self._run is None:
            self._run = self._compared(pictures[:_COMPARED])
        return self._run(pictures)

    def _compared(self, pictures: npt.NDArray[np.uint8]) -> Run:
        """Opens the engine, and compares it with TensorFlow, layer by layer."""
        backbone = self._backbone
        open_run = cast("OpenRun", _module_of(backbone.engine).open_run)
        try:
            prepare = partial(preprocessed, backbone)
            run = open_run(self._model, backbone.precision, self._calibrated, prepare)
            computed = run(pictures)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - each library has its own, RuntimeError too
            raise refusal(backbone, "can't run", error) from None
        expected = [self._reference.forward(picture[np.newaxis]) for picture in pictures]
        allowed = ENGINES[backbone.engine].precisions[backbone.precision].tolerance
        for layer in self.shapes:
            outputs = np.asarray(computed[layer])
            pairs = zip(outputs, (each[layer][0] for each in expected), strict=True)
            difference = float(np.mean([distance(ours, theirs) for ours, theirs in pairs]))
            if not difference <= allowed:  # NaN is no number of any size
                raise EngineError(
                    f"params.yaml: backbone.engine: {described(backbone)} computes another {layer} "
                    f"of {backbone.network} than TensorFlow: the difference is {difference:.2g} of "
                    f"its length, and may be {allowed:g}; set engine: {DEFAULT_ENGINE}"
                )
        return run


def opened(
    backbone: Backbone, reference: Tapped, network: keras.Model, calibrated: Path | None = None
) -> Network:
    """A network, run by the engine that params.yaml names.

    A worker process can open it from the same arguments: the section of params.yaml, a file of
    weights, names of layers, and a folder.

    Args:
        backbone: The section ``backbone`` of params.yaml.
        reference: The network and its layers, as TensorFlow runs them.
        network: The network that was tapped.
        calibrated: Folder of the calibrated network, if the precision needs one.
    """
    if backbone.engine == DEFAULT_ENGINE:
        return reference
    return Checked(backbone, reference, tapped_model(network, list(reference.shapes)), calibrated)


def uses_gpu(engine: str) -> bool:
    """Whether an engine would compute on a GPU, in this process."""
    if engine == DEFAULT_ENGINE:
        return bool(tf.config.list_physical_devices("GPU"))
    return bool(getattr(_module_of(engine), "uses_gpu", bool)())


def tapped_model(network: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Preprocessed pictures → activations by layer. What lies behind these layers is left out."""
    return keras.Model(network.input, {layer: network.get_layer(layer).output for layer in layers})


def preprocessed(backbone: Backbone, pictures: npt.NDArray[np.uint8]) -> Floats:
    """Pictures as the network takes them, float32."""
    floats: Floats = base.preprocess(backbone.network, pictures).numpy()
    return floats


def calibrate(
    backbone: Backbone,
    model: keras.Model,
    pictures: npt.NDArray[np.uint8],
    out: Path,
) -> None:
    """Converts a network for a precision that needs pictures for it.

    Args:
        backbone: The section ``backbone`` of params.yaml.
        model: Preprocessed pictures → activations by layer.
        pictures: Shape (n, image_size, image_size, 3), RGB, 0 to 255.
        out: The folder to write, which exists and is empty.

    Raises:
        EngineError: The network can't be converted.
    """
    function = cast("Calibrate", _module_of(backbone.engine).calibrate)
    try:
        function(model, backbone.precision, list(preprocessed(backbone, pictures)), out)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - see Checked._compared
        raise refusal(backbone, "can't convert", error) from None


def recipe(backbone: Backbone) -> dict[str, Any]:
    """What the engine adds to the recipe of features. Nothing if it is the default.

    Raises:
        EngineError: The engine is not installed.
    """
    if backbone.engine == DEFAULT_ENGINE:
        return {}
    row = ENGINES[backbone.engine]
    code = b"".join(
        Path(str(module.__file__)).read_bytes()
        for module in (importlib.import_module(__name__), _module_of(backbone.engine))
    )
    try:
        versions = {name: importlib.metadata.version(name) for name in row.packages}
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(
            f"params.yaml: backbone.engine: {backbone.engine} comes from the extra '{row.extra}'; "
            f"run pip install -e '.[cpu,{row.extra}]' -c constraints.txt"
        ) from None
    return {
        "engine": {
            "name": backbone.engine,
            "precision": backbone.precision,
            "code_sha256": hashlib.sha256(code).hexdigest(),
            "versions": versions,
        }
    }


def distance(one: Floats, other: Floats) -> float:
    """The length of the difference of two arrays, as a share of the length of the second.

    Arrays of different shapes are infinitely far from each other.
    """
    if one.shape != other.shape:
        return float("inf")
    length = float(np.linalg.norm(other.astype(np.float64)))
    difference = float(np.linalg.norm(one.astype(np.float64) - other))
    return difference / max(length, float(np.finfo(np.float32).tiny))


def cores() -> int:
    """How many pictures are computed at once: one for each core that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # macOS has none
    return min(len(usable(0)) if usable else os.cpu_count() or 1, AT_ONCE)


def described(backbone: Backbone) -> str:
    """An engine with its precision, for messages."""
    return f"{backbone.engine} with precision: {backbone.precision}"


def refusal(backbone: Backbone, what: str, error: Exception) -> EngineError:
    """The sentence about a library that raised an error."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return EngineError(
        f"params.yaml: backbone.engine: {described(backbone)} {what} {backbone.network}: {reason}; "
        f"set engine: {DEFAULT_ENGINE}"
    )


def _module_of(engine: str) -> Any:
    return importlib.import_module(f"vgg16_transfer.backbones.engines.{engine}")

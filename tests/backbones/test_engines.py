"""Every row of ENGINES: what it computes, that it always computes the same, and what it refuses."""

import hashlib
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest

from vgg16_transfer.backbones import base, calibrated, features
from vgg16_transfer.backbones.base import Tapped
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.backbones.engines.base import EngineError
from vgg16_transfer.backbones.features import write_features
from vgg16_transfer.backbones.narrowing import narrow
from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.images.source import Source
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.params import Backbone

from .conftest import picture, write_archive, write_split

SIDE = 64
OTHERS = [name for name in ENGINES if name != DEFAULT_ENGINE]
CALIBRATED = [
    (name, precision)
    for name, row in ENGINES.items()
    for precision, values in row.precisions.items()
    if values.calibrated
]
CASES = [(name, precision) for name in OTHERS for precision in ENGINES[name].precisions]
LAYERS = ["block4_pool", "block5_pool"]
REFUSED = {"ncnn": {"efficientnetv2b0": "Rescaling", "convnexttiny": "Normalization"}}
# What Keras exports in half a minute.
TAKING_LONG = [("densenet121", "openvino"), ("efficientnetv2b0", "openvino")]
RUNNING = [(name, engine) for name in NETWORKS for engine in OTHERS]


def require(engine: str) -> None:
    """Skips a test if an engine is not installed, but not in CI."""
    for package in ENGINES[engine].packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            missing(f"the extra '{ENGINES[engine].extra}' is not installed")


class Case(NamedTuple):
    """An engine at one precision, with a network for it."""

    backbone: Backbone
    network: keras.Model
    reference: Tapped
    converted: Path | None

    def open(self) -> engines.Network:
        return engines.opened(self.backbone, self.reference, self.network, self.converted)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return noise(0, 5)


def noise(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def make_case(network: keras.Model, name: str, engine: str, precision: str, folder: Path) -> Case:
    require(engine)
    settings = {"network": name, "weights": "random-conv", "image_size": SIDE}
    backbone = Backbone(**settings, engine=engine, precision=precision)
    reference = base.tap(name, network, NETWORKS[name].layers)
    converted = None
    if ENGINES[engine].precisions[precision].calibrated:
        converted = folder
        model = engines.tapped_model(network, list(NETWORKS[name].layers))
        engines.calibrate(backbone, model, noise(1, 8), converted)
    return Case(backbone, network, reference, converted)


def skip_on_a_cpu_without_the_instructions(case: Case) -> None:
    """Skips a test if the engine refuses this CPU, with the right sentence."""
    refused = rf"^params.yaml: .* {case.backbone.precision} needs a CPU with .*: float32$"
    try:
        case.open().forward(noise(0, 1))
    except EngineError as error:
        if not re.match(refused, str(error)):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def vgg16(random_weights: Path) -> keras.Model:
    return base.load("vgg16", random_weights, SIDE)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, vgg16: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    made = make_case(vgg16, "vgg16", *request.param, tmp_path_factory.mktemp("converted"))
    skip_on_a_cpu_without_the_instructions(made)
    return made


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> tuple[str, keras.Model]:
    keras.utils.set_random_seed(0)
    return request.param, base.architecture(request.param, dense=False, image_size=SIDE)


def differences(case: Case, network: engines.Network, pictures: np.ndarray) -> dict[str, float]:
    """The largest difference of any picture from TensorFlow, by layer."""
    computed = {layer: np.asarray(each) for layer, each in network.forward(pictures).items()}
    largest = dict.fromkeys(computed, 0.0)
    for row, each in enumerate(pictures):
        for layer, expected in case.reference.forward(each[np.newaxis]).items():
            difference = engines.distance(computed[layer][row], expected[0])
            largest[layer] = max(largest[layer], difference)
    return largest


def test_the_default_engine_is_the_network_as_it_was(vgg16: keras.Model) -> None:
    backbone = Backbone(weights="random-conv", image_size=SIDE)
    reference = base.tap("vgg16", vgg16, LAYERS)
    assert engines.opened(backbone, reference, vgg16) is reference
    assert engines.recipe(backbone) == {}
    assert backbone == backbone.model_copy(update={"engine": DEFAULT_ENGINE})


def test_an_engine_computes_what_tensorflow_does(case: Case, pictures: np.ndarray) -> None:
    network = case.open()
    tolerance = ENGINES[case.backbone.engine].precisions[case.backbone.precision].tolerance
    for layer, difference in differences(case, network, pictures).items():
        assert difference <= tolerance, layer
    for layer, output in network.forward(pictures).items():
        assert output.dtype == np.float32
        assert output.shape == (len(pictures), *case.reference.shapes[layer])


def test_a_picture_has_the_same_bytes_beside_any_others_and_on_any_number_of_cores(
    case: Case, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = case.open().forward(pictures)
    module = importlib.import_module(f"vgg16_transfer.backbones.engines.{case.backbone.engine}")
    for cores in (1, 3):
        # JAX shares a picture among its threads, and has no such function.
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores, raising=False)
        network = case.open()
        for rows in ([0], [4, 2, 0], [1, 1, 3, 0, 0]):
            for layer, output in network.forward(pictures[rows]).items():
                np.testing.assert_array_equal(output, expected[layer][rows])


def test_what_a_gpu_computed_is_narrowed_there_and_batches_are_filled_up(
    vgg16: keras.Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(vgg16, "vgg16", "jax", "float32", tmp_path)
    jax = importlib.import_module("jax")
    module = importlib.import_module("vgg16_transfer.backbones.engines.jax")
    monkeypatch.setattr(module, "uses_gpu", lambda: True)
    monkeypatch.setattr(module, "_OPTIONS", {})  # those of a GPU
    sizes = []
    convolve = jax.lax.conv_general_dilated

    def convolved(values: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(values))
        return convolve(values, *args, **options)

    monkeypatch.setattr(jax.lax, "conv_general_dilated", convolved)
    network = case.open()
    assert max(differences(case, network, pictures).values()) <= 1e-4
    for output in network.forward(pictures).values():
        assert isinstance(output, jax.Array)
        rows, largest = narrow(output, "float16")
        expected, most = narrow(np.asarray(output), "float16")
        np.testing.assert_array_equal(rows, expected)
        assert (rows.dtype, len(rows), largest) == (np.float16, len(pictures), most)
    assert set(sizes) == {engines.AT_ONCE}


@pytest.mark.parametrize(
    ("network", "engine"),
    [each for each in RUNNING if each not in TAKING_LONG],
    indirect=["network"],
)
def test_an_engine_runs_every_network_or_names_the_layer_that_it_can_not_run(
    engine: str, network: tuple[str, keras.Model], pictures: np.ndarray, tmp_path: Path
) -> None:
    name, model = network
    case = make_case(model, name, engine, "float32", tmp_path)
    kind = REFUSED.get(engine, {}).get(name)
    if kind is not None:
        with pytest.raises(EngineError, match=rf"{engine} can't run {kind}, .* engine: tensorflow"):
            case.open().forward(pictures)
        return
    tolerance = ENGINES[engine].precisions["float32"].tolerance
    assert max(differences(case, case.open(), pictures[:2]).values()) <= tolerance


@pytest.mark.parametrize("engine", OTHERS)
def test_dense_layers_are_computed_too(engine: str, tmp_path: Path) -> None:
    """With a head of a few classes, because VGG16's own has 120 million weights."""
    keras.utils.set_random_seed(0)
    convolutions = base.architecture("vgg16", dense=False, image_size=SIDE)
    flat = keras.layers.Flatten(name="flatten")(convolutions.get_layer("block5_pool").output)
    dense = keras.layers.Dense(7, activation="relu", name="fc1")(flat)
    model = keras.Model(convolutions.input, keras.layers.Dense(3, name="predictions")(dense))
    reference = base.tap("vgg16", model, ["block5_pool", "fc1", "predictions"])
    require(engine)
    backbone = Backbone(weights="random", image_size=SIDE, engine=engine)
    case = Case(backbone, model, reference, None)
    assert max(differences(case, case.open(), noise(2, 2)).values()) <= 1e-4


PROGRAM = """
import hashlib, sys
from pathlib import Path
import numpy as np
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.engines import ENGINES
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.params import Backbone

weights, folder, *cases = sys.argv[1:]
network = base.load("vgg16", Path(weights), 64)
layers = list(NETWORKS["vgg16"].layers)
for case in cases:
    engine, precision = case.split("-")
    backbone = Backbone(weights="random-conv", image_size=64, engine=engine, precision=precision)
    converted = None
    if ENGINES[engine].precisions[precision].calibrated:
        converted = Path(folder) / case
        converted.mkdir()
        noise = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
        engines.calibrate(backbone, engines.tapped_model(network, layers), noise, converted)
    opened = engines.opened(backbone, base.tap("vgg16", network, layers), network, converted)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    digest = hashlib.sha256()
    try:
        outputs = opened.forward(pictures)
    except engines.EngineError as error:
        print(case, error)
        continue
    for output in outputs.values():
        digest.update(output.tobytes())
    print(case, digest.hexdigest())
"""


@pytest.fixture(scope="module")
def elsewhere(
    random_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """What another process computes: a folder of converted networks, and digests by case."""
    for engine in OTHERS:
        require(engine)
    folder = tmp_path_factory.mktemp("elsewhere")
    cases = ["-".join(each) for each in CASES]
    command = [sys.executable, "-c", PROGRAM, str(random_weights), str(folder), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return folder, {line[0]: line[1] for line in lines if line[0] in cases}


def test_another_process_computes_the_same_bytes(
    case: Case, elsewhere: tuple[Path, dict[str, str]]
) -> None:
    folder, digests = elsewhere
    name = f"{case.backbone.engine}-{case.backbone.precision}"
    if case.converted is not None:
        for path in case.converted.iterdir():
            assert path.read_bytes() == (folder / name / path.name).read_bytes(), path.name
    digest = hashlib.sha256()
    for output in case.open().forward(noise(0, 3)).values():
        digest.update(output.tobytes())
    assert digest.hexdigest() == digests[name]


WRONG = {
    "another size": lambda values: 1.6 * values,
    "other places": lambda values: np.ascontiguousarray(values[:, ::-1]),
    "zeros": np.zeros_like,
    "no numbers": lambda values: np.full_like(values, np.nan),
    "another shape": lambda values: values[:, :-1],
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("engine", "precision"), CASES, ids=str)
def test_other_activations_are_one_sentence_and_no_features(
    vgg16: keras.Model,
    pictures: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    precision: str,
    wrong: str,
) -> None:
    """Those of TensorFlow, changed, stand in for what a broken engine computes."""
    reference = base.tap("vgg16", vgg16, LAYERS)
    module = importlib.import_module(f"vgg16_transfer.backbones.engines.{engine}")
    rows = [reference.forward(picture[np.newaxis]) for picture in pictures]
    right = {layer: np.concatenate([row[layer] for row in rows]) for layer in LAYERS}

    def broken(*_: Any) -> Any:
        return lambda values: {
            layer: WRONG[wrong](output[: len(values)]) for layer, output in right.items()
        }

    monkeypatch.setattr(module, "open_run", broken)
    backbone = Backbone(weights="random-conv", image_size=SIDE, engine=engine, precision=precision)
    network = engines.opened(backbone, reference, vgg16)
    for _ in range(2):
        with pytest.raises(EngineError) as caught:
            network.forward(pictures)
        (sentence,) = str(caught.value).splitlines()
        assert f"{engine} with precision: {precision}" in sentence
        assert "computes another block4_pool of vgg16 than TensorFlow" in sentence
        assert sentence.endswith("set engine: tensorflow")


def test_an_error_of_the_library_is_one_sentence(
    case: Case, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"vgg16_transfer.backbones.engines.{case.backbone.engine}")

    def failing(*_: Any) -> Any:
        raise RuntimeError("Exception from src/core/graph.cpp:1:\nno such operation")

    monkeypatch.setattr(module, "open_run", failing)
    with pytest.raises(EngineError, match=r"can't run vgg16: Exception .*cpp:1: no such op.*; set"):
        case.open().forward(pictures)


@pytest.mark.parametrize(("precision", "capability"), [("bfloat16", "BF16"), ("int8", "INT8")])
def test_a_cpu_without_the_instructions_is_one_sentence(precision: str, capability: str) -> None:
    module = importlib.import_module("vgg16_transfer.backbones.engines.openvino")

    class Core:
        def __init__(self, *able: str) -> None:
            self.able = able

        def get_property(self, *_: str) -> tuple[str, ...]:
            return self.able

    module._check_instructions(Core("FP32", capability), precision)
    with pytest.raises(EngineError, match=rf"precision: {precision} needs a CPU .* float32$"):
        module._check_instructions(Core("FP32"), precision)


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_that_is_not_installed_is_one_sentence(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    backbone = Backbone(weights="random-conv", image_size=SIDE, engine=engine)
    extra = ENGINES[engine].extra
    with pytest.raises(EngineError, match=rf"the extra '{extra}'; run pip install .*cpu,{extra}"):
        engines.recipe(backbone)


def printed(program: str) -> str:
    """What a program prints in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_an_engine_that_is_not_used_is_not_imported() -> None:
    program = (
        "import sys\n"
        "from vgg16_transfer.quiet import silence_tensorflow\n"
        "silence_tensorflow(fast=True)\n"  # TensorFlow itself imports jax
        "import vgg16_transfer.backbones.features, vgg16_transfer.backbones.engines.ncnn, "
        "vgg16_transfer.backbones.engines.openvino, vgg16_transfer.backbones.engines.jax\n"
        "print([name for name in ('jax', 'ncnn', 'nncf', 'openvino') if name in sys.modules])"
    )
    assert printed(program) == "[]"


def test_openvino_finds_nothing_to_send_reports_with() -> None:
    require("openvino")
    program = (
        "from vgg16_transfer.backbones.engines import openvino; openvino._library()\n"
        "import nncf.telemetry, openvino.tools.ovc.convert_impl as converter\n"
        "print(type(nncf.telemetry.telemetry).__name__, converter.tm.__name__)"
    )
    assert printed(program).split() == ["MagicMock", "openvino.tools.ovc.telemetry_stub"]


# The stage


class World:
    """A dataset on disk, with pictures that train, validate and test."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.weights = weights
        self.splits = folder / "d"
        self.archive = write_archive(folder / "pictures.tar", list(range(30)))
        self.out = folder / "features" / "d"
        self.split(range(6, 26))

    def split(self, testing: range, seeds: int = 2) -> None:
        """Two seeds with the same validation pictures, of which each tests the other's training."""
        for seed in range(seeds):
            write_split(self.splits, str(seed), [*range(10, 20), *testing])
            path = self.splits / f"{seed}.csv"
            frame = pd.read_csv(path)
            validation = [f"p/{number:03}.png" for number in range(10, 20)]
            frame.loc[frame["path"].isin(validation), "role"] = "validation"
            frame[COLUMNS].drop_duplicates("path").to_csv(path, index=False)

    def run(self, **changes: Any) -> int:
        (written,) = write_features(
            {"vgg16": Backbone(weights="random-conv", image_size=32, **changes)},
            LAYERS,
            weights={"vgg16": self.weights},
            splits=self.splits,
            source=Source(self.archive),
            outs={"vgg16": self.out},
        ).values()
        return written.computed

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.out.rglob("*") if path.is_file()]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def world(tmp_path: Path, random_weights: Path) -> World:
    return World(tmp_path, random_weights)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per conversion: the number of pictures."""
    seen: list[int] = []
    calibrate = engines.calibrate

    def counted(backbone: Any, model: Any, pictures: np.ndarray, out: Path) -> None:
        seen.append(len(pictures))
        calibrate(backbone, model, pictures, out)

    monkeypatch.setattr(engines, "calibrate", counted)
    return seen


def test_the_recipe_of_the_default_engine_names_no_engine(random_weights: Path) -> None:
    backbone = Backbone(weights="random-conv", image_size=32)
    keys = ["network", "weights_md5", "image_size", "resize", "dtype", "code_sha256", "versions"]
    assert list(features.recipe(backbone, random_weights)) == keys


@pytest.mark.parametrize("engine", OTHERS)
def test_rows_of_another_engine_are_never_used(world: World, engine: str) -> None:
    require(engine)
    pictures = world.run()
    assert pictures == 20
    before = world.files()
    assert world.run(engine=engine) == pictures
    recipe = FeatureStore.open(world.out).recipe
    assert recipe["engine"]["name"] == engine
    assert recipe["engine"]["versions"].keys() == set(ENGINES[engine].packages)
    assert world.run(engine=engine) == 0
    assert world.run() == pictures
    assert world.files() == before


@pytest.mark.parametrize("engine", OTHERS)
def test_a_wrong_engine_leaves_the_old_features_alone(
    world: World, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(engine)
    world.run()
    before = world.files()
    monkeypatch.setattr(engines, "distance", lambda *_: float("nan"))
    with pytest.raises(EngineError, match="another block4_pool of vgg16 than TensorFlow"):
        world.run(engine=engine)
    assert world.files() == before


@pytest.mark.parametrize(("engine", "precision"), CALIBRATED)
def test_a_converted_network_lies_in_the_store_and_is_made_once(
    world: World, engine: str, precision: str, conversions: list[int]
) -> None:
    require(engine)
    settings = {"engine": engine, "precision": precision}
    assert world.run(**settings) == 20
    before = world.files()
    values = FeatureStore.open(world.out).recipe["engine"]["calibrated"]
    assert values["pictures"] == 10
    assert values["sha256"] == calibrated._digest(world.out / "calibrated.network")
    assert world.run(**settings) == 0
    assert conversions == [10]
    assert world.files() == before
    assert [path.name for path in world.out.parent.iterdir()] == ["d"]

    damaged = next((world.out / "calibrated.network").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert world.run(**settings) == 0
    assert conversions == [10, 10]
    assert world.files() == before


@pytest.mark.parametrize(("engine", "precision"), CALIBRATED)
def test_a_run_that_is_killed_after_the_conversion_goes_on_with_it(
    world: World,
    engine: str,
    precision: str,
    conversions: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require(engine)

    class Killed(BaseException):
        """Stands in for a SIGKILL."""

    def mortal(*_: Any) -> None:
        raise Killed

    settings = {"engine": engine, "precision": precision}
    with monkeypatch.context() as patch:
        patch.setattr(engines.Checked, "forward", mortal)
        with pytest.raises(Killed):
            world.run(**settings)
    assert world.run(**settings) == 20
    assert conversions == [10]
    assert [path.name for path in world.out.parent.iterdir()] == ["d"]


def test_no_test_picture_of_any_split_is_calibrated_on(world: World) -> None:
    world.split(range(6, 20))
    chosen = dict(calibrated.chosen(world.splits))
    assert sorted(chosen.values()) == [f"p/{number:03}.png" for number in range(10, 20)]
    assert list(chosen) == sorted(hashlib.sha256(picture(n)).hexdigest() for n in range(10, 20))


def test_training_pictures_come_before_validation_pictures(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrated, "PICTURES", 8)
    for seed in (0, 1):
        path = world.splits / f"{seed}.csv"
        frame = pd.read_csv(path)
        trained = [f"p/{number:03}.png" for number in (6, 7, 8, *([9] if seed else []))]
        frame.loc[frame["path"].isin(trained), "role"] = "train"
        frame.to_csv(path, index=False)
    paths = {path for _, path in calibrated.chosen(world.splits)}
    assert len(paths) == 8
    assert {f"p/{number:03}.png" for number in (6, 7, 8)} < paths
    assert "p/009.png" not in paths  # the other seed tests on it


def test_too_few_pictures_to_calibrate_on_are_one_sentence(world: World) -> None:
    frame = pd.read_csv(world.splits / "0.csv")
    frame["role"] = np.where(frame["path"] < "p/013.png", "train", "test")
    for seed in (0, 1):
        frame.to_csv(world.splits / f"{seed}.csv", index=False)
    with pytest.raises(EngineError) as caught:
        calibrated.chosen(world.splits)
    assert "at least 8 pictures that no split tests on" in str(caught.value)
    assert "has 7; set datasets.d.split.validation_per_class" in str(caught.value)

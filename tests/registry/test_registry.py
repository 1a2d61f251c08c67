"""A study's head becomes a registered model: once, with its card, and without the workspace."""

import ast
import base64
import dataclasses
import importlib.metadata
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import mlflow
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from vgg16_transfer.heads import records
from vgg16_transfer.heads.selection import assemble, choose
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.images.pictures import PictureError
from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.params import Backbone
from vgg16_transfer.registry import registry
from vgg16_transfer.registry.card import Subject, write_card
from vgg16_transfer.registry.contents import Contents
from vgg16_transfer.registry.registry import Registered
from vgg16_transfer.tracking.mlflow_store import Store, TrackingError, find_store

if TYPE_CHECKING:
    from vgg16_transfer.heads.classifier import Classifier, Recipe

STUDY, DATASET = "few", "animals"


class Registry:
    """A store that knows the runs of a trained study, and what registering it needs."""

    def __init__(self, store: Store, trained: Any) -> None:
        self.store = store
        self.client = store.client()
        self.study = trained.params.study(STUDY)
        self.layout = trained.layout
        self.params = trained.params
        self.record = records.read(trained.layout.record(STUDY))
        self.chosen = choose(self.study, self.record)
        self.assembled = 0

    def lineage(self, digest: str = "a") -> Lineage:
        return Lineage(
            stage=f"train@{STUDY}",
            lock_digest=digest * 64,
            dependencies={f"data/splits/{DATASET}": "5" * 32, f"data/features/{DATASET}": "f" * 32},
            commit="0" * 40,
            dirty=False,
            experiment=None,
        )

    def log(self, digest: str = "a", accuracy: float | None = None, *, whole: bool = True) -> str:
        """A run of the chosen trial, such as publish makes it."""
        tags = self.lineage(digest).tags() | {"study": STUDY, "trial": self.chosen.name}
        run = self.client.create_run(self.store.experiment(self.client, DATASET), tags=tags)
        reached = self.chosen.validation_accuracy if accuracy is None else accuracy
        self.client.log_metric(run.info.run_id, "validation_accuracy", reached, step=3)
        if whole:
            self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def contents(self) -> Contents:
        self.assembled += 1
        layout = self.layout
        model = assemble(layout.heads(STUDY) / f"{self.chosen.name}.keras", layout.weights)
        manifest = read_manifest(layout.splits(DATASET) / f"{self.chosen.trial.seed}.csv")
        subject = Subject(self.params, self.study, self.chosen, model.recipe, self.record, manifest)
        return Contents(model, subject, self.picture())

    def register(self, digest: str = "a") -> Registered:
        return registry.register(
            self.store, self.study, self.chosen, self.lineage(digest), self.contents
        )

    def picture(self, path: str = "cat/1.jpg") -> bytes:
        with open_archive(self.layout.source(DATASET)) as archive:
            return archive.read(path)

    def aliases(self) -> dict[str, str]:
        return {k: str(v) for k, v in self.client.get_registered_model(STUDY).aliases.items()}

    def versions(self) -> list[Any]:
        result = self.client.search_model_versions(f"name = '{STUDY}'")
        return sorted(result, key=lambda version: int(version.version))

    def models(self) -> list[Any]:
        return list(self.client.search_logged_models([self.store.experiment(self.client, DATASET)]))


@pytest.fixture
def fresh(store: Store, trained) -> Registry:
    """Nothing is logged yet, and nothing registered."""
    return Registry(store, trained)


@pytest.fixture(scope="module")
def registered(
    make_store: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory, trained
) -> Registry:
    """Registered once; no test of it adds anything."""
    made = Registry(make_store(tmp_path_factory.mktemp("registered")), trained)
    made.run_id = made.log()  # type: ignore[attr-defined]
    assert made.register() == Registered("1", added=True, previous=None)
    return made


@pytest.fixture
def folder(registered: Registry) -> Path:
    """Where the model itself lies."""
    (version,) = registered.versions()
    mlflow.set_tracking_uri(registered.store.uri)
    return Path(mlflow.artifacts.download_artifacts(f"models:/{STUDY}/{version.version}"))


@pytest.fixture
def loaded(registered: Registry) -> Any:
    mlflow.set_tracking_uri(registered.store.uri)
    return mlflow.pyfunc.load_model(f"models:/{STUDY}@champion")


def test_the_champion_lies_under_the_run_of_its_trial(registered: Registry) -> None:
    version = registered.client.get_model_version_by_alias(STUDY, "champion")
    (model,) = registered.models()
    run = registered.client.get_run(registered.run_id)  # type: ignore[attr-defined]
    assert (version.run_id, version.source) == (run.info.run_id, f"models:/{model.model_id}")
    assert model.source_run_id == run.info.run_id
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    assert run.info.status == "FINISHED"


def test_a_version_is_tagged_with_its_lineage(registered: Registry) -> None:
    (version,) = registered.versions()
    assert version.tags == {
        "dvc.lock_digest": "a" * 64,
        "dvc.splits_md5": "5" * 32,
        "dvc.features_md5": "f" * 32,
        "git.commit": "0" * 40,
        "git.dirty": "false",
        "study": STUDY,
        "trial": registered.chosen.name,
        "validation_accuracy": f"{registered.chosen.validation_accuracy:.6g}",
    }


def test_the_signature_names_the_picture_and_the_classes(loaded) -> None:
    signature = loaded.metadata.signature
    assert signature.inputs.to_dict() == [{"type": "binary", "name": "picture", "required": True}]
    assert signature.outputs.input_names() == ["ant", "bee", "cat"]
    assert {str(kind) for kind in signature.outputs.input_types()} == {"DataType.double"}
    assert loaded.metadata.metadata == {"labels": ["ant", "bee", "cat"]}


def test_the_input_example_is_a_picture_that_it_answers(registered: Registry, loaded) -> None:
    example = loaded.input_example
    assert example["picture"].tolist() == [registered.picture()]
    assert loaded.predict(example).shape == (1, 3)


def test_it_gives_what_the_classifier_gives(registered: Registry, loaded) -> None:
    pictures = [registered.picture(f"{name}/2.jpg") for name in ("ant", "bee")]
    answer = loaded.predict(pd.DataFrame({"picture": pictures}))
    model = registered.contents().model
    assert list(answer.columns) == ["ant", "bee", "cat"]
    expected = [model.probabilities(picture) for picture in pictures]
    np.testing.assert_array_equal(answer.to_numpy(), np.array(expected, dtype=float))


def test_bytes_arrive_whole_though_they_end_in_zeros(registered: Registry, loaded) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(registered.picture())).save(buffer, "BMP")
    padded = buffer.getvalue() + bytes(9)
    answer = loaded.predict(pd.DataFrame({"picture": [padded, registered.picture()]}))
    assert answer.to_numpy()[0] == pytest.approx(answer.to_numpy()[1], abs=1e-6)


def test_a_picture_that_cant_be_read_is_named_by_its_number(registered: Registry, loaded) -> None:
    pictures = pd.DataFrame({"picture": [registered.picture(), b"GIF"]})
    with pytest.raises(mlflow.MlflowException, match=r"^picture 2 is no picture") as caught:
        loaded.predict(pictures)
    assert caught.value.get_http_status_code() == 400


# A process that finds this package nowhere but in the model, and none of the workspace.
ALONE = """
import base64
import json
import sys

import mlflow
import pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
picture = base64.b64decode(sys.stdin.read())
answer = model.predict(pd.DataFrame({"picture": [picture]}))
import vgg16_transfer
modules = {
    name: module.__file__
    for name, module in sys.modules.items()
    if name.startswith("vgg16_transfer.") and module.__file__
}
print(json.dumps([answer.to_numpy()[0].tolist(), vgg16_transfer.__file__, modules]))
"""


@pytest.fixture(scope="module")
def alone(registered: Registry, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a copy of the model says of a picture in such a process, and the code it ran."""
    mlflow.set_tracking_uri(registered.store.uri)
    result = mlflow.artifacts.download_artifacts(f"models:/{STUDY}@champion")
    folder = tmp_path_factory.mktemp("alone") / "model"
    shutil.copytree(result, folder)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)],
        input=base64.b64encode(registered.picture()).decode(),
        capture_output=True,
        check=False,
        text=True,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    probabilities, package, modules = json.loads(done.stdout.splitlines()[-1])
    return folder, probabilities, package, modules


def test_the_model_needs_nothing_of_the_workspace(registered: Registry, alone) -> None:
    folder, probabilities, package, modules = alone
    assert Path(package).is_relative_to(folder)
    expected = registered.contents().model.probabilities(registered.picture())
    assert probabilities == expected.astype(float).tolist()
    assert "vgg16_transfer.heads.classifier" in modules


def test_the_packages_that_its_code_imports_are_pinned(alone) -> None:
    folder, _, _, modules = alone
    required = (folder / "requirements.txt").read_text(encoding="utf-8").split()
    pinned = dict(line.split("==") for line in required)
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}
    imported = set()
    for path in [*modules.values(), folder / "served_model.py"]:
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"vgg16_transfer", "mlflow"}
    providers = importlib.metadata.packages_distributions()
    names = {name: {one.lower().replace("_", "-") for one in providers[name]} for name in foreign}
    assert {"keras", "tensorflow", "PIL"} <= foreign
    assert [name for name, result in names.items() if result.isdisjoint(pinned)] == []


def test_nothing_in_the_model_is_a_pickle(folder: Path) -> None:
    files = (path for path in folder.rglob("*") if path.is_file())
    # Python itself writes there when a model is loaded.
    suffixes = {path.suffix for path in files if path.parent.name != "__pycache__"}
    assert {".keras", ".json", ".py"} <= suffixes
    assert suffixes.isdisjoint({".pkl", ".pickle", ".joblib", ".pyc"})


def test_the_card_says_where_the_model_comes_from_and_what_it_reaches(
    registered: Registry, folder: Path
) -> None:
    (version,) = registered.versions()
    card = version.description
    chosen, record = registered.chosen, registered.record
    trials = record.trials.set_index("trial")
    n = chosen.trial.samples_per_class
    alike = trials[trials["samples_per_class"] == n]["accuracy"]
    own = 100 * trials.loc[chosen.name, "accuracy"]
    spread = f"{100 * alike.mean():.1f} ± {100 * alike.std(ddof=1):.1f}"
    assert f"| test pictures | {own:.1f} | {spread} |" in card
    assert "mean ± std over 2 seeds" in card
    assert "animals (animals.tar), split" in card
    assert f"{n} training pictures of each class" in card
    assert "6 validation and 6 test pictures" in card
    assert "ant, bee, cat." in card
    for section in ("Data", "Metrics", "Limits", "Lineage", "Licence"):
        assert f"\n## {section}\n" in card
    assert f"| dvc.lock_digest | {'a' * 64} |" in card
    assert registered.run_id in card  # type: ignore[attr-defined]
    assert "Previous champion: none." in card
    assert (folder / "artifacts" / "classifier" / "card.md").read_text(encoding="utf-8") == card


@pytest.mark.parametrize(
    ("temperature", "sentence"),
    [(1.0, "Its probabilities are not calibrated."), (0.31, "logits are divided by 0.31 for")],
)
def test_the_card_says_whether_probabilities_are_calibrated(
    registered: Registry, temperature: float, sentence: str
) -> None:
    subject = registered.contents().subject
    trials = subject.record.trials.assign(calibration_temperature=temperature)
    record = subject.record._replace(trials=trials)
    assert sentence in write_card(subject._replace(record=record), "r", {}, None)


def test_the_card_names_the_licence_of_the_pictures(registered: Registry) -> None:
    subject = registered.contents().subject
    assert "one of which is the input example: licence not stated." in write_card(
        subject, "r", {}, None
    )
    animals = subject.params.datasets["animals"].model_copy(update={"licence": "CC BY 4.0."})
    params = dataclasses.replace(subject.params, datasets={"animals": animals})
    card = write_card(subject._replace(params=params), "r", {}, None)
    assert "Pictures of animals, one of which is the input example: CC BY 4.0.\n" in card + "\n"


@pytest.mark.parametrize(
    ("weights", "licence"),
    [("imagenet-conv", "Visual Geometry Group, University of Oxford, CC BY 4.0"), ("x.h5", "x.h5")],
)
def test_the_card_names_the_licence_of_the_weights(
    registered: Registry, weights: str, licence: str
) -> None:
    subject = registered.contents().subject
    backbone = subject.params.backbone.model_copy(update={"weights": weights})
    params = dataclasses.replace(subject.params, backbones={"vgg16": backbone})
    card = write_card(subject._replace(params=params), "r", {}, ("3", "previous-champion"))
    assert licence in card
    assert "Previous champion: version 3, alias previous-champion." in card


def test_the_card_names_the_network_and_the_kind_of_head(registered: Registry) -> None:
    subject = registered.contents().subject
    trial = subject.chosen.trial.model_copy(update={"head": "nearest_mean", "layer": "post_relu"})
    backbone = Backbone(network="resnet50v2", weights="imagenet")
    card = write_card(
        subject._replace(
            params=dataclasses.replace(subject.params, backbones={"vgg16": backbone}),
            recipe=subject.recipe._replace(network="resnet50v2"),
            chosen=subject.chosen._replace(trial=trial),
        ),
        "r",
        {},
        None,
    )
    assert card.startswith(
        "A head of the kind `nearest_mean` (the class whose mean of training features has the "
        "largest cosine) on `post_relu` of ResNet50V2,"
    )
    assert "Weights of ResNet50V2: ImageNet's, as keras.applications has them (He et al." in card
    assert "VGG16" not in card


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])

HOSTILE = ["[x](javascript:alert(1))", "<script>alert(1)</script>", "a|b|c", "`", "**b**", "# h"]
HOSTILE += ["![i](http://h/i.png)", "a\n\n# heading\n- item", "~~s~~", "\\[x](y)", "&lt;b&gt;"]


def test_no_name_of_a_class_is_markup_in_the_card(registered: Registry) -> None:
    subject = registered.contents().subject
    names = tuple(HOSTILE)
    dataset = subject.params.datasets["animals"].model_copy(update={"source": HOSTILE[0]})
    hostile = subject._replace(
        recipe=subject.recipe._replace(class_names=names),
        params=dataclasses.replace(subject.params, datasets={"animals": dataset}),
    )
    kinds = [
        {
            token.type
            for line in MARKDOWN.parse(write_card(one, "r", {}, None))
            for token in [line, *(line.children or [])]
        }
        for one in (subject, hostile)
    ]
    assert kinds[0] == kinds[1]  # the same headings, tables and code, and no links or HTML
    text = " ".join(
        token.content
        for line in MARKDOWN.parse(write_card(hostile, "r", {}, None))
        for token in line.children or []
    )
    for name in HOSTILE:
        assert " ".join(name.split()) in text, name


def test_a_card_of_many_classes_fits_into_mlflows_table(registered: Registry) -> None:
    subject = registered.contents().subject
    names = tuple(f"{number:03}.a-class-of-caltech-256" for number in range(257))
    recipe: Recipe = subject.recipe._replace(class_names=names)
    card = write_card(
        subject._replace(recipe=recipe), "r" * 32, {"dvc.lock_digest": "a" * 64}, None
    )
    assert len(card) < 5000
    assert "each of 257 classes" in card
    assert "000.a-class-of-caltech-256, 001." in card
    assert "… (all of them are the columns of the output)" in card


def test_registering_again_adds_nothing(registered: Registry) -> None:
    before = registered.assembled, registered.aliases(), len(registered.models())
    assert registered.register() == Registered("1", added=False, previous=None)
    assert (registered.assembled, registered.aliases(), len(registered.models())) == before
    assert len(registered.versions()) == 1


def test_it_is_found_by_its_alias_and_asked_by_bytes(registered: Registry) -> None:
    names, probabilities = registry.load(registered.store, f"models:/{STUDY}@champion")
    model: Classifier = registered.contents().model
    assert names == model.recipe.class_names
    expected = model.probabilities(registered.picture())
    np.testing.assert_array_equal(probabilities(registered.picture()), expected)
    with pytest.raises(PictureError, match=r"^is empty$"):
        probabilities(b"")


@pytest.mark.parametrize("uri", ["models:/few@best", "models:/few/7", "models:/many@champion"])
def test_a_model_that_is_not_there_is_one_sentence(registered: Registry, uri: str) -> None:
    with pytest.raises(TrackingError, match=rf"^{uri}: can't be loaded from sqlite:") as caught:
        registry.load(registered.store, uri)
    assert "\n" not in str(caught.value)


def test_a_later_study_dethrones_the_champion_which_stays_reachable(fresh: Registry) -> None:
    for digest in "ab":
        fresh.log(digest)
    assert fresh.register("a") == Registered("1", added=True, previous=None)
    assert fresh.register("b") == Registered("2", added=True, previous="1")
    assert fresh.aliases() == {"champion": "2", "previous-champion": "1"}
    assert "Previous champion: version 1, alias previous-champion." in (
        fresh.versions()[1].description
    )
    assert fresh.register("a") == Registered("1", added=False, previous="2")
    assert fresh.aliases() == {"champion": "1", "previous-champion": "2"}
    names, _ = registry.load(fresh.store, f"models:/{STUDY}@previous-champion")
    assert names == ("ant", "bee", "cat")


def lose_files(made: Registry) -> Path:
    """Throws the files of the only logged model away; returns where they were."""
    (model,) = made.models()
    folder = Path(unquote(model.artifact_location.removeprefix("file://")))
    shutil.rmtree(folder)
    return folder


def test_a_version_that_lost_its_files_gets_them_back(fresh: Registry) -> None:
    fresh.log()
    assert fresh.register() == Registered("1", added=True, previous=None)
    (before,) = fresh.versions()
    assert fresh.register() == Registered("1", added=False, previous=None)
    assert fresh.assembled == 1
    folder = lose_files(fresh)
    with pytest.raises(TrackingError) as caught:
        registry.load(fresh.store, f"models:/{STUDY}@champion")
    assert str(caught.value) == (
        f"models:/{STUDY}@champion: {fresh.store} has lost its files; "
        f"vgg16-transfer register {STUDY} restores them"
    )
    assert fresh.register() == Registered("1", added=False, previous=None, restored=True)
    (version,) = fresh.versions()
    assert (version.version, version.source) == (before.version, before.source)
    card = folder / "artifacts" / "classifier" / "card.md"
    assert card.read_text(encoding="utf-8") == version.description
    names, probabilities = registry.load(fresh.store, f"models:/{STUDY}/1")
    assert names == ("ant", "bee", "cat")
    expected = fresh.contents().model.probabilities(fresh.picture())
    np.testing.assert_array_equal(probabilities(fresh.picture()), expected)
    assert fresh.register() == Registered("1", added=False, previous=None)


def test_the_newest_model_is_the_one_whose_champion_was_registered_last(fresh: Registry) -> None:
    assert registry.newest(fresh.store, ["many", STUDY]) is None
    fresh.log()
    fresh.register()
    assert registry.newest(fresh.store, ["many", STUDY]) == f"models:/{STUDY}@champion"
    source = fresh.versions()[0].source
    fresh.client.create_registered_model("many")
    fresh.client.create_model_version("many", source)
    assert registry.newest(fresh.store, ["many", STUDY]) == f"models:/{STUDY}@champion"
    fresh.client.set_registered_model_alias("many", "champion", "1")
    assert registry.newest(fresh.store, [STUDY, "many"]) == "models:/many@champion"
    assert registry.newest(fresh.store, [STUDY]) == f"models:/{STUDY}@champion"


def test_a_model_is_loaded_from_a_folder_whose_name_looks_encoded(
    registered: Registry, folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "my%20model ?#ü"
    shutil.copytree(folder, copied)
    mlflow.set_tracking_uri(None)
    model = registry.open_folder(copied)
    answer = model.predict(pd.DataFrame({"picture": [registered.picture()]})).to_numpy()[0]
    expected = registered.contents().model.probabilities(registered.picture())
    np.testing.assert_array_equal(answer, expected)


def test_a_model_is_found_below_a_path_that_looks_encoded(make_store, trained, tmp_path) -> None:
    made = Registry(make_store(tmp_path / "my%20project ?#ü"), trained)
    made.log()
    made.register()
    names, probabilities = registry.load(made.store, f"models:/{STUDY}@champion")
    assert names == ("ant", "bee", "cat")
    expected = made.contents().model.probabilities(made.picture())
    np.testing.assert_array_equal(probabilities(made.picture()), expected)
    lose_files(made)
    assert made.register().restored


def test_a_trial_that_failed_is_not_registered(fresh: Registry) -> None:
    run_id = fresh.log()
    fresh.client.set_tag(run_id, "failure", "loss became nan in epoch 2")
    fresh.client.update_run(run_id, status="FAILED")
    with pytest.raises(TrackingError, match=r"failed \(loss became nan in epoch 2\); change its"):
        fresh.register()
    assert (fresh.models(), fresh.assembled) == ([], 0)


class Killed(BaseException):
    """Stands in for a SIGKILL."""


@pytest.mark.parametrize(
    "where", ["log_model_artifacts", "create_model_version", "set_registered_model_alias"]
)
def test_what_broke_off_is_completed_once(fresh: Registry, monkeypatch, where: str) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    fresh.log()
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, where, die)
        with pytest.raises(Killed):
            fresh.register()
    fresh.register()
    assert fresh.aliases() == {"champion": "1"}
    assert [str(version.version) for version in fresh.versions()] == ["1"]
    (model,) = fresh.models()
    assert (str(model.status), fresh.versions()[0].source) == ("READY", f"models:/{model.model_id}")


def test_a_trial_that_is_not_logged_is_refused(fresh: Registry) -> None:
    expected = r"has no run of study few, trial '.*'; run vgg16-transfer publish first"
    with pytest.raises(TrackingError, match=expected):
        fresh.register()
    fresh.log(whole=False)
    with pytest.raises(TrackingError, match=expected):
        fresh.register()
    assert (fresh.models(), fresh.versions(), fresh.assembled) == ([], [], 0)


def test_results_that_are_not_those_of_the_run_are_refused(fresh: Registry) -> None:
    fresh.log(accuracy=0.25)
    with pytest.raises(TrackingError, match=r"reaches another validation accuracy than run"):
        fresh.register()
    assert fresh.models() == []


def test_a_store_that_is_not_there_is_not_made(fresh: Registry, tmp_path: Path) -> None:
    elsewhere = find_store(tmp_path / "elsewhere", None)
    with pytest.raises(TrackingError, match=r"no such store; run vgg16-transfer publish first"):
        registry.load(elsewhere, "models:/few@champion")
    assert not (tmp_path / "elsewhere").exists()


def test_a_model_of_something_else_is_refused(fresh: Registry, monkeypatch) -> None:
    class Other:
        class metadata:  # noqa: N801
            signature = None

    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda *_, **__: Other)
    with pytest.raises(TrackingError, match=r"^models:/head/1: takes no pictures; name a model"):
        registry.load(fresh.store, "models:/head/1")

"""params.yaml: what is accepted, and the sentence that every mistake gets."""

import copy
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.optimizers import OPTIMIZERS
from vgg16_transfer.params import (
    Params,
    ParamsError,
    Study,
    Trial,
    check_params,
    read_params,
)

from .edits import GONE, edited

ROOT = Path(__file__).parents[1]
RIGHT = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"d": {"source": "d.tar", "layers": ["block4_pool", "block5_pool"]}},
    "studies": {"s": {"dataset": "d"}},
}
LAYERS = [*NETWORKS["vgg16"].layers, *NETWORKS["vgg16"].dense]


def check(**changes: Any) -> Params:
    return check_params(edited(RIGHT, changes))


def mistakes(changes: dict[str, Any]) -> list[str]:
    """The sentences about what is right but for some changes."""
    with pytest.raises(ParamsError) as caught:
        check_params(edited(RIGHT, changes))
    assert str(caught.value) == "\n".join(f"params.yaml: {one}" for one in caught.value.mistakes)
    return caught.value.mistakes


def test_the_sample_profile_holds_what_it_says() -> None:
    params = read_params(ROOT / "profiles" / "sample.yaml")
    samples = params.study("clipart-samples")
    assert params.backbone.weights == "imagenet-conv"
    assert params.dataset("clipart").split.seeds == list(range(10))
    assert samples.axes == ("samples_per_class", "seed")
    assert samples.compared == ("samples_per_class",)
    assert len(samples.trials()) == 40
    assert params.study("clipart-layers").compared == ("layer",)


def test_the_paper_profile_compares_both_datasets_with_published_numbers() -> None:
    datasets = read_params(ROOT / "profiles" / "paper.yaml").datasets
    assert {name: dataset.published_as for name, dataset in datasets.items()} == {
        "caltech256": "caltech256",
        "urban_tribes": "urban_tribes",
    }


def test_the_few_shot_profile_trains_on_1_5_10_and_25_pictures_of_five_splits() -> None:
    params = read_params(ROOT / "profiles" / "few-shot.yaml")
    (study,) = params.studies.values()
    dataset = params.dataset(study.dataset)
    assert study.grid["samples_per_class"] == (1, 5, 10, 25)
    assert study.compared == ("head", "samples_per_class")
    assert len(study.trials()) == 3 * 4 * 5
    counts = Counter((trial.head, trial.samples_per_class) for trial in study.trials())
    assert set(counts.values()) == {5}
    assert dataset.published_as == "caltech101"
    assert dataset.source is not None
    assert "://" not in dataset.source


def test_the_few_shot_profile_chooses_by_validation_and_fits_the_smallest_class() -> None:
    smallest = 31  # pictures of inline_skate in Caltech-101
    (dataset,) = read_params(ROOT / "profiles" / "few-shot.yaml").datasets.values()
    split = dataset.split
    assert split.validation_per_class >= 1
    needed = split.train_per_class + split.validation_per_class + split.test_per_class
    assert needed <= smallest


def test_what_is_left_out_has_its_documented_default() -> None:
    params = check_params(RIGHT)
    assert params.datasets["d"].published_as is None
    assert params.backbone.image_size == 224
    assert params.studies["s"].trials() == [Trial()]
    assert params.studies["s"].trial_name(Trial()) == "only"


def test_a_whole_number_will_do_where_a_fraction_is_asked_for() -> None:
    study = check(**{"studies/s/learning_rate": [1, 2]}).studies["s"]
    assert study.grid["learning_rate"] == (1.0, 2.0)
    assert study.trial_name(study.trials()[0]) == "learning_rate=1.0"


@pytest.mark.parametrize(
    "name", ["a", "7", "caltech256", "urban_tribes", "clipart-samples", "a-b_c"]
)
def test_names_that_are_safe_everywhere(name: str) -> None:
    params = check(**{f"studies/{name}": {"dataset": "d"}})
    assert name in params.studies


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        # unknown keys, level by level
        ("backbon", {}, "backbon: unknown key; did you mean 'backbone'?"),
        ("compute", "rai", "compute: unknown value 'rai'; did you mean 'ray'?"),
        ("compute", ["ray"], "compute: unknown value ['ray']; did you mean 'ray'?"),
        ("backbone/weigths", "x", "backbone.weigths: unknown key; did you mean 'weights'?"),
        ("datasets/d/layer", [], "datasets.d.layer: unknown key; did you mean 'layers'?"),
        ("datasets/d/split/seed", [0], "datasets.d.split.seed: unknown key; did you mean 'seeds'?"),
        ("studies/s/epoch", 3, "studies.s.epoch: unknown key; did you mean 'epochs'?"),
        ("studies/s/learnig_rate", 1, "unknown key; did you mean 'learning_rate'?"),
        ("studies/s/zzz", 1, "studies.s.zzz: unknown key; known are: dataset, "),
        ("studies/s", {"dataset": "d", 7: 7}, "studies.s.7: unknown key; known are: dataset, "),
        ("backbone", {"weights": "x", 7: 7}, "backbone.7: unknown key; known are: network, "),
        # sections that are missing or something else
        ("backbone", GONE, "backbone.weights: is missing"),
        ("backbone", None, "backbone: must map keys to values"),
        ("datasets/d", ["d.tar"], "datasets.d: must map keys to values"),
        ("datasets/d/split", 3, "datasets.d.split: must map keys to values"),
        ("datasets/d/layers", GONE, "datasets.d.layers: is missing"),
        ("studies/s", None, "studies.s: must map keys to values, like 'samples_per_class: [2, 4]'"),
        ("studies/s/dataset", GONE, "studies.s.dataset: must name one of the datasets"),
        # wrong types
        ("backbone/weights", 3, "backbone.weights: input should be a valid string, but it is 3"),
        ("backbone/image_size", "96", "valid integer, but it is '96'"),
        ("backbone/image_size", True, "backbone.image_size: input should be a valid integer, but"),
        ("backbone/image_size", 8, "should be greater than or equal to 32, but it is 8"),
        ("datasets/d/layers", "block5_pool", "should be a valid list, but it is 'block5_pool'"),
        ("datasets/d/leave_out", [257], "datasets.d.leave_out.0: input should be a valid string"),
        ("datasets/d/split/seeds", [True], "split.seeds.0: input should be a valid integer, but"),
        ("studies/s/epochs", "10", "studies.s.epochs: input should be a valid integer, but it is"),
        ("studies/s/epochs", None, "valid integer, but it is None"),
        ("studies/s/epochs", 1.5, "valid integer, but it is 1.5"),
        ("studies/s/epochs", True, "valid integer, but it is True"),
        ("studies/s/epochs", [1, True], "valid integer, but it is True"),
        ("studies/s/epochs", [[1, 2]], "valid integer, but it is [1, 2]"),
        ("studies/s/epochs", 0, "greater than or equal to 1, but it is 0"),
        ("studies/s/epochs", 10**9, "less than or equal to 100000, but it is 1000000000"),
        ("studies/s/learning_rate", "1e-3", "studies.s.learning_rate: input should be a valid num"),
        ("studies/s/learning_rate", 1e308, "input should be less than or equal to 10000"),
        ("studies/s/learning_rate", 5e-324, "input should be greater than or equal to 0.000"),
        ("studies/s/weight_decay", 1e308, "input should be less than or equal to 10000, but it"),
        ("studies/s/temperature", 1e308, "input should be less than or equal to 1000000, but"),
        ("studies/s/teacher_temperature", 1e-308, "input should be greater than or equal to 0.0"),
        ("studies/s/fine_tune_learning_rate", 1e308, "input should be less than or equal to 10"),
        ("studies/s/seed", 2**32, "input should be less than or equal to 4294967295"),
        ("studies/s/learning_rate", math.nan, "should be a finite number, but it is nan"),
        ("studies/s/weight_decay", math.inf, "should be a finite number, but it is inf"),
        ("studies/s/dataset", ["d"], "dataset: must be one name; a second dataset is a second stu"),
        ("studies/s/dataset", 3, "studies.s.dataset: must name one of the datasets"),
        ("datasets/d/source", "http://[::1", "datasets.d.source: is no valid address: http://[::1"),
        ("datasets/d/source", "https://u:p@h/x", "datasets.d.source: holds a user or a password"),
        ("datasets/d/origin", "https://u:p@h/x", "origin: holds a user or a password, which the"),
        ("datasets/d/licence", "see http://h/?token=a", "licence: holds a user or a password, wh"),
        ("datasets/d/origin", "a" * 501, "datasets.d.origin: has 501 characters, more than 500; "),
        ("datasets/d/licence", 4.0, "datasets.d.licence: input should be a valid string, but it"),
        # nothing where there must be something
        ("datasets/d/origin", "", "datasets.d.origin: is empty; write a sentence, or remove"),
        ("datasets/d/licence", " \n", "datasets.d.licence: is empty; write a sentence, or re"),
        ("backbone/weights", "", "backbone.weights: is empty"),
        ("datasets", {}, "datasets: must map at least one name to its settings"),
        ("studies", GONE, "studies: must map at least one name to its settings"),
        ("datasets/d/layers", [], "datasets.d.layers: is an empty list; give at least one value"),
        ("datasets/d/split/seeds", [], "datasets.d.split.seeds: is an empty list; give at least"),
        ("studies/s/epochs", [], "studies.s.epochs: is an empty list; give at least one value"),
        # values twice
        ("studies/s/epochs", [3, 4, 3], "studies.s.epochs: holds a value twice"),
        ("studies/s/learning_rate", [1, 1.0], "studies.s.learning_rate: holds a value twice"),
        ("datasets/d/layers", ["block5_pool"] * 2, "datasets.d.layers: holds a value twice"),
        ("datasets/d/leave_out", ["a", "a"], "datasets.d.leave_out: holds a value twice"),
        ("datasets/d/classes", ["a", "a"], "datasets.d.classes: holds a value twice"),
        ("datasets/d/remarks", ["a", " "], "datasets.d.remarks.1: is empty; write a sentence"),
        ("datasets/d/split/seeds", [0, 0], "split.seeds: must be different whole numbers of 0 or"),
        ("datasets/d/split/seeds", [0, -1], "split.seeds: must be different whole numbers of 0 or"),
        # unknown values
        ("backbone/resize", "sqash", "unknown value 'sqash'; did you mean 'squash'?"),
        ("datasets/d/layout", "folders", "layout: unknown value 'folders'; did you mean 'split_f"),
        (
            "datasets/d/layers",
            ["blok5_pool"],
            "layers.0: unknown value 'blok5_pool'; did you mean",
        ),
        ("datasets/d/md5", "XYZ", "datasets.d.md5: string should match pattern"),
        (
            "studies/s/layer",
            "blok5_pool",
            "studies.s.layer: unknown value 'blok5_pool'; did you",
        ),
        (
            "studies/s/optimizer",
            "nonesuch",
            f"unknown value 'nonesuch'; known are: {', '.join(OPTIMIZERS)}",
        ),
        ("studies/s/dataset", "dd", "studies.s.dataset: no dataset 'dd'; did you mean 'd'?"),
        (
            "datasets/d/split/near_duplicates",
            "drop",
            "unknown value 'drop'; known are: list, one_s",
        ),
        ("datasets/d/layout", "split_folder", "did you mean 'split_folders'?"),
        (
            "datasets/d/published_as",
            "c101",
            "datasets.d.published_as: unknown value 'c101'; did you mean 'caltech101'?",
        ),
        (
            "datasets/d/published_as",
            "flowers",
            "unknown value 'flowers'; known are: caltech101, caltech256, urban_tribes",
        ),
        ("datasets/d/published_as", 101, "published_as: input should be a valid string, but it is"),
        (
            "datasets/d/encoding",
            "cp99999",
            "encoding: Python knows no text encoding 'cp99999'; cp932",
        ),
        ("datasets/d/encoding", "rot13", "encoding: Python knows no text encoding 'rot13'"),
        ("datasets/d/encoding", "", "datasets.d.encoding: is empty"),
        # groups
        ("datasets/d/split/group", "(", "datasets.d.split.group: is not a regular expression: mis"),
        ("datasets/d/split/group", "ab", "split.group: must have one (group), but has 0"),
        ("datasets/d/split/group", "(a)(b)", "must have one (group), but has 2"),
        # contradictions
        ("studies/s/layer", "block3_pool", "block3_pool is not among datasets.d.layers; add it th"),
        (
            "studies/s/seed",
            [0, 17],
            "studies.s.seed: 17 is not among datasets.d.split.seeds; add it",
        ),
        ("studies/s/samples_per_class", [2, 17], "samples_per_class: 17 is more than the 16 of da"),
        ("studies/s/temperature", 2, "temperature: softens the network's own softmax, so it need"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_path(path: str, value: Any, sentence: str) -> None:
    (mistake,) = mistakes({path: value})
    assert mistake.startswith(path.replace("/", "."))
    assert sentence in mistake
    assert "\n" not in mistake


@pytest.mark.parametrize("name", ["features", "report"])
def test_a_dataset_can_not_have_the_name_of_another_experiment(name: str) -> None:
    raw = {
        "backbone": {"weights": "random"},
        "datasets": {name: {"source": "d.tar", "layers": ["block5_pool"]}},
        "studies": {"s": {"dataset": name}},
    }
    with pytest.raises(ParamsError, match=f"datasets.{name}: has the name of the MLflow experim"):
        check_params(raw)


@pytest.mark.parametrize("section", ["datasets", "studies"])
@pytest.mark.parametrize(
    "name", ["Caps", "a/b", "a b", "..", "-a", "a_", "a__b", "", "ä", "a\n", 7]
)
def test_names_that_would_not_be_safe_everywhere(section: str, name: Any) -> None:
    raw = edited(RIGHT, {})
    raw[section][name] = copy.deepcopy(next(iter(raw[section].values())))
    with pytest.raises(ParamsError) as caught:
        check_params(raw)
    assert caught.value.mistakes == [
        f"{section}.{name}: a name is lower-case letters and digits, with '-' or one '_' between"
    ]


@pytest.mark.parametrize("section", ["datasets", "studies"])
def test_a_name_that_fits_into_no_file_name_is_refused(section: str) -> None:
    name = "n" * 101
    value = RIGHT[section][section[0]]
    assert f"{section}.{name}: a name has at most 100 characters, not 101" in mistakes(
        {f"{section}/{name}": copy.deepcopy(value)}
    )


def test_the_name_of_a_trial_must_fit_into_a_file_name() -> None:
    digits = 0.12345678901234567
    axes = {key: [0.5, digits] for key in ("learning_rate", "momentum", "weight_decay")}
    axes |= {"epochs": [10, 99999], "batch_size": [10, 9999], "samples_per_class": [1, 16]}
    axes |= {"seed": [0, 1], "normalise": ["none", "l2"], "layer": ["block4_pool", "block5_pool"]}
    changes = {f"studies/s/{key}": values for key, values in axes.items()}
    (study,) = check_params(edited(RIGHT, changes)).studies.values()
    longest = max(map(len, map(study.trial_name, study.trials())))
    assert 170 < longest <= 200
    changes |= {"studies/s/optimizer": ["sgd", "nesterov"]}
    changes |= {"studies/s/pooling": ["flatten", "average"]}
    (mistake,) = mistakes(changes)
    assert mistake.startswith("studies.s: the name of a trial lists what varies, '")
    assert mistake.endswith("; make two studies of it")


@pytest.mark.parametrize("kind", ["imagenet", "random"])
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"datasets/d/layers": ["block5_pool", "fc2"]}, "datasets.d.layers"),
        ({"studies/s/layer": "fc2"}, "studies.s.layer"),
    ],
)
def test_a_layer_that_the_weights_do_not_hold_gets_the_value_that_would_do(
    changes: dict[str, Any], path: str, kind: str
) -> None:
    (mistake,) = mistakes({"backbone/weights": f"{kind}-conv"} | changes)
    assert mistake == (
        f"{path}: backbone.weights: {kind}-conv holds no fc2; set backbone.weights: {kind}, "
        "or tap one of block1_pool, block2_pool, block3_pool, block4_pool, block5_pool"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backbone/network": "resnet"}, "backbone.network: unknown value 'resnet'; did you mean"),
        (
            {"backbone/network": "resnet50v2"},
            "layers.0: unknown value 'block4_pool'; did you mean",
        ),
        (
            {
                "backbone/network": "densenet121",
                "backbone/weights": "imagenet-conv",
                "datasets/d/layers": ["relu"],
                "studies/s/layer": "relu",
            },
            "backbone.weights: imagenet-conv holds VGG16; set imagenet, which Keras downloads",
        ),
        ({"studies/s/fine_tune_from": "blok5"}, "fine_tune_from: unknown value 'blok5'; did you"),
        (
            {"studies/s/teacher_layer": "relu"},
            "teacher_layer: unknown value 'relu'; known are: ",
        ),
    ],
)
def test_names_that_the_network_has_not_got_are_told(
    changes: dict[str, Any], sentence: str
) -> None:
    assert any(sentence in mistake for mistake in mistakes(changes)), mistakes(changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backbone/engine": "openvin"}, "backbone.engine: unknown value 'openvin'; did you mean"),
        (
            {"backbone/precision": "int4"},
            "backbone.precision: unknown value 'int4'; did you mean 'int8'?",
        ),
        (
            {"backbone/precision": "int8"},
            "backbone.precision: int8 is computed by engine: openvino only, not by tensorflow; set",
        ),
        (
            {
                "backbone": {
                    "default": "a",
                    "a": {"network": "vgg16", "weights": "random-conv"},
                    "b": {
                        "network": "vgg16",
                        "weights": "random-conv",
                        "engine": "openvino",
                        "precision": "bfloat16",
                    },
                },
                "studies/s/backbone": ["a", "b"],
                "studies/s/approach": ["features", "end_to_end"],
            },
            "studies.s.approach: end_to_end trains in float32, and would be measured on",
        ),
    ],
)
def test_an_engine_that_can_not_do_it_is_told(changes: dict[str, Any], sentence: str) -> None:
    (mistake,) = mistakes(changes)
    assert mistake.startswith(sentence)


def test_an_engine_and_its_precision_are_two_keys_that_may_be_left_out() -> None:
    plain = check().backbone
    assert (plain.engine, plain.precision) == ("tensorflow", "float32")
    short = check(**{"backbone/engine": "openvino", "backbone/precision": "int8"}).backbone
    assert (short.engine, short.precision) == ("openvino", "int8")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"head": "softmx"}, "studies.s.head: unknown value 'softmx'; did you mean 'softmax'?"),
        (
            {"head": "logistic", "epochs": 50},
            "studies.s.epochs: is used by head: softmax only",
        ),
        (
            {"head": ["softmax", "logistic"], "weight_decay": [0.0, 0.1]},
            "studies.s.weight_decay: is used by head: softmax only",
        ),
        ({"neighbours": 3}, "studies.s.neighbours: is used by head: nearest_neighbours only"),
        (
            {"head": "nearest_mean", "normalise": "none"},
            "studies.s.normalise: is used by head: softmax, logistic, linear_svm only",
        ),
        (
            {"head": ["softmax", "logistic"], "approach": "end_to_end"},
            "studies.s.head: approach: end_to_end trains head: softmax only",
        ),
    ],
)
def test_a_setting_that_the_head_would_ignore_is_a_mistake(
    settings: dict[str, Any], expected: str
) -> None:
    assert mistakes({f"studies/s/{key}": value for key, value in settings.items()}) == [expected]


END_TO_END = {"studies/s/approach": "end_to_end"}
WITH_VALIDATION = {"datasets/d/split/validation_per_class": 1}


@pytest.mark.parametrize(
    ("key", "value"), [("augment", "flip"), ("fine_tune_from", "block5"), ("early_stopping", 3)]
)
def test_a_setting_of_end_to_end_needs_that_approach(key: str, value: Any) -> None:
    sentence = f"studies.s.{key}: needs approach: end_to_end"
    default = Trial.model_fields[key].default
    for setting in (value, [default, value]):
        changes = WITH_VALIDATION | {f"studies/s/{key}": setting}
        assert check(**changes | END_TO_END).studies["s"]
        assert mistakes(changes) == [sentence]
        both = changes | {"studies/s/approach": ["features", "end_to_end"]}
        assert mistakes(both) == [sentence]


@pytest.mark.parametrize("setting", [1, [0, 2]])
@pytest.mark.parametrize("layout", ["class_folders", "caltech256", "urban_tribes"])
def test_early_stopping_needs_validation_pictures(setting: Any, layout: str) -> None:
    changes = END_TO_END | {"datasets/d/layout": layout, "studies/s/early_stopping": setting}
    (mistake,) = mistakes(changes)
    sentence = "needs validation pictures; set datasets.d.split.validation_per_class"
    assert mistake == f"studies.s.early_stopping: {sentence}"
    assert check(**changes | WITH_VALIDATION).studies["s"]


@pytest.mark.parametrize("layout", ["split_folders", "csv"])
def test_a_source_may_have_the_validation_pictures_of_early_stopping(layout: str) -> None:
    changes = END_TO_END | {"datasets/d/layout": layout, "studies/s/early_stopping": 1}
    assert check(**changes).studies["s"].grid["early_stopping"] == (1,)


@pytest.mark.parametrize("approach", ["features", "end_to_end"])
@pytest.mark.parametrize("setting", [2, [0, 2]])
def test_filters_are_logged_of_what_is_fine_tuned(approach: str, setting: Any) -> None:
    changes = {"studies/s/approach": approach, "studies/s/log_filters_every": setting}
    assert mistakes(changes) == [
        "studies.s.log_filters_every: needs approach: end_to_end with fine_tune_from"
    ]


def test_logging_filters_is_no_axis() -> None:
    changes = END_TO_END | {"studies/s/fine_tune_from": ["none", "block5"]}
    assert check(**changes, **{"studies/s/log_filters_every": 2}).studies["s"].axes == (
        "fine_tune_from",
    )
    assert mistakes(changes | {"studies/s/log_filters_every": [1, 2]}) == [
        "studies.s.log_filters_every: changes no head, so it can't be a list"
    ]


def test_origin_and_licence_are_texts_that_may_be_missing() -> None:
    texts = {"origin": "https://example.org/a?page=1, or ask ann@example.org", "licence": "a" * 500}
    dataset = check(**{f"datasets/d/{key}": text for key, text in texts.items()}).datasets["d"]
    assert (dataset.origin, dataset.licence) == tuple(texts.values())
    assert (check().datasets["d"].origin, check().datasets["d"].licence) == (None, None)


def test_kinds_of_heads_are_an_axis_and_a_value_for_one_of_them_is_accepted() -> None:
    settings = {"head": ["softmax", "logistic", "nearest_neighbours"], "epochs": 50}
    settings |= {"neighbours": 3}
    study = check(**{f"studies/s/{key}": value for key, value in settings.items()}).studies["s"]
    assert study.axes == ("head",)


def test_a_row_of_another_network_is_accepted() -> None:
    changes = {"backbone/network": "resnet50v2", "datasets/d/layers": ["post_relu", "avg_pool"]}
    changes |= {"backbone/weights": "imagenet", "backbone/image_size": 96}
    checked = check(**changes, **{"studies/s/layer": ["post_relu", "avg_pool"]})
    assert checked.backbone.network == "resnet50v2"


@pytest.mark.parametrize("weights", ["imagenet", "random", "my/vgg16.weights.h5"])
def test_a_layer_that_the_weights_do_hold_is_accepted(weights: str) -> None:
    changes = {"datasets/d/layers": ["fc2"], "studies/s/layer": "fc2"}
    assert check(**changes, **{"backbone/weights": weights}).backbone.weights == weights


def test_dense_layers_need_pictures_of_the_size_they_were_trained_for() -> None:
    changes = {"datasets/d/layers": ["fc1", "block5_pool"], "backbone/weights": "random"}
    (mistake,) = mistakes(changes | {"backbone/image_size": 96})
    assert mistake == "datasets.d.layers: fc1 needs backbone.image_size: 224"


def test_a_temperature_is_accepted_for_the_predictions() -> None:
    changes = {"datasets/d/layers": ["predictions"], "studies/s/layer": "predictions"}
    study = check(
        **changes, **{"backbone/weights": "random", "studies/s/temperature": [1, 4]}
    ).studies["s"]
    assert study.axes == ("temperature",)


def test_all_mistakes_are_told_at_once() -> None:
    result = mistakes(
        {
            "backbone/weigths": "x",
            "backbone/image_size": True,
            "datasets/d/split/seeds": [],
            "datasets/Caps": {"layers": ["block5_pool"]},
            "studies/s/epochs": [],
            "studies/s/seed": ["a", -1],
            "studies/t": None,
        }
    )
    assert [mistake.partition(": ")[0] for mistake in result] == [
        "backbone.image_size",
        "backbone.weigths",
        "datasets.Caps",
        "datasets.d.split.seeds",
        "studies.s.seed",
        "studies.s.seed",
        "studies.s.epochs",
        "studies.t",
    ]


def test_all_contradictions_are_told_at_once() -> None:
    result = mistakes(
        {
            "datasets/d/split/group": "(",
            "studies/s/layer": ["fc2", "block3_pool"],
            "studies/s/seed": [17, 18],
            "studies/s/samples_per_class": 99,
            "studies/t/dataset": "e",
        }
    )
    assert [mistake.partition(": ")[0] for mistake in result] == [
        "datasets.d.split.group",
        "studies.s.layer",
        "studies.s.layer",
        "studies.s.seed",
        "studies.s.seed",
        "studies.s.samples_per_class",
        "studies.t.dataset",
    ]


@pytest.mark.parametrize("raw", [None, [], "backbone", 3, [RIGHT]], ids=str)
def test_what_maps_no_keys_is_no_params_file(raw: Any) -> None:
    with pytest.raises(
        ParamsError, match=r"^params.yaml: must hold the keys backbone, datasets an"
    ):
        check_params(raw)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"backbone:\n  weights: [", "line 2: expected the node content, but found"),
        (b"studies:\n\ta: 1", "line 2: found character '\\t' that cannot start any token"),
        (b"a: 1\nb: 2\na: 3", 'line 3: found duplicate key "a" with value "3"'),
        (b"a: *nowhere", "line 1: found undefined alias 'nowhere'"),
        (b"a: !!python/name:os.system x", "line 1: could not determine a constructor for the tag"),
        (b"a: 2026-13-01", "month must be in 1..12"),
        (b"\xff\xfe", "can't decode byte 0xff"),
        (b"a: \x00", "unacceptable character #x0000"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(tmp_path, content: bytes, reason: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: is not readable as YAML: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="no such file; run this in the repository's root") as bad:
        read_params(path)
    assert str(bad.value).startswith(f"{path}: ")


def test_a_folder_is_no_params_file(tmp_path) -> None:
    with pytest.raises(ParamsError, match=r"is not readable as YAML: it is no file"):
        read_params(tmp_path)


def test_a_name_that_params_do_not_hold_gets_the_nearest_one() -> None:
    params = check_params(RIGHT)
    with pytest.raises(ParamsError, match=r"^params.yaml: no study 'ss'; did you mean 's'\?$"):
        params.study("ss")
    with pytest.raises(ParamsError, match=r"^params.yaml: no dataset 'zebra'; known are: d$"):
        params.dataset("zebra")


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "layer": st.sampled_from(LAYERS),
    "samples_per_class": st.integers(1, 10**6),
    "seed": st.integers(0, 2**32 - 1),
    "epochs": st.integers(1, 10**5),
    "batch_size": st.integers(1, 10**6),
    "optimizer": st.sampled_from(["sgd", "adam"]),
    "learning_rate": st.floats(1e-12, 1e4),
    "momentum": st.floats(0, 1, exclude_max=True),
    "weight_decay": st.floats(0, 1e4),
    "normalise": st.sampled_from(["l2", "none"]),
}


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """Any grid of up to four lists; a list of one value may be written as that value."""
    study: dict[str, Any] = {"dataset": "d"}
    for field in draw(st.lists(st.sampled_from(list(VALUES)), max_size=4, unique=True)):
        values = draw(st.lists(VALUES[field], min_size=1, max_size=4, unique=True))
        bare = len(values) == 1 and draw(st.booleans())
        study[field] = values[0] if bare else values
    seeds = study.get("seed", 0)
    dataset = {
        "layers": LAYERS,
        "split": {
            "seeds": seeds if isinstance(seeds, list) else [seeds],
            "train_per_class": 10**6,
        },
    }
    raw = {"backbone": {"weights": "random"}, "datasets": {"d": dataset}, "studies": {"s": study}}
    return check_params(raw).studies["s"]


@settings(deadline=None)
@given(studies())
def test_a_grid_has_every_combination_of_its_values_once(study: Study) -> None:
    points = [tuple(trial.model_dump().values()) for trial in study.trials()]
    assert len(points) == math.prod(len(values) for values in study.grid.values())
    assert len(set(points)) == len(points)
    for point in points:
        for value, values in zip(point, study.grid.values(), strict=True):
            assert value in values


@settings(deadline=None)
@given(studies())
def test_the_names_of_trials_are_unique_and_safe_as_file_names(study: Study) -> None:
    names = [study.trial_name(trial) for trial in study.trials()]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_=.,+-]*", name)
        assert len(f"{name}.predictions.csv") <= 255


@settings(deadline=None)
@given(studies())
def test_results_are_compared_along_every_axis_but_the_seed(study: Study) -> None:
    assert "seed" not in study.compared
    assert study.compared
    assert {axis for axis in study.axes if axis != "seed"} <= set(study.compared)


TWO = {"vgg16": {"weights": "random-conv"}, "resnet50v2": {"weights": "random"}}
COMPARED = {
    "backbone": TWO,
    "datasets/d/layers": ["block5_pool", "last"],
    "studies/s/backbone": ["vgg16", "resnet50v2"],
    "studies/s/layer": "last",
}


def test_networks_are_an_axis_of_a_study_and_last_is_the_last_layer_of_each() -> None:
    study = check_params(edited(RIGHT, COMPARED)).studies["s"]
    assert study.compared == ("backbone",)
    assert [(trial.backbone, trial.layer) for trial in study.trials()] == [
        ("vgg16", "block5_pool"),
        ("resnet50v2", "post_relu"),
    ]
    names = [study.trial_name(trial) for trial in study.trials()]
    assert names == ["backbone=vgg16", "backbone=resnet50v2"]


def test_last_has_the_same_name_in_a_grid_as_in_its_trials() -> None:
    study = check(**{"studies/s/layer": ["block4_pool", "last"]}).studies["s"]
    assert study.grid["layer"] == ("block4_pool", "block5_pool")
    assert [trial.layer for trial in study.trials()] == ["block4_pool", "block5_pool"]


def test_the_default_is_what_a_study_uses_that_names_no_network() -> None:
    backbones = TWO | {"default": "resnet50v2"}
    changes = {"backbone": backbones, "datasets/d/layers": ["last"], "studies/s/layer": "last"}
    params = check_params(edited(RIGHT, changes))
    assert list(params.backbones) == ["resnet50v2", "vgg16"]
    assert params.backbone.network == "resnet50v2"
    assert [trial.backbone for trial in params.studies["s"].trials()] == ["resnet50v2"]


def test_the_order_of_networks_in_the_file_has_no_meaning() -> None:
    """DVC compares params without their order."""
    turned = {"backbone": dict(reversed(TWO.items()))}
    assert check_params(edited(RIGHT, COMPARED | turned)) == check_params(edited(RIGHT, COMPARED))


def test_one_network_has_the_name_of_its_row() -> None:
    params = check_params(edited(RIGHT, {}))
    assert list(params.backbones) == ["vgg16"]
    assert params.studies["s"].trials()[0].backbone == "vgg16"


def test_a_network_can_be_there_twice_under_names_of_its_own() -> None:
    large = {"network": "vgg16", "weights": "random-conv", "image_size": 224}
    small = large | {"image_size": 96}
    several = {"default": "large", "small": small, "large": large}
    changes = {"backbone": several, "studies/s/backbone": "small"}
    params = check_params(edited(RIGHT, changes))
    assert [row.image_size for row in params.backbones.values()] == [224, 96]
    assert params.studies["s"].trials()[0].layer == "block5_pool"


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"backbone": {"big": {"weights": "random"}}}, "no network has the name 'big'"),
        (
            {"backbone": {"vgg19": {"weights": "random"}}},
            "backbone.default: there is no 'vgg16' in backbone; did you mean 'vgg19'?",
        ),
        ({"backbone": {"default": "vgg16"}}, "backbone.weights: is missing"),
        ({"backbone": TWO | {"default": 3}}, "backbone.default: there is no '3' in backbone; kno"),
        (
            {"backbone": TWO | {"default": []}},
            "backbone.default: there is no '[]' in backbone; kno",
        ),
        (
            {"backbone": TWO | {"vgg19": {"weights": "random", "imagesize": 3}}},
            "backbone.vgg19.imagesize: unknown key; did you mean 'image_size'?",
        ),
        (
            {"backbone": TWO | {"vgg19": {"weights": "imagenet-conv"}}},
            "backbone.vgg19.weights: imagenet-conv holds VGG16; set imagenet",
        ),
        (
            {"backbone": {"VGG": {"network": "vgg16", "weights": "random"}}},
            "backbone.VGG: a name is lower-case letters",
        ),
        (
            {"studies/s/backbone": "resnet50"},
            "studies.s.backbone: unknown value 'resnet50'; did you mean 'resnet50v2'?",
        ),
        (
            {"studies/s/layer": "block5_pool"},
            "(backbone: resnet50v2; last is the last convolutional layer of every network)",
        ),
        (
            {"studies/s/layer": ["block5_pool", "last"], "studies/s/backbone": "vgg16"},
            "studies.s.layer: holds block5_pool and last, which are the same",
        ),
        (
            {"studies/s/layer": ["predictions", "last"]},
            "studies.s.layer: last must be the only value, because it is another layer for each",
        ),
        (
            {"datasets/d/layers": ["post_relu"]},
            "datasets.d.layers: names no layer of backbone.vgg16; add last",
        ),
        (
            {"datasets/d/layers": ["block5_pool"]},
            "studies.s.layer: post_relu is not among datasets.d.layers; add it there",
        ),
        (
            {"datasets/d/layers": ["last", "fc1"]},
            "backbone.vgg16.weights: random-conv holds no fc1; set backbone.vgg16.weights: random",
        ),
    ],
)
def test_mistakes_in_several_networks(changes: dict[str, Any], mistake: str) -> None:
    assert any(mistake in one for one in mistakes(COMPARED | changes))


def bomb(levels: int, width: int) -> str:
    """YAML in which each level repeats the one before it."""
    lines = ["a0: &a0 [x, x]"]
    for level in range(1, levels):
        repeated = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{repeated}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bomb(9, 9), "it stands for more than 100,000 values"),
        ("a: &a {b: *a}", "it stands for more than 100,000 values"),
        ("[" * 500 + "]" * 500, "more than 20 mappings and lists are within each other"),
        ("a: " + "[" * 100_000, "more than 20 mappings and lists are within each other"),
        ("a: " + "x" * 1_000_001, "it has more than 1,000,000 characters"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
    ids=["repeats", "itself", "deep", "deep and open", "long", "object"],
)
def test_yaml_beyond_its_bounds_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        read_params(tmp_path / "params.yaml")
    (mistake,) = caught.value.mistakes
    assert problem in mistake
    assert len(mistake) < 300


def test_anchors_and_merge_keys_are_within_the_bounds(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "backbone: &b {weights: random-conv}\n"
        "datasets: {d: &d {source: d.tar, layers: [block5_pool]}, e: {<<: *d, source: e.tar}}\n"
        "studies: {s: {dataset: e}}\n",
        encoding="utf-8",
    )
    assert read_params(path).datasets["e"].source == "e.tar"


def test_a_grid_of_too_many_trials_is_refused() -> None:
    changes = {
        "studies/s/samples_per_class": list(range(1, 1001)),
        "studies/s/learning_rate": [number / 1000 for number in range(1, 1001)],
        "studies/s/seed": [0, 1, 2],
    }
    assert mistakes(changes) == ["studies.s: is a grid of 3,000,000 trials, more than 10,000"]


def test_a_pattern_for_groups_may_have_what_only_backtracking_can_do() -> None:
    check(**{"datasets/d/split/group": r"^(?=a)(.+?)_\d(?<!9)"})

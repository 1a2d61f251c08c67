"""Mistakes in combinations of settings, where each setting is valid alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import regex

from vgg16_transfer.engines import ENGINES
from vgg16_transfer.errors import redacted
from vgg16_transfer.head_kinds import DEFAULT_HEAD, HEAD_KINDS
from vgg16_transfer.networks import DENSE_LAYERS, LAST, NETWORKS, layer_name, stored_layers
from vgg16_transfer.optimizers import OPTIMIZERS
from vgg16_transfer.params.section import MAX_TRIAL_NAME, nearest
from vgg16_transfer.params.study import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vgg16_transfer.params.dataset import Dataset
    from vgg16_transfer.params.schema import Params
    from vgg16_transfer.params.study import Study

PUBLISHED = ("caltech101", "caltech256", "urban_tribes")
"""Values of ``published_as``: the keys of ``datasets`` in reporting/published.yaml.

Params can't read from reporting, so a test compares the two.
"""

BY_APPROACH = {
    "augment": "end_to_end",
    "augment_copies": "end_to_end",
    "fine_tune_from": "end_to_end",
    "early_stopping": "end_to_end",
    "teacher_layer": "features",
}
"""Keys that only one approach uses."""

_WITH_GIVEN_SPLITS = {"split_folders", "csv"}
"""Layouts of sources that may have validation pictures of their own."""

_EXPERIMENTS = ("features", "report")
"""Experiments of MLflow with other runs. Those of a dataset's studies are in one of its name."""

_MAX_TEXT = 500
"""Characters of a text about a dataset, so that MLflow's description has room for it."""


def contradictions(params: Params) -> list[str]:
    """Finds settings that contradict each other.

    Args:
        params: Settings that are valid one by one.

    Returns:
        One sentence for each contradiction.
    """
    unknown = _unknown_names(params)
    if unknown:  # the other checks need known names
        return unknown
    mistakes = _precision_contradictions(params)
    for name, dataset in params.datasets.items():
        mistakes += _dataset_contradictions(name, dataset, params)
    for name, study in params.studies.items():
        path = f"studies.{name}"
        if study.dataset not in params.datasets:
            mistakes.append(
                f"{path}.dataset: no dataset '{study.dataset}'; "
                f"{nearest(study.dataset, list(params.datasets))}"
            )
            continue
        split = params.datasets[study.dataset].split
        for backbone in study.grid["backbone"]:
            mistakes += _layer_contradictions(study, backbone, params)
        mistakes += [
            f"{path}.seed: {seed} is not among datasets.{study.dataset}.split.seeds; add it there"
            for seed in study.grid["seed"]
            if seed not in split.seeds
        ]
        largest = max(study.grid["samples_per_class"])
        if largest > split.train_per_class:
            mistakes.append(
                f"{path}.samples_per_class: {largest} is more than the {split.train_per_class} of "
                f"datasets.{study.dataset}.split.train_per_class; raise that, or lower this"
            )
        # Made of the longest values, since making all trials would slow down every command.
        longest = ",".join(
            f"{axis}={max(map(str, study.grid[axis]), key=len)}" for axis in study.axes
        )
        if len(longest) > MAX_TRIAL_NAME:
            mistakes.append(
                f"{path}: the name of a trial lists what varies, '{longest}', and may have "
                f"{MAX_TRIAL_NAME} characters, not {len(longest)}; make two studies of it"
            )
        mistakes += _study_contradictions(path, study.grid, study.dataset, params)
    return mistakes


def _precision_contradictions(params: Params) -> list[str]:
    """Precisions that an engine does not compute in, or that training does not have."""
    mistakes = []
    for name, backbone in params.backbones.items():
        precision, key = backbone.precision, f"{params.key(name)}.precision"
        if precision not in ENGINES[backbone.engine].precisions:
            able = [engine for engine, row in ENGINES.items() if precision in row.precisions]
            mistakes.append(
                f"{key}: {precision} is computed by engine: {', '.join(able)} only, not by "
                f"{backbone.engine}; set that engine, or precision: float32"
            )
        mistakes += [
            f"studies.{study.name}.approach: end_to_end trains in float32, and would be measured "
            f"on features of {key}: {precision}; set float32 there, or approach: features"
            for study in params.studies.values()
            if precision != "float32"
            and name in study.grid["backbone"]
            and "end_to_end" in study.grid["approach"]
        ]
    return mistakes


def _layer_contradictions(study: Study, backbone: str, params: Params) -> list[str]:
    """Layers of one network that a study needs and that are not stored."""
    name = study.networks[backbone]
    stored = stored_layers(name, params.datasets[study.dataset].layers)
    path, listed = f"studies.{study.name}", f"datasets.{study.dataset}.layers"
    row, grid = NETWORKS[name], study.grid
    layers = [layer_name(name, layer) for layer in grid["layer"]]
    unlisted = [layer for layer in layers if layer not in stored]
    not_held = _not_held(f"{path}.layer", unlisted, backbone, params)
    mistakes = list(not_held)
    mistakes += [
        f"{path}.layer: {layer} is not among {listed}; add it there"
        for layer in unlisted
        if not (not_held and layer in DENSE_LAYERS)
    ]
    mistakes += [
        f"{path}.teacher_layer: {layer} is not among {listed}; add it there"
        for layer in (layer_name(name, layer) for layer in grid["teacher_layer"])
        if layer not in {"none", *stored}
    ]
    for block in set(grid["fine_tune_from"]) - {"none"}:
        below = row.fine_tune[block]
        if below not in stored:
            mistakes.append(
                f"{path}.fine_tune_from: {block} starts from {below}, which is not among "
                f"{listed}; add it there"
            )
        mistakes += [
            f"{path}.fine_tune_from: {block} lies above {layer}, which feeds the head"
            for layer in layers
            if layer in row.layers and row.layers.index(layer) <= row.layers.index(below)
        ]
    return mistakes


def _study_contradictions(
    path: str, grid: Mapping[str, tuple[Any, ...]], name: str, params: Params
) -> list[str]:
    """Settings of a study that contradict each other or the dataset."""
    mistakes = []
    if set(grid["temperature"]) != {1.0} and set(grid["layer"]) != {"predictions"}:
        mistakes.append(
            f"{path}.temperature: softens the network's own softmax, so it needs layer: predictions"
        )
    if "average" in grid["pooling"] and not DENSE_LAYERS.isdisjoint(grid["layer"]):
        mistakes.append(f"{path}.pooling: average needs a convolutional layer, not a dense one")
    if max(grid["warmup_epochs"]) >= min(grid["epochs"]):
        mistakes.append(f"{path}.warmup_epochs: must be fewer than epochs")
    mistakes += _head_contradictions(path, grid)
    mistakes += _teacher_contradictions(path, grid, name, params.datasets[name])
    if "cross_validation" in grid["calibration"] and (
        "end_to_end" in grid["approach"] or set(grid["teacher_layer"]) != {"none"}
    ):
        mistakes.append(
            f"{path}.calibration: cross_validation trains heads on cached features without a "
            "teacher; set validation, or none"
        )
    for key, approach in BY_APPROACH.items():
        if _is_set(grid, key) and set(grid["approach"]) != {approach}:
            mistakes.append(f"{path}.{key}: needs approach: {approach}")
    dataset = params.datasets[name]
    none_given = dataset.layout not in _WITH_GIVEN_SPLITS
    if _is_set(grid, "early_stopping") and none_given and not dataset.split.validation_per_class:
        mistakes.append(
            f"{path}.early_stopping: needs validation pictures; set "
            f"datasets.{name}.split.validation_per_class"
        )
    if _is_set(grid, "log_filters_every") and set(grid["fine_tune_from"]) == {"none"}:
        mistakes.append(f"{path}.log_filters_every: needs approach: end_to_end with fine_tune_from")
    elif len(grid["log_filters_every"]) > 1:
        mistakes.append(f"{path}.log_filters_every: changes no head, so it can't be a list")
    return mistakes


def _is_set(grid: Mapping[str, tuple[Any, ...]], key: str) -> bool:
    """Whether a key of a study has another value than its default, or several."""
    return grid[key] != (Trial.model_fields[key].default,)


def _head_contradictions(path: str, grid: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Keys that were set but would be ignored by a head of the study."""
    kinds = grid["head"]
    mistakes = []
    if set(kinds) != {DEFAULT_HEAD} and "end_to_end" in grid["approach"]:
        mistakes.append(f"{path}.head: approach: end_to_end trains head: {DEFAULT_HEAD} only")
    for key in sorted(frozenset().union(*(row.keys for row in HEAD_KINDS.values()))):
        users = [kind for kind, row in HEAD_KINDS.items() if key in row.keys]
        using = [kind for kind in kinds if kind in users]
        # One value is allowed if some of the kinds use the key. Several values are not allowed: the
        # same heads of the other kinds would be trained once per value.
        if _is_set(grid, key) and (not using or (len(grid[key]) > 1 and len(using) < len(kinds))):
            mistakes.append(f"{path}.{key}: is used by head: {', '.join(users)} only")
    return mistakes


def _teacher_contradictions(
    path: str, grid: Mapping[str, tuple[Any, ...]], name: str, dataset: Dataset
) -> list[str]:
    limit = dataset.split.train_per_class
    taught = set(grid["teacher_layer"]) != {"none"}
    mistakes = []
    if max(grid["unlabelled_per_class"]) and not taught:
        mistakes.append(f"{path}.unlabelled_per_class: needs a teacher; set teacher_layer")
    seen = max(grid["samples_per_class"]) + max(grid["unlabelled_per_class"])
    if max(grid["unlabelled_per_class"]) and seen > limit:
        mistakes.append(
            f"{path}.unlabelled_per_class: with samples_per_class that makes {seen}, more than the "
            f"{limit} of datasets.{name}.split.train_per_class; raise that, or lower this"
        )
    needed = seen + max(grid["teacher_samples_per_class"])
    if taught and "disjoint" in grid["teacher_pictures"] and needed > limit:
        mistakes.append(
            f"{path}.teacher_pictures: disjoint needs {needed} training pictures of each class, "
            f"{seen} for the student and {needed - seen} for its teacher, more than the {limit} of "
            f"datasets.{name}.split.train_per_class; raise that, or lower these"
        )
    if taught and max(grid["teacher_samples_per_class"]) > limit:
        mistakes.append(
            f"{path}.teacher_samples_per_class: {max(grid['teacher_samples_per_class'])} is more "
            f"than the {limit} of datasets.{name}.split.train_per_class; raise that, or lower this"
        )
    return mistakes


def _dataset_contradictions(name: str, dataset: Dataset, params: Params) -> list[str]:
    path = f"datasets.{name}"
    mistakes = []
    if dataset.source is not None:
        mistakes += _source_mistakes(f"{path}.source", dataset.source)
    mistakes += _said_mistakes(name, dataset)
    first = next(iter(params.backbones))
    if not stored_layers(params.backbones[first].network, dataset.layers):
        mistakes.append(
            f"{path}.layers: names no layer of {params.key(first)}; add last, which is the last "
            "convolutional layer of every network"
        )
    for backbone, settings in params.backbones.items():
        row = NETWORKS[settings.network]
        layers = stored_layers(settings.network, dataset.layers)
        dense = [layer for layer in layers if layer in DENSE_LAYERS]
        mistakes += _not_held(f"{path}.layers", layers, backbone, params)
        if dense and row.fixed_size and settings.image_size != row.image_size:
            mistakes.append(
                f"{path}.layers: {', '.join(dense)} needs {params.key(backbone)}.image_size: "
                f"{row.image_size}"
            )
    mistakes += [
        f"{path}.{key}: holds a value twice"
        for key in ("layers", "classes", "leave_out")
        if len(set(values := getattr(dataset, key))) < len(values)
    ]
    both = sorted({*dataset.classes} & {*dataset.leave_out})
    if both:
        mistakes.append(f"{path}.leave_out: '{both[0]}' is in {path}.classes too; remove one")
    if len(set(dataset.split.seeds)) < len(dataset.split.seeds) or min(dataset.split.seeds) < 0:
        mistakes.append(f"{path}.split.seeds: must be different whole numbers of 0 or more")
    if dataset.encoding is not None:
        mistakes += _encoding_mistakes(f"{path}.encoding", dataset.encoding)
    if dataset.split.group is not None:
        mistakes += _group_mistakes(f"{path}.split.group", dataset.split.group)
    return mistakes


def _said_mistakes(name: str, dataset: Dataset) -> list[str]:
    """Mistakes in the name of a dataset, and in what is said of it."""
    mistakes = []
    path = f"datasets.{name}"
    if name in _EXPERIMENTS:
        mistakes.append(
            f"{path}: has the name of the MLflow experiment that holds the runs of the stage "
            f"{name}; choose another one"
        )
    texts = {"origin": dataset.origin, "licence": dataset.licence}
    texts |= {f"remarks.{number}": text for number, text in enumerate(dataset.remarks)}
    for key, text in texts.items():
        mistakes += [] if text is None else _text_mistakes(f"{path}.{key}", text)
    return mistakes


def _not_held(path: str, layers: list[str], backbone: str, params: Params) -> list[str]:
    """Layers that a network has, but the file of its weights does not have."""
    dense = [layer for layer in layers if layer in DENSE_LAYERS]
    settings, key = params.backbones[backbone], params.key(backbone)
    if not dense or settings.weights not in {"imagenet-conv", "random-conv"}:
        return []
    full = settings.weights.removesuffix("-conv")
    convolutional = ", ".join(NETWORKS[settings.network].layers)
    remedy = f"set {key}.weights: {full}, or tap one of {convolutional}"
    return [f"{path}: {key}.weights: {settings.weights} holds no {', '.join(dense)}; {remedy}"]


def _source_mistakes(path: str, source: str) -> list[str]:
    try:
        host = urlsplit(source).netloc
    except ValueError:
        return [f"{path}: is no valid address: {source}"]
    if "@" not in host:
        return []
    remedy = "write them to ~/.netrc, which downloads read, and remove them here"
    return [f"{path}: holds a user or a password, which git and dvc.lock would keep; {remedy}"]


def _text_mistakes(path: str, text: str) -> list[str]:
    if not text.strip():
        return [f"{path}: is empty; write a sentence, or remove the key"]
    if len(text) > _MAX_TEXT:
        remedy = "shorten it, or name an address that says the rest"
        return [f"{path}: has {len(text)} characters, more than {_MAX_TEXT}; {remedy}"]
    if redacted(text) != text:
        return [f"{path}: holds a user or a password, which the page would show; remove them"]
    return []


def _encoding_mistakes(path: str, encoding: str) -> list[str]:
    try:
        "".encode(encoding)
    except LookupError:
        return [
            f"{path}: Python knows no text encoding '{encoding}'; cp932, gbk and cp1252 are some"
        ]
    return []


def _group_mistakes(path: str, pattern: str) -> list[str]:
    try:
        groups = regex.compile(pattern).groups
    except regex.error as error:
        return [f"{path}: is not a regular expression: {error}"]
    return [] if groups == 1 else [f"{path}: must have one (group), but has {groups}"]


def _unknown_names(params: Params) -> list[str]:
    """Unknown names of networks, engines, layers, blocks, heads, optimisers, known datasets."""
    mistakes = []
    for name, backbone in params.backbones.items():
        mistakes += _unknown(f"{params.key(name)}.network", backbone.network, list(NETWORKS))
        mistakes += _unknown(f"{params.key(name)}.engine", backbone.engine, list(ENGINES))
    if mistakes:  # the other checks need known networks
        return mistakes
    mistakes += [
        f"{params.key(name)}.weights: imagenet-conv holds VGG16; set imagenet, which Keras "
        "downloads"
        for name, backbone in params.backbones.items()
        if backbone.weights == "imagenet-conv" and backbone.network != "vgg16"
    ]
    rows = [NETWORKS[backbone.network] for backbone in params.backbones.values()]
    layers = list(dict.fromkeys([layer for row in rows for layer in (*row.layers, *row.dense)]))
    for dataset_name, dataset in params.datasets.items():
        mistakes += _unknown_in_dataset(f"datasets.{dataset_name}", dataset, [*layers, LAST])
    for study_name, study in params.studies.items():
        path = f"studies.{study_name}"
        for key, known in (
            ("head", list(HEAD_KINDS)),
            ("optimizer", list(OPTIMIZERS)),
            ("backbone", list(params.backbones)),
        ):
            for value in study.grid[key]:
                mistakes += _unknown(f"{path}.{key}", value, known)
        for backbone in study.grid["backbone"]:
            if backbone in params.backbones:
                mistakes += _unknown_layers(path, study, backbone)
    return mistakes


def _unknown_in_dataset(path: str, dataset: Dataset, layers: list[str]) -> list[str]:
    """Unknown names of layers, and of a dataset with published numbers."""
    mistakes = []
    for number, layer in enumerate(dataset.layers):
        mistakes += _unknown(f"{path}.layers.{number}", layer, layers)
    if dataset.published_as is not None:
        mistakes += _unknown(f"{path}.published_as", dataset.published_as, list(PUBLISHED))
    return mistakes


def _unknown_layers(path: str, study: Study, backbone: str) -> list[str]:
    """Layers and blocks that one network of a study does not have."""
    row = NETWORKS[study.networks[backbone]]
    layers = [*row.layers, *row.dense, LAST]
    mistakes = []
    for key, known in (
        ("layer", layers),
        ("teacher_layer", ["none", *layers]),
        ("fine_tune_from", ["none", *row.fine_tune]),
    ):
        for value in study.grid[key]:
            mistakes += _unknown(f"{path}.{key}", value, known)
    if mistakes and len(study.grid["backbone"]) > 1:
        common = f"backbone: {backbone}; last is the last convolutional layer of every network"
        return [f"{mistake} ({common})" for mistake in mistakes]
    return mistakes


def _unknown(path: str, value: str, known: list[str]) -> list[str]:
    if value in known:
        return []
    return [f"{path}: unknown value '{value}'; {nearest(value, known)}"]

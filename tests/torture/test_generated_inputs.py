"""Thousands of damaged and hostile inputs: none is a traceback, endless, huge, or accepted wrongly.

`make test` runs a few of each kind, `make torture` (TORTURE=1) all of them. Input number 7 is the
same in every run: the seed is its number.
"""

import contextlib
import copy
import io
import os
import random
import resource
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.errors import MAX_CHARACTERS, MAX_LINES, InputError, shown
from vgg16_transfer.heads import records, saved
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.images.pictures import MIN_SIDE, decode
from vgg16_transfer.lineage.locked import lock_entries
from vgg16_transfer.params import read_params

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("TORTURE") == "1"

SECONDS = 2
MEGABYTES = 500


def numbers(full: int) -> range:
    """Numbers of the inputs of a kind: all of them, or one in fifty."""
    return range(full if FULL else full // 50)


@contextlib.contextmanager
def bounded(number: int) -> Iterator[None]:
    """Fails if an input needs too much time or memory, or ends in another error than InputError."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = ["accepted"]
    try:
        yield
    except InputError as error:
        lines = shown(str(error))
    assert 0 < len(lines) <= MAX_LINES + 1, number
    assert all(0 < len(line) < MAX_CHARACTERS + 10 for line in lines), number
    assert time.monotonic() - started < SECONDS, number
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    assert grown < MEGABYTES, (number, grown)


def chooser(number: int) -> random.Random:
    return random.Random(number)  # noqa: S311 - choices to test with


def damaged(content: bytes, choose: random.Random) -> bytes:
    """Bytes of a file, with a few of them changed, lost, repeated or exchanged."""
    data = bytearray(content)
    for _ in range(choose.choice([1, 1, 1, 2, 5, 20])):
        at = choose.randrange(len(data) + 1)
        length = choose.choice([1, 1, 2, 4, 16, 512])
        kind = choose.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << choose.randrange(8)
        elif kind == 1:
            data[at : at + length] = choose.randbytes(len(data[at : at + length]))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = choose.choice([b"\0", b"\xff"]) * len(data[at : at + length])
        elif choose.random() < 0.3:
            del data[at:]
    return bytes(data)


# params.yaml

HOSTILE = [None, True, "", " ", "\0", "a\nb", "x" * 5000, "[", "💥", "../..", "a; touch x", -1, 0]
HOSTILE += [1e308, -1e308, 1e-320, 10**30, 0.5, float("nan"), float("inf"), [], {}, [[]], [None]]
HOSTILE += [{"a": {"b": {}}}, list(range(300)), ["last"], "last", "2026-13-01", "!!float x"]


def paths_of(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value or [])
    found = [path] if path else []
    for key, below in items:
        inner = (*path, key)
        found += paths_of(below, inner) if isinstance(below, (dict, list)) else [inner]
    return found


def hostile_params(choose: random.Random) -> bytes:
    text = (ROOT / "profiles" / "sample.yaml").read_bytes()
    if choose.random() < 0.4:
        return damaged(text, choose)
    raw = YAML(typ="safe", pure=True).load(text)
    for _ in range(choose.choice([1, 1, 2, 4])):
        path = choose.choice(paths_of(raw))
        section = raw
        for key in path[:-1]:
            section = section[key]
        kind = choose.randrange(4)
        if kind == 0:
            del section[path[-1]]
        elif kind == 1 and isinstance(section, dict):
            key = choose.choice(["weights", "layer", "seed", "x", 3, "", "a b"])
            section[key] = copy.deepcopy(choose.choice(HOSTILE))
        else:
            section[path[-1]] = copy.deepcopy(choose.choice(HOSTILE))
        if not raw:
            break
    buffer = io.BytesIO()
    YAML(typ="safe", pure=True).dump(raw, buffer)
    return buffer.getvalue()


def test_params(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for number in numbers(6000):
        path.write_bytes(hostile_params(chooser(number)))
        with bounded(number):
            params = read_params(path)
            for study in params.studies.values():
                assert study.trials()


# archives

FILES = {f"{name}/{n}.jpg": bytes([n]) * 700 for name in ("ant", "bee") for n in range(4)}


def write_tar(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_zip(path: Path, compression: int) -> None:
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, content in FILES.items():
            zipped.writestr(name, content)


CHECKED: dict[str, Callable[[Path], None]] = {
    "tar.gz": lambda path: write_tar(path, "w:gz"),
    "tar.bz2": lambda path: write_tar(path, "w:bz2"),
    "tar.xz": lambda path: write_tar(path, "w:xz"),
    "zip": lambda path: write_zip(path, zipfile.ZIP_DEFLATED),
    "stored": lambda path: write_zip(path, zipfile.ZIP_STORED),
}
"""Archives with checksums of their files' bytes. A tar has none."""


@pytest.mark.parametrize("form", ["tar", *CHECKED])
def test_archives(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    write: Callable[[Path], None] = CHECKED.get(form, lambda path: write_tar(path, "w"))
    write(path)
    content = path.read_bytes()
    for number in numbers(4000 // 6):
        path.write_bytes(damaged(content, chooser(number)))
        with bounded(number), open_archive(path) as archive:
            for name in archive.names():
                with contextlib.suppress(InputError):
                    read = archive.read(name)
                    assert form == "tar" or read == FILES.get(name, read), (number, name)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


# pictures

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "AVIF", "JPEG2000"]
FORMATS += ["HEIF", "PCX", "SGI", "DDS", "MSP"]


@pytest.mark.parametrize("form", FORMATS)
def test_pictures(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # the orientation
    options = {"exif": exif} if form in {"JPEG", "PNG", "TIFF", "WEBP"} else {}
    picture = Image.fromarray(pixels)
    (picture.convert("1") if form == "MSP" else picture).save(buffer, form, **options)
    content = buffer.getvalue()
    for number in numbers(8000 // len(FORMATS)):
        hostile = damaged(content, chooser(number))
        with bounded(number):
            picture = decode(hostile)
            assert picture.mode == "RGB"
            assert min(picture.size) >= MIN_SIDE


# what stages write

IDS = [f"{number:064x}" for number in range(40)]
SHAPES = {"block5_pool": (2, 2, 4), "fc2": (8,)}


def write_store(path: Path) -> dict[str, np.ndarray]:
    store = FeatureStore.create(path, {"dtype": "float16"}, SHAPES)
    values = {
        layer: np.random.default_rng(0).random((len(IDS), int(np.prod(shape)))).astype(np.float16)
        for layer, shape in SHAPES.items()
    }
    for rows in (slice(0, 25), slice(25, 40)):
        store.append(IDS[rows], {layer: block[rows] for layer, block in values.items()})
    return values


@pytest.mark.parametrize("name", ["index.jsonl", "block5_pool.rows"])
def test_feature_stores(tmp_path: Path, name: str) -> None:
    values = write_store(tmp_path / "store")
    content = (tmp_path / "store" / name).read_bytes()
    for number in numbers(800):
        (tmp_path / "store" / name).write_bytes(damaged(content, chooser(number)))
        for layer in SHAPES:
            with bounded(number):
                rows = FeatureStore.open(tmp_path / "store").rows(layer, IDS)
                np.testing.assert_array_equal(rows, values[layer].astype(np.float32), str(number))


def read_record(path: Path) -> None:
    records.read(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "data/splits/animals/0.csv": read_manifest,
    "results/few/trials.csv": read_record,
    "results/few/history.csv": read_record,
    "results/few/predictions.csv": read_record,
    "models/heads/few/samples_per_class=1,seed=0.keras": saved.made_of,
    "dvc.lock": lambda path: lock_entries(path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_records(trained, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree((trained.root / name).parent, folder)
    path = folder / Path(name).name
    content = path.read_bytes()
    for number in numbers(80):
        path.write_bytes(damaged(content, chooser(number)))
        with bounded(number):
            READERS[name](path)

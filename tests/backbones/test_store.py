"""What is read of a store is what is asked for."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from vgg16_transfer.backbones import store as stores
from vgg16_transfer.backbones.store import INDEX, FeaturesError, FeatureStore

from . import old_store

WIDTH = 70_000  # three pieces of float16
SHAPES = {"block3_pool": (WIDTH,), "fc2": (8,)}
IDS = [f"{number:064x}" for number in range(11)]
RECIPE = {"dtype": "float16"}
RANDOM = np.random.default_rng(0)
VALUES = {
    layer: np.maximum(RANDOM.standard_normal((len(IDS), shape[0])), 0).astype(np.float16)
    for layer, shape in SHAPES.items()
}
CHUNKS = [slice(0, 6), slice(6, 11)]


@pytest.fixture(params=["new", "old"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    """The same rows in both formats."""
    path = tmp_path / "d"
    chunks = [(IDS[rows], {layer: VALUES[layer][rows] for layer in SHAPES}) for rows in CHUNKS]
    if request.param == "old":
        old_store.write(path, RECIPE, SHAPES, chunks)
    else:
        created = FeatureStore.create(path, RECIPE, SHAPES)
        for pictures, blocks in chunks:
            created.append(pictures, blocks)
    return FeatureStore.open(path)


@pytest.fixture
def new(tmp_path: Path) -> FeatureStore:
    created = FeatureStore.create(tmp_path / "n", RECIPE, SHAPES)
    created.append(IDS, VALUES)
    return created


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers were decoded, call by call."""
    seen: list[int] = []
    decode = stores.decode

    def counted(content: bytes, dtype: str, count: int) -> np.ndarray:
        seen.append(count)
        return decode(content, dtype, count)

    monkeypatch.setattr(stores, "decode", counted)
    return seen


@pytest.mark.parametrize("layer", SHAPES)
@pytest.mark.parametrize(
    "order", [list(range(11)), [10, 0, 5, 6], [3], [], [4, 4, 4]], ids=lambda order: str(order)[:9]
)
def test_rows_come_in_the_order_that_is_asked_for(store, layer: str, order: list[int]) -> None:
    result = store.rows(layer, [IDS[row] for row in order])
    assert result.dtype == np.float32
    assert result.tobytes() == VALUES[layer][order].astype(np.float32).tobytes()


@pytest.mark.parametrize(
    "columns",
    [slice(0, 1), slice(20_000, 60_000), slice(65_000, None), slice(7, 7)],
    ids=str,
)
def test_columns_are_those_of_the_rows(store, columns: slice) -> None:
    result = store.rows("block3_pool", IDS, columns)
    assert result.tobytes() == VALUES["block3_pool"][:, columns].astype(np.float32).tobytes()


def test_pieces_are_all_columns_once(store) -> None:
    for layer, (width,) in SHAPES.items():
        pieces = store.pieces(layer)
        assert [column for piece in pieces for column in range(width)[piece]] == [*range(width)]


def test_a_trial_that_reads_some_pictures_decodes_these_and_no_neighbours(new, decoded) -> None:
    new.rows("block3_pool", IDS[::4])
    assert sum(decoded) == len(IDS[::4]) * WIDTH


def test_every_piece_of_columns_can_be_decoded_alone(new, decoded) -> None:
    pieces = new.pieces("block3_pool")
    assert len(pieces) == 3
    for piece in pieces:
        new.rows("block3_pool", IDS, piece)
    assert sum(decoded) == len(IDS) * WIDTH


def test_a_damaged_piece_costs_its_own_picture(new) -> None:
    path = new._path / "block3_pool.rows"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    damaged = set(IDS) - new.intact(["block3_pool"])
    assert damaged == {IDS[5]}
    assert new.intact(["fc2"]) == set(IDS)
    others = [sha256 for sha256 in IDS if sha256 not in damaged]
    assert len(new.rows("block3_pool", others)) == len(IDS) - 1
    with pytest.raises(FeaturesError, match=r"block3_pool\.rows: the row of picture 0{12} is dama"):
        new.rows("block3_pool", IDS)


def test_pieces_of_a_row_can_not_be_exchanged(new) -> None:
    path = new._path / INDEX
    header, line = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    start, lengths, digests = line["parts"]["block3_pool"]
    values = (new._path / "block3_pool.rows").read_bytes()
    ends = np.cumsum([start, *lengths]).tolist()
    first, second, *_ = (values[a:b] for a, b in itertools.pairwise(ends))
    swapped = second + first + values[len(first) + len(second) :]
    (new._path / "block3_pool.rows").write_bytes(swapped)
    lengths[:2], digests[:2] = lengths[1::-1], digests[1::-1]
    text = "".join(json.dumps(each) + "\n" for each in (header, line))
    path.write_text(text, encoding="utf-8")
    assert IDS[0] not in FeatureStore.open(new._path).intact(["block3_pool"])


def test_a_line_of_the_index_comes_after_its_bytes(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", RECIPE, SHAPES)
    store.write(IDS, VALUES)
    assert (tmp_path / "s" / "block3_pool.rows").stat().st_size > WIDTH
    assert FeatureStore.open(tmp_path / "s").ids == []
    store.settle()
    assert FeatureStore.open(tmp_path / "s").ids == IDS
    store.settle()
    assert FeatureStore.open(tmp_path / "s").ids == IDS


def test_chunks_that_were_settled_together_are_those_that_were_settled_one_by_one(
    tmp_path: Path,
) -> None:
    for name in ("together", "single"):
        store = FeatureStore.create(tmp_path / name, RECIPE, SHAPES)
        for rows in CHUNKS:
            store.write(IDS[rows], {layer: VALUES[layer][rows] for layer in SHAPES})
            if name == "single":
                store.settle()
        store.settle()
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("together", "single")
    ]
    assert files[0] == files[1]

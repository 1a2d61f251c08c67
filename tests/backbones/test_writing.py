import errno
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgg16_transfer.backbones import writing as module
from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.backbones.writing import writing

SHAPES = {"fc2": (8,)}
CHUNKS = 6


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "d", {"dtype": "float16"}, SHAPES)


def ids(chunk: int) -> list[str]:
    return [f"{2 * chunk + row:064x}" for row in range(2)]


def block(chunk: int) -> dict[str, np.ndarray]:
    return {"fc2": np.full((2, 8), chunk, np.float16)}


def made(chunk: int) -> Callable[[], dict[str, np.ndarray]]:
    return lambda: block(chunk)


def give(
    store: FeatureStore,
    *chunks: Callable[[], dict[str, np.ndarray]],
    end: BaseException | None = None,
) -> None:
    """Gives chunks to the thread, and then fails."""
    with writing(store) as write:
        for chunk, blocks in enumerate(chunks):
            write(ids(chunk), blocks)
        if end is not None:
            raise end


def kept(store: FeatureStore) -> list[str]:
    return FeatureStore.open(store._path).ids


def test_chunks_are_written_in_their_order_by_another_thread(store) -> None:
    threads = []

    def where() -> dict[str, np.ndarray]:
        threads.append(threading.current_thread())
        return block(0)

    with writing(store) as write:
        write(ids(0), where)
        for chunk in range(1, CHUNKS):
            write(ids(chunk), made(chunk))
    expected = [sha256 for chunk in range(CHUNKS) for sha256 in ids(chunk)]
    assert kept(store) == expected
    assert store.rows("fc2", expected)[::2, 0].tolist() == [*range(CHUNKS)]
    assert threads != [threading.main_thread()]


def test_what_fails_is_raised_here_and_nothing_is_written_behind_it(store) -> None:
    def full() -> dict[str, np.ndarray]:
        raise OSError(errno.ENOSPC, "No space left on device")

    chunks = [full if chunk == 2 else made(chunk) for chunk in range(CHUNKS)]
    with pytest.raises(OSError, match="No space left"):
        give(store, *chunks)
    assert kept(store) == ids(0) + ids(1)


def test_the_last_chunk_may_fail_too(store) -> None:
    def broken() -> dict[str, np.ndarray]:
        raise ValueError("a bad chunk")

    with pytest.raises(ValueError, match="a bad chunk"):
        give(store, made(0), broken)
    assert kept(store) == ids(0)


def test_what_was_given_is_kept_when_the_rest_fails(store) -> None:
    with pytest.raises(KeyboardInterrupt):
        give(store, made(0), made(1), end=KeyboardInterrupt())
    assert kept(store) == ids(0) + ids(1)


def test_a_slow_disk_lets_no_more_than_a_few_chunks_wait(store) -> None:
    may_write, given = threading.Event(), []

    def slow() -> dict[str, np.ndarray]:
        assert may_write.wait(60)
        return block(0)

    def give_all() -> None:
        with writing(store) as write:
            for chunk in range(CHUNKS):
                write(ids(chunk), slow)
                given.append(chunk)

    giving = threading.Thread(target=give_all)
    giving.start()
    giving.join(0.3)  # it can't end before the thread may write
    assert giving.is_alive()
    assert len(given) <= module._WAITING
    may_write.set()
    giving.join()
    assert len(kept(store)) == 2 * CHUNKS


def test_the_index_is_written_from_time_to_time(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    seen = []

    def look() -> dict[str, np.ndarray]:
        seen.append(kept(store))
        return block(1)

    give(store, made(0), look)
    assert seen == [ids(0)]

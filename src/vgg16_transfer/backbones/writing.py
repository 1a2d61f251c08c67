"""Writes chunks in a thread of its own, while the next pictures go through the network."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    import numpy.typing as npt

    from vgg16_transfer.backbones.store import FeatureStore

    Blocks = Mapping[str, npt.NDArray[np.floating[Any]]]
    Write = Callable[[Sequence[str], Callable[[], Blocks]], None]

_WAITING = 2
"""Chunks that may wait for the thread. With more, a slow disk would fill the memory."""

_PAUSE = 10.0
"""How many times as long as the last settling took the next one waits. A disk takes up to a tenth
of a second, which is longer than a GPU needs for a chunk. So settling takes a tenth of the time, at
most, and a run on a CPU settles after each chunk."""


@contextmanager
def writing(store: FeatureStore) -> Iterator[Write]:
    """Lets a thread write chunks to a store, in the order in which they are given.

    When the block is over, everything is written. When it fails, so is what was given before.

    Args:
        store: The store. Nothing else may write to it meanwhile.

    Yields:
        A function that takes the pictures of a chunk, and a function that returns the features by
        layer. The thread calls that function. It waits if chunks come faster than they are written.
        It raises what went wrong with a chunk before.

    Raises:
        OSError: The disk is full, or can't be written to.
    """
    waiting: deque[Future[None]] = deque()
    failed = False
    next_time = time.monotonic()

    def write(pictures: Sequence[str], blocks: Callable[[], Blocks]) -> None:
        nonlocal failed, next_time
        if failed:  # chunks behind a chunk that is missing could not be kept
            return
        failed = True
        store.write(pictures, blocks())
        began = time.monotonic()
        if began >= next_time:
            store.settle()
            next_time = time.monotonic() + _PAUSE * (time.monotonic() - began)
        failed = False

    with ThreadPoolExecutor(1, "write") as pool:

        def give(pictures: Sequence[str], blocks: Callable[[], Blocks]) -> None:
            waiting.append(pool.submit(write, pictures, blocks))
            if len(waiting) > _WAITING:
                waiting.popleft().result()

        try:
            yield give
            while waiting:
                waiting.popleft().result()
        finally:
            pool.shutdown()
            store.settle()

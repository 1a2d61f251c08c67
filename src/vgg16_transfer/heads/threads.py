"""How many threads multiply the matrices of a head.

A head on a few hundred pictures multiplies small matrices thousands of times. OpenBLAS splits also
these between all cores: that takes longer than one thread, and three to ten times its CPU time,
since threads wait for each other. And sums are in another order for each number of cores, so that
the last bits of a head depend on the machine.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = 32_000_000
"""Floating-point operations of a product that one thread is left alone with: about a millisecond.

257 classes of Caltech-256 are above it, a few dozen classes of 16 pictures below.
"""


@contextmanager
def enough_for(operations: int) -> Iterator[None]:
    """Meanwhile, matrix products of NumPy and SciPy take one thread if they are small.

    Args:
        operations: Floating-point operations of the product that is made most often.
    """
    limit = 1 if operations < SMALL else None
    with _controller().limit(limits=limit, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    """Looking for the libraries takes some milliseconds."""
    return ThreadpoolController()

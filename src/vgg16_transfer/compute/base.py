"""What a stage asks of other processes, wherever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Opener(Protocol[Item_contra, Result_co]):
    """What a worker needs, by path and by value. It can be pickled."""

    def __call__(self) -> AbstractContextManager[Callable[[Item_contra], Result_co]]:
        """Opens all of it, once in each worker: gives a function from an item to its result."""
        ...


class Pool(Protocol):
    """Processes that see the same files as this one, under the same paths."""

    def map(
        self,
        opener: Opener[Item, Result],
        items: Sequence[Item],
        *,
        began: Callable[[Item], None] | None = None,
        ended: Callable[[Item], None] | None = None,
        gpu: bool = False,
    ) -> Iterator[Result]:
        """Computes a result for each item, in any order, and gives the results in order.

        A worker that dies costs only the items that it was given: other workers compute them.
        Items and results that wait are bounded in number, whatever the number of items.

        Args:
            opener: What each worker opens once.
            items: What to compute. The result of an item depends on nothing but the item.
            began: Is told when an item is given to a worker. It may be told again, if that dies.
            ended: Is told when an item is computed.
            gpu: Whether each worker needs a GPU of its own.

        Yields:
            The results, in the order of the items.

        Raises:
            InputError: As in the worker; or no worker starts, or an item kills each worker.
        """
        ...

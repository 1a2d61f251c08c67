"""Workers in this process: what they are given and what they return is pickled, as between two."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Inline:
    """Gives each item to one of two workers; see ``vgg16_transfer.compute.base.Pool``.

    The first worker dies when it has its first item, which the second one then computes.
    """

    def __init__(self) -> None:
        self.gpus: list[bool] = []

    def map(
        self,
        opener: Any,
        items: Sequence[Any],
        *,
        began: Callable[[Any], None] | None = None,
        ended: Callable[[Any], None] | None = None,
        gpu: bool = False,
    ) -> Iterator[Any]:
        self.gpus.append(gpu)
        if not items:
            return
        if began is not None:
            began(items[0])
        with copied(opener)() as function:
            for item in items:
                if began is not None:
                    began(item)
                result = copied(function(copied(item)))
                if ended is not None:
                    ended(item)
                yield result


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301

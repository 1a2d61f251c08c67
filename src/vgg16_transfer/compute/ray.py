"""Workers on a Ray cluster. No other module imports Ray.

Workers are plain actors and not those of Ray Data, which keeps the tasks of a dead node for an
actor that waits for a free core. If no core is free, the others wait too, because results are in
order (docs/scale.md). Here, an item of a dead worker goes to the next worker that is idle.

A worker gets as many threads as this process would use, and the variables that choose kernels:
TensorFlow's sums depend on the number of threads in their last bits. So results have the same bytes
as without Ray, on the same kind of CPU.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.errors import InputError
from vgg16_transfer.quiet import muted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vgg16_transfer.compute.base import Item, Opener, Result

_LOG = logging.getLogger(__name__)

ADDRESS = "RAY_ADDRESS"
"""Ray's own environment variable: the cluster to join."""

_THREADS = "TF_NUM_INTRAOP_THREADS"
_DECIDE_BITS = (
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_NUM_INTEROP_THREADS",
)
"""Variables that a worker gets as this process has them."""

_QUIET = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would send what it is used for to its makers
    "RAY_worker_niceness": "0",  # Ray's workers would wait for all other programs
}

_AHEAD = 2  # items per worker that are given out before it has computed its first
_TRIES = 3  # workers that one item may kill
_PATIENCE_S = 300  # without any worker
_POLL_S = 5.0
_ANSWERS_S = 10


class ComputeError(InputError):
    """A cluster that can't be had, or that loses its workers."""


class _Refused(NamedTuple):
    """Bad input that a worker met. Ray could not carry the error of each room."""

    sentence: str


class RayPool:
    """Workers on a Ray cluster; see :class:`~vgg16_transfer.compute.base.Pool`.

    A stage that has nothing to compute joins and starts no cluster.

    Args:
        verbose: Whether to print what Ray logs.
    """

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._threads = _threads()
        self._joined: Any = None  # the module, which is connected to a cluster

    @property
    def _ray(self) -> Any:
        if self._joined is None:
            self._joined = _joined(self._threads, verbose=self._verbose)
        return self._joined

    def close(self) -> None:
        """Leaves the cluster. One that was started here ends."""
        if self._joined is not None:
            self._joined.shutdown()

    def map(
        self,
        opener: Opener[Item, Result],
        items: Sequence[Item],
        *,
        began: Callable[[Item], None] | None = None,
        ended: Callable[[Item], None] | None = None,
        gpu: bool = False,
    ) -> Iterator[Result]:
        """See :meth:`vgg16_transfer.compute.base.Pool.map`."""
        if not items:
            return
        workers = _Workers(self._ray, opener, *self._sizes(len(items), gpu=gpu))
        results: dict[int, Any] = {}
        to_do, given, tries = list[int](), 0, Counter[int]()
        try:
            for wanted in range(len(items)):
                # Results that wait for an earlier one are bounded by what is given out.
                end = min(wanted + workers.number * (_AHEAD + 1), len(items))
                to_do += range(given, end)
                given = max(given, end)
                while wanted not in results:
                    while to_do and workers.give(to_do[0], items[to_do[0]]):
                        _tell(began, items[to_do.pop(0)])
                    computed, lost = workers.wait()
                    for index in computed:
                        _tell(ended, items[index])
                    results |= computed
                    to_do = sorted([*lost, *to_do])
                    tries.update(lost)
                    _check_tries(tries)
                result = results.pop(wanted)
                if isinstance(result, _Refused):
                    raise InputError(result.sentence)
                yield result
        finally:
            workers.end()

    def _sizes(self, items: int, *, gpu: bool) -> tuple[int, float, int]:
        """How many workers, and the cores and GPUs of each."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if gpu:
            number = int(sum(node.get("GPU", 0) for node in nodes))
            if not number:
                raise ComputeError(
                    "compute: ray: this process has a GPU, and no node of the cluster has one; set "
                    "CUDA_VISIBLE_DEVICES to nothing"
                )
            return min(number, items), 1, 1
        largest = max((node.get("CPU", 0) for node in nodes), default=0)
        cores = max(min(self._threads, largest), 1)
        number = int(sum(node.get("CPU", 0) // cores for node in nodes))
        return max(min(number, items), 1), cores, 0


class _Workers:
    """Actors that are replaced when they die."""

    def __init__(self, ray: Any, opener: Any, number: int, cores: float, gpus: int) -> None:
        self.number = number
        self._ray = ray
        self._opener = opener
        # A dead actor is replaced here, so that what it was given does not wait for it.
        self._actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=0)(_Worker)
        self._starting: dict[Any, Any] = {}  # actor, by the promise that it is there
        self._idle: dict[Any, int] = {}  # how many items each actor has
        self._promised: dict[Any, tuple[int, Any]] = {}  # item and actor, by the promised result
        self._seen = time.monotonic()
        for _ in range(number):
            self._start()

    def give(self, index: int, item: Any) -> bool:
        """Gives an item to the worker that has the fewest; False if all have enough."""
        actor = min(self._idle, key=self._idle.__getitem__, default=None)
        if actor is None or self._idle[actor] == _AHEAD:
            return False
        self._promised[actor.compute.remote(item)] = index, actor
        self._idle[actor] += 1
        return True

    def wait(self) -> tuple[dict[int, Any], list[int]]:
        """Waits until something happens.

        Returns:
            Results by index of the item, and the indices of items whose worker died.

        Raises:
            ComputeError: There has been no worker for a long time.
        """
        promises = [*self._starting, *self._promised]
        ready, _ = self._ray.wait(promises, num_returns=1, timeout=_POLL_S, fetch_local=False)
        computed, lost = dict[int, Any](), list[int]()
        for promise in ready:
            if promise in self._starting:
                self._started(promise)
                continue
            index, actor = self._promised[promise]
            try:
                computed[index] = self._ray.get(promise)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            except self._ray.exceptions.RayError:
                lost = self._lost(actor)
            else:
                del self._promised[promise]
                self._idle[actor] -= 1
        if self._idle:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _PATIENCE_S:
            raise ComputeError(
                f"compute: ray: no worker has started for {_PATIENCE_S} seconds; ray status says "
                "what the cluster has"
            )
        return computed, lost

    def end(self) -> None:
        """Ends all workers."""
        for actor in (*self._starting.values(), *self._idle):
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._actor.remote(self._opener)
        self._starting[actor.ready.remote()] = actor

    def _started(self, promise: Any) -> None:
        actor = self._starting.pop(promise)
        try:
            self._ray.get(promise)
        except self._ray.exceptions.RayError:
            self._start()
        else:
            self._idle[actor] = 0

    def _lost(self, actor: Any) -> list[int]:
        """Replaces a worker. Gives the indices of what it was given."""
        items = {p: index for p, (index, holder) in self._promised.items() if holder is actor}
        for promise in items:
            del self._promised[promise]
        del self._idle[actor]
        _LOG.info("a worker died; others compute the %d items that it had", len(items))
        self._ray.kill(actor)  # it may live, behind a network that failed
        self._start()
        return list(items.values())


class _Worker:
    """An actor: opens once what the opener says, and computes one item after the other."""

    def __init__(self, opener: Any) -> None:
        self._opener = opener
        self._opened = ExitStack()
        self._function: Any = None

    def ready(self) -> None:
        """Returns when the actor is there."""

    def compute(self, item: Any) -> Any:
        """The result of an item."""
        try:
            if self._function is None:
                self._function = self._opened.enter_context(self._opener())
            return self._function(item)
        except InputError as error:
            return _Refused(str(error))


def _tell(who: Callable[[Item], None] | None, item: Item) -> None:
    if who is not None:
        who(item)


def _check_tries(tries: Counter[int]) -> None:
    if tries and max(tries.values()) >= _TRIES:
        raise ComputeError(
            f"compute: ray: {_TRIES} workers died that had been given the same item; they may have "
            "too little memory, see docs/scale.md"
        )


def _check_installed() -> None:
    """Checks that Ray is there, without the seconds that its import takes."""
    if importlib.util.find_spec("ray") is None:
        raise ComputeError(
            "compute: ray comes from the extra 'ray'; run pip install -e '.[cpu,ray]' "
            "-c constraints.txt"
        )


@contextmanager
def opened(*, verbose: bool = False) -> Iterator[RayPool]:
    """A pool on the cluster that ``RAY_ADDRESS`` names, or on one that is started on this machine.

    Args:
        verbose: Whether to print what Ray logs.

    Raises:
        ComputeError: Ray is not installed. Using the pool raises it if there is no cluster at the
            address.
    """
    _check_installed()
    pool = RayPool(verbose=verbose)
    try:
        yield pool
    finally:
        pool.close()


def _joined(threads: int, *, verbose: bool) -> Any:
    """The module Ray, connected to a cluster."""
    if not verbose:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    import ray  # noqa: PLC0415 - takes a second

    address = os.environ.get(ADDRESS)
    if address:
        _check_answers(address)
    try:
        with nullcontext() if verbose else muted():
            ray.init(
                address or "local",
                include_dashboard=None if address else False,
                num_cpus=None if address else _cores(),
                log_to_driver=verbose,
                logging_level="INFO" if verbose else "CRITICAL",
                runtime_env={"env_vars": _environment(threads)},
            )
        if not verbose:
            # The last lines of a node that died would go to stdout, without an option against it.
            ray._private.worker.print_to_stdstream = lambda *_, **__: None  # noqa: SLF001
    except Exception as error:  # noqa: BLE001 - Ray raises that itself if a node starts slowly
        reason = " ".join(str(error).split())
        where = f"{ADDRESS}: {address}" if address else "compute: ray: a cluster on this machine"
        raise ComputeError(f"{where} can't be had: {reason}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's would not end the runs of a stage
    return ray


def _check_answers(address: str) -> None:
    """Checks that something listens at an address. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ComputeError(
            f"{ADDRESS}: {address} is an address of Ray Client; give that of the cluster itself, "
            "such as head:6379, on a node of it"
        )
    if not port.isdecimal():  # auto: the cluster that this node belongs to
        return
    try:
        socket.create_connection((host, int(port)), _ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ComputeError(
            f"{ADDRESS}: no cluster answers at {address} ({reason}); start one with ray start "
            f"--head, or unset {ADDRESS} to use this machine"
        ) from None


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(usable(0)) if usable else os.cpu_count() or 1


def _threads() -> int:
    """Threads that TensorFlow would use in this process."""
    given = os.environ.get(_THREADS, "")
    return int(given) if given.isdecimal() and int(given) else _cores()


def _environment(threads: int) -> dict[str, str]:
    """Variables of a worker, which would otherwise be those of its node, or Ray's choice."""
    kept = {name: os.environ[name] for name in _DECIDE_BITS if name in os.environ}
    # Ray would set this to the cores of the worker; BLAS takes the cores of this process.
    blas = os.environ.get("OMP_NUM_THREADS", str(_cores()))
    return kept | {_THREADS: str(threads), "OMP_NUM_THREADS": blas, "TF_CPP_MIN_LOG_LEVEL": "2"}

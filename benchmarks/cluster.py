"""Features on Ray against one process: speed, overhead, memory, and a simulation of more workers.

    python benchmarks/cluster.py speed [PICTURES [GROUP]]  # the clip art, one thread a process
    python benchmarks/cluster.py memory              # generated features, 1,000 and 10,000 pictures
    python benchmarks/cluster.py limits              # what grows with the number of pictures
    python benchmarks/cluster.py simulate SECONDS_PER_PICTURE DRIVER_SECONDS_PER_PICTURE

Each way runs in a process of its own. What a worker does is timed in the worker, without its first
group, in which TensorFlow traces the network. Beside pictures/s there are pictures per second of
processor time, which other load on the machine changes less.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vgg16_transfer.backbones.features import PictureFile

ROOT = Path(__file__).parents[1]
SIDE = 160
GROUP = 32
WORKERS = (1, 2, 4, 8, 16, 32, 64)
DRIVER = 0.00054
"""Seconds of the driver for a picture of ``block5_pool``, as ``memory`` prints them."""


class Timed(NamedTuple):
    """Times what an opener's function does."""

    opener: Any

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Any], Any]]:
        """Opens it."""
        with self.opener() as function:

            def timed(item: Any) -> Any:
                began, cpu = time.time(), time.process_time()
                result = function(item)
                return os.getpid(), began, time.time(), time.process_time() - cpu, result

            yield timed


class Here:
    """A pool without processes."""

    def map(self, opener: Any, items: Sequence[Any], **_: Any) -> Iterator[Any]:
        """See ``Pool.map``."""
        with opener() as function:
            yield from map(function, items)


class TimedPool:
    """Notes process, begin, end and processor seconds of each group of pictures."""

    def __init__(self, pool: Any, limit: int | None = None) -> None:
        self.pool = pool
        self.limit = limit
        self.groups: list[tuple[int, float, float, float, int]] = []

    def map(self, opener: Any, items: Sequence[Any], **how: Any) -> Iterator[Any]:
        """See ``Pool.map``."""
        results = self.pool.map(Timed(opener), items[: self.limit], **how)
        for item, (*times, result) in zip(items, results, strict=False):
            self.groups.append((*times, len(item)))
            yield result


def compute(way: str, folder: Path, group: int) -> dict[str, Any]:
    """Runs the stage once: ``local``, or ``ray``."""
    from vgg16_transfer.backbones import features, store
    from vgg16_transfer.backbones.features import write_features
    from vgg16_transfer.compute import ray
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Backbone

    store.CHUNK = features.CHUNK = group
    backbone = Backbone(weights="random-conv", image_size=SIDE)
    with ray.opened() as on_ray:
        pool = TimedPool(on_ray if way == "ray" else Here())
        cpu, began = time.process_time(), time.time()
        write_features(
            {"vgg16": backbone},
            ["block4_pool", "block5_pool"],
            weights={"vgg16": folder / "vgg16.weights.h5"},
            splits=folder / "splits",
            source=Source(ROOT / "data" / "clipart.tar"),
            outs={"vgg16": folder / "features" / "d"},
            pool=pool,
        )
        ended = time.time()
    first = {each[0]: each[1] for each in reversed(pool.groups)}
    warm = [each for each in pool.groups if each[1] > first[each[0]]]
    pictures = sum(each[4] for each in warm)
    span = max(each[2] for each in warm) - min(each[1] for each in warm)
    busy = sum(each[2] - each[1] for each in warm)
    simulated = simulate(busy / pictures, DRIVER, len(first), len(warm), group)
    return {
        "workers": len(first),
        "pictures": sum(each[4] for each in pool.groups),
        "seconds_of_a_worker_per_picture": busy / pictures,
        "pictures_per_second": pictures / span,
        "simulated_pictures_per_second": simulated,
        "pictures_per_cpu_second": pictures / sum(each[3] for each in warm),
        "share_of_time_between_groups": 1 - busy / (span * len(first)),
        "seconds_before_the_first_group": min(first.values()) - began,
        "seconds": ended - began,
        "driver_cpu_seconds": time.process_time() - cpu if way == "ray" else None,
    }


def speed(pictures: int = 256, group: int = GROUP) -> None:
    """One process, two that know nothing of each other, one worker, two: with one thread each.

    Two processes without Ray are what the machine's cache and memory leave two workers to reach.
    """
    from vgg16_transfer.backbones.weights import write_weights
    from vgg16_transfer.images.manifests import read_manifests
    from vgg16_transfer.images.splits import write_splits
    from vgg16_transfer.params import read_params

    with tempfile.TemporaryDirectory() as folder:
        splits, settings = Path(folder, "splits"), read_params(ROOT / "params.yaml").datasets
        write_splits("clipart", settings["clipart"], ROOT / "data" / "clipart.tar", splits)
        rows = read_manifests(splits)[0].head(pictures)
        for path in splits.iterdir():
            path.unlink()
        rows.to_csv(splits / "0.csv", index=False)
        write_weights("vgg16", "random-conv", Path(folder, "vgg16.weights.h5"))
        for way, cores in (("local", 1), ("ray", 1), ("ray", 2)):
            show({"way": way} | of_process("compute", way, folder, group, cores=cores))
            shutil.rmtree(Path(folder, "features"))
        other = Path(shutil.copytree(folder, Path(folder, "other")))
        with ThreadPoolExecutor() as threads:
            for each in threads.map(
                lambda where: of_process("compute", "local", where, group), (folder, other)
            ):
                show({"way": "local, beside another"} | each)


def memory_of(pictures: int, folder: Path) -> dict[str, Any]:
    """The stage's own loop with generated features; gives the driver's memory that it alone has."""
    import psutil

    from vgg16_transfer.backbones import features
    from vgg16_transfer.backbones.features import PictureFile
    from vgg16_transfer.backbones.store import FeatureStore
    from vgg16_transfer.compute import ray

    store = FeatureStore.create(folder / "d", {"dtype": "float16"}, {"block5_pool": (7, 7, 512)})
    files = [PictureFile(f"{number:064x}", f"{number}.jpg") for number in range(pictures)]
    samples, stop = [], threading.Event()

    def sample() -> None:
        while not stop.wait(0.2):
            samples.append(psutil.Process().memory_full_info().uss / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    with ray.opened() as pool:
        computed_of = partial(features._there, pool, generated_elsewhere())  # noqa: SLF001
        began, cpu = time.time(), time.process_time()
        features._compute(store, files, computed_of, [None], folder / "d")  # noqa: SLF001
        seconds, cpu = time.time() - began, time.process_time() - cpu
    stop.set()
    thread.join()
    return {
        "pictures": pictures,
        "megabytes_at_most": max(samples),
        "driver_milliseconds_per_picture": 1000 * cpu / pictures,
        "seconds": seconds,
    }


def generated_elsewhere() -> Any:
    """An opener that needs no network, with the attribute that the stage looks at."""
    from vgg16_transfer.params import Backbone

    return Generated(Backbone(weights="random-conv", engine="ncnn"))


class Generated(NamedTuple):
    """Makes features as large as VGG16's, as sparse as those of a ReLU."""

    backbone: Any

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Sequence[PictureFile]], Any]]:
        """Opens nothing."""
        import numpy as np

        from vgg16_transfer.backbones.narrowing import narrow

        def make(group: Sequence[PictureFile]) -> list[dict[str, Any]]:
            random = np.random.default_rng(int(group[0].sha256, 16))
            rows = random.standard_normal((len(group), 7 * 7 * 512), np.float32)
            return [{"block5_pool": narrow(np.maximum(rows - 1, 0), "float16")}]

        yield make


def limits_of(pictures: int, folder: Path) -> dict[str, Any]:
    """Opens a store and reads a manifest of so many pictures, which hold no features."""
    import pandas as pd
    import psutil

    from vgg16_transfer.backbones.features import distinct_pictures
    from vgg16_transfer.backbones.store import INDEX, FeatureStore
    from vgg16_transfer.images.manifests import COLUMNS

    FeatureStore.create(folder / "d", {"dtype": "float16"}, {"block5_pool": (7, 7, 512)})
    names = [f"{number:064x}" for number in range(pictures)]
    part = {"block5_pool": [0, 1_000_000, "0" * 64]}
    with (folder / "d" / INDEX).open("a") as index:
        for start in range(0, pictures, GROUP):
            line = {"pictures": names[start : start + GROUP], "parts": part}
            index.write(json.dumps(line) + "\n")
    (folder / "splits").mkdir()
    rows = [(f"class/{name}.jpg", 0, "class", name, "train", 0) for name in names]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "splits" / "0.csv", index=False)
    del rows
    before, began = psutil.Process().memory_full_info().uss, time.process_time()
    store = FeatureStore.open(folder / "d")
    opened, after = time.process_time(), psutil.Process().memory_full_info().uss
    distinct_pictures(folder / "splits", [])
    return {
        "pictures": len(store.ids),
        "index_megabytes": (folder / "d" / INDEX).stat().st_size / 1e6,
        "open_cpu_seconds": opened - began,
        "open_megabytes": (after - before) / 1e6,
        "manifest_megabytes": (folder / "splits" / "0.csv").stat().st_size / 1e6,
        "manifest_cpu_seconds": time.process_time() - opened,
    }


def simulate(
    per_picture: float, driver: float, workers: int, groups: int = 2000, group: int = GROUP
) -> float:
    """Pictures/s of some workers and one driver that writes groups in order.

    A worker has two groups ahead; the driver gives out three groups a worker beyond the one that it
    waits for, as ``compute/ray.py`` does.
    """
    free = [0.0] * workers
    ended: list[float] = []
    written: list[float] = []
    for number in range(groups):
        given = written[number - 3 * workers] if number >= 3 * workers else 0.0
        began = max(heapq.heappop(free), given)
        ended.append(began + group * per_picture)
        heapq.heappush(free, ended[-1])
        written.append(max(ended[-1], written[-1] if written else 0.0) + group * driver)
    return groups * group / written[-1]


def of_process(*arguments: Any, cores: int = 2) -> dict[str, Any]:
    """What this script prints in a process of its own, with one thread, on so many cores."""
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = ["taskset", "-c", ",".join(map(str, range(cores)))] if cores == 1 else []
    command += [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(measured: dict[str, Any]) -> None:
    """Prints numbers in a line, with what else the machine did."""
    shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in measured.items()}
    print(json.dumps(shown | {"load": round(os.getloadavg()[0], 1)}), flush=True)


def main(what: str, *arguments: str) -> None:  # noqa: C901 - one branch a command
    """Runs what the command line asks for."""
    if what == "speed":
        speed(*map(int, arguments))
    elif what == "compute":
        print(json.dumps(compute(arguments[0], Path(arguments[1]), int(arguments[2]))))
    elif what == "memory":
        for pictures in (1_000, 10_000):
            show(of_process("memory_of", pictures))
    elif what == "limits":
        for pictures in (10_000, 100_000, 1_000_000):
            show(of_process("limits_of", pictures))
    elif what == "limits_of":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(limits_of(int(arguments[0]), Path(folder))))
    elif what == "memory_of":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(memory_of(int(arguments[0]), Path(folder))))
    elif what == "simulate":
        per_picture, driver = map(float, arguments)
        alone = simulate(per_picture, driver, 1)
        print("| workers | pictures/s | of 1 worker | efficiency |\n|---|---|---|---|")
        for workers in WORKERS:
            rate = simulate(per_picture, driver, workers)
            times = rate / alone
            print(f"| {workers} | {rate:,.1f} | {times:.2f} | {times / workers:.2f} |")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:] or ["help"])

"""Small stand-ins for what the stages before wrote: pictures, splits, and random weights."""

import functools
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.params import Backbone

SIDE = 32


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    write_weights("vgg16", "random-conv", path)
    return path


BACKBONE = Backbone(weights="random-conv", image_size=SIDE)


@pytest.fixture
def backbone() -> Backbone:
    return BACKBONE


@functools.cache
def picture(seed: int) -> bytes:
    """A PNG of noise, another one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_archive(path: Path, seeds: list[int]) -> Path:
    """A tar of one picture per seed: ``p/<seed>.png``."""
    with tarfile.open(path, "w") as tar:
        for seed in seeds:
            content = picture(seed)
            member = tarfile.TarInfo(f"p/{seed:03}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_split(folder: Path, name: str, seeds: list[int]) -> None:
    """A manifest in which the pictures of some seeds train."""
    folder.mkdir(exist_ok=True)
    rows = [
        (f"p/{seed:03}.png", 0, "p", hashlib.sha256(picture(seed)).hexdigest(), "test", rank)
        for rank, seed in enumerate(seeds)
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / f"{name}.csv", index=False)


@contextmanager
def serving(content: bytes, status: int = 200, *, cuts: int = 0) -> Iterator[str]:
    """The address of a loopback server of one file.

    It hangs up half-way, the first so many times it is asked.
    """
    answers = iter([True] * cuts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
            rest = content[start:]
            self.send_response(206 if start else status)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            end = len(rest) // 2 if next(answers, False) else len(rest)
            for piece in range(0, end, 10_000):
                self.wfile.write(rest[piece : min(piece + 10_000, end)])

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

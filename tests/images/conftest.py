"""Pictures and archives to test with, and a loopback server that serves them well or badly."""

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, side: int = 20) -> bytes:
    """A PNG of noise, another one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def photo(seed: int, side: int = 128) -> Image.Image:
    """Blobs of every size, in which a perceptual hash sees something."""
    random, size = np.random.default_rng(seed), (side, side)
    pixels = sum(
        np.asarray(
            Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            dtype=float,
        )
        for n in (4, 8, 16, 32)
    )
    return Image.fromarray((np.asarray(pixels) / 4).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.type = kind
    return info


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            tar.addfile(member(name, len(content)), io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


def write_legacy_zip(path: Path, files: dict[str, bytes], encoding: str) -> Path:
    """A zip whose names are in an old encoding, without the mark of UTF-8."""

    class Info(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
            return self.filename.encode(encoding), self.flag_bits & ~0x800

    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(Info(name), content)
    return path


def write_legacy_tar(path: Path, files: dict[str, bytes], encoding: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding=encoding) as tar:
        for name, content in files.items():
            tar.addfile(member(name, len(content)), io.BytesIO(content))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


class Server:
    """A loopback server for one file, with a script of what goes wrong.

    Attributes:
        content: The file.
        status: What every request is answered with.
        ranges: Whether a Range header is heeded.
        stops: After how many bytes each of the next requests is hung up on; None to send it all.
        hangs: Instead of hanging up, fall silent until the test is over.
        piece: Size of the pieces in which bytes are sent.
        asked: The headers of the requests so far.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.status = 200
        self.ranges = True
        self.stops: list[int | None] = []
        self.hangs = False
        self.piece = 1 << 16
        self.asked: list[dict[str, str]] = []
        self.over = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/pictures.tar"

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(dict(self.headers))
                status, content = server.answer(self.headers.get("Range"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                stop = server.stops.pop(0) if server.stops else None
                for start in range(0, len(content[:stop]), server.piece):
                    self.wfile.write(content[:stop][start : start + server.piece])
                if stop is not None and server.hangs:
                    server.over.wait()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Silence."""

        return Handler

    def answer(self, range_header: str | None) -> tuple[int, bytes]:
        if self.status != 200:
            return self.status, b"sorry"
        if range_header is None or not self.ranges:
            return 200, self.content
        start = int(range_header.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            return 416, b""
        return 206, self.content[start:]


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()

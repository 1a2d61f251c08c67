"""Build ``data/clipart.tar`` from Debian's package openclipart-png.

Usage: ``python tools/clipart/build.py PATH_TO_DEB data/clipart.tar``

What goes in, and why the rest does not, stands in ``selection.yaml`` beside this file.
The same package always gives the same bytes: pictures are stored as JPEG because
Pillow's 8-bit resizing and libjpeg-turbo use integer arithmetic, the same on every CPU.
"""

import argparse
import collections
import fnmatch
import hashlib
import io
import itertools
import logging
import posixpath
import re
import struct
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import yaml
from PIL import Image

log = logging.getLogger("clipart")

SELECTION = Path(__file__).with_name("selection.yaml")
WHITE = (255, 255, 255)

Rules = list[tuple[str, str]]


class Source(TypedDict):
    """The Debian package that holds the pictures."""

    package: str
    version: str
    sha256: str
    root: str


class Limits(TypedDict):
    """Thresholds of the automatic rules; their meaning stands in ``selection.yaml``."""

    min_side: int
    max_pixels: int
    max_aspect: float
    min_extent: float
    hash_side: int
    hash_distance: int
    per_stem: int


class Output(TypedDict):
    """How a picture is stored."""

    long_side: int
    quality: int
    subsampling: int


class ClassRule(TypedDict, total=False):
    """What makes up one class."""

    sources: list[str]
    count: int
    names: Rules
    exclude: dict[str, str]


class Selection(TypedDict):
    """The content of ``selection.yaml``."""

    source: Source
    limits: Limits
    output: Output
    names: Rules
    classes: dict[str, ClassRule]


class Candidate(NamedTuple):
    """A picture that passed every rule of its class."""

    path: str
    name: str
    picture: Image.Image


def check_sha256(deb: Path, expected: str) -> None:
    """Refuse any file but the pinned package."""
    with deb.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        message = f"{deb} has sha256 {actual}, but selection.yaml pins {expected}."
        raise ValueError(message)


def find_ar_member(deb: Path, wanted: str) -> int:
    """Return the offset at which the content of an ``ar`` archive's member starts."""
    with deb.open("rb") as file:
        file.seek(len(b"!<arch>\n"))
        while header := file.read(60):
            name = header[:16].decode("ascii").strip().rstrip("/")
            size = int(header[48:58])
            if name == wanted:
                return file.tell()
            file.seek(size + size % 2, io.SEEK_CUR)
    message = f"{deb} holds no {wanted}."
    raise ValueError(message)


def read_pictures(deb: Path, root: str) -> dict[str, bytes]:
    """Read every PNG below ``root``, those reached by a symbolic link included."""
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with deb.open("rb") as file:
        file.seek(find_ar_member(deb, "data.tar.xz"))
        with tarfile.open(fileobj=file, mode="r|xz") as tar:
            for member in tar:
                path = posixpath.relpath(posixpath.normpath(member.name), root)
                if path.startswith("..") or not path.endswith(".png"):
                    continue
                if member.issym():
                    links[path] = posixpath.normpath(
                        posixpath.join(posixpath.dirname(path), member.linkname)
                    )
                elif (content := tar.extractfile(member)) is not None:
                    files[path] = content.read()
    return files | {link: files[target] for link, target in links.items() if target in files}


def render(data: bytes, long_side: int) -> Image.Image:
    """Put a PNG on white and shrink it (never enlarge it) to ``long_side``."""
    with Image.open(io.BytesIO(data)) as png:
        picture = png.convert("RGBA")
    page = Image.new("RGBA", picture.size, (*WHITE, 255))
    page.alpha_composite(picture)
    rgb = page.convert("RGB")
    scale = min(1.0, long_side / max(rgb.size))
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    return rgb.resize((width, height), Image.Resampling.LANCZOS)


def extent(picture: Image.Image) -> float:
    """Return the share of a picture that the box around its non-white parts covers."""
    ink = picture.convert("L").point([255] * 240 + [0] * 16)
    left, top, right, bottom = ink.getbbox() or (0, 0, 0, 0)
    return (right - left) * (bottom - top) / (picture.width * picture.height)


def difference_hash(picture: Image.Image, side: int) -> int:
    """Return the bits "brighter than the right-hand neighbour" of the shrunken picture."""
    grey = picture.convert("L").resize((side + 1, side), Image.Resampling.LANCZOS).tobytes()
    rows = (grey[start : start + side + 1] for start in range(0, len(grey), side + 1))
    bits = (left > right for row in rows for left, right in itertools.pairwise(row))
    return sum(bit << place for place, bit in enumerate(bits))


def unfit_size(data: bytes, limits: Limits) -> str | None:
    """Return why a PNG's size rules it out, reading no more than its header."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return "broken"
    width, height = struct.unpack(">II", data[16:24])
    if width * height > limits["max_pixels"]:
        return "huge"
    if min(width, height) < limits["min_side"]:
        return "tiny"
    if max(width, height) > limits["max_aspect"] * min(width, height):
        return "thin"
    return None


def output_name(path: str, rules: Rules) -> str:
    """Return ``<stem>__<variant>`` for a picture's path."""
    name = re.sub(r"[^a-z0-9]+", "_", posixpath.basename(path)[: -len(".png")].lower()).strip("_")
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    stem, _, variant = name.partition("__")
    return f"{stem}__{variant or '01'}"


def distinct(name: str, taken: Iterable[str]) -> str:
    """Return ``name`` with the first letter appended that makes it new."""
    letters: list[str] = ["", *"bcdefghij"]
    return next(name + letter for letter in letters if name + letter not in taken)


def matching(pictures: Iterable[str], sources: Sequence[str]) -> list[str]:
    """Return the pictures, sorted, that lie in one of the folders or match a pattern."""
    return sorted(
        path
        for path in pictures
        if posixpath.dirname(path) in sources
        or any(fnmatch.fnmatchcase(path, source) for source in sources if source.endswith(".png"))
    )


def candidates(
    pictures: Mapping[str, bytes],
    rule: ClassRule,
    selection: Selection,
    hashes: list[int],
    dropped: collections.Counter[str],
) -> Iterator[Candidate]:
    """Yield the fit pictures of a class; add to ``hashes`` (all classes') and ``dropped``."""
    limits, excluded = selection["limits"], rule.get("exclude", {})
    paths = matching(pictures, rule["sources"])
    if unknown := excluded.keys() - set(paths):
        message = f"selection.yaml excludes pictures that are not there: {sorted(unknown)}."
        raise ValueError(message)
    if idle := [one for one in rule["sources"] if not matching(pictures, [one])]:
        message = f"selection.yaml names sources that are not there: {idle}."
        raise ValueError(message)
    refused = {pictures[path]: reason.split(":")[0] for path, reason in excluded.items()}
    names: set[str] = set()
    for path in paths:
        if pictures[path] in refused:  # by content: links give one file several names
            dropped["by eye: " + refused[pictures[path]]] += 1
            continue
        if reason := unfit_size(pictures[path], limits):
            dropped[reason] += 1
            continue
        try:
            picture = render(pictures[path], selection["output"]["long_side"])
        except (OSError, SyntaxError):  # Pillow reports a broken PNG with either
            dropped["broken"] += 1
            continue
        if extent(picture) < limits["min_extent"]:
            dropped["nearly blank"] += 1
            continue
        bits = difference_hash(picture, limits["hash_side"])
        if any((bits ^ other).bit_count() <= limits["hash_distance"] for other in hashes):
            dropped["near-duplicate"] += 1
            continue
        hashes.append(bits)
        name = output_name(path, [*rule.get("names", []), *selection["names"]])
        names.add(name := distinct(name, names))
        yield Candidate(path, name, picture)


def pick(fit: Sequence[Candidate], count: int, per_stem: int) -> list[Candidate]:
    """Pick ``count`` pictures: one of each stem first, then second ones, then third ones.

    Where only a part of such a round is needed it is taken at even steps.
    """
    rounds: list[list[Candidate]] = [[] for _ in range(per_stem)]
    seen: collections.Counter[str] = collections.Counter()
    for candidate in sorted(fit, key=lambda one: one.name):
        stem = candidate.name.partition("__")[0]
        if seen[stem] < per_stem:
            rounds[seen[stem]].append(candidate)
        seen[stem] += 1
    picked: list[Candidate] = []
    for some in rounds:
        room = min(count - len(picked), len(some))
        picked += [some[step * len(some) // room] for step in range(room)]
    return picked


def encode(picture: Image.Image, output: Output) -> bytes:
    """Return a picture as JPEG without metadata."""
    buffer = io.BytesIO()
    picture.save(
        buffer,
        format="JPEG",
        quality=output["quality"],
        subsampling=output["subsampling"],
        optimize=True,
    )
    return buffer.getvalue()


def write_tar(members: Mapping[str, bytes], target: Path) -> None:
    """Write a tar file whose bytes depend on nothing but ``members``."""
    unfinished = target.with_name(target.name + ".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)  # its defaults: mtime, uid and gid 0, mode 0644, no owner
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    unfinished.replace(target)


def build(deb: Path, target: Path) -> None:
    """Build the tar file from the package."""
    selection = cast("Selection", yaml.safe_load(SELECTION.read_text(encoding="utf-8")))
    source = selection["source"]
    check_sha256(deb, source["sha256"])
    pictures = read_pictures(deb, source["root"])
    log.info("%d pictures in %s %s", len(pictures), source["package"], source["version"])
    members: dict[str, bytes] = {}
    hashes: list[int] = []
    dropped: collections.Counter[str] = collections.Counter()
    for label, rule in selection["classes"].items():
        fit = list(candidates(pictures, rule, selection, hashes, dropped))
        picked = pick(fit, rule["count"], selection["limits"]["per_stem"])
        dropped["fit, but not needed"] += len(fit) - len(picked)
        stems = {one.name.partition("__")[0] for one in picked}
        log.info("%s: %d pictures, %d stems, of %d fit", label, len(picked), len(stems), len(fit))
        for one in picked:
            log.debug("%s/%s.jpg is %s", label, one.name, one.path)
            members[f"clipart/{label}/{one.name}.jpg"] = encode(one.picture, selection["output"])
    for reason, number in sorted(dropped.items()):
        log.info("dropped, %s: %d", reason, number)
    write_tar(members, target)
    log.info("%d pictures in %s", len(members), target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 2, after one sentence on stderr, when it cannot be done."""
    parser = argparse.ArgumentParser(description="Build the clip-art data set.")
    parser.add_argument("deb", type=Path, help="the package openclipart-png")
    parser.add_argument("target", type=Path, help="the tar file to write")
    parser.add_argument("-v", "--verbose", action="store_true", help="name every picture")
    options = parser.parse_args(arguments)
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(level)
    try:
        build(options.deb, options.target)
    except OSError as error:
        log.error("Cannot use %s: %s.", error.filename, error.strerror)  # noqa: TRY400
        return 2
    except ValueError as error:
        log.error("%s", error)  # noqa: TRY400
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

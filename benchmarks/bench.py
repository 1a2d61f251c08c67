"""Rewrites every table of docs/benchmarks.md by what this machine measures: ``make bench``.

    python benchmarks/bench.py [--pictures ARCHIVE] [NAME ...]

A table stands between two comments with its name. What a benchmark prints replaces what is between
them. ARCHIVE has photographs, such as 256_ObjectCategories.tar, of which 14 classes are used; by
default they are the clip art. Nothing else should run meanwhile. It takes twenty minutes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm
from workspaces import CLIPART, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
TABLES = {
    "pipeline": ("pipeline.py", "{folder}/sample"),
    "logging": ("logging_trials.py", "{folder}/sample"),
    "study": ("study.py", "{folder}/photographs", "{pictures}"),
    "compared": ("compared.py", "{folder}/photographs", "{pictures}"),
    "probes": ("probes.py", "{folder}/photographs"),
    "heads": ("heads.py",),
    "memory": ("memory.py", "{folder}/memory"),
    "features": ("features.py", "{pictures}"),
}
"""The command of each table, in the order in which they run: some use what others have made."""


def machine() -> str:
    """A sentence about this machine and this code."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    model = facts.get("model name", platform.processor() or platform.machine())
    flags = facts.get("flags", "").split()
    short = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    cores = len(os.sched_getaffinity(0))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return (
        f"Measured on {dt.datetime.now().astimezone().date()} at commit {commit}: {cores} "
        f"cores of {model} ({', '.join(short)}), Python {platform.python_version()}."
    )


def replaced(page: str, name: str, text: str) -> str:
    """The page with what stands between the comments of a name replaced.

    Raises:
        SystemExit: The page has no such comments.
    """
    block = re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit(f"{PAGE}: has no comments <!-- {name} --> and <!-- /{name} -->")
    return block.sub(lambda match: f"{match[1]}{text.strip()}\n{match[3]}", page)


def main() -> None:
    """Runs the benchmarks, and writes what each prints as soon as it is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--pictures", type=Path, default=CLIPART)
    asked = parser.parse_args()
    unknown = set(asked.names) - set(TABLES)
    if unknown or not asked.pictures.is_file():
        parser.error(f"no such table or archive: {', '.join(unknown) or asked.pictures}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        places = {"folder": folder, "pictures": asked.pictures.resolve()}
        names = asked.names or list(TABLES)
        for name in (progress := tqdm(names, unit="table", disable=None)):
            progress.set_description(name)
            script, *arguments = TABLES[name]
            command = [ROOT / "benchmarks" / script, *(each.format(**places) for each in arguments)]
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True
            )
            if done.returncode:
                raise SystemExit(f"{name}: failed; the tables before it are written")
            page = replaced(PAGE.read_text(encoding="utf-8"), name, done.stdout)
            PAGE.write_text(replaced(page, "machine", machine()), encoding="utf-8")
    print(f"{PAGE}: written in {(time.perf_counter() - began) / 60:.0f} min")


if __name__ == "__main__":
    main()

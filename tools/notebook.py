"""Runs notebooks/first-steps.ipynb and writes it with its outputs: python tools/notebook.py."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first-steps.ipynb"
_TIMEOUT_S = 600


def run(path: Path, environment: dict[str, str]) -> Any:
    """Runs a notebook in its own folder, with fresh kernel and cache.

    Args:
        path: The notebook.
        environment: What the kernel gets beside the environment of this process.

    Returns:
        The notebook with its outputs, without progress bars, times and counts of the machine.

    Raises:
        CellExecutionError: A cell failed.
    """
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as cache:
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            resources={"metadata": {"path": str(path.parent)}},
            # Sockets in a folder of its own, rather than ports that others can reach.
            km=AsyncKernelManager(transport="ipc", ip=str(Path(cache, "kernel"))),
        )
        client.execute(env={**os.environ, "XDG_CACHE_HOME": cache, **environment})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    text = nbformat.writes(run(NOTEBOOK, {}))  # type: ignore[no-untyped-call]
    NOTEBOOK.write_text(f"{text}\n", encoding="utf-8")
    sys.stdout.write(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size:,} bytes\n")

"""Runs a notebook and writes it with its outputs: python tools/notebook.py [NOTEBOOK].

The default is notebooks/first-steps.ipynb.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first-steps.ipynb"
_TIMEOUT_S = 600


def run(path: Path) -> Any:
    """Runs a notebook in its own folder, with fresh kernel and cache.

    Args:
        path: The notebook.

    Returns:
        The notebook with its outputs, without progress bars, times and counts of the machine.

    Raises:
        CellExecutionError: A cell failed.
    """
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as cache:
        # Sockets in a folder of its own, rather than ports that others can reach.
        manager = KernelManager(transport="ipc", ip=str(Path(cache, "kernel")))
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            resources={"metadata": {"path": str(path.parent)}},
            km=manager,
        )
        try:
            client.execute(env={**os.environ, "XDG_CACHE_HOME": cache})
        finally:
            manager.shutdown_kernel(now=True)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    chosen = Path(*sys.argv[1:]) if sys.argv[1:] else NOTEBOOK
    text = nbformat.writes(run(chosen))  # type: ignore[no-untyped-call]
    chosen.write_text(f"{text}\n", encoding="utf-8")
    sys.stdout.write(f"{chosen}: {chosen.stat().st_size:,} bytes\n")

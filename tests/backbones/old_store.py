"""A store of format 1, as versions before this one wrote it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from vgg16_transfer.backbones.store import INDEX, FeatureStore


def write(
    path: Path,
    recipe: dict[str, Any],
    shapes: Mapping[str, Sequence[int]],
    chunks: Sequence[tuple[Sequence[str], Mapping[str, np.ndarray]]],
) -> None:
    """Writes chunks, each of pictures and their rows by layer."""
    path.mkdir(parents=True)
    lines: list[Any] = [{"format": 1, "recipe": recipe, "shapes": shapes}]
    for pictures, blocks in chunks:
        parts = {}
        for layer, block in blocks.items():
            content = zstandard.ZstdCompressor(level=1).compress(block.tobytes())
            meaning = [recipe, layer, list(shapes[layer]), list(pictures)]
            digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
            digest.update(content)
            with (path / f"{layer}.zst").open("ab") as file:
                parts[layer] = [file.tell(), len(content), digest.hexdigest()]
                file.write(content)
        lines.append({"pictures": list(pictures), "parts": parts})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / INDEX).write_text(text, encoding="utf-8")


def of_store(store: FeatureStore, path: Path, chunk: int) -> None:
    """Writes what a store holds in the old format."""
    ids = store.ids
    chunks = []
    for start in range(0, len(ids), chunk):
        pictures = ids[start : start + chunk]
        rows = {
            layer: store.rows(layer, pictures).astype(store.recipe["dtype"])
            for layer in store.shapes
        }
        chunks.append((pictures, rows))
    write(path, store.recipe, store.shapes, chunks)

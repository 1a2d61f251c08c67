"""Write the JSON schema of params.yaml that editors read: ``make schema``.

The first line of params.yaml and of every profile names the schema relative to its own file, and a
profile is copied over params.yaml. So a file of that name lies beside each: the one in profiles/
refers to the one in the repository's root.
"""

from __future__ import annotations

from pathlib import Path

from vgg16_transfer.params import json_schema

ROOT = Path(__file__).resolve().parents[1]
BESIDE_PROFILES = '{"$ref": "../params.schema.json"}\n'


def write(root: Path) -> None:
    """Writes both files of a repository."""
    for path, text in (
        (root / "params.schema.json", json_schema.text()),
        (root / "profiles" / "params.schema.json", BESIDE_PROFILES),
    ):
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(ROOT)

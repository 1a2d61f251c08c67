"""The site of the documentation: ``make docs``. Sphinx reads Markdown as GitHub does, by MyST.

The root of the site is that of the repository, so that README.md, CONTRIBUTING.md and docs/ link to
each other in both places. Pages are plain Markdown; what is the site's alone stands here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

NAVIGATION = {
    "Using it": [
        "docs/installing",
        "docs/own-pictures",
        "docs/reading-the-ui",
        "docs/models",
        "docs/team",
        "docs/cluster",
    ],
    "Every setting": [
        "docs/params",
        "docs/datasets",
        "docs/networks",
        "docs/engines",
        "docs/weights",
        "docs/scale",
        "docs/heads",
        "docs/training",
    ],
    "What it shows": ["README", "docs/benchmarks", "docs/paper", "docs/alternatives"],
    "How it is made": [
        "docs/design",
        "docs/reliability",
        "CONTRIBUTING",
        "docs/reference",
        "CHANGELOG",
        "data/clipart",
    ],
}
"""Pages by heading, in the order of the site's side bar. The first page is docs/index.md."""

project = "vgg16-transfer"
author = "The vgg16-transfer authors"
copyright = author  # noqa: A001
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "version"
]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    f"{page}.md" for page in [root_doc, *(page for pages in NAVIGATION.values() for page in pages)]
] + ["docs/*.md"]
exclude_patterns = [".*", "data/*/**", "mlartifacts", "models", "reports", "results", "site"]

html_theme = "furo"
html_title = "vgg16-transfer"
html_extra_path = ["index.html"]  # leads to docs/index.html
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 4
myst_links_external_new_tab = False

# A name in a signature is short, and may be that of two things.
suppress_warnings = ["ref.python"]

# The reference is read without what takes seconds to import.
autodoc_mock_imports = ["dvc", "dvc_data", "dvc_objects", "keras", "mlflow", "tensorflow"]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Appends the tables of contents to the first page, which GitHub shows without."""
    if page == app.config.root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n"
            + "".join(f"/{name}\n" for name in pages)
            + "```\n"
            for heading, pages in NAVIGATION.items()
        )


def keep_stars(_app: Sphinx, what: str, *rest: object) -> None:
    """Keeps the stars in the first lines of modules, such as ``results/<study>/*``, from markup."""
    lines = rest[-1]
    if what == "module" and isinstance(lines, list):
        lines[:] = [line.replace("*", "\\*") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls first."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", keep_stars)
    return {"parallel_read_safe": True}

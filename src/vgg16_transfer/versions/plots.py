"""Draws what ``dvc plots`` draws, as one file that needs no network.

DVC's page loads Vega from a server. Here, the page holds Vega itself, from the extra ``plots``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vgg16_transfer.artifacts import remove, replacing
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOADED = re.compile(r"(?:\s*<script src=[^>]*></script>)+")
_SCRIPT, _MODULE = '<script type = "text/javascript">', '<script type="module">'
_PAGE = "index.html"
_SCHEMA = "schema/vega-lite/v{}.json"


class PlotsError(InputError):
    """Plots that can't be drawn."""


def draw(out: Path, revisions: Sequence[str]) -> Path:
    """Draws the plots of the workspace, or of several revisions side by side.

    Args:
        out: Folder to write; its page is replaced.
        revisions: Commits, tags, branches or DVC experiments; none is the workspace alone.

    Returns:
        Path of the page.

    Raises:
        PlotsError: The extra ``plots`` is missing, or DVC can't draw the plots.
    """
    try:
        import vl_convert  # noqa: PLC0415 - an extra
    except ImportError:
        raise PlotsError(
            "plots: Vega comes from the extra 'plots'; run pip install -e '.[plots]' -c "
            "constraints.txt, or use dvc plots show, whose page needs a network"
        ) from None
    from dvc.cli import main  # noqa: PLC0415 - takes a second

    command = ["diff", *revisions] if revisions else ["show"]
    page = out / _PAGE
    remove(page)
    if main(["plots", *command, "--quiet", "--out", str(out)]) or not page.exists():
        raise PlotsError(f"plots: dvc plots {' '.join(command)} drew nothing; run it to see why")
    text = page.read_text(encoding="utf-8")
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # This tag would end the script also within a string of JavaScript.
    vega = vega.replace("</script", "<\\/script")
    whole, found = _LOADED.subn(lambda _: f"{_MODULE}{vega}</script>", text, count=1)
    if not found:
        raise PlotsError(f"{page}: loads no scripts as DVC's pages do; dvc plots show drew it")
    with replacing(page) as fresh:
        # Modules run in their order, after all other scripts: the plots wait for Vega.
        whole = whole.replace(_SCRIPT, _MODULE).replace(_SCHEMA.format(5), _SCHEMA.format(6))
        fresh.write_text(whole, encoding="utf-8")
    return page

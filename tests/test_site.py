"""The site of the documentation: complete, without a broken link, and without the network."""

import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from .tools.loading import load

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vgg16_transfer"
NOT_REFERRED_TO = {"cli"}
"""Rooms that nobody calls from Python."""


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site as ``make docs`` does."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\tsphinx-build (.*) --conf-dir docs \. site$", makefile, re.MULTILINE)
    command = [sys.executable, "-m", "sphinx", *line.split(), "--conf-dir", ROOT / "docs"]
    return subprocess.run([*command, source, out], capture_output=True, text=True, check=False)


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it.

    Attributes:
        links: Where links lead to.
        loaded: What a browser loads with the page.
        anchors: Names of places in the page.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def navigation() -> list[str]:
    conf = load(ROOT / "docs" / "conf.py")
    return [conf.root_doc, *(page for pages in conf.NAVIGATION.values() for page in pages)]


def test_the_navigation_has_every_page_of_the_documentation_once() -> None:
    listed = navigation()
    docs = {f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")}
    assert sorted(listed) == sorted({*docs, "README", "CONTRIBUTING", "CHANGELOG", "data/clipart"})


def test_the_first_page_links_every_other_one(site: Path, pages: dict[Path, Page]) -> None:
    first = site / "docs" / "index.html"
    linked = {(first.parent / link).resolve() for link in pages[first].links if "://" not in link}
    assert {site / f"{page}.html" for page in navigation()[1:]} <= linked


def test_every_link_and_every_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(file)).resolve() if file else path
            known = pages[target].anchors if target in pages else {""}
            if not target.exists() or unquote(anchor) not in known:
                dead.append(f"{path.name}: {link}")
    assert len(pages) > 20
    assert dead == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {(path, each) for path, page in pages.items() for each in page.loaded}
    assert len(loaded) > 20
    assert [
        each for _, each in loaded if re.match(r"(?!data:)[a-z]*:?//|[a-z]+:(?!image)", each)
    ] == []
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert [
        found for text in sheets for found in re.findall(r"url\(['\"]?https?:|@import", text)
    ] == []


def test_the_reference_has_every_room(site: Path, pages: dict[Path, Page]) -> None:
    anchors = pages[site / "docs" / "reference.html"].anchors
    modules = [name.removeprefix("module-") for name in anchors if name.startswith("module-")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name.split(".")[1] for layer in layers for name in layer.split(" | ")]
    rooms = {name for name in names if (PACKAGE / name).is_dir()}
    assert rooms - {module.split(".")[1] for module in modules} == NOT_REFERRED_TO


def test_a_function_of_the_reference_says_what_it_takes(site: Path) -> None:
    html = (site / "docs" / "reference.html").read_text(encoding="utf-8")
    at = html.index('id="vgg16_transfer.params.reading.check_params"')
    assert "The parsed YAML." in html[at : at + 3000]


def test_a_link_to_a_missing_heading_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = "# One\n\n[two](#no-such-heading) [three](no-such-page.md)\n"
    (tmp_path / "docs" / "index.md").write_text(text, encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "no-such-heading" in done.stderr
    assert "no-such-page.md" in done.stderr

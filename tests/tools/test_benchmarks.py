"""docs/benchmarks.md holds what ``make bench`` measured, and no other numbers in tables."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import noise
from tests.images.conftest import write_tar

from .loading import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BLOCK = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->\n", re.DOTALL)


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load(BENCHMARKS / "bench.py")


def test_every_table_of_the_page_is_printed_by_a_benchmark(bench: ModuleType) -> None:
    page = bench.PAGE.read_text(encoding="utf-8")
    blocks = dict(BLOCK.findall(page))
    assert set(blocks) == {"machine", *bench.TABLES}
    for name, (script, *_) in bench.TABLES.items():
        assert (BENCHMARKS / script).is_file()
        assert blocks[name].startswith("| "), name
        assert "print_table" in (BENCHMARKS / script).read_text(encoding="utf-8")
    assert "\n|" not in BLOCK.sub("", page)


def test_a_benchmark_replaces_its_own_table(bench: ModuleType, tmp_path, monkeypatch, capsys):
    page, script = tmp_path / "page.md", tmp_path / "script.py"
    page.write_text("a\n<!-- machine -->\n<!-- /machine -->\n<!-- one -->\nold\n<!-- /one -->\nb\n")
    script.write_text("import sys\nprint(f'| new {sys.argv[1]} |')\n")
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "TABLES", {"one": (script, "{pictures}")})
    monkeypatch.setattr(sys, "argv", ["bench.py", "--pictures", str(script)])
    bench.main()
    text = page.read_text()
    assert text.startswith("a\n<!-- machine -->\nMeasured on 2")
    assert text.endswith(f"<!-- one -->\n| new {script} |\n<!-- /one -->\nb\n")
    assert str(page) in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["no-such-table", "--pictures=no/such.tar"])
def test_what_is_not_there_is_said(bench: ModuleType, monkeypatch, capsys, argument) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", argument])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert argument.rpartition("=")[2] in capsys.readouterr().err


def test_a_failed_benchmark_leaves_its_table(bench: ModuleType, tmp_path, monkeypatch) -> None:
    page, script = tmp_path / "page.md", tmp_path / "script.py"
    page.write_text("<!-- one -->\nold\n<!-- /one -->\n")
    script.write_text("print('| half |')\nraise SystemExit(1)\n")
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "TABLES", {"one": (script,)})
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    with pytest.raises(SystemExit, match="one: failed"):
        bench.main()
    assert page.read_text() == "<!-- one -->\nold\n<!-- /one -->\n"


@pytest.mark.parametrize("folder", ["256_ObjectCategories", "pictures"])
def test_an_archive_is_read_by_its_layout(bench: ModuleType, tmp_path: Path, folder: str) -> None:
    archive = tmp_path / "any.tar"
    write_tar(archive, {f"{folder}/003.backpack/003_0001.jpg": noise(0, 0)})
    dataset = sys.modules["workspaces"].photographs(archive, seeds=[0])
    assert dataset["split"]["seeds"] == [0]
    if folder == "pictures":
        assert (dataset["layout"], "classes" in dataset) == ("class_folders", False)
    else:
        assert dataset["layout"] == "caltech256"
        assert "003.backpack" in dataset["classes"]

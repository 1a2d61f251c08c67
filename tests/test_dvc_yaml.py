"""dvc.yaml tells DVC the truth: every module that a stage runs through is among its deps."""

import ast
import importlib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.head_kinds import HEAD_KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = "vgg16_transfer"
STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]

# What decides no number: error messages, paths that dvc.yaml names itself, how files are read back
# and replaced, logging to MLflow. Of params, what holds the defaults of a section is added by name.
EXEMPT = {"errors", "workspace", "artifacts", "hashing"}
OUTSIDE = ("lineage", "tracking", "params")
SECTIONS = {"backbone": "backbone", "datasets": "dataset", "studies": "study"}


def source(module: str) -> Path:
    return Path(str(importlib.import_module(module).__file__))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"


def imported(node: ast.AST) -> set[str]:
    """Modules of the package that code imports, wherever in it, but for type checkers."""
    result = set()
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").startswith(PACKAGE):
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            result |= {name if is_module(name) else str(child.module) for name in names}
        if isinstance(child, ast.Call) and getattr(child.func, "attr", "") == "fit_of":
            result |= {f"{PACKAGE}.heads.kinds.{kind}" for kind in HEAD_KINDS}  # by importlib
        if isinstance(child, ast.Call) and getattr(child.func, "id", "") == "_module_of":
            others = ENGINES.keys() - {DEFAULT_ENGINE}  # by importlib too
            result |= {f"{PACKAGE}.backbones.engines.{engine}" for engine in others}
        result |= imported(child)
    return result


def is_module(name: str) -> bool:
    path = ROOT / "src" / Path(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def closure(modules: set[str]) -> set[str]:
    seen: set[str] = set()
    while modules - seen:
        module = (modules - seen).pop()
        seen.add(module)
        result = imported(ast.parse(source(module).read_text(encoding="utf-8")))
        modules |= {name for name in result if name.split(".")[1] not in OUTSIDE}
    return seen


def command(stage: str) -> ast.FunctionDef:
    """The function of cli/stages.py that runs a stage."""
    tree = ast.parse(source(f"{PACKAGE}.cli.stages").read_text(encoding="utf-8"))
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == stage)


def deps(stage: str) -> set[str]:
    definition = STAGES[stage]
    return set(definition.get("do", definition)["deps"])


def sections(stage: str) -> set[str]:
    """Modules with the defaults of what a stage reads of params.yaml."""
    definition = STAGES[stage]
    keys = definition.get("do", definition)["params"]
    return {f"{PACKAGE}.params.{SECTIONS[key.partition('.')[0]]}" for key in keys}


def needed(stage: str) -> set[str]:
    """Source files that decide what a stage writes."""
    own = {name for name in imported(command(stage)) if name.split(".")[1] not in OUTSIDE}
    modules = closure(own | sections(stage)) - {f"{PACKAGE}.params.section"}
    files = {source(module).relative_to(ROOT).as_posix() for module in modules}
    exempt = {f"src/{PACKAGE}/{name}.py" for name in EXEMPT}
    return {file for file in files if not file.endswith("__init__.py")} - exempt


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_runs_through_is_among_its_deps(stage: str) -> None:
    folders = tuple(f"{dep}/" for dep in deps(stage))
    assert {file for file in needed(stage) - deps(stage) if not file.startswith(folders)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_names_a_module_that_it_does_not_run_through(stage: str) -> None:
    paths = [ROOT / dep for dep in deps(stage) if dep.startswith("src/")]
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    modules = {file.relative_to(ROOT).as_posix() for file in files if file.suffix == ".py"}
    assert {name for name in modules if not name.endswith("__init__.py")} - needed(stage) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_command_of_its_name(stage: str) -> None:
    definition = STAGES[stage]
    assert definition.get("do", definition)["cmd"].split()[:2] == ["vgg16-transfer", stage]


def test_a_module_that_is_imported_inside_a_function_is_found() -> None:
    assert f"{PACKAGE}.images.splits" in imported(command("splits"))


def test_dvc_lock_holds_no_stage_that_is_gone() -> None:
    params = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    lock = YAML(typ="safe", pure=True).load(ROOT / "dvc.lock")
    stages = set()
    for stage, definition in STAGES.items():
        keys = params[definition["foreach"].strip("${}")] if "foreach" in definition else [""]
        stages |= {f"{stage}@{key}" if key else stage for key in keys}
    assert set(lock["stages"]) == stages

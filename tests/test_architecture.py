"""The rules of docs/architecture.md that a reader relies on: who imports whom, and who prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "specmd"
# As data flows, in the order of the table in docs/architecture.md.
ORDER = re.findall(
    r"^\| `(\w+)/` \|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE
)
MODULES = sorted(PACKAGE.rglob("*.py"))
POLICIES = sorted(p for p in (ROOT / "policies").rglob("*.py") if p.name != "__init__.py")
MOST_LINES = 400


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> list[str]:
    """Modules a file imports, wherever in it; not those imported for types alone."""
    parsed = tree(path)
    typing_only = {
        id(node)
        for branch in ast.walk(parsed)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(parsed):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] + [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def folder(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_page_names_every_folder():
    there = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert there == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_imports_upwards(path):
    if not folder(path):  # the front page and the errors
        return
    place = ORDER.index(folder(path))
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "specmd" and len(parts) > 1 and parts[1] in ORDER:
            assert ORDER.index(parts[1]) <= place, f"{name(path)} imports {module}"


def test_the_core_needs_numpy_and_numba_only():
    allowed = {"numpy", "numba", "llvmlite", "specmd", "__future__"}
    standard = __import__("sys").stdlib_module_names
    for path in PACKAGE.joinpath("core").rglob("*.py"):
        for module in imported(path):
            root = module.split(".")[0]
            assert root in allowed or root in standard, f"{name(path)} imports {module}"
            if root == "specmd":
                assert module.startswith("specmd.core") or module == "specmd"


@pytest.mark.parametrize("path", POLICIES, ids=name)
def test_policies_come_through_the_one_door(path):
    for module in imported(path):
        if module.startswith("specmd"):
            assert module.rpartition(".")[0] in ("specmd", "specmd.policy"), module


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_below_the_command_line_prints(path):
    if folder(path) == "cli" or path.name == "__main__.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.stderr.write", "sys.stdout.write", "typer.echo")


@pytest.mark.parametrize("path", [*MODULES, *POLICIES], ids=name)
def test_no_file_is_too_long(path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES

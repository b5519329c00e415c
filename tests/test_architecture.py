"""The direction of imports: cli -> evidence -> models -> theory and lab -> _utils."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ntps_utils"
ALLOWED = {
    "_utils": set(),
    "theory": {"_utils"},
    "lab": {"_utils"},
    "models": {"theory", "lab", "_utils"},
    "evidence": {"models", "theory", "lab", "_utils"},
    "plotting": {"evidence", "theory", "_utils"},
    "notebook": {"_utils"},
    "exercises": {"evidence", "theory", "_utils"},
    "cli": {"evidence", "models", "theory", "lab", "_utils", "__init__"},
    "__init__": {"evidence", "models", "theory"},
}
"""Part of the library, and the parts that it may import."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """First component below ntps_utils: a package or a single module."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path: Path) -> set[str]:
    """Modules of the library that a file imports, wherever in the file."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("ntps_utils", "book"):
            assert node.level == 0
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules |= {name if is_module(name) else node.module for name in names}
        elif isinstance(node, ast.Import):
            modules |= {a.name for a in node.names if a.name.split(".")[0] in ("ntps_utils", "book")}
    return modules


def name_of(path: Path) -> str:
    pieces = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    here = part_of(name_of(path))
    for module in imports(path):
        assert module.split(".")[0] != "book", f"{name_of(path)} imports a build tool"
        there = part_of(module)
        assert there == here or there in ALLOWED[here], f"{name_of(path)} imports {module}"


def test_no_module_imports_itself_through_others():
    graph = {name_of(path): imports(path) - {name_of(path)} for path in MODULES}
    # A package's __init__ that re-exports its modules is no cycle of the modules among themselves.
    graph = {name: {m for m in targets if m in graph} for name, targets in graph.items() if name != "ntps_utils"}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name != "_utils"], ids=name_of)
def test_private_names_stay_in_their_module(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ntps_utils"):
            private = [a.name for a in node.names if a.name.startswith("_") and not a.name.startswith("__")]
            assert not private, f"{name_of(path)} imports {private} from {node.module}"

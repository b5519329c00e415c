"""What made a number: versions, settings, hashes, date."""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "ntps-utils",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "datasets",
)
ROOT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(**settings: Any) -> dict[str, Any]:
    """A record to keep beside a result: the settings given, versions, and the time in UTC."""
    return {
        **settings,
        "versions": versions(),
        "machine": platform.machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def sources(start: Path, root: Path = ROOT) -> set[Path]:
    """A Python file and every module of this library that it imports, directly or not."""
    found, queue = {start}, [start]
    while queue:
        for name in _imports(queue.pop()):
            stem = root.joinpath(*name.split("."))
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file() and path not in found:
                    found.add(path)
                    queue.append(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    """Names of this library's modules that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ntps_utils":
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ntps_utils")


def code_fingerprint(start: Path, leave_out: Sequence[str] = ()) -> str:
    """Hash of what a module does: its code and that of what it imports here, 16 hex digits.

    Comments, docstrings and layout do not count, nor do the modules left out.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in sources(start) if path.stem not in leave_out):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [n for n in body if not _is_text(n)]  # type: ignore[attr-defined]
        digest.update(path.name.encode() + ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

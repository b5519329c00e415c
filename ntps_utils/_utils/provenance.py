"""What produced a result: settings, versions, date, and a hash of the code."""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

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
LIBRARY = "ntps_utils"
ROOT = Path(__file__).resolve().parents[2]
"""Folder that contains the library."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    Returns
    -------
    dict of str to str
        Versions by name; packages that are not installed are left out.

    Examples
    --------
    >>> {"python", "numpy"} <= versions().keys()
    True
    """
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def provenance(**settings: Any) -> dict[str, Any]:
    """Return a record to store beside a result.

    Parameters
    ----------
    **settings : object
        Settings that determine the result; values that JSON can represent, or numbers of NumPy.

    Returns
    -------
    dict
        The settings, ``versions``, ``machine`` (its architecture) and ``date`` (in UTC).

    Examples
    --------
    >>> list(provenance(seed=0))
    ['seed', 'versions', 'machine', 'date']
    """
    return {
        **{name: without_numpy(value) for name, value in settings.items()},
        "versions": versions(),
        "machine": platform.machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def without_numpy(value: Any) -> Any:
    """Convert numbers of NumPy, also in lists, tuples and dictionaries, to those of Python, which JSON can represent.

    Parameters
    ----------
    value : object

    Returns
    -------
    object

    Examples
    --------
    >>> without_numpy({"k": (np.int64(3), "a")})
    {'k': (3, 'a')}
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: without_numpy(one) for name, one in value.items()}
    return type(value)(map(without_numpy, value)) if type(value) in (list, tuple) else value


def sources(start: Path, root: Path = ROOT) -> set[Path]:
    """Return a Python file and the modules of this library that it imports, directly or indirectly.

    Imports inside functions count; imports for type checking only do not. A file that
    imports the bare package may use any of its public names, so that every module in its
    table ``_EXPORTS`` counts.

    Parameters
    ----------
    start : Path
        A Python file, in the library or outside.
    root : Path
        Folder that contains the library.

    Returns
    -------
    set of Path

    Raises
    ------
    SyntaxError
        If one of the files is not valid Python.
    """
    exports = _exports(root)
    modules, queue = {start}, [start]
    while queue:
        for name in _imports(queue.pop(), root, exports):
            stem = root.joinpath(*name.split("."))
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file() and path not in modules:
                    modules.add(path)
                    queue.append(path)
    return modules


def _exports(root: Path) -> dict[str, str]:
    """Return the module of each public name, read from ``_EXPORTS`` of the package without importing it."""
    path = root / LIBRARY / "__init__.py"
    if path.is_file():
        for node in ast.parse(path.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "_EXPORTS" for target in targets):
                return dict(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return {}


def _imports(path: Path, root: Path, exports: Mapping[str, str]) -> Iterator[str]:
    """Yield the names under this library that a Python file imports: modules and members of modules."""
    for node in _runtime_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == LIBRARY:
                    yield alias.name
                    if alias.name == LIBRARY or alias.asname is None:  # binds the name of the package
                        yield from exports.values()
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(root).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            if module.partition(".")[0] != LIBRARY:
                continue
            yield module
            for alias in node.names:
                yield f"{module}.{alias.name}"
                if module == LIBRARY and alias.name == "*":
                    yield from exports.values()
                elif module == LIBRARY and alias.name in exports:
                    yield exports[alias.name]


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a syntax tree, except what is under ``if TYPE_CHECKING``."""
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            queue += node.orelse
        else:
            queue += ast.iter_child_nodes(node)


def code_fingerprint(start: Path, leave_out: Sequence[str] = ()) -> str:
    """Return a hash of a module's code and of the code that it imports from this library.

    Comments, docstrings and layout do not change the hash.

    Parameters
    ----------
    start : Path
        A Python file of the library.
    leave_out : sequence of str
        Names of modules to ignore, without package and suffix.

    Returns
    -------
    str
        16 hex digits.

    Examples
    --------
    >>> len(code_fingerprint(ROOT / "ntps_utils" / "_utils" / "files.py"))
    16
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in sources(start) if path.stem not in leave_out):
        digest.update(path.name.encode() + code_of(path))
    return digest.hexdigest()[:16]


def code_of(path: Path) -> bytes:
    """Return the syntax tree of a Python file as text, without docstrings, comments and layout.

    Parameters
    ----------
    path : Path
        A Python file.

    Returns
    -------
    bytes
        Equal for two files whose code does the same, statement by statement.

    Examples
    --------
    >>> code_of(ROOT / "ntps_utils" / "_utils" / "__init__.py")
    b'Module()'
    """
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not _is_docstring(n)]  # type: ignore[attr-defined]
    return _dump(tree).encode()


def _dump(node: object) -> str:
    """Return a syntax tree as text. ``ast.dump`` treats empty fields in another way since Python 3.13."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, getattr(node, name, None)) for name in node._fields)
    return f"{type(node).__name__}({', '.join(f'{name}={_dump(v)}' for name, v in fields if v not in (None, []))})"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

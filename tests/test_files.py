"""Atomic files and folders, checks before writing, schedules and names: the helpers in ``_utils``."""

from __future__ import annotations

import hashlib
import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntps_utils._utils.files import (
    asset_text,
    atomic_folder,
    atomic_path,
    check_writable,
    data_file,
    sha256,
    write_json,
    write_text,
)
from ntps_utils._utils.names import suggestion
from ntps_utils._utils.provenance import code_fingerprint, sources
from ntps_utils._utils.schedules import warmup_cosine

# -- files -------------------------------------------------------------------------


def test_atomic_path_replaces_the_file_at_the_end_of_the_block(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("complete")
        assert not target.exists()
    assert target.read_text() == "complete"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert target.stat().st_mode == plain.stat().st_mode


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_atomic_folder_replaces_all_files_or_none(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()

    def fail():
        with atomic_folder(target) as temporary:
            (temporary / "b").write_text("2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [p.name for p in target.iterdir()] == ["a"]
    with atomic_folder(target) as temporary:
        (temporary / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_write_errors_name_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/x\.txt could not be written: .+\."):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_write_json_and_write_text(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": [1, 2]})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "a": [\n  1,\n  2\n ]\n}\n'
    write_text(tmp_path / "a.txt", "naïve\n")
    assert (tmp_path / "a.txt").read_bytes() == "naïve\n".encode()


@pytest.mark.parametrize("value", [{"a": object()}, {"a": math.nan}])
def test_write_json_writes_nothing_for_values_without_a_json_form(tmp_path, value):
    with pytest.raises((TypeError, ValueError)):
        write_json(tmp_path / "a.json", value, allow_nan=False)
    assert list(tmp_path.iterdir()) == []


def test_check_writable_rejects_folders_and_missing_folders(tmp_path):
    check_writable(tmp_path / "a" / "b.txt")
    with pytest.raises(ValueError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(ValueError, match="does not exist or is read-only"):
        check_writable(tmp_path / "a" / "b.txt", make_folders=False)
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_that_of_the_concatenated_contents(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    assert sha256(a, b) == hashlib.sha256(b"onetwo").hexdigest()


def test_package_files_are_found():
    assert json.loads((data_file("lab") / "manifest.json").read_text())
    assert asset_text("subspace_explorer.html").startswith("<")


# -- schedules and names -----------------------------------------------------------


@given(n_steps=st.integers(1, 300), warmup=st.floats(0, 1), peak=st.floats(1e-6, 1))
def test_warmup_cosine_rises_linearly_then_falls_to_zero(n_steps, warmup, peak):
    n_warmup = int(warmup * n_steps)
    factors = [warmup_cosine(step, n_steps, n_warmup) for step in range(n_steps)]
    rising, falling = factors[:n_warmup], factors[n_warmup:]
    assert rising == [(step + 1) / n_warmup for step in range(n_warmup)]
    assert falling == sorted(falling, reverse=True)
    assert falling[:1] in ([], [1.0])
    assert all(0 <= factor <= 1 for factor in factors)
    rates = [warmup_cosine(step, n_steps, n_warmup, peak) for step in range(n_steps)]
    assert rates == pytest.approx([peak * factor for factor in factors])
    assert warmup_cosine(n_steps, n_steps, n_warmup) == pytest.approx(0 if n_warmup < n_steps else 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("topik", "Did you mean topic?"),
        ("TENSE", "Did you mean tense?"),
        ("colour", "Did you mean color?"),
        ("xyz", "Tasks: color, tense, topic."),
    ],
)
def test_suggestions_are_similar_names_or_all_names(name, message):
    assert suggestion(name, iter(["topic", "tense", "color"]), "Tasks") == message


# -- provenance --------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    """A package with a table of public names, and modules that import each other."""
    files = {
        "__init__.py": "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from ntps_utils.types_only import T\n"
        '_EXPORTS: dict[str, str] = {"score": "ntps_utils.theory.score", "train": "ntps_utils.models"}\n',
        "theory/__init__.py": "",
        "theory/score.py": "from ntps_utils.theory import linear\n",
        "theory/linear.py": "",
        "models/__init__.py": "def train():\n    from . import helper\n",
        "models/helper.py": "from .. import theory\n",
        "plotting.py": "",
        "types_only.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "ntps_utils" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


INIT, SCORE, MODELS = (
    {"__init__.py"},
    {"theory/__init__.py", "theory/score.py", "theory/linear.py"},
    {"models/__init__.py", "models/helper.py", "theory/__init__.py", "__init__.py"},
)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy, ntps_utilities", set()),
        ("from ntps_utils import plotting", INIT | {"plotting.py"}),
        ("import ntps_utils.plotting as p", {"plotting.py"}),
        ("from ntps_utils.theory.linear import whiten", {"theory/linear.py"}),
        ("def f():\n    from ntps_utils.theory.linear import whiten", {"theory/linear.py"}),
        ("from ntps_utils import score", INIT | SCORE),
        ("from ntps_utils import __version__", INIT),
        ("import ntps_utils as ntps", INIT | SCORE | MODELS),
        ("import ntps_utils", INIT | SCORE | MODELS),
        ("import ntps_utils.plotting", SCORE | MODELS | {"plotting.py"}),
        ("from ntps_utils import *", INIT | SCORE | MODELS),
        (
            "import typing\nif typing.TYPE_CHECKING:\n    import ntps_utils\n"
            "else:\n    import ntps_utils.plotting as p",
            {"plotting.py"},
        ),
    ],
)
def test_sources_are_the_modules_that_may_be_imported(package, code, modules):
    start = package / "start.py"
    start.write_text(code + "\n")
    names = {path.relative_to(package / "ntps_utils").as_posix() for path in sources(start, package) - {start}}
    assert names == modules


def test_code_fingerprint_ignores_comments_docstrings_and_layout(package):
    start = package / "start.py"

    def fingerprint(code: str) -> str:
        start.write_text(code)
        return code_fingerprint(start)

    reference = fingerprint('"""Text."""\nx = [1, 2]\n')
    assert fingerprint("# comment\nx = [\n    1,\n    2,\n]\n") == reference
    assert fingerprint("x = [1, 3]\n") != reference
    assert fingerprint("x = [1, 2]\nimport ntps_utils._utils.files as f\n") != fingerprint(
        "x = [1, 2]\nimport ntps_utils._utils.names as f\n"
    )
    assert code_fingerprint(start, leave_out=("names",)) != code_fingerprint(start)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_umask_is_unchanged(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)

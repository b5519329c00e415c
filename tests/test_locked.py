"""Builds take turns, and the environment follows contents, not the clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no make, and no file locks of this kind")

# A make within the make that runs the tests would take its flags, and think that it holds the lock.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
# What the Makefile calls, with its start and its end in a log.
PROGRAM = """#!/bin/sh
echo "start $$" >> log
sleep 0.2
mkdir -p _build/html && echo page > _build/html/index.html
echo "end $$" >> log
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose Makefile is the real one and whose programs only keep a log."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "ntps_utils/__init__.py", "book/tools/locked.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "jupyter-book"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    (tmp_path / stamp(tmp_path)).touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)


def stamp(folder: Path) -> str:
    """Name of the file that says that the environment is there."""
    return make(folder, "--eval", "stamp:;@echo $(STAMP)", "stamp").stdout.strip()


def test_two_builds_take_turns(checkout):
    builds = [
        subprocess.Popen(["make", "book"], cwd=checkout, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    said = [build.communicate(timeout=60) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], said
    assert sum("waiting for it" in errors for _, errors in said) == 1
    assert all("The book is in" in output for output, _ in said)
    log = (checkout / "log").read_text().split("\n")[:-1]
    assert len(log) == 2 * 2 * 3  # refresh, prepare and jupyter-book of each, start and end
    assert all(log[i].replace("start", "end") == log[i + 1] for i in range(0, len(log), 2))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_lock_ends_with_the_command_that_held_it(tmp_path, how):
    lock, begun = tmp_path / "new" / "lock", tmp_path / "begun"
    command = [sys.executable, "-m", "book.tools.locked", str(lock)]
    holder = subprocess.Popen([*command, "sh", "-c", f"touch {begun}; exec sleep 60"], cwd=ROOT)
    while not begun.exists():
        time.sleep(0.01)
    waiting = subprocess.Popen([*command, "echo", "mine"], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    assert "waiting for it" in waiting.stderr.readline()
    assert waiting.poll() is None
    holder.send_signal(how)
    assert waiting.communicate(timeout=30)[0] == "mine\n"
    holder.wait()


def test_status_and_mistakes_pass_through(tmp_path):
    command = [sys.executable, "-m", "book.tools.locked"]
    assert (
        subprocess.run([*command, str(tmp_path / "lock"), "sh", "-c", "exit 7"], cwd=ROOT, check=False).returncode == 7
    )
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


@pytest.mark.parametrize("when", [0.0, 4e9])
def test_contents_decide_whether_the_environment_is_made_anew(checkout, when):
    for path in (p for p in checkout.rglob("*") if p.is_file()):
        os.utime(path, (when, when))
    assert "venv" not in make(checkout, "-n", "HOLDING_LOCK=1", "env").stdout
    lock = checkout / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    os.utime(lock, (when, when))
    assert "-m venv .venv" in make(checkout, "-n", "HOLDING_LOCK=1", "env").stdout

"""The lock of the Makefile, and when the environment is created again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, reset_sigint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs make and POSIX file locks")

# Without the variables of a make that runs these tests: they contain its flags and HOLDING_LOCK.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
# Replaces the programs that the Makefile calls; records its start and its end.
PROGRAM = """#!/bin/sh
echo "start $$" >> log
sleep 0.2
mkdir -p _build/html && echo page > _build/html/index.html
echo "end $$" >> log
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Checkout with the real Makefile, and programs that only write a log."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "ntps_utils/__init__.py", "book/tools/locked.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
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
    """Name of the file that exists if the environment is complete."""
    return make(folder, "--eval", "stamp:;@echo $(STAMP)", "stamp").stdout.strip()


@pytest.mark.slow
def test_simultaneous_builds_run_one_after_the_other(checkout):
    builds = [
        subprocess.Popen(["make", "book"], cwd=checkout, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    outputs = [build.communicate(timeout=60) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], outputs
    assert sum("waiting for it" in errors for _, errors in outputs) == 1
    assert all("The book is in" in output for output, _ in outputs)
    log = (checkout / "log").read_text().split("\n")[:-1]
    assert len(log) == 2 * 2 * 3  # start and end of refresh, prepare and jupyter-book, for two builds
    assert all(log[i].replace("start", "end") == log[i + 1] for i in range(0, len(log), 2))


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_lock_is_released_when_the_command_is_killed(tmp_path, signal_number):
    lock, started = tmp_path / "new" / "lock", tmp_path / "started"
    command = [sys.executable, "-m", "book.tools.locked", str(lock)]
    holder = subprocess.Popen(
        [*command, "sh", "-c", f"touch {started}; exec sleep 60"], cwd=ROOT, preexec_fn=reset_sigint
    )
    while not started.exists():
        assert holder.poll() is None
        time.sleep(0.01)
    waiting = subprocess.Popen([*command, "echo", "mine"], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    assert "waiting for it" in waiting.stderr.readline()
    assert waiting.poll() is None
    holder.send_signal(signal_number)
    assert waiting.communicate(timeout=30)[0] == "mine\n"
    holder.wait()


def test_exit_status_of_the_command_and_usage_errors(tmp_path):
    command = [sys.executable, "-m", "book.tools.locked"]
    assert (
        subprocess.run([*command, str(tmp_path / "lock"), "sh", "-c", "exit 7"], cwd=ROOT, check=False).returncode == 7
    )
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "COMMAND" in process.stderr


@pytest.mark.parametrize("mtime", [0.0, 4e9])
def test_environment_is_created_again_when_contents_change_whatever_the_dates(checkout, mtime):
    for path in (p for p in checkout.rglob("*") if p.is_file()):
        os.utime(path, (mtime, mtime))
    assert "venv" not in make(checkout, "-n", "HOLDING_LOCK=1", "env").stdout
    lock = checkout / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    os.utime(lock, (mtime, mtime))
    assert "-m venv .venv" in make(checkout, "-n", "HOLDING_LOCK=1", "env").stdout

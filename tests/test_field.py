"""Situations that people report of tools like this one: odd outputs, terminals, files, labels and models."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ntps_utils._utils.files import check_writable, write_text
from ntps_utils.cli.main import app

SCORE = ["score", "lab/XS", "lab/topic", "--max-texts", "60", "--layers", "last"]


def ntps(*arguments: str, encoding: str | None = None, **options) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    environment = dict(os.environ)
    if encoding is not None:
        environment |= {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [str(Path(sys.executable).with_name("ntps")), *arguments]
    return subprocess.run(command, env=environment, check=False, **options)


# -- outputs -----------------------------------------------------------------------


def test_a_device_stays_a_device(monkeypatch):
    check_writable("/dev/null")
    write_text("/dev/null", "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_receives_the_contents(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join(10)
    assert received == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    target, link = tmp_path / "elsewhere" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    check_writable(link)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "link.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_device_without_permission_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o400)
    with pytest.raises(ValueError, match="permission denied"):
        check_writable(pipe)


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_json_on_the_standard_output_is_alone_there(name):
    outcome = CliRunner().invoke(app, [*SCORE, "--json", name])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["rows"]
    assert "NTPS" in outcome.stderr


@pytest.mark.slow
def test_json_to_a_redirected_standard_output_is_complete(tmp_path):
    with open(tmp_path / "out.json", "wb") as file:
        done = ntps(*SCORE, "--json", "/dev/stdout", stdout=file, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["rows"]


def test_only_one_file_can_be_the_standard_output():
    outcome = CliRunner().invoke(app, ["prescreen", "lab/XS", "lab/topic", "--json", "-", "--html", "/dev/stdout"])
    assert outcome.exit_code == 2
    assert "Only one file can be written to the standard output" in " ".join(outcome.output.split())


@pytest.mark.slow
def test_a_closed_pipe_loses_no_results(tmp_path):
    """As in ``ntps score ... | true``."""
    read, write = os.pipe()
    os.close(read)
    done = ntps(*SCORE, "--json", str(tmp_path / "h.json"), stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert json.loads((tmp_path / "h.json").read_text())["rows"]
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_results_reach_a_terminal_that_lacks_their_characters(tmp_path, tiny_data):
    data = tmp_path / "評価.csv"
    data.write_bytes((tiny_data / "train.csv").read_bytes())
    done = ntps("score", "lab/XS", str(data), "--json", str(tmp_path / "h.json"), encoding="ascii", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "h.json").is_file()
    assert b"NTPS" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize("command", [["lab", "tasks"], ["models", "list"], ["datasets", "list"], ["--help"]])
def test_characters_that_a_terminal_lacks_are_replaced(command, encoding):
    outcome = CliRunner(charset=encoding).invoke(app, command)
    assert outcome.exit_code == 0, outcome.exception

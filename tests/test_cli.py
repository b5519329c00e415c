"""The ``ntps`` command as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ntps_utils.cli.main import app, parse_widths
from ntps_utils.theory.score import ScoreReport

runner = CliRunner()


def invoke(*arguments: object):
    return runner.invoke(app, ["score", *map(str, arguments)])


def test_score_prints_a_table_and_writes_json(tiny_model, tiny_data, tmp_path):
    target = tmp_path / "scores.json"
    result = invoke(
        tiny_model, tiny_data, "--split", "test", "--max-texts", 40, "--layers", "0,last".replace("last", "2"),
        "--k-v", "4", "--k-v", "0.5,1.0", "--center", "--batch-size", 7, "--device", "cpu", "--dtype", "float32",
        "--seed", 3, "--max-length", 20, "--json", target,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "40 texts" in result.output
    assert "centered moments" in result.output
    report = ScoreReport.from_json(target.read_text())
    assert [(row.layer, row.k_v) for row in report] == [(0, 4), (0, 8), (0, 16), (2, 4), (2, 8), (2, 16)]
    data = json.loads(target.read_text())
    assert data["provenance"]["dtype"] == "float32"
    assert data["provenance"]["split"] == "test"
    keys = set(data["rows"][0])
    assert {"layer", "k_v", "rank", "ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"} <= keys
    assert {"lower_bound", "upper_bound", "lower_bound_metric", "upper_bound_metric"} <= keys


def test_jackknife_shows_standard_errors(tiny_model, tiny_data):
    result = invoke(tiny_model, tiny_data, "--jackknife", 5, "--layers", "last", "--shrinkage", "ledoit-wolf")
    assert result.exit_code == 0, result.output
    assert "±" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k-v", "many"], "integers or fractions"),
        (["--k-v", "0"], "below 1"),
        (["--k-v", "1.5"], "not a fraction"),
        (["--k-v", "17"], "outside 1 ... 16"),
        (["--layers", "9"], "no layer 9"),
        (["--shrinkage", "lots"], "ledoit-wolf"),
        (["--shrinkage", "2"], "must lie in [0, 1]"),
        (["--ridge", "-1"], "non-negative"),
        (["--order", "up"], "descending"),
        (["--split", "dev"], "no split 'dev'"),
        (["--max-length", "1000"], "between 2 and 32"),
        (["--json", "/no/such/folder/x.json"], "does not exist or is read-only"),
    ],
)
def test_bad_settings_end_in_one_line(tiny_model, tiny_data, arguments, message):
    result = invoke(tiny_model, tiny_data, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_failed_run_writes_nothing(tiny_model, tiny_data, tmp_path):
    target = tmp_path / "scores.json"
    target.write_text("old")
    assert invoke(tiny_model, tiny_data, "--k-v", "17", "--json", target).exit_code == 2
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_as_a_process(tiny_model, tiny_data):
    """Table on standard output, progress and notes on standard error."""
    command = [sys.executable, "-m", "typer", "ntps_utils.cli.main", "run", "score", str(tiny_model), str(tiny_data)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"}, check=False)
    assert done.returncode == 0, done.stderr
    assert "NTPS" in done.stdout
    assert "reading texts" in done.stderr or "scoring layers" in done.stderr
    assert "scoring" not in done.stdout


def test_help_and_version():
    assert "Score how far" in runner.invoke(app, ["score", "--help"]).output
    assert runner.invoke(app, ["--version"]).output.strip().count(".") == 2


def test_widths():
    assert parse_widths(["16, 0.5", "1.0"]) == [16, 0.5, 1.0]
    assert isinstance(parse_widths(["1"])[0], int)


def test_extraction_options_reach_the_extraction(tmp_path):
    """The same scores streamed and resumed; other ones without a BOS."""
    reports = {}
    state = tmp_path / "state.safetensors"
    for name, options in {
        "plain": [],
        "streamed": ["--stream", "--checkpoint", str(state)],
        "resumed": ["--stream", "--checkpoint", str(state)],
        "bare": ["--no-bos"],
    }.items():
        out = tmp_path / f"{name}.json"
        command = ["score", "lab/XS", "lab/tense", "--max-texts", "80", "--json", str(out), *options]
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        reports[name] = json.loads(out.read_text())
    assert reports["streamed"]["rows"] == reports["resumed"]["rows"]
    for a, b in zip(reports["plain"]["rows"], reports["streamed"]["rows"], strict=True):
        assert a["ntps"] == pytest.approx(b["ntps"], abs=1e-8)
    assert reports["plain"]["provenance"]["n_tokens"] - reports["bare"]["provenance"]["n_tokens"] == 80


def test_lists_and_lab_commands():
    for command, expected in {
        ("list", "models"): "Qwen/Qwen2-0.5B",
        ("list", "datasets"): "medical_questions_pairs",
        ("lab", "tasks"): "lab/agreement",
        ("lab", "models"): "lab/XS@4000",
    }.items():
        result = runner.invoke(app, list(command))
        assert result.exit_code == 0, result.output
        assert expected in result.output.replace("\n", "")
    wrong = runner.invoke(app, ["list", "things"])
    assert wrong.exit_code == 2
    assert runner.invoke(app, ["lab", "pretrain", "XXL"]).exit_code == 2
    assert runner.invoke(app, ["lab", "learn", "--task", "topics"]).exit_code == 2


def test_pretraining_from_the_command_line_on_text_of_ones_own(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven eight nine ten\n" * 800)
    command = ["lab", "pretrain", "XS", "--corpus", str(text), "--vocabulary", "300", "--context", "32", "--steps", "4"]
    result = runner.invoke(app, [*command, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    scored = runner.invoke(app, ["score", str(tmp_path / "run/XS/step-4"), "lab/tense", "--max-texts", "40"])
    assert scored.exit_code == 0, scored.output
    missing = runner.invoke(app, ["lab", "pretrain", "XS", "--corpus", str(tmp_path / "none.txt")])
    assert missing.exit_code == 2

"""The ``ntps`` command."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import urllib.error
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ntps_utils.cli import doctor
from ntps_utils.cli.console import QUIET_LOGGERS, guarded, output_files
from ntps_utils.cli.main import app
from ntps_utils.cli.score import parse_widths
from ntps_utils.theory.report import ScoreReport

runner = CliRunner()
COMMANDS = ("score", "prescreen", "benchmark", "lab", "models", "datasets", "results", "doctor")
START = "from ntps_utils.cli.main import app; app()"


def invoke(*arguments: object):
    return runner.invoke(app, ["score", *map(str, arguments)])


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)


# The command as a whole


def test_help_lists_the_commands_in_order():
    output = runner.invoke(app, ["--help"]).output
    positions = [output.index(f"│ {name} ") for name in COMMANDS]
    assert positions == sorted(positions)
    assert not any(f"│ {name} " in output for name in ("grid", "list"))


def test_every_command_has_help():
    for command in COMMANDS:
        result = runner.invoke(app, [command, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage" in result.output


def test_version_is_printed():
    assert runner.invoke(app, ["--version"]).output.strip().count(".") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    ["--version", "--help", "score --help", "lab --help", "datasets list"],
)
def test_commands_without_models_do_not_import_torch_or_transformers(arguments):
    names = ("torch", "transformers", "datasets", "peft")
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {names} if n in sys.modules], file=sys.stderr))\n{START}"
    )
    done = run_code(code, *arguments.split())
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "score lab/XS lab/tense",
        "prescreen lab/XS lab/tense",
        "benchmark --models lab/XS --datasets lab/tense",
        "lab pretrain XS",
        "lab verify XS",
        "lab learn",
    ],
)
def test_missing_model_dependencies_end_in_one_line(arguments):
    code = f"import sys; sys.modules.update(dict.fromkeys(('transformers', 'datasets', 'peft'))); {START}"
    done = run_code(code, *arguments.split())
    assert done.returncode == 2
    assert done.stderr == "ntps: This command needs the model dependencies: pip install 'ntps-utils[models]'.\n"
    assert done.stdout == ""


def test_old_command_names_work_and_print_the_new_name():
    for old, new in {
        "list models": "models list",
        "list datasets": "datasets list",
        "grid --models lab/XS --datasets lab/tense --jobs 0": "benchmark",
    }.items():
        result = runner.invoke(app, old.split())
        assert result.stderr.count("note:") == 1
        assert f"is now `ntps {new}`" in result.stderr
        assert "note:" not in result.stdout
    listed = runner.invoke(app, ["list", "models"])
    assert listed.exit_code == 0
    assert listed.stdout == runner.invoke(app, ["models", "list"]).stdout
    unknown = runner.invoke(app, ["list", "things"])
    assert unknown.exit_code == 2
    assert "'things'" in unknown.stderr


def test_lists_and_lab_commands():
    for command, expected in {
        ("models", "list"): "Qwen/Qwen2-0.5B",
        ("datasets", "list"): "medical_questions_pairs",
        ("lab", "tasks"): "lab/agreement",
        ("lab", "models"): "lab/XS@4000",
    }.items():
        result = runner.invoke(app, list(command))
        assert result.exit_code == 0, result.output
        assert expected in result.output.replace("\n", "")
    assert runner.invoke(app, ["lab", "pretrain", "XXL"]).exit_code == 2
    assert runner.invoke(app, ["lab", "learn", "--task", "topics"]).exit_code == 2


@pytest.mark.slow
def test_results_go_to_stdout_and_progress_to_stderr(tiny_model, tiny_data):
    done = run_code(START, "score", str(tiny_model), str(tiny_data))
    assert done.returncode == 0, done.stderr
    assert "NTPS" in done.stdout
    assert "reading texts" in done.stderr or "scoring layers" in done.stderr
    assert "scoring" not in done.stdout


# score


def test_score_prints_a_table_and_writes_json(tiny_model, tiny_data, tmp_path):
    target = tmp_path / "scores.json"
    result = invoke(
        tiny_model, tiny_data, "--split", "test", "--max-texts", 40, "--layers", "0,2",
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


def test_old_spelling_of_center_works_and_prints_the_new_one(tiny_model, tiny_data):
    options = ("--layers", "last", "--max-texts", 40)
    for old, new in (("--centre", "centered"), ("--no-centre", "uncentered")):
        result = invoke(tiny_model, tiny_data, *options, old)
        assert result.exit_code == 0, result.output
        assert f" {new} moments" in " ".join(result.stdout.split())
        assert result.stderr.count("--center") == 1
    assert "centre" not in runner.invoke(app, ["score", "--help"]).output


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
        (["--k-v", "17"], "16"),
        (["--layers", "9"], "no layer 9"),
        (["--shrinkage", "lots"], "ledoit-wolf"),
        (["--shrinkage", "2"], "[0, 1]"),
        (["--ridge", "-1"], "ridge"),
        (["--order", "up"], "descending"),
        (["--split", "dev"], "'dev'"),
        (["--max-length", "1000"], "1000"),
        (["--json", "/no/such/folder/x.json"], "does not exist or is read-only"),
    ],
)
def test_invalid_options_end_in_one_line(tiny_model, tiny_data, arguments, message):
    result = invoke(tiny_model, tiny_data, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_failed_score_leaves_the_output_file_unchanged(tiny_model, tiny_data, tmp_path):
    target = tmp_path / "scores.json"
    target.write_text("old")
    assert invoke(tiny_model, tiny_data, "--k-v", "17", "--json", target).exit_code == 2
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_widths_are_integers_or_fractions():
    assert parse_widths(["16, 0.5", "1.0"]) == [16, 0.5, 1.0]
    assert isinstance(parse_widths(["1"])[0], int)


@pytest.mark.slow
def test_extraction_options_are_passed_on(tmp_path):
    """Streaming and continuing from a checkpoint give the same scores; the BOS token changes the token count."""
    reports = {}
    state = tmp_path / "state.safetensors"
    for name, options in {
        "plain": [],
        "streamed": ["--stream", "--checkpoint", str(state)],
        "continued": ["--stream", "--checkpoint", str(state)],
        "without BOS": ["--no-bos"],
    }.items():
        file = tmp_path / f"{name}.json"
        command = ["score", "lab/XS", "lab/tense", "--max-texts", "80", "--json", str(file), *options]
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        reports[name] = json.loads(file.read_text())
    assert reports["streamed"]["rows"] == reports["continued"]["rows"]
    for a, b in zip(reports["plain"]["rows"], reports["streamed"]["rows"], strict=True):
        assert a["ntps"] == pytest.approx(b["ntps"], abs=1e-8)
    assert reports["plain"]["provenance"]["n_tokens"] - reports["without BOS"]["provenance"]["n_tokens"] == 80


# lab


@pytest.mark.slow
def test_pretraining_on_a_corpus(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven eight nine ten\n" * 800)
    command = ["lab", "pretrain", "XS", "--corpus", str(text), "--vocabulary", "300", "--context", "32", "--steps", "4"]
    result = runner.invoke(app, [*command, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    scored = runner.invoke(app, ["score", str(tmp_path / "run/XS/step-4"), "lab/tense", "--max-texts", "40"])
    assert scored.exit_code == 0, scored.output
    missing = runner.invoke(app, ["lab", "pretrain", "XS", "--corpus", str(tmp_path / "none.txt")])
    assert missing.exit_code == 2


# guarded


def process_state() -> dict[str, object]:
    import datasets
    import huggingface_hub.utils
    import transformers

    return {
        "showwarning": warnings.showwarning,
        "environment": dict(os.environ),
        "levels": {name: logging.getLogger(name).level for name in QUIET_LOGGERS},
        "transformers": transformers.utils.logging.is_progress_bar_enabled(),
        "datasets": datasets.are_progress_bars_disabled(),
        "hub": huggingface_hub.utils.are_progress_bars_disabled(),
    }


@pytest.mark.parametrize("error", [None, ValueError("wrong"), KeyboardInterrupt(), RuntimeError("other")])
def test_guarded_restores_the_state_of_the_process(error):
    before = process_state()
    try:
        with guarded(models=True):
            within = process_state()
            if error is not None:
                raise error
    except (SystemExit, RuntimeError):  # typer.Exit is a RuntimeError
        pass
    assert process_state() == before
    assert within["showwarning"] is not before["showwarning"]
    assert set(within["levels"].values()) == {logging.ERROR}
    assert (within["transformers"], within["datasets"], within["hub"]) == (False, True, True)


def test_guarded_keeps_progress_bars_off_if_they_were_off():
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    try:
        before = process_state()
        with guarded(models=True):
            pass
        assert process_state() == before
        assert before["hub"] is True
    finally:
        datasets.enable_progress_bars()
        transformers.utils.logging.enable_progress_bar()


def test_guarded_keeps_variables_of_the_user(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    with guarded(models=True):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_guarded_prints_warnings_as_notes(capsys):
    with guarded():
        warnings.warn("few texts", stacklevel=1)
    assert capsys.readouterr().err == "note: few texts\n"


def test_guarded_raises_for_other_missing_modules():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), guarded():
        import no_such_module  # noqa: F401


# doctor


@pytest.fixture
def fast_doctor(monkeypatch):
    """Replace the checks that load models."""
    monkeypatch.setattr(doctor, "check_weights", lambda: None)
    monkeypatch.setattr(doctor, "check_score", lambda: None)


def test_doctor_describes_the_installation():
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    facts = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["ntps-utils"] == runner.invoke(app, ["--version"]).output.strip()
    assert facts["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["torch"][0].isdigit()
    assert facts["CPU cores"] == str(os.cpu_count())
    assert facts["memory"].endswith(" GiB")
    assert {"platform", "threads of torch", "GPU"} <= set(facts)
    assert facts["Hub"] == "not tested (HF_HUB_OFFLINE is set)"
    assert facts["shipped weights"] == facts["score of lab/XS on 30 texts of lab/tense"] == "ok"
    assert not any(str(Path.home()) in value for name, value in facts.items() if name != "Hub cache")


def test_doctor_prints_json(fast_doctor):
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["ok"] is True
    assert set(report["checks"].values()) == {"ok"}
    assert isinstance(report["cpu_cores"], int)


def test_doctor_has_status_1_if_a_check_fails(fast_doctor, monkeypatch):
    def fail():
        raise FileNotFoundError(2, "No such file", str(Path.home() / "lab" / "model.safetensors"))

    monkeypatch.setattr(doctor, "check_weights", fail)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "error: FileNotFoundError: [Errno 2] No such file: '~/lab/model.safetensors'" in result.stdout


def test_doctor_reports_weights_that_do_not_match(monkeypatch):
    monkeypatch.setattr("ntps_utils.lab.ladder.hashes_agree", lambda: {"XS/step-400": True, "XS/step-4000": False})
    with pytest.raises(ValueError, match=r"XS/step-4000 do not match"):
        doctor.check_weights()


@pytest.mark.slow
def test_doctor_skips_checks_without_the_model_dependencies():
    code = f"import sys; sys.modules.update(dict.fromkeys(('transformers', 'datasets', 'peft'))); {START}"
    done = run_code(code, "doctor")
    assert done.returncode == 0, done.stderr
    assert "skipped: requires pip install 'ntps-utils[models]'" in done.stdout


def test_doctor_lists_missing_extras(monkeypatch):
    requirements = [
        "numpy>=2.0",
        'no-such-package>=1; extra == "grid"',
        'numpy; extra == "book"',
        'none; extra == "dev"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    assert doctor.missing_extras() == {"grid": ["no-such-package"]}


def test_doctor_describes_gpus(fast_doctor, monkeypatch):
    import torch

    properties = SimpleNamespace(name="Test GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert "Test GPU, 80 GiB, with bfloat16" in runner.invoke(app, ["doctor"]).stdout


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "reachable"),
        (urllib.error.HTTPError("https://huggingface.co", 403, "Forbidden", None, None), "reachable"),
        (urllib.error.URLError("no route"), "not reachable"),
        (TimeoutError(), "not reachable"),
    ],
)
def test_doctor_sends_one_request_to_the_hub(monkeypatch, answer, expected):
    import huggingface_hub

    requests = []

    def urlopen(request, timeout):
        requests.append((request.get_method(), timeout))
        if answer is not None:
            raise answer
        return contextlib.nullcontext()

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert doctor.hub_status() == expected
    assert requests == [("HEAD", 5.0)]


@pytest.mark.parametrize("command", ["score", "prescreen"])
def test_an_output_does_not_replace_the_data_or_another_output(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "own.csv"
    data.write_text("text,label\na b,0\nc d,1\n")
    before = data.read_bytes()
    link = tmp_path / "link.json"
    link.symlink_to(data)
    for output in ("own.csv", "./own.csv", str(link)):
        outcome = runner.invoke(app, [command, "lab/XS", str(data), "--json", output])
        assert outcome.exit_code == 2
        assert "is already read or written by this command; give it another name" in " ".join(outcome.output.split())
    kept = "--checkpoint" if command == "score" else "--resume"
    outcome = runner.invoke(app, [command, "lab/XS", str(data), "--json", "a", kept, str(tmp_path / "a")])
    assert outcome.exit_code == 2
    assert "is already read or written by this command; give it another name" in " ".join(outcome.output.split())
    outcome = runner.invoke(app, [command, "lab/XS", str(data), kept, str(link)])
    assert outcome.exit_code == 2
    assert data.read_bytes() == before
    assert not (tmp_path / "a").exists()


def test_a_checkpoint_makes_its_folder_and_a_device_may_be_given_twice(tmp_path):
    checkpoint = tmp_path / "new" / "state"
    outcome = runner.invoke(
        app, ["score", "lab/XS", "lab/topic", "--max-texts", "20", "--no-controls", "--checkpoint", str(checkpoint)]
    )
    assert outcome.exit_code == 0, outcome.output
    with output_files(Path("/dev/null"), Path("/dev/null")):
        pass

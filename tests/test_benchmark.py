"""The grid under fire: dead workers, dead clients, cells that fail, workers of another version."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
from distributed import LocalCluster
from rich.console import Console
from typer.testing import CliRunner

from ntps_utils.cli import benchmark as grid_commands
from ntps_utils.cli.benchmark import parse_names
from ntps_utils.cli.main import app
from ntps_utils.evidence import benchmark as grid_module
from ntps_utils.evidence.benchmark import RESOURCE, BenchmarkError, failures_of, plan_benchmark, run_benchmark
from ntps_utils.evidence.experiment import GPU, ExperimentConfig
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import compare, stored_cells
from ntps_utils.lab.tasks import sample
from ntps_utils.models.datasets import registered_datasets
from ntps_utils.models.finetuning import FinetuneConfig
from ntps_utils.models.loading import registered_models
from tests.paper_hub import build
from tests.standin_hub import StandInHub

SHORT = FinetuneConfig(learning_rates=(1e-2,), max_steps=10, eval_steps=5)
SETTINGS = ExperimentConfig(lora=SHORT, frozen=replace(SHORT, method="frozen"), n_train=120, n_test=60)
TASKS = [f"lab/{task}" for task in ("tense", "code", "number", "marker")]
NTPS = str(Path(sys.executable).with_name("ntps"))
runner = CliRunner()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Store:
    """The rows as one process measures them."""
    store = Store(tmp_path_factory.mktemp("alone"))
    assert len(run_benchmark(["lab/XS"], TASKS, SETTINGS, store).complete()) == len(TASKS)
    return store


@pytest.fixture
def one_class(tmp_path) -> str:
    """A dataset that cannot be probed: every text has the same label."""
    folder = tmp_path / "one-class"
    folder.mkdir()
    texts = sample("tense", 20, seed=0).texts
    for split in ("train", "test"):
        pd.DataFrame({"text": texts, "label": 0}).to_csv(folder / f"{split}.csv", index=False)
    return str(folder)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address=":0", resources={RESOURCE: 1}
    ) as found:
        yield found


def address(cluster: LocalCluster) -> str:
    return cluster.scheduler_address.replace("tcp://", "dask://")


@pytest.mark.xdist_group("cluster")
@pytest.mark.dask
def test_a_killed_worker_loses_no_cell(cluster, alone, tmp_path):
    """SIGKILL the worker at each first sign of work: its cell is measured again, the row is the same."""
    killed = []

    def watch(states):
        if "running" in states.values() and len(killed) < 2:
            worker = cluster.workers[len(killed)].pid
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    store = Store(tmp_path / "cells")
    found = run_benchmark(["lab/XS"], TASKS, SETTINGS, store, scheduler=address(cluster), gpu=True, watch=watch)
    assert len(killed) == 2
    assert found.failures == ()
    assert list(found.rows) == [("lab/XS", task) for task in TASKS]
    assert len(compare(stored_cells(store), stored_cells(alone))) == 0


@pytest.mark.xdist_group("cluster")
@pytest.mark.dask
def test_cells_that_fail_are_recorded_and_the_others_go_on(cluster, one_class, tmp_path):
    store, states = Store(tmp_path / "cells"), {}
    names = [one_class, "lab/tense"]
    found = run_benchmark(
        ["lab/XS"], names, SETTINGS, store, scheduler=address(cluster), watch=lambda s: states.update(s)
    )
    assert list(found.rows) == [("lab/XS", "lab/tense")]
    (failure,) = found.failures
    assert (failure.model, failure.dataset) == ("lab/XS", one_class)
    assert "at least two classes" in failure.error
    assert "Traceback" in failure.details
    assert states == {("lab/XS", one_class): "failed", ("lab/XS", "lab/tense"): "done"}
    ((_, kept),) = list(failures_of(store))
    assert kept["error"] == failure.error
    with pytest.raises(BenchmarkError, match="1 cells failed, the first lab/XS on"):
        found.complete()
    # The dataset is mended: the next run takes that cell alone, and the record of the failure goes.
    for split in ("train", "test"):
        drawn = sample("tense", 40, seed=1)
        pd.DataFrame({"text": drawn.texts, "label": drawn.labels}).to_csv(Path(one_class) / f"{split}.csv", index=False)
    seen = []
    again = run_benchmark(["lab/XS"], names, SETTINGS, store, watch=lambda s: seen.append(dict(s)))
    assert seen[0] == {("lab/XS", one_class): "waiting", ("lab/XS", "lab/tense"): "done"}
    assert len(again.complete()) == 2
    assert len(failures_of(store)) == 0


def test_whatever_a_cell_raises_the_others_go_on(monkeypatch, tmp_path):
    real = grid_module.run_experiment
    calls = []

    def failing(model, train, *rest):
        calls.append(train.name)
        if train.name == "lab/code":
            raise RuntimeError("CUDA error: an illegal memory access\nsecond line")
        return real(model, train, *rest)

    monkeypatch.setattr(grid_module, "run_experiment", failing)
    settings = replace(SETTINGS, lora=None)
    found = run_benchmark(["lab/XS"], ["lab/code", "lab/tense"], settings, Store(tmp_path))
    assert calls == ["lab/code", "lab/tense"]
    assert [f.error for f in found.failures] == ["RuntimeError: CUDA error: an illegal memory access"]
    assert [dataset for _, dataset in found.rows] == ["lab/tense"]


@pytest.mark.xdist_group("cluster")
@pytest.mark.dask
def test_a_killed_client_loses_no_finished_cell_and_leaves_no_worker(alone, tmp_path):
    code = (
        "import sys; from tests.test_benchmark import *\n"
        "if __name__ == '__main__':\n"
        "    store = Store(sys.argv[1])\n"
        "    run_benchmark(['lab/XS'], TASKS, SETTINGS, store, scheduler='local', n_workers=2).complete()\n"
    )
    script = tmp_path / "client.py"
    script.write_text(code)
    folder = tmp_path / "cells"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, str(script), str(folder)]
    client = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not list(folder.glob("[0-9a-f]*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(client.pid).children(recursive=True)
    client.send_signal(signal.SIGKILL)
    client.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    done = {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9a-f]*.json")}
    assert done
    subprocess.run(command, env=environment, check=True, timeout=300)
    after = {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9a-f]*.json")}
    assert len(after) == len(TASKS)
    assert {name: after[name] for name in done} == done
    assert len(compare(stored_cells(Store(folder)), stored_cells(alone))) == 0


@pytest.mark.xdist_group("cluster")
@pytest.mark.dask
def test_workers_of_another_version_are_refused(cluster, monkeypatch, tmp_path):
    other = grid_module.made_by() | {"code": "another"}
    monkeypatch.setattr(grid_module, "made_by", lambda: other)
    found = run_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path), scheduler=address(cluster))
    assert "this worker has another version" in found.failures[0].error


def test_weights_and_texts_that_are_not_the_plans_are_refused(monkeypatch, tmp_path):
    plan = plan_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path))
    cell = replace(plan.cells[0], key=plan.cells[0].key | {"weights": "0" * 16})
    outcome = grid_module._measure(cell, SETTINGS, str(tmp_path), False)
    assert "are not those of the plan" in outcome.error


def test_a_plan_names_everything_that_is_not_there(tmp_path):
    with pytest.raises(BenchmarkError) as caught:
        plan_benchmark(["lab/XS", "lab/Q", "/no/model"], ["lab/tense", "lab/tens"], SETTINGS, Store(tmp_path))
    assert len(str(caught.value).splitlines()) == 3
    assert all(name in str(caught.value) for name in ("'Q'", "/no/model", "tens"))


@pytest.mark.dask
def test_mistakes_about_clusters_are_named(tmp_path):
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=None, dashboard_address=":0") as plain:
        cases = [
            ({"scheduler": "host:1"}, "give local, or an address"),
            ({"scheduler": "dask://127.0.0.1:9"}, "cannot be reached"),
            ({"scheduler": address(plain), "gpu": True}, f"offers the resource {RESOURCE}"),
        ]
        for options, message in cases:
            with pytest.raises(BenchmarkError, match=message):
                run_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path), **options)
    assert list(tmp_path.rglob("*.json")) == []


def test_the_papers_names_stand_for_themselves_or_for_a_place():
    paper = ("a", "b", "c")
    assert parse_names("paper", "--models", paper) == {"a": "a", "b": "b", "c": "c"}
    assert parse_names("paper,b=data/b,d", "--models", paper) == {"a": "a", "b": "data/b", "c": "c", "d": "d"}
    with pytest.raises(ValueError, match="'b' twice"):
        parse_names("paper,b=x,b=y", "--models", paper)


@pytest.mark.hub
def test_the_papers_eight_by_twelve_through_the_hub(tmp_path):
    """Every model and dataset under its own id, in the columns and splits of the real ones."""
    names = build(tmp_path)
    with StandInHub(tmp_path / "hub") as hub:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_ENDPOINT": hub.url,
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        command = [
            NTPS, "grid", "--models", "paper", "--datasets", names, "--profile", "gpu", "--no-lora",
            "--store", str(tmp_path / "cells"), "--scheduler", "local", "--jobs", "2",
        ]  # fmt: skip

        def run(*more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)

        refused = run()
        assert refused.returncode == 2
        assert refused.stderr.count("--trust-remote-code") == 4  # the OpenELM models bring code
        done = run("--trust-remote-code", "--record", str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr[-3000:]
    cells = pd.read_csv(tmp_path / "out_cells.csv")
    assert set(cells["model"]) == set(registered_models())
    assert set(cells["dataset"]) == set(registered_datasets())
    assert len(cells) == 96
    assert not cells.duplicated(["model", "dataset"]).any()
    assert "96/96" in done.stderr
    assert "Traceback" not in done.stderr
    n_parameters = cells.groupby("model")["n_parameters"].first()
    assert n_parameters["Llama-3-8B"] > n_parameters["OpenELM-270M"]
    facts = json.loads((tmp_path / "out_cells.json").read_text())
    assert facts["settings"]["dtype"] == GPU.dtype == "bfloat16"
    assert str(tmp_path) not in json.dumps(facts)


@pytest.mark.slow
def test_the_command_shows_failures_and_leaves_with_status_1(one_class, tmp_path):
    arguments = [
        "grid", "--models", "lab/XS", "--datasets", f"bad={one_class},lab/tense", "--no-lora", "--n-train", "60",
        "--n-test", "30", "--store", str(tmp_path / "s"),
    ]  # fmt: skip
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "failed: lab/XS on bad: ValueError: " in said
    assert "One cell failed; run the same command again" in said
    assert "2/2 lab/XS on lab/tense: done" in said


@pytest.mark.slow
def test_a_dry_run_says_what_is_left_and_runs_nothing(tmp_path):
    arguments = ["grid", "--models", "lab/XS,lab/S", "--datasets", "lab/tense,lab/code", "--store", str(tmp_path / "s")]
    run_benchmark(["lab/XS"], ["lab/tense"], replace(ExperimentConfig(), n_train=60, n_test=30), Store(tmp_path / "s"))
    result = runner.invoke(app, [*arguments, "--n-train", "60", "--n-test", "30", "--dry-run", "--flops", "1e10"])
    assert result.exit_code == 0, result.output
    assert "51,424 1 of 2" in " ".join(result.output.split())
    assert "3 of 4" in result.output
    assert "Nothing was run" in result.output
    assert len(Store(tmp_path / "s")) == 1
    wrong = runner.invoke(app, [*arguments, "--dry-run", "--flops", "-1"])
    assert wrong.exit_code == 2
    assert "such as 2e14, not -1" in " ".join(wrong.output.split())
    assert runner.invoke(app, [*arguments, "--profile", "tpu"]).exit_code == 2
    assert runner.invoke(app, [*arguments, "--jobs", "0"]).exit_code == 2


def test_a_terminal_shows_the_whole_grid(monkeypatch):
    console = Console(force_terminal=True, width=100, record=True, stderr=True, file=io.StringIO())
    monkeypatch.setattr(grid_commands, "err", console)
    with grid_commands._progress({"one": "lab/XS", "two": "lab/S"}, {"tense": "lab/tense"}) as watch:
        watch({("lab/XS", "lab/tense"): "failed", ("lab/S", "lab/tense"): "running"})
    text = console.export_text()
    assert "1 running, 1 failed" in text
    assert all(part in text for part in ("one", "two", "tense", "×", ">"))

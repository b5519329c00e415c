"""Benchmarks: stored and continued cells, killed processes, failing cells, and the command."""

from __future__ import annotations

import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import psutil
import pytest
import torch
from distributed import LocalCluster
from rich.console import Console
from threadpoolctl import threadpool_info
from typer.testing import CliRunner

from ntps_utils.cli import benchmark as commands
from ntps_utils.cli.benchmark import parse_names
from ntps_utils.cli.main import app
from ntps_utils.evidence import benchmark, experiment
from ntps_utils.evidence.benchmark import RESOURCE, BenchmarkError, failures_of, plan_benchmark, run_benchmark
from ntps_utils.evidence.classifiers import ClassifierAccuracy
from ntps_utils.evidence.experiment import GPU, ExperimentConfig, ExperimentResult, limited_threads, n_threads
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import compare, stored_cells
from ntps_utils.lab.tasks import sample
from ntps_utils.models.datasets import registered_datasets
from ntps_utils.models.finetuning import FinetuneConfig
from ntps_utils.models.loading import paper_models
from tests.paper_hub import build
from tests.standin_hub import StandInHub

SHORT = FinetuneConfig(learning_rates=(1e-2,), max_steps=5, eval_steps=5)
SETTINGS = ExperimentConfig(lora=SHORT, frozen=replace(SHORT, method="frozen"), n_train=80, n_test=40)
SCORES_ONLY = replace(SETTINGS, lora=None)
TASKS = [f"lab/{task}" for task in ("tense", "code", "number", "marker")]
ROOT = Path(__file__).resolve().parents[1]
runner = CliRunner()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The cells as one process runs them."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert len(run_benchmark(["lab/XS"], TASKS, SETTINGS, store).complete()) == len(TASKS)
    return store


@pytest.fixture
def one_class(tmp_path) -> str:
    """A dataset that cannot be probed, because all texts have the same label."""
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
    ) as cluster:
        yield cluster


def address(cluster: LocalCluster) -> str:
    return cluster.scheduler_address.replace("tcp://", "dask://")


def modification_times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("[0-9a-f]*.json")}


def start_python(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL)


def wait_for_cells(folder: Path, n: int, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while len(modification_times(folder)) < n and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(modification_times(folder)) >= n


# -- in this process -----------------------------------------------------------------


@pytest.mark.slow
def test_finished_cells_are_not_run_again(undisturbed, monkeypatch):
    monkeypatch.setattr(benchmark, "run_with_warnings", None)
    history = []
    again = run_benchmark(["lab/XS"], TASKS, SETTINGS, undisturbed, watch=lambda states: history.append(dict(states)))
    assert history == [{("lab/XS", task): "done" for task in TASKS}]
    assert [result.dataset for result in again.complete()] == TASKS


@pytest.mark.slow
def test_cells_depend_on_settings_texts_and_weights(undisturbed):
    changes = [
        (["lab/XS@400"], TASKS, SETTINGS),
        (["lab/XS"], [f"{task}@1" for task in TASKS], SETTINGS),
        (["lab/XS"], TASKS, replace(SETTINGS, n_train=79)),
        (["lab/XS"], TASKS, replace(SETTINGS, seed=1)),
    ]
    for models, datasets, settings in changes:
        assert len(plan_benchmark(models, datasets, settings, undisturbed).missing) == len(TASKS)
    assert plan_benchmark(["lab/XS"], TASKS, SETTINGS, undisturbed).missing == ()


@pytest.mark.slow
def test_each_model_and_each_dataset_is_loaded_once(monkeypatch, tmp_path):
    loaded: Counter[str] = Counter()

    def count(module, name):
        original = getattr(module, name)

        def counting(first, *rest, **options):
            loaded[" ".join([first, *rest])] += 1
            return original(first, *rest, **options)

        monkeypatch.setattr(module, name, counting)

    count(benchmark, "load_model")
    count(experiment, "load_texts")
    models, datasets = ["lab/XS", "lab/XS@400"], ["lab/tense", "lab/code"]
    assert len(run_benchmark(models, datasets, SCORES_ONLY, Store(tmp_path)).complete()) == 4
    assert loaded == dict.fromkeys((*models, *(f"{d} {split}" for d in datasets for split in ("train", "test"))), 1)


@pytest.mark.slow
def test_the_last_model_is_loaded_again_if_anything_about_it_changes(tmp_path):
    cell = plan_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path)).cells[0]
    other = plan_benchmark(["lab/XS@400"], ["lab/tense"], SETTINGS, Store(tmp_path)).cells[0]
    work, last_model = benchmark._Work(SETTINGS, str(tmp_path), False), benchmark._LastModel()
    first = last_model.load(cell, work, "cpu")
    assert last_model.load(cell, work, "cpu") is first
    assert last_model.load(other, work, "cpu").fingerprint != first.fingerprint
    double = last_model.load(cell, replace(work, settings=replace(SETTINGS, dtype="float64")), "cpu")
    assert (double.fingerprint, double.model.dtype) != (first.fingerprint, first.model.dtype)
    changed = replace(cell, key=cell.key | {"weights": "0" * 16})
    with pytest.raises(BenchmarkError, match=r"weights .* for lab/XS are not those of the plan"):
        last_model.load(changed, work, "cpu")


@pytest.mark.slow
def test_any_error_of_a_cell_leaves_the_others_running(monkeypatch, tmp_path):
    original = benchmark.run_with_warnings
    calls = []

    def failing(model, train, *rest):
        calls.append(train.name)
        if train.name == "lab/code":
            raise RuntimeError("CUDA error: an illegal memory access\nsecond line")
        return original(model, train, *rest)

    monkeypatch.setattr(benchmark, "run_with_warnings", failing)
    outcome = run_benchmark(["lab/XS"], ["lab/code", "lab/tense"], SCORES_ONLY, Store(tmp_path))
    assert calls == ["lab/code", "lab/tense"]
    assert [f.error for f in outcome.failures] == ["RuntimeError: CUDA error: an illegal memory access"]
    assert [dataset for _, dataset in outcome.rows] == ["lab/tense"]


@pytest.mark.slow
def test_texts_that_differ_from_the_plan_are_refused(tmp_path):
    cell = plan_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path)).cells[0]
    changed = replace(cell, key=cell.key | {"texts": ["0" * 16, "1" * 16]})
    work = benchmark._Work(SETTINGS, str(tmp_path), False)
    outcome = benchmark._run_cell(changed, work, benchmark._LastModel())
    assert "The texts that this worker finds for lab/tense are not those of the plan" in outcome.error


def test_a_plan_names_everything_that_cannot_be_found(tmp_path):
    with pytest.raises(BenchmarkError) as error:
        plan_benchmark(["lab/XS", "lab/Q", "/no/model"], ["lab/tense", "lab/tens"], SETTINGS, Store(tmp_path))
    assert len(str(error.value).splitlines()) == 3
    assert all(name in str(error.value) for name in ("'Q'", "/no/model", "tens"))


@pytest.mark.parametrize(
    ("options", "message"), [({"n_workers": 0}, "n_workers must be"), ({"retries": -1}, "retries")]
)
def test_invalid_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path), **options)


@pytest.mark.slow
def test_a_killed_benchmark_continues(tmp_path):
    """After SIGKILL, finished cells remain, and the next run computes only the others."""
    tasks = [*TASKS, "lab/order", "lab/count"]
    settings = ExperimentConfig(lora=None, n_train=80, n_test=40)
    code = (
        "import sys\n"
        "from ntps_utils.evidence.benchmark import ExperimentConfig, Store, run_benchmark\n"
        "settings = ExperimentConfig(lora=None, n_train=80, n_test=40)\n"
        f"run_benchmark(['lab/XS'], {tasks!r}, settings, Store(sys.argv[1]))"
    )
    folder = tmp_path / "cells"
    process = start_python("-c", code, str(folder))
    wait_for_cells(folder, 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = modification_times(folder)
    assert len(run_benchmark(["lab/XS"], tasks, settings, Store(folder)).complete()) == 6
    after = modification_times(folder)
    assert len(after) == len(stored_cells(Store(folder))) == 6
    assert {name: after[name] for name in before} == before


# -- on a cluster --------------------------------------------------------------------


@pytest.mark.dask
def test_cells_of_killed_workers_run_again(cluster, undisturbed, tmp_path):
    """The first two workers that start a cell are killed; the results equal those of one process."""
    killed = []

    def watch(states):
        if "running" in states.values() and len(killed) < 2:
            worker = cluster.workers[len(killed)].pid
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    store = Store(tmp_path / "cells")
    outcome = run_benchmark(["lab/XS"], TASKS, SETTINGS, store, scheduler=address(cluster), gpu=True, watch=watch)
    assert len(killed) == 2
    assert outcome.failures == ()
    assert list(outcome.rows) == [("lab/XS", task) for task in TASKS]
    assert len(compare(stored_cells(store), stored_cells(undisturbed))) == 0


@pytest.mark.dask
def test_failed_cells_are_recorded_and_repeated(cluster, one_class, tmp_path):
    store, states = Store(tmp_path / "cells"), {}
    names = [one_class, "lab/tense"]
    outcome = run_benchmark(["lab/XS"], names, SETTINGS, store, scheduler=address(cluster), watch=states.update)
    assert list(outcome.rows) == [("lab/XS", "lab/tense")]
    (failure,) = outcome.failures
    assert (failure.model, failure.dataset) == ("lab/XS", one_class)
    assert "at least two classes" in failure.error
    assert "Traceback" in failure.details
    assert states == {("lab/XS", one_class): "failed", ("lab/XS", "lab/tense"): "done"}
    ((_, record),) = list(failures_of(store))
    assert record["error"] == failure.error
    with pytest.raises(BenchmarkError, match=r"One cell failed\. The first was lab/XS on"):
        outcome.complete()
    # With a corrected dataset, the next run repeats this cell only and deletes the record of the failure.
    for split in ("train", "test"):
        drawn = sample("tense", 40, seed=1)
        pd.DataFrame({"text": drawn.texts, "label": drawn.labels}).to_csv(Path(one_class) / f"{split}.csv", index=False)
    history = []
    again = run_benchmark(["lab/XS"], names, SETTINGS, store, watch=lambda states: history.append(dict(states)))
    assert history[0] == {("lab/XS", one_class): "waiting", ("lab/XS", "lab/tense"): "done"}
    assert len(again.complete()) == 2
    assert len(failures_of(store)) == 0


@pytest.mark.dask
def test_workers_of_another_version_are_refused(cluster, monkeypatch, tmp_path):
    other = benchmark.made_by() | {"code": "another"}
    monkeypatch.setattr(benchmark, "made_by", lambda: other)
    outcome = run_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path), scheduler=address(cluster))
    assert "This worker has another version of this library" in outcome.failures[0].error


@pytest.mark.dask
def test_a_killed_client_leaves_finished_cells_and_no_worker(undisturbed, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        "if __name__ == '__main__':\n"
        "    import sys\n"
        "    from tests.test_benchmark import SETTINGS, TASKS, Store, run_benchmark\n"
        "    run_benchmark(['lab/XS'], TASKS, SETTINGS, Store(sys.argv[1]), scheduler='local', n_workers=2)\n"
    )
    folder = tmp_path / "cells"
    client = start_python(str(script), str(folder))
    wait_for_cells(folder, 1)
    workers = psutil.Process(client.pid).children(recursive=True)
    client.send_signal(signal.SIGKILL)
    client.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    before = modification_times(folder)
    assert len(run_benchmark(["lab/XS"], TASKS, SETTINGS, Store(folder)).complete()) == len(TASKS)
    after = modification_times(folder)
    assert len(after) == len(TASKS)
    assert {name: after[name] for name in before} == before
    assert len(compare(stored_cells(Store(folder)), stored_cells(undisturbed))) == 0


@pytest.mark.dask
def test_invalid_clusters_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "CONNECTION_TIMEOUT", 1)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as plain:
        cases = [
            ({"scheduler": "host:1"}, "scheduler must be 'local' or an address such as"),
            ({"scheduler": "dask://127.0.0.1:9"}, "cannot be reached"),
            ({"scheduler": plain.scheduler_address, "gpu": True}, f"has the resource {RESOURCE}"),
        ]
        for options, message in cases:
            with pytest.raises(BenchmarkError, match=message):
                run_benchmark(["lab/XS"], ["lab/tense"], SETTINGS, Store(tmp_path), **options)
    assert list(tmp_path.rglob("*.json")) == []


# -- the command ---------------------------------------------------------------------


def test_names_can_have_places():
    assert parse_names("lab/S, mine=runs/m", "--models") == {"lab/S": "lab/S", "mine": "runs/m"}
    assert Path(parse_names("a=/x/y", "--models")["a"]) == Path("/x/y")


def test_paper_stands_for_the_names_of_the_paper():
    paper = ("a", "b", "c")
    assert parse_names("paper", "--models", paper) == {"a": "a", "b": "b", "c": "c"}
    assert parse_names("paper,b=data/b,d", "--models", paper) == {"a": "a", "b": "data/b", "c": "c", "d": "d"}
    with pytest.raises(ValueError, match="'b' twice"):
        parse_names("paper,b=x,b=y", "--models", paper)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "--models", "", "--datasets", "lab/topic"], "--models needs at least one name"),
        (["benchmark", "--models", "a=x,a=y", "--datasets", "lab/topic"], "'a' twice"),
        (["benchmark", "--models", "lab/Q", "--datasets", "lab/topic"], "Q"),
        (["benchmark", "--models", "lab/XS", "--datasets", "lab/topics"], "topic"),
        (
            ["benchmark", "--models", "lab/XS", "--datasets", "lab/topic", "--profile", "tpu"],
            "must be 'cpu', 'gpu', 'lab' or 'declared'",
        ),
        (["benchmark", "--models", "lab/XS", "--datasets", "lab/topic", "--jobs", "0"], "--jobs must be an integer"),
        (["results", "list", "/nowhere"], "no store"),
        (["results", "export", "x.csv"], ".parquet"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_the_command_runs_records_and_continues(tiny_model, tiny_data, tmp_path):
    arguments = [
        "benchmark", "--models", f"mine={tiny_model}", "--datasets", f"a={tiny_data}", "--store", str(tmp_path / "s"),
        "--no-lora", "--n-train", "60", "--seed", "3", "--record", str(tmp_path / "out"),
    ]  # fmt: skip
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    cells = pd.read_csv(tmp_path / "out_cells.csv")
    assert cells.loc[0, ["model", "dataset", "n_train"]].tolist() == ["mine", "a", 60]
    facts = (tmp_path / "out_cells.json").read_text()
    assert str(tmp_path) not in facts
    assert json.loads(facts)["command"].endswith(" --no-lora --n-train 60 --seed 3")
    before = modification_times(tmp_path / "s")
    assert runner.invoke(app, arguments).exit_code == 0
    assert modification_times(tmp_path / "s") == before
    listed = runner.invoke(app, ["results", "list", str(tmp_path / "s")])
    assert "1 cells" in listed.output
    same = runner.invoke(app, ["results", "diff", str(tmp_path / "s"), str(tmp_path / "s")])
    assert (same.exit_code, "0 differences" in same.output) == (0, True)
    cells.assign(probe_last=0.0).to_csv(tmp_path / "changed.csv", index=False)
    differs = runner.invoke(app, ["results", "diff", str(tmp_path / "out_cells.csv"), str(tmp_path / "changed.csv")])
    assert differs.exit_code == 1
    assert "probe_last" in differs.output
    other = cells.assign(dataset="data/a", probe_last=cells["probe_last"] * (1 + 2e-6))  # a path, and a seventh digit
    other.to_csv(tmp_path / "other.csv", index=False)
    near = runner.invoke(app, ["results", "diff", str(tmp_path / "out_cells.csv"), str(tmp_path / "other.csv")])
    assert (near.exit_code, "0 differences" in near.output) == (0, True)
    scores, none = str(tmp_path / "out_scores.csv"), str(tmp_path / "none.csv")
    for file, message in ((scores, "Table two has scores"), (none, "There is no table")):
        wrong = runner.invoke(app, ["results", "diff", str(tmp_path / "out_cells.csv"), file])
        assert (wrong.exit_code, message in wrong.output) == (2, True)
    parquet = runner.invoke(app, ["results", "export", str(tmp_path / "x.parquet"), "--store", str(tmp_path / "s")])
    assert parquet.exit_code == 0
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 1


@pytest.mark.slow
def test_the_command_prints_failures_and_exits_with_status_1(one_class, tmp_path):
    arguments = [
        "benchmark", "--models", "lab/XS", "--datasets", f"bad={one_class},lab/tense", "--no-lora", "--n-train", "60",
        "--n-test", "30", "--store", str(tmp_path / "s"),
    ]  # fmt: skip
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    output = " ".join(result.output.split())
    assert "failed: lab/XS on bad: ValueError: " in output
    assert "One cell failed. The tracebacks are in" in output
    assert "When the cause is mended, run the same command again" in output
    assert "2/2 lab/XS on lab/tense: done" in output


@pytest.mark.slow
def test_a_dry_run_prints_the_missing_cells_and_runs_nothing(tmp_path):
    store = Store(tmp_path / "s")
    arguments = [
        "benchmark", "--models", "lab/XS,lab/S", "--datasets", "lab/tense,lab/code", "--store", str(store.folder),
        "--n-train", "60", "--n-test", "30", "--no-lora", "--dry-run",
    ]  # fmt: skip
    run_benchmark(["lab/XS"], ["lab/tense"], ExperimentConfig(lora=None, n_train=60, n_test=30), store)
    result = runner.invoke(app, [*arguments, "--flops", "1e10"])
    assert result.exit_code == 0, result.output
    assert "51,424 1 of 2" in " ".join(result.output.split())
    assert "3 of 4" in result.output
    assert "Nothing was run" in " ".join(result.output.split())
    assert len(store) == 1
    invalid = runner.invoke(app, [*arguments, "--flops", "-1"])
    assert invalid.exit_code == 2
    assert "must be a number greater than 0, got -1" in " ".join(invalid.output.split())


def test_a_terminal_shows_a_table_of_states(monkeypatch):
    console = Console(force_terminal=True, width=100, record=True, stderr=True, file=io.StringIO())
    monkeypatch.setattr(commands, "err", console)
    with commands._progress({"one": "lab/XS", "two": "lab/S"}, {"tense": "lab/tense"}) as watch:
        watch({("lab/XS", "lab/tense"): "failed", ("lab/S", "lab/tense"): "running"})
    text = console.export_text()
    assert "1 running, 1 failed" in text
    assert all(part in text for part in ("one", "two", "tense", "×", ">"))


# -- the Hub -------------------------------------------------------------------------


QUICK_COMMAND = """
from ntps_utils.cli.main import app
from ntps_utils.models.probes import logistic_probe
from ntps_utils.models.transferability import linearize

logistic_probe.__kwdefaults__ |= {"strengths": (0.1,), "n_folds": 2}
linearize.__kwdefaults__ |= {"penalties": (0.1,), "n_directions": 1}
app()
"""
"""The command ``ntps`` without the search for regularization, which takes most of the time of small cells."""


@pytest.mark.hub
def test_all_models_and_datasets_of_the_paper_load_from_the_hub(tmp_path):
    """Every model on one dataset, and one model on every dataset, in the columns and splits of the real ones."""
    stand_ins = dict.fromkeys(paper_models(), "XS") | {"Llama-3-8B": "S"}
    names = build(tmp_path, n_train=24, n_test=12, models=stand_ins)
    with StandInHub(tmp_path / "hub") as hub:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_ENDPOINT": hub.url,
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }

        def run(models: str, datasets: str, *more: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable, "-c", QUICK_COMMAND, "benchmark", "--models", models, "--datasets", datasets,
                "--profile", "gpu", "--no-lora", "--max-length", "16", "--store", str(tmp_path / "cells"), *more,
            ]  # fmt: skip
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        refused = run("paper", names)
        assert refused.returncode == 2
        assert refused.stderr.count("--trust-remote-code") == 4  # the OpenELM models contain Python code
        for n_cells, models, datasets, file in ((8, "paper", "sst2", "out"), (12, "Qwen2-0.5B", names, "others")):
            done = run(models, datasets, "--trust-remote-code", "--record", str(tmp_path / file))
            assert done.returncode == 0, done.stderr[-3000:]
            assert f"{n_cells}/{n_cells}" in done.stderr
            assert "Traceback" not in done.stderr
    cells, others = pd.read_csv(tmp_path / "out_cells.csv"), pd.read_csv(tmp_path / "others_cells.csv")
    assert set(cells["model"]) == set(paper_models())
    assert set(others["dataset"]) == set(registered_datasets())
    assert (len(cells), len(others)) == (8, 12)
    n_parameters = cells.groupby("model")["n_parameters"].first()
    assert n_parameters["Llama-3-8B"] > n_parameters["OpenELM-270M"]
    facts = json.loads((tmp_path / "out_cells.json").read_text())
    assert facts["settings"]["dtype"] == GPU.dtype == "bfloat16"
    assert str(tmp_path) not in json.dumps(facts)


def test_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr("ntps_utils.evidence.experiment.n_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert n_threads() == n_threads(1_000_000) == 1
    assert [n_threads(10**9, processes) for processes in (1, 2, 3, 9)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert n_threads(10**9, 2) == 3


@pytest.mark.dask
def test_local_workers_get_the_threads_of_the_client(monkeypatch):
    """By default, Dask sets one thread for each library, so that a large model would use one core."""
    names = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS")]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    def in_a_worker() -> tuple[dict[str, str | None], set[int]]:
        with limited_threads(10**9, n_processes=2):
            threads = {torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())}
        return {name: os.environ.get(name) for name in names}, threads

    with benchmark._client("local", 1, gpu=False) as client:
        environment, threads = client.submit(in_a_worker).result()
    assert environment == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": None, "OPENBLAS_NUM_THREADS": None}
    assert threads == {3}


@pytest.mark.dask
def test_the_slurm_script_prints_a_job_of_one_gpu():
    """Dask's nanny reads the numbers of threads from the environment of the job."""
    show = [sys.executable, str(ROOT / "book" / "slurm_grid.py"), "--partition", "fast", "--cores", "4", "--show"]
    script = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    for line in ("#SBATCH -p fast", "#SBATCH --cpus-per-task=4", "#SBATCH --gres=gpu:1"):
        assert line in script.splitlines()
    for library in ("OMP", "OPENBLAS", "MKL"):
        assert f"export {library}_NUM_THREADS=4" in script.splitlines()
    (worker,) = (line for line in script.splitlines() if "dask_worker" in line)
    assert "--nthreads 1 " in worker
    assert f"--resources {RESOURCE}=1 --memory-limit 0" in worker


def test_the_slurm_script_hands_its_options_to_the_benchmark(monkeypatch):
    """A stand-in for the cluster: no scheduler is started."""
    script = runpy.run_path(str(ROOT / "book" / "slurm_grid.py"))
    cluster = MagicMock()
    cluster.__enter__.return_value.scheduler_address = "tcp://1.2.3.4:8786"
    monkeypatch.setitem(script["main"].__globals__, "cluster", lambda *_: cluster)
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command: commands.append(command) or MagicMock(returncode=0))
    arguments = ["--jobs", "8", "--partition", "gpu", "--", "--models", "paper", "--datasets", "paper"]
    monkeypatch.setattr(sys, "argv", ["slurm_grid.py", *arguments])
    assert script["main"]() == 0
    cluster.__enter__.return_value.scale.assert_called_once_with(jobs=8)
    ((_, name, *options),) = commands
    assert name == "benchmark"
    assert options == ["--profile", "gpu", "--scheduler", "dask://1.2.3.4:8786", *arguments[5:]]


def test_a_missing_dask_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(benchmark.BenchmarkError, match=r"pip install 'ntps-utils\[grid\]'"):
        run_benchmark(["lab/XS"], ["lab/topic"], SCORES_ONLY, Store(tmp_path), n_workers=2)


@pytest.mark.dask
def test_more_processes_than_cores_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "n_cores", lambda: 1)
    monkeypatch.setattr(benchmark, "_run_on_dask", lambda *_: iter(()))  # no cluster is needed to see the warning
    with pytest.warns(benchmark.BenchmarkWarning, match="2 processes with 1 threads each are more than the 1 cores"):
        run_benchmark(["lab/XS"], ["lab/topic"], SCORES_ONLY, Store(tmp_path), n_workers=2)


def test_the_table_compares_lora_with_the_best_classifier_if_it_was_measured(undisturbed, monkeypatch):
    """A reader of the front page looks for the advantage."""
    result = ExperimentResult.from_dict(next(iter(undisturbed))[1])
    accuracy = {"layer 1": 0.5, "layer 2": 0.6, "layers": 0.7, "words": 0.4}
    classifiers = {name: ClassifierAccuracy(value, value + 0.05) for name, value in accuracy.items()}
    text = io.StringIO()
    monkeypatch.setattr(commands, "out", Console(file=text, width=200))
    commands._print_results([replace(result, classifiers=classifiers)], True)
    heading, _, row = text.getvalue().splitlines()[:3]
    assert "alternative" in heading
    assert "probe_middle" not in heading
    assert f"several layers   {result.finetuning.frozen_accuracy:.3f}" in row
    assert f"{result.finetuning.lora_accuracy - 0.75:.3f}" in row
    assert "advantage is lora minus the alternative" in " ".join(text.getvalue().split())

"""Cells, their tables, and the commands that make and compare them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ntps_utils.cli.benchmark import parse_names
from ntps_utils.cli.main import app
from ntps_utils.evidence import benchmark as grid_module
from ntps_utils.evidence.benchmark import run_benchmark
from ntps_utils.evidence.experiment import ExperimentConfig, cell_frame, run_experiment, score_frame
from ntps_utils.evidence.store import Store
from ntps_utils.evidence.tables import (
    RECORDED,
    cell_table,
    compare,
    export,
    load_recorded,
    record,
    score_table,
    stored_cells,
)
from ntps_utils.models.extraction import extract
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import load_model
from ntps_utils.models.probes import chance_adjusted, logistic_probe
from ntps_utils.models.scoring import score_model

SHORT = FinetuneConfig(learning_rates=(1e-2,), max_steps=10, eval_steps=5)
SETTINGS = ExperimentConfig(lora=SHORT, frozen=replace(SHORT, method="frozen"), n_train=150, n_test=80)
runner = CliRunner()


@pytest.fixture(scope="module")
def row() -> dict:
    return run_experiment(load_model("lab/XS", dtype="float32"), *SETTINGS.texts("lab/tense"), SETTINGS)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    found = Store(tmp_path_factory.mktemp("store"))
    run_benchmark(["lab/XS"], ["lab/tense", "lab/code"], SETTINGS, found)
    return found


@pytest.mark.slow
def test_a_cell_is_what_its_parts_are(row):
    model = load_model("lab/XS", dtype="float32")
    train, test = SETTINGS.texts("lab/tense")
    assert (len(train), len(test)) == (row["n_train"], row["n_test"]) == (150, 80)
    # Scores: the same as the ordinary way, with the half rule.
    report = score_model(model, train, layers="2,3", k_v=(16,)).to_frame().set_index("layer")
    for score in row["scores"]:
        if score["rule"] == "half" and not score["centered"]:
            for name in ("ntps", "ntps_metric", "ntps_task", "trace_b", "excess_loss"):
                assert score[name] == pytest.approx(report.loc[score["layer"], name], rel=1e-6)
    # The second width holds 95% of the spectrum, and no narrower one does.
    assert {s["rule"] for s in row["scores"]} == {"half", "spectrum"}
    last = model.n_layers - 1
    a, b = (extract(model, part, layers=(last,), features=(last,)) for part in (train, test))
    probe = logistic_probe(a.features[last], train.labels, b.features[last], test.labels)
    assert row["probe_last"] == probe.test_accuracy
    assert row["probe_adjusted_last"] == chance_adjusted(probe.test_accuracy, test.labels)
    assert row["transfer_headroom"] == pytest.approx(1 - probe.cv_accuracy)
    for method in ("lora", "frozen"):
        config = replace(SHORT, method=method)
        assert row[method] == finetune(model, train, test, config).accuracy
    assert row["gain"] == row["lora"] - row["frozen"]
    assert row["weights"] == model.fingerprint
    assert json.loads(json.dumps(row)) == row


@pytest.mark.slow
def test_finished_cells_are_found_again_and_settings_tell_them_apart(store, monkeypatch):
    calls = []
    monkeypatch.setattr(grid_module, "run_experiment", lambda *a: calls.append(a) or {"scores": []})
    seen = []
    names = ["lab/tense", "lab/code"]
    rows = run_benchmark(["lab/XS"], names, SETTINGS, store, watch=lambda states: seen.append(dict(states))).complete()
    assert calls == []
    assert seen == [{("lab/XS", name): "done" for name in names}]
    assert [r["dataset"] for r in rows] == names
    run_benchmark(["lab/XS"], ["lab/tense"], replace(SETTINGS, n_train=140), Store(store.folder / "other"))
    assert len(calls) == 1


@pytest.mark.slow
def test_a_killed_table_goes_on(tmp_path):
    """SIGKILL while cells are made: finished ones stay, none is made twice or half."""
    tasks = [f"lab/{t}" for t in ("tense", "code", "number", "marker", "order", "count")]
    code = (
        "import sys; from ntps_utils.evidence.experiment import ExperimentConfig;"
        "from ntps_utils.evidence.benchmark import run_benchmark;"
        "from ntps_utils.evidence.store import Store;"
        "settings = ExperimentConfig(lora=None, n_train=200, n_test=100);"
        f"run_benchmark(['lab/XS'], {tasks!r}, settings, Store(sys.argv[1]))"
    )
    folder = tmp_path / "cells"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(folder.glob("[0-9a-f]*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9a-f]*.json")}
    assert len(done) >= 2
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=300)
    after = {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9a-f]*.json")}
    assert len(after) == 6
    assert all(after[name] == time_ for name, time_ in done.items())
    assert len(stored_cells(Store(folder))) == 6


@pytest.mark.slow
def test_tables_hold_the_primary_setting_and_every_setting(row):
    table, scores = cell_table([row]), score_table([row])
    assert len(scores) == len(row["scores"]) + len(row["scores_after"]) == 16
    last = max(s["layer"] for s in row["scores"])
    at = [s for s in row["scores"] if s["layer"] == last and s["rule"] == "half"]
    (raw,), (centered,) = ([s for s in at if s["centered"] is c] for c in (False, True))
    assert table["ntps"].item() == raw["ntps"]
    assert table["explained"].item() == centered["trace_b"] / centered["trace_y"]
    after = score_frame([row], "after").query("place == 'last' and rule == 'half' and not centered")
    assert table["ntps_metric_after"].item() == after["ntps_metric"].item()
    assert set(cell_frame([row]).columns) == {c for c in row if not c.startswith("scores")}


@pytest.mark.slow
def test_recorded_tables_come_back(row, tmp_path):
    record([row], tmp_path / "mine", SETTINGS, "ntps grid")
    back = pd.read_csv(tmp_path / "mine_cells.csv")
    assert back["gain"].item() == pytest.approx(row["gain"], abs=1e-6)
    assert len(pd.read_csv(tmp_path / "mine_scores.csv")) == 16
    facts = json.loads((tmp_path / "mine_cells.json").read_text())
    assert facts["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    assert facts["versions"]["torch"]


@pytest.mark.parametrize("name", RECORDED)
def test_shipped_tables_are_whole(name):
    cells, scores = load_recorded(name), load_recorded(name, "scores")
    assert not cells.duplicated(["model", "dataset"]).any()
    assert len(cells) == cells["model"].nunique() * cells["dataset"].nunique()
    assert np.allclose(cells["gain"], cells["lora"] - cells["frozen"], atol=2e-6)
    assert len(scores) == 16 * len(cells)
    assert (
        cells[["ntps", "ntps_metric", "ntps_task", "probe_last", "lora"]].apply(lambda c: c.between(0, 1)).all().all()
    )
    with pytest.raises(ValueError, match="not cells of 'mars'"):
        load_recorded("mars")


@pytest.mark.slow
def test_two_tables_are_compared(store, row):
    cells = stored_cells(store)
    assert len(compare(cells, cells)) == 0
    other = cells.copy()
    other.loc[0, "gain"] += 0.01
    found = compare(cells, other.iloc[:1])
    assert sorted(found["column"]) == ["(row)", "gain"]
    with pytest.raises(ValueError, match="several rows"):
        compare(cells, pd.concat([cells, cells]))


@pytest.mark.slow
def test_a_store_becomes_parquet(store, tmp_path):
    assert export(store, tmp_path / "all.parquet") == 2
    back = pd.read_parquet(tmp_path / "all.parquet")
    assert set(back["dataset"]) == {"lab/tense", "lab/code"}
    assert len(back["scores"].iloc[0]) == 8
    with pytest.raises(ValueError, match="holds no results"):
        export(Store(tmp_path / "none"), tmp_path / "x.parquet")


def test_the_grid_command_measures_records_and_goes_on(tiny_model, tiny_data, tmp_path):
    arguments = [
        "grid", "--models", f"mine={tiny_model}", "--datasets", f"a={tiny_data}", "--store", str(tmp_path / "s"),
        "--no-lora", "--n-train", "60", "--record", str(tmp_path / "out"),
    ]  # fmt: skip
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    cells = pd.read_csv(tmp_path / "out_cells.csv")
    assert cells.loc[0, ["model", "dataset", "n_train"]].tolist() == ["mine", "a", 60]
    assert str(tmp_path) not in (tmp_path / "out_cells.json").read_text()
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    assert runner.invoke(app, arguments).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()} == files
    listed = runner.invoke(app, ["results", "list", str(tmp_path / "s")])
    assert "1 cells" in listed.output
    same = runner.invoke(app, ["results", "diff", str(tmp_path / "s"), str(tmp_path / "s")])
    assert (same.exit_code, "0 differences" in same.output) == (0, True)
    changed = cells.assign(probe_last=0.0)
    changed.to_csv(tmp_path / "changed.csv", index=False)
    differs = runner.invoke(app, ["results", "diff", str(tmp_path / "out_cells.csv"), str(tmp_path / "changed.csv")])
    assert differs.exit_code == 1
    assert "probe_last" in differs.output
    parquet = runner.invoke(app, ["results", "export", str(tmp_path / "x.parquet"), "--store", str(tmp_path / "s")])
    assert parquet.exit_code == 0
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grid", "--models", "", "--datasets", "lab/topic"], "at least one name"),
        (["grid", "--models", "a=x,a=y", "--datasets", "lab/topic"], "twice"),
        (["grid", "--models", "lab/Q", "--datasets", "lab/topic"], "no model 'Q'"),
        (["grid", "--models", "lab/XS", "--datasets", "lab/topics"], "topic"),
        (["results", "list", "/nowhere"], "no store"),
        (["results", "export", "x.csv"], ".parquet"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments, message):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_names_may_have_places():
    assert parse_names("lab/S, mine=runs/m", "--models") == {"lab/S": "lab/S", "mine": "runs/m"}
    assert Path(parse_names("a=/x/y", "--models")["a"]) == Path("/x/y")

"""The comparison of LoRA on frozen weights of two types: each run once, resumable, and the recorded rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from book.tools import base_types
from ntps_utils.evidence.records import load_record
from ntps_utils.models.datasets import load_texts, save_texts


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A dataset of the lab in a folder, and settings for its smallest model."""
    for split in ("train", "test"):
        data = load_texts("lab/topic", split).head(60)
        save_texts(replace(data, split=split), tmp_path / "data" / "one")
    for name, value in {
        "MODEL": "lab/XS",
        "DATASETS": ("one",),
        "SEEDS": (0,),
        "SETTINGS": replace(base_types.SETTINGS, max_steps=3, eval_steps=2),
        "chosen_rates": lambda: {"lab/XS": 1e-3},
    }.items():
        monkeypatch.setattr(base_types, name, value)
    return tmp_path


@pytest.mark.slow
def test_each_run_is_made_once(small):
    out = small / "rows.json"
    base_types.main(small / "data", "cpu", out)
    rows = json.loads(out.read_text("utf-8"))["runs"]
    assert [(row["base_dtype"], row["n_train"], row["n_test"]) for row in rows] == [
        ("float32", 60, 60),
        ("bfloat16", 60, 60),
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    finished = out.read_text("utf-8")
    base_types.main(small / "data", "cpu", out)
    assert out.read_text("utf-8") == finished
    out.write_text(json.dumps({"runs": rows[:1]}), "utf-8")  # interrupted after the first run
    base_types.main(small / "data", "cpu", out)
    again = json.loads(out.read_text("utf-8"))["runs"]
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


def test_the_recorded_runs_are_complete():
    rows = load_record("base_types")["runs"]
    expected = {(d, s, t) for d in base_types.DATASETS for s in base_types.SEEDS for t in base_types.TYPES}
    assert {(row["dataset"], row["seed"], row["base_dtype"]) for row in rows} == expected
    assert len(rows) == len(expected)
    assert {(row["n_train"], row["n_test"]) for row in rows} == {(base_types.N_TRAIN, base_types.N_TEST)}

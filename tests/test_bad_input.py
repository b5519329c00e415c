"""Whatever is given wrong ends in one line that names it, status 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ntps_utils.cli.main import app
from ntps_utils.evidence.store import Store
from ntps_utils.lab.tasks import sample
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import ExtractionWarning, extract
from ntps_utils.models.loading import load_model
from ntps_utils.models.scoring import score_model

runner = CliRunner()
GOOD = "lab/tense"


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    return Make(tmp_path / "given", tiny_model)


class Make:
    """Wrong things on disk, each made when a case asks for it."""

    def __init__(self, folder: Path, model: Path) -> None:
        folder.mkdir()
        self.folder, self.good_model = folder, model

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def csv(self, labels: list[object], texts: list[str] | None = None) -> str:
        texts = texts or [f"w{i} good w{i + 1} film" for i in range(len(labels))]
        return self.file(
            "texts.csv", "text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(texts, labels, strict=True))
        )

    def many_classes(self) -> str:
        texts = list(sample("tense", 30, seed=0).texts)
        return self.parquet(pd.DataFrame({"text": texts, "label": [f"c{i}" for i in range(30)]}))

    def parquet(self, frame: pd.DataFrame) -> str:
        frame.to_parquet(self.folder / "texts.parquet")
        return str(self.folder / "texts.parquet")

    def split_folder(self, **files: str) -> str:
        for name, content in files.items():
            self.file(f"data/{name.replace('__', '.')}", content)
        return str(self.folder / "data")

    def model(self, change: Callable[[Path], object]) -> str:
        copy = self.folder / "model"
        shutil.copytree(self.good_model, copy)
        change(copy)
        return str(copy)

    def config(self, **changes: object) -> str:
        def change(folder: Path) -> None:
            config = json.loads((folder / "config.json").read_text()) | changes
            (folder / "config.json").write_text(json.dumps(config))

        return self.model(change)

    def weights(self, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
        def rewrite(folder: Path) -> None:
            tensors = load_file(folder / "model.safetensors")
            change(tensors)
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

        return self.model(rewrite)

    def checkpoint(self, model: str) -> str:
        path = self.folder / "state.safetensors"
        extract(load_model(model), load_texts(GOOD).head(40), checkpoint=path, save_every=1)
        return str(path)

    def calibration(self, **columns: object) -> str:
        pd.DataFrame(columns).to_csv(self.folder / "calibration.csv", index=False)
        return str(self.folder / "calibration.csv")


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def small_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["w1"] = 999
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def with_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"][3] = float("nan")


def old_store(make: Make) -> str:
    folder = make.folder / "store"
    Store(folder).put({"a": 1}, {"model": "m"})
    (file,) = folder.glob("*.json")
    file.write_text(file.read_text().replace('"version": 1', '"version": 99'))
    return str(folder)


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


S, P, G = "score", "prescreen", "grid"
Arguments = Callable[[Make], list[str]]

CASES: dict[str, tuple[Arguments, str]] = {
    # datasets
    "one class": (lambda m: [S, "lab/XS", m.csv([0] * 9)], "needs at least two classes"),
    "negative label": (lambda m: [S, "lab/XS", m.csv([0, 1, -2])], "row 3: the label is -2; class numbers start at 0"),
    "missing label": (lambda m: [S, "lab/XS", m.csv([0, "", 1])], "row 2: the label is ''"),
    "a huge label": (lambda m: [S, "lab/XS", m.csv([0, 1, 10**9])], "row 3: the label is 1000000000"),
    "label beyond int64": (lambda m: [S, "lab/XS", m.csv([0, 1, 10**30])], "row 3: the label is 1000000"),
    "NaN label": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", "b"], "label": [1.0, np.nan]}))],
        "row 2: the label is nan",
    ),
    "float label": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", "b"], "label": [1.0, 0.5]}))],
        "row 2: the label is 0.5",
    ),
    "a class for each text": (lambda m: [P, "lab/XS", m.many_classes()], "30 classes"),
    "no label column": (lambda m: [S, "lab/XS", m.file("a.csv", "text,y\na,0\n")], "no column 'label'; it has text, y"),
    "no text column": (lambda m: [S, "lab/XS", m.file("a.csv", "x,label\na,0\n")], "no column 'text'; it has x, label"),
    "named column missing": (lambda m: [S, "lab/XS", m.csv([0, 1]), "--text-column", "body"], "no column 'body'"),
    "empty file": (lambda m: [S, "lab/XS", m.file("a.csv", "")], "could not be read"),
    "header only": (lambda m: [S, "lab/XS", m.file("a.csv", "text,label\n")], "has no rows"),
    "not UTF-8": (lambda m: [S, "lab/XS", m.file("a.csv", b"text,label\ncaf\xe9,0\n")], "is not UTF-8 text"),
    "NUL byte": (lambda m: [S, "lab/XS", m.file("a.csv", b"text,label\na\0b,0\nc,1\n")], "row 1: the text holds a NUL"),
    "open quote": (lambda m: [S, "lab/XS", m.file("a.csv", 'text,label\n"open,0\nb,1\n')], "could not be read"),
    "ragged rows": (lambda m: [S, "lab/XS", m.file("a.csv", "text,label\na,0\nb,1,2,3\n")], "could not be read"),
    "commas without quotes": (
        lambda m: [S, "lab/XS", m.file("a.csv", "text,label\nso, so,0\nno, no,1\n")],
        "quote texts that hold commas",
    ),
    "semicolons": (lambda m: [S, "lab/XS", m.file("a.csv", "text;label\na;0\nb;1\n")], "no column 'label'"),
    "unknown suffix": (lambda m: [S, "lab/XS", m.file("a.txt", "text,label\na,0\n")], "unknown type '.txt'"),
    "not a Parquet file": (lambda m: [S, "lab/XS", m.file("a.parquet", "PARQUET?")], "could not be read"),
    "broken JSONL": (lambda m: [S, "lab/XS", m.file("a.jsonl", '{"text": "a", "label"\n')], "could not be read"),
    "texts are numbers": (
        lambda m: [S, "lab/XS", m.file("a.jsonl", '{"text": 5, "label": 0}\n{"text": 6, "label": 1}\n')],
        "row 1: the text is int, not a string",
    ),
    "a missing text": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", None], "label": [0, 1]}))],
        "row 2: the text is missing",
    ),
    "a folder without splits": (lambda m: [S, "lab/XS", m.split_folder(readme__md="x")], "has no split 'train'"),
    "class names no list": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,1\n", label_names__json='{"a": 0}')],
        "must hold a JSON list",
    ),
    "class names no JSON": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,1\n", label_names__json="a, b")],
        "label_names.json",
    ),
    "too few class names": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,5\n", label_names__json='["a", "b"]')],
        "label 5, but only 2 class names",
    ),
    "unknown class": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,x\nb,y\n", label_names__json='["x", "z"]')],
        "not among the class names: y",
    ),
    "no such file": (lambda m: [S, "lab/XS", "nowhere/reviews.csv"], "no dataset 'nowhere/reviews.csv'"),
    "no such task": (lambda m: [S, "lab/XS", "lab/tens"], "tens"),
    "no such draw": (lambda m: [S, "lab/XS", "lab/tense@x"], "after the @"),
    "a name nearly right": (lambda m: [S, "lab/XS", "sst3"], "Did you mean sst2"),
    "a dataset without a source": (lambda m: [S, "lab/XS", "bias_identification"], "its source is not known"),
    "a Hub dataset without network": (lambda m: [S, "lab/XS", "owner/none"], "could not be loaded from the Hub"),
    "no such split": (lambda m: [S, "lab/XS", GOOD, "--split", "dev"], "dev"),
    "all texts empty": (
        lambda m: [S, m.good_model, m.parquet(pd.DataFrame({"text": [""] * 6, "label": [0, 1] * 3})), "--no-bos"],
        "no token",
    ),
    "no texts wanted": (lambda m: [S, "lab/XS", GOOD, "--max-texts", "0"], "at least 1, got 0"),
    "one text": (lambda m: [S, "lab/XS", GOOD, "--max-texts", "1"], "at least two classes"),
    "one token each": (
        lambda m: [S, m.good_model, m.csv([0, 1] * 5, ["good", "bad"] * 5), "--no-bos"],
        "single token",
    ),
    # models
    "no such folder": (lambda m: [S, "./nowhere", GOOD], "no model './nowhere'"),
    "no such name": (lambda m: [S, "Qwen2-0.6B", GOOD], "Did you mean Qwen2"),
    "a Hub model without network": (lambda m: [S, "owner/none", GOOD], "could not be loaded from the Hub"),
    "no such rung": (lambda m: [S, "lab/XXL", GOOD], "no model 'XXL'"),
    "no such step": (lambda m: [S, "lab/XS@7", GOOD], "7"),
    "a step in words": (lambda m: [S, "lab/XS@last", GOOD], "after the @"),
    "folder without config": (lambda m: [S, m.model(lambda f: (f / "config.json").unlink()), GOOD], "no config.json"),
    "folder without weights": (
        lambda m: [S, m.model(lambda f: (f / "model.safetensors").unlink()), GOOD],
        "no safetensors weights",
    ),
    "pickled weights only": (lambda m: [S, m.model(pickled), GOOD], "pickled checkpoints are not read"),
    "truncated weights": (lambda m: [S, m.model(truncate), GOOD], "could not be loaded"),
    "config no JSON": (
        lambda m: [S, m.model(lambda f: (f / "config.json").write_text("{")), GOOD],
        "could not be loaded",
    ),
    "unknown architecture": (lambda m: [S, m.config(model_type="quux"), GOOD], "could not be loaded"),
    "encoder and decoder": (lambda m: [S, m.config(model_type="t5", architectures=["T5Model"]), GOOD], "could not be"),
    "weights of another width": (lambda m: [S, m.config(hidden_size=32, head_dim=8), GOOD], "could not be loaded"),
    "missing tensors": (
        lambda m: [S, m.weights(lambda t: t.pop("model.layers.1.mlp.up_proj.weight")), GOOD],
        "lacks the weights",
    ),
    "no tokenizer": (lambda m: [S, m.model(no_tokenizer), GOOD], "could not be loaded"),
    "tokens that the model lacks": (lambda m: [S, m.model(small_vocabulary), m.csv([0, 1])], "do not belong together"),
    "NaN in the weights": (lambda m: [S, m.weights(with_nan), m.csv([0, 1] * 9)], "finite"),
    "code without consent": (
        lambda m: [
            S,
            m.config(model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
            GOOD,
        ],
        "--trust-remote-code",
    ),
    "no such device": (lambda m: [S, "lab/XS", GOOD, "--device", "quantum"], "device 'quantum' cannot be used"),
    "a GPU that is not there": (
        lambda m: [S, "lab/XS", GOOD, "--device", "cuda:77"],
        "device 'cuda:77' cannot be used",
    ),
    "no such dtype": (lambda m: [S, "lab/XS", GOOD, "--dtype", "float8"], "no dtype 'float8'"),
    # settings
    "k = 0": (lambda m: [S, "lab/XS", GOOD, "--k-v", "0"], "below 1"),
    "k < 0": (lambda m: [S, "lab/XS", GOOD, "--k-v=-3"], "below 1"),
    "k in words": (lambda m: [S, "lab/XS", GOOD, "--k-v", "half"], "integers or fractions"),
    "fraction above 1": (lambda m: [S, "lab/XS", GOOD, "--k-v", "1.5"], "not a fraction"),
    "k is NaN": (lambda m: [S, "lab/XS", GOOD, "--k-v", "nan"], "integers or fractions"),
    "k beyond the features": (lambda m: [S, "lab/XS", GOOD, "--k-v", "33"], "outside 1 ... 32"),
    "no such layer": (lambda m: [S, "lab/XS", GOOD, "--layers", "9"], "no layer 9"),
    "layers in words": (lambda m: [S, "lab/XS", GOOD, "--layers", "first"], "first"),
    "no layer": (lambda m: [S, "lab/XS", GOOD, "--layers", ""], "Layers must be"),
    "ridge < 0": (lambda m: [S, "lab/XS", GOOD, "--ridge=-1"], "non-negative"),
    "ridge is NaN": (lambda m: [S, "lab/XS", GOOD, "--ridge", "nan"], "ridge"),
    "shrinkage > 1": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "2"], "must lie in [0, 1]"),
    "shrinkage is NaN": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "nan"], "must lie in [0, 1]"),
    "shrinkage in words": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "lots"], "ledoit-wolf"),
    "two groups": (lambda m: [S, "lab/XS", GOOD, "--jackknife", "2"], "at least 3 groups"),
    "more groups than texts": (lambda m: [S, "lab/XS", GOOD, "--jackknife", "99", "--max-texts", "50"], "99"),
    "batch of none": (lambda m: [S, "lab/XS", GOOD, "--batch-size", "0"], "batch_size must be at least 1"),
    "one token a text": (lambda m: [S, "lab/XS", GOOD, "--max-length", "1"], "between 2 and"),
    "longer than the model": (lambda m: [S, "lab/XS", GOOD, "--max-length", "9999"], "between 2 and"),
    "no BOS to put": (
        lambda m: [S, m.model(lambda f: _without_bos(f)), m.csv([0, 1] * 9), "--bos"],
        "has no beginning-of-sequence token",
    ),
    "no such order": (lambda m: [S, "lab/XS", GOOD, "--order", "up"], "descending"),
    "JSON into no folder": (
        lambda m: [S, "lab/XS", GOOD, "--json", "/no/such/x.json"],
        "does not exist or is read-only",
    ),
    "JSON over a folder": (lambda m: [S, "lab/XS", GOOD, "--json", str(m.folder)], "it is a folder"),
    "a checkpoint that is none": (
        lambda m: [S, "lab/XS", GOOD, "--checkpoint", m.file("state.safetensors", "x" * 99)],
        "state.safetensors",
    ),
    "a checkpoint of another model": (
        lambda m: [S, "lab/XS", GOOD, "--max-texts", "40", "--checkpoint", m.checkpoint("lab/S")],
        "another",
    ),
    "a place where nothing can be made": (
        lambda m: [S, "lab/XS", GOOD, "--max-texts", "40", "--json", "/proc/scores.json"],
        "/proc/scores.json",
    ),
    # prescreening
    "no such calibration": (lambda m: [P, "lab/XS", GOOD, "--calibration", "mars"], "mars"),
    "calibration of other columns": (
        lambda m: [P, "lab/XS", GOOD, "--calibration", m.calibration(model=["a"], dataset=["b"])],
        "column",
    ),
    "no such dataset to leave out": (lambda m: [P, "lab/XS", GOOD, "--leave-out", "mars"], "mars"),
    "threshold is NaN": (lambda m: [P, "lab/XS", GOOD, "--threshold", "nan"], "threshold"),
    "too few texts to probe": (lambda m: [P, "lab/XS", GOOD, "--max-texts", "3"], "texts"),
    "report into no folder": (lambda m: [P, "lab/XS", GOOD, "--html", "/no/such/x.html"], "does not exist or is read-"),
    # grids and stores
    "no models": (lambda m: [G, "--models", " , ", "--datasets", GOOD], "--models needs at least one name"),
    "one name twice": (lambda m: [G, "--models", "a=x,a=y", "--datasets", GOOD], "'a' twice"),
    "unknown in a grid": (lambda m: [G, "--models", "lab/XS", "--datasets", "lab/tens"], "tens"),
    "no jobs": (lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--jobs", "0"], "--jobs is at least 1"),
    "no such profile": (lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--profile", "tpu"], "cpu or gpu"),
    "no scheduler": (lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--scheduler", "x"], "no scheduler 'x'"),
    "no training texts": (lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--n-train", "0"], "at least 1"),
    "negative test texts": (lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--n-test=-5"], "at least 1"),
    "a store that is a file": (
        lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--store", m.file("store", "x")],
        "store",
    ),
    "record into a file": (
        lambda m: [G, "--models", "lab/XS", "--datasets", GOOD, "--record", m.file("file", "x") + "/out"],
        "does not exist or is read-only",
    ),
    "no store": (lambda m: ["results", "list", "/no/such"], "no store /no/such"),
    "a store of another version": (lambda m: ["results", "list", old_store(m)], "version 99"),
    "a store with something else": (
        lambda m: ["results", "list", str(Path(m.file("s/0123.json", "{}")).parent)],
        "is not a result of this library",
    ),
    "an empty store": (lambda m: ["results", "export", "x.parquet", "--store", str(m.folder)], "holds no results"),
    "export to CSV": (lambda m: ["results", "export", "x.csv"], ".parquet"),
    "a table that is none": (
        lambda m: ["results", "diff", m.file("a.csv", "x\n1\n"), m.file("b.csv", "x\n1\n")],
        "column",
    ),
    # the lab
    "no such size": (lambda m: ["lab", "pretrain", "XXL"], "XXL"),
    "no such corpus": (lambda m: ["lab", "pretrain", "XS", "--corpus", "/no/such.txt"], "/no/such.txt"),
    "a corpus of a line": (
        lambda m: ["lab", "pretrain", "XS", "--corpus", m.file("c.txt", "a line\n"), "--out", str(m.folder / "out")],
        "are too few to train on; give at least",
    ),
    "no steps": (lambda m: ["lab", "pretrain", "XS", "--steps", "0", "--out", str(m.folder / "out")], "step"),
    "no such list": (lambda m: ["list", "things"], "not of 'things'"),
    "no such task to learn": (lambda m: ["lab", "learn", "--task", "topics"], "topics"),
}


def _without_bos(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("bos_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_one_line(name, make, tmp_path, monkeypatch):
    arguments, message = CASES[name]
    command = [str(one) for one in arguments(make)]
    before = {p: p.stat().st_mtime_ns for p in make.folder.rglob("*") if p.is_file()}
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = runner.invoke(app, command)
    said = " ".join(result.output.split())
    assert result.exit_code == 2, (result.output[-2000:], result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert message in said, said[-1500:]
    assert "Traceback" not in said
    assert result.output.count("ntps:") == 1
    assert [p for p in here.rglob("*") if p.is_file()] == []
    assert {p: p.stat().st_mtime_ns for p in make.folder.rglob("*") if p.is_file()} == before


LITTLE = ["score", "lab/XS", GOOD, "--max-texts", "60", "--batch-size", "16"]
FULL_DISK: dict[str, tuple[list[str], str]] = {
    "scores": ([*LITTLE, "--json", "scores.json"], "scores.json"),
    "a checkpoint": ([*LITTLE, "--checkpoint", "state.safetensors"], "state.safetensors"),
    "cells": (
        [G, "--models", "lab/XS", "--datasets", GOOD, "--no-lora", "--n-train", "60", "--n-test", "60"],
        "cells/",
    ),
    "weights": (["lab", "pretrain", "XS", "--steps", "2", "--out", "lab"], "lab/XS/step-2"),
}


@pytest.mark.parametrize("name", FULL_DISK)
def test_a_full_disk_is_named_and_leaves_nothing_half_written(name, tmp_path):
    """No file may grow beyond 600 bytes: what the system then says stands for a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no limits to set")
    arguments, file = FULL_DISK[name]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ntps")), *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
        capture_output=True,
        text=True,
        check=False,
    )
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("ntps:"))
    assert re.search(rf"{file}.* could not be written: .*too large", said, re.I)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert left == (["run.json"] if name == "weights" else [])  # settings, written whole before the training


RIGHT: dict[str, tuple[str, bytes]] = {
    "byte order mark": ("a.csv", b"\xef\xbb\xbftext,label\na b,0\nc,1\n"),
    "byte order mark in JSONL": ("a.jsonl", b'\xef\xbb\xbf{"text": "a b", "label": 0}\n{"text": "c", "label": 1}\n'),
    "lines as Windows ends them": ("a.csv", b"text,label\r\na b,0\r\nc,1\r\n"),
    "capital suffix": ("A.CSV", b"text,label\na b,0\nc,1\n"),
    "blank lines at the end": ("a.csv", b"text,label\na b,0\nc,1\n\n\n"),
    "other columns": ("a.csv", b"id,label,text\n7,0,a b\n8,1,c\n"),
    "quoted numbers": ("a.csv", b'"text","label"\n"a b","0"\n"c","1"\n'),
}


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_files_are_read_as_meant(name, make):
    found = load_texts(make.file(*RIGHT[name]))
    assert (found.texts, found.labels.tolist(), found.label_names) == (("a b", "c"), [0, 1], ("0", "1"))


def test_words_for_nothing_are_texts(make):
    """pandas would take them for missing values."""
    words = ("NA", "null", "None", "nan", "N/A")
    rows = "".join(f"{word},{i % 2}\n" for i, word in enumerate(words))
    assert load_texts(make.file("a.csv", f"text,label\n{rows}")).texts == words


def test_texts_of_a_million_characters_are_cut_and_said(make):
    texts = ["the bell rang . " * 62_500 if i % 4 == 0 else f"a bell rang {'loudly ' * i}" for i in range(24)]
    with pytest.warns(ExtractionWarning, match="cut-texts"):
        report = score_model("lab/XS", make.csv([0, 1] * 12, texts), layers="0", k_v=[0.5])
    assert np.isfinite(report.rows[0].excess_loss)


def test_there_are_enough_cases():
    assert len(CASES) >= 80

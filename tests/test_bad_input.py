"""Invalid input ends in one line with the invalid value and status 2, and leaves no partial files."""

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
    return Make(tmp_path / "input", tiny_model)


class Make:
    """Create invalid files and folders."""

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

    def adapter(self, config: str) -> str:
        folder = self.folder / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(config)
        (folder / "adapter_model.safetensors").touch()
        return str(folder)

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
    file.write_text(re.sub(r'"version": \d+', '"version": 99', file.read_text()))
    return str(folder)


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


S, P, B = "score", "prescreen", "benchmark"
Arguments = Callable[[Make], list[str]]

# Arguments, then words that the message contains: the invalid value, the valid ones, or what is wrong.
CASES: dict[str, tuple[Arguments, *tuple[str, ...]]] = {
    # datasets
    "one class": (lambda m: [S, "lab/XS", m.csv([0] * 9)], "'0'", "at least two classes"),
    "negative label": (lambda m: [S, "lab/XS", m.csv([0, 1, -2])], "row 3", "label", "-2"),
    "missing label": (lambda m: [S, "lab/XS", m.csv([0, "", 1])], "row 2", "label", "''"),
    "huge label": (lambda m: [S, "lab/XS", m.csv([0, 1, 10**9])], "row 3", "label", "1000000000"),
    "label beyond int64": (lambda m: [S, "lab/XS", m.csv([0, 1, 10**30])], "row 3", "label", "1000000000"),
    "NaN label": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", "b"], "label": [1.0, np.nan]}))],
        "row 2",
        "label",
        "nan",
    ),
    "float label": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", "b"], "label": [1.0, 0.5]}))],
        "row 2",
        "label",
        "0.5",
    ),
    "one class per text": (lambda m: [P, "lab/XS", m.many_classes()], "30 classes"),
    "no label column": (lambda m: [S, "lab/XS", m.file("a.csv", "text,y\na,0\n")], "'label'", "text, y"),
    "no text column": (lambda m: [S, "lab/XS", m.file("a.csv", "x,label\na,0\n")], "'text'", "x, label"),
    "named column missing": (lambda m: [S, "lab/XS", m.csv([0, 1]), "--text-column", "body"], "'body'", "text, label"),
    "empty file": (lambda m: [S, "lab/XS", m.file("a.csv", "")], "could not be read"),
    "header only": (lambda m: [S, "lab/XS", m.file("a.csv", "text,label\n")], "has no rows"),
    "not UTF-8": (lambda m: [S, "lab/XS", m.file("a.csv", b"text,label\ncaf\xe9,0\n")], "UTF-8"),
    "NUL byte": (lambda m: [S, "lab/XS", m.file("a.csv", b"text,label\na\0b,0\nc,1\n")], "row 1", "NUL"),
    "open quote": (lambda m: [S, "lab/XS", m.file("a.csv", 'text,label\n"open,0\nb,1\n')], "could not be read"),
    "ragged rows": (lambda m: [S, "lab/XS", m.file("a.csv", "text,label\na,0\nb,1,2,3\n")], "could not be read"),
    "commas without quotes": (
        lambda m: [S, "lab/XS", m.file("a.csv", "text,label\nso, so,0\nno, no,1\n")],
        "header",
        "the separator",
    ),
    "colons": (lambda m: [S, "lab/XS", m.file("a.csv", "text:label\na:0\nb:1\n")], "no columns 'text' and 'label'"),
    "unknown suffix": (lambda m: [S, "lab/XS", m.file("a.txt", "text,label\na,0\n")], "'.txt'", "CSV"),
    "not a Parquet file": (lambda m: [S, "lab/XS", m.file("a.parquet", "PARQUET?")], "could not be read"),
    "broken JSONL": (lambda m: [S, "lab/XS", m.file("a.jsonl", '{"text": "a", "label"\n')], "could not be read"),
    "texts are numbers": (
        lambda m: [S, "lab/XS", m.file("a.jsonl", '{"text": 5, "label": 0}\n{"text": 6, "label": 1}\n')],
        "row 1",
        "int",
        "string",
    ),
    "a missing text": (
        lambda m: [S, "lab/XS", m.parquet(pd.DataFrame({"text": ["a", None], "label": [0, 1]}))],
        "row 2",
        "missing",
    ),
    "folder without splits": (lambda m: [S, "lab/XS", m.split_folder(readme__md="x")], "'train'"),
    "class names that are not a list": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,1\n", label_names__json='{"a": 0}')],
        "label_names.json",
        "JSON list",
    ),
    "class names that are not JSON": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,1\n", label_names__json="a, b")],
        "label_names.json",
    ),
    "too few class names": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,0\nb,5\n", label_names__json='["a", "b"]')],
        "label 5",
        "2 class names",
    ),
    "unknown class": (
        lambda m: [S, "lab/XS", m.split_folder(train__csv="text,label\na,x\nb,y\n", label_names__json='["x", "z"]')],
        "class names: y",
    ),
    "unknown file": (lambda m: [S, "lab/XS", "nowhere/reviews.csv"], "'nowhere/reviews.csv'", "banking77"),
    "unknown task": (lambda m: [S, "lab/XS", "lab/tens"], "'tens'", "tense"),
    "unknown draw": (lambda m: [S, "lab/XS", "lab/tense@x"], "lab/tense@x", "number"),
    "misspelled name": (lambda m: [S, "lab/XS", "sst3"], "'sst3'", "Did you mean sst2"),
    "dataset without a source": (lambda m: [S, "lab/XS", "bias_identification"], "source", "local file"),
    "Hub dataset without network": (lambda m: [S, "lab/XS", "owner/none"], "owner/none", "Hub", "local"),
    "unknown split": (lambda m: [S, "lab/XS", GOOD, "--split", "dev"], "'dev'", "train", "test"),
    "all texts empty": (
        lambda m: [S, m.good_model, m.parquet(pd.DataFrame({"text": [""] * 6, "label": [0, 1] * 3})), "--no-bos"],
        "None of the 6 texts",
        "has a token",
    ),
    "zero texts": (lambda m: [S, "lab/XS", GOOD, "--max-texts", "0"], "at least 1", "0"),
    "one text": (lambda m: [S, "lab/XS", GOOD, "--max-texts", "1"], "at least two classes"),
    "one token per text": (
        lambda m: [S, m.good_model, m.csv([0, 1] * 5, ["good", "bad"] * 5), "--no-bos"],
        "single token",
    ),
    # models
    "unknown folder": (lambda m: [S, "./nowhere", GOOD], "'./nowhere'"),
    "unknown name": (lambda m: [S, "Qwen2-0.6B", GOOD], "'Qwen2-0.6B'", "Did you mean Qwen"),
    "Hub model without network": (lambda m: [S, "owner/none", GOOD], "owner/none", "Hub", "local"),
    "unknown size": (lambda m: [S, "lab/XXL", GOOD], "'XXL'", "XS, S, M"),
    "unknown step": (lambda m: [S, "lab/XS@7", GOOD], "7", "400, 4000"),
    "step that is not a number": (lambda m: [S, "lab/XS@last", GOOD], "lab/XS@last", "number"),
    "folder without config": (lambda m: [S, m.model(lambda f: (f / "config.json").unlink()), GOOD], "config.json"),
    "folder without weights": (
        lambda m: [S, m.model(lambda f: (f / "model.safetensors").unlink()), GOOD],
        "safetensors",
    ),
    "pickled weights only": (lambda m: [S, m.model(pickled), GOOD], "safetensors", "pickled"),
    "truncated weights": (lambda m: [S, m.model(truncate), GOOD], "model", "loaded"),
    "config that is not JSON": (
        lambda m: [S, m.model(lambda f: (f / "config.json").write_text("{")), GOOD],
        "config",
    ),
    "adapter whose config is not JSON": (lambda m: [S, m.adapter("{"), GOOD], "adapter_config.json"),
    "adapter without a base": (lambda m: [S, m.adapter("{}"), GOOD], "base model", "base_model"),
    "unknown architecture": (lambda m: [S, m.config(model_type="quux"), GOOD], "quux"),
    "encoder and decoder": (
        lambda m: [S, m.config(model_type="t5", architectures=["T5Model"]), GOOD],
        "encoder-decoder",
    ),
    "weights of another width": (lambda m: [S, m.config(hidden_size=32, head_dim=8), GOOD], "model", "loaded"),
    "missing tensors": (
        lambda m: [S, m.weights(lambda t: t.pop("model.layers.1.mlp.up_proj.weight")), GOOD],
        "model.layers.1.mlp.up_proj.weight",
    ),
    "no tokenizer": (lambda m: [S, m.model(no_tokenizer), GOOD], "tokenizer"),
    "tokens without embeddings": (lambda m: [S, m.model(small_vocabulary), m.csv([0, 1])], "token", "999"),
    "NaN in the weights": (lambda m: [S, m.weights(with_nan), m.csv([0, 1] * 9)], "finite"),
    "remote code without permission": (
        lambda m: [
            S,
            m.config(model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
            GOOD,
        ],
        "--trust-remote-code",
    ),
    "unknown device": (lambda m: [S, "lab/XS", GOOD, "--device", "quantum"], "device", "quantum"),
    "unavailable GPU": (
        lambda m: [S, "lab/XS", GOOD, "--device", "cuda:77"],
        "device",
        "cuda:77",
    ),
    "unknown dtype": (lambda m: [S, "lab/XS", GOOD, "--dtype", "float8"], "'float8'", "bfloat16"),
    # settings
    "k = 0": (lambda m: [S, "lab/XS", GOOD, "--k-v", "0"], "below 1"),
    "k < 0": (lambda m: [S, "lab/XS", GOOD, "--k-v=-3"], "below 1"),
    "k that is not a number": (lambda m: [S, "lab/XS", GOOD, "--k-v", "half"], "'half'", "integers or fractions"),
    "fraction above 1": (lambda m: [S, "lab/XS", GOOD, "--k-v", "1.5"], "1.5", "(0, 1]"),
    "k is NaN": (lambda m: [S, "lab/XS", GOOD, "--k-v", "nan"], "'nan'", "integers or fractions"),
    "k beyond the features": (lambda m: [S, "lab/XS", GOOD, "--k-v", "33"], "33", "32"),
    "unknown layer": (lambda m: [S, "lab/XS", GOOD, "--layers", "9"], "layer 9", "3"),
    "layer that is not a number": (lambda m: [S, "lab/XS", GOOD, "--layers", "first"], "'first'", "last"),
    "no layer": (lambda m: [S, "lab/XS", GOOD, "--layers", ""], "''", "last"),
    "ridge < 0": (lambda m: [S, "lab/XS", GOOD, "--ridge=-1"], "ridge", "-1"),
    "ridge is NaN": (lambda m: [S, "lab/XS", GOOD, "--ridge", "nan"], "ridge", "nan"),
    "shrinkage > 1": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "2"], "shrinkage", "[0, 1]", "2"),
    "shrinkage is NaN": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "nan"], "shrinkage", "[0, 1]", "nan"),
    "shrinkage that is not a number": (lambda m: [S, "lab/XS", GOOD, "--shrinkage", "lots"], "'lots'", "ledoit-wolf"),
    "two groups": (lambda m: [S, "lab/XS", GOOD, "--jackknife", "2"], "jackknife", "at least 3"),
    "more groups than texts": (lambda m: [S, "lab/XS", GOOD, "--jackknife", "99", "--max-texts", "50"], "99", "50"),
    "empty batch": (lambda m: [S, "lab/XS", GOOD, "--batch-size", "0"], "batch_size", "at least 1", "0"),
    "length of one token": (lambda m: [S, "lab/XS", GOOD, "--max-length", "1"], "max_length", "2"),
    "length above the model's limit": (lambda m: [S, "lab/XS", GOOD, "--max-length", "9999"], "9999", "128"),
    "no BOS token": (
        lambda m: [S, m.model(lambda f: _without_bos(f)), m.csv([0, 1] * 9), "--bos"],
        "beginning-of-sequence token",
    ),
    "unknown order": (lambda m: [S, "lab/XS", GOOD, "--order", "up"], "'up'", "descending"),
    "JSON in a missing folder": (
        lambda m: [S, "lab/XS", GOOD, "--json", "/no/such/x.json"],
        "/no/such/x.json",
    ),
    "JSON at the path of a folder": (lambda m: [S, "lab/XS", GOOD, "--json", str(m.folder)], "is a folder"),
    "damaged checkpoint": (
        lambda m: [S, "lab/XS", GOOD, "--checkpoint", m.file("state.safetensors", "x" * 99)],
        "state.safetensors",
    ),
    "checkpoint of another model": (
        lambda m: [S, "lab/XS", GOOD, "--max-texts", "40", "--checkpoint", m.checkpoint("lab/S")],
        "state.safetensors",
        "another",
    ),
    "read-only file system": (
        lambda m: [S, "lab/XS", GOOD, "--max-texts", "40", "--json", "/proc/scores.json"],
        "/proc/scores.json",
    ),
    # prescreening
    "unknown calibration": (lambda m: [P, "lab/XS", GOOD, "--calibration", "mars"], "'mars'", "lab", "real"),
    "calibration with wrong columns": (
        lambda m: [P, "lab/XS", GOOD, "--calibration", m.calibration(model=["a"], dataset=["b"])],
        "column",
    ),
    "unknown dataset to leave out": (lambda m: [P, "lab/XS", GOOD, "--leave-out", "mars"], "'mars'"),
    "threshold is NaN": (lambda m: [P, "lab/XS", GOOD, "--threshold", "nan"], "threshold", "nan"),
    "worth is negative": (lambda m: [P, "lab/XS", GOOD, "--worth", "-2"], "--worth", "-2"),
    "trial is no budget": (lambda m: [P, "lab/XS", GOOD, "--trial", "ten"], "--trial", "'ten'", "10%"),
    "trial is longer than the run": (lambda m: [P, "lab/XS", GOOD, "--trial", "101%"], "--trial", "101%"),
    "two thresholds": (lambda m: [P, "lab/XS", GOOD, "--worth", "2", "--threshold", "1"], "worth", "threshold"),
    "resume from another file": (
        lambda m: [P, "lab/XS", GOOD, "--resume", m.calibration(model=["a"], dataset=["b"])],
        "measurements",
    ),
    "too few texts to probe": (lambda m: [P, "lab/XS", GOOD, "--max-texts", "3"], "texts"),
    "report in a missing folder": (lambda m: [P, "lab/XS", GOOD, "--html", "/no/such/x.html"], "/no/such/x.html"),
    # benchmarks and stores
    "no models": (lambda m: [B, "--models", " , ", "--datasets", GOOD], "--models", "at least one"),
    "repeated name": (lambda m: [B, "--models", "a=x,a=y", "--datasets", GOOD], "'a'", "twice"),
    "unknown dataset of a benchmark": (
        lambda m: [B, "--models", "lab/XS", "--datasets", "lab/tens"],
        "'tens'",
        "tense",
    ),
    "no jobs": (lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--jobs", "0"], "--jobs", "at least 1", "0"),
    "unknown profile": (
        lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--profile", "tpu"],
        "'tpu'",
        "cpu",
        "gpu",
    ),
    "unknown scheduler": (lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--scheduler", "x"], "'x'", "local"),
    "no training texts": (
        lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--n-train", "0"],
        "n_train",
        "at least 1",
    ),
    "negative test texts": (
        lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--n-test=-5"],
        "n_test",
        "at least 1",
    ),
    "store that is a file": (
        lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--store", m.file("store", "x")],
        "store",
    ),
    "record in a folder that is a file": (
        lambda m: [B, "--models", "lab/XS", "--datasets", GOOD, "--record", m.file("file", "x") + "/out"],
        "file/out",
    ),
    "missing store": (lambda m: ["results", "list", "/no/such"], "/no/such", "ntps benchmark"),
    "store of another version": (lambda m: ["results", "list", old_store(m)], "version", "99"),
    "store with another file": (
        lambda m: ["results", "list", str(Path(m.file("s/0123.json", "{}")).parent)],
        "0123.json",
        "not a result",
    ),
    "empty store": (lambda m: ["results", "export", "x.parquet", "--store", str(m.folder)], "no results"),
    "export to CSV": (lambda m: ["results", "export", "x.csv"], ".parquet", "x.csv"),
    "table without results": (
        lambda m: ["results", "diff", m.file("a.csv", "x\n1\n"), m.file("b.csv", "x\n1\n")],
        "column",
        "'model'",
    ),
    # the lab
    "unknown size to pretrain": (lambda m: ["lab", "pretrain", "XXL"], "'XXL'", "XS, S, M"),
    "missing corpus": (lambda m: ["lab", "pretrain", "XS", "--corpus", "/no/such.txt"], "/no/such.txt"),
    "corpus of one line": (
        lambda m: ["lab", "pretrain", "XS", "--corpus", m.file("c.txt", "a line\n"), "--out", str(m.folder / "out")],
        "3 tokens",
        "at least",
    ),
    "no steps": (
        lambda m: ["lab", "pretrain", "XS", "--steps", "0", "--out", str(m.folder / "out")],
        "step",
        "at least 1",
    ),
    "unknown list": (lambda m: ["list", "things"], "'things'", "models", "datasets"),
    "unknown task to learn": (lambda m: ["lab", "learn", "--task", "topics"], "'topics'", "topic?"),
}


BASES = {
    S: [S, "lab/XS", GOOD],
    P: [P, "lab/XS", GOOD],
    B: [B, "--models", "lab/XS", "--datasets", GOOD, "--no-lora"],
    "lab": ["lab", "pretrain", "XS"],
}
COUNT = ("-1", "0", "x", "1.5", "nan", "1e3")  # not a number of things
SEED = ("-1", "x", "1.5", "nan")
NUMBER = ("nan", "inf", "x", "1,5")
VALUES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "--max-texts": ((S, P), COUNT),
    "--max-length": ((S, P, B), (*COUNT, "1")),
    "--batch-size": ((S, P), COUNT),
    "--seed": ((P, B), SEED),
    "--jackknife": ((S,), ("-1", "1", "2", "x", "1.5")),
    "--ridge": ((S,), ("-1", *NUMBER)),
    "--shrinkage": ((S,), ("-0.1", "1.5", *NUMBER)),
    "--k-v": ((S,), ("0", "-1", "1.5", "0.5,x", ",", "1e3", *NUMBER[:3])),
    "--layers": ((S,), ("x", "99", "-99", "1-", "0,x", "1.5")),
    "--dtype": ((S, P), ("int8", "double", "x")),
    "--device": ((S, P), ("x", "cuda:99", "cpu:x")),
    "--order": ((S,), ("x", "asc")),
    "--split": ((S,), ("x", "TRAIN")),
    "--threshold": ((P,), ("-1", "100", "150", *NUMBER)),
    "--calibration": ((P,), ("x", "lab,mars")),
    "--leave-out": ((P,), ("x", "lab/x")),
    "--target-modules": ((P,), ("x", "q_proj,x")),
    "--n-train": ((B,), COUNT),
    "--n-test": ((B,), COUNT),
    "--jobs": ((B,), COUNT),
    "--retries": ((B,), ("-1", "x", "1.5")),
    "--profile": ((B,), ("x", "CPU")),
    "--scheduler": ((B,), ("x", "LOCAL")),
    "--text-column": ((S, P, B), ("body", "text,body")),
    "--label-column": ((S, P, B), ("body", "text,label")),
    "--steps": (("lab",), COUNT),
}
"""For each option, the commands that have it, and values that it refuses."""

FROM_A_FILE = ("--text-column", "--label-column")


def refusals() -> list[tuple[str, str, str]]:
    """List command, option and value of all these cases."""
    return [
        (command, option, value)
        for option, (commands, values) in VALUES.items()
        for command in commands
        for value in values
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option", "value"), refusals())
def test_values_that_an_option_refuses_are_named(command, option, value, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = BASES[command]
    if option in FROM_A_FILE:
        rows = "text,label\n" + "".join(f"a bell number {i} rang,{i % 2}\n" for i in range(20))
        folder = make.split_folder(train__csv=rows, test__csv=rows)
        base = [part.replace(GOOD, folder) for part in base]
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    result = runner.invoke(app, [*base, f"{option}={value}"])
    message = " ".join(result.output.split())
    assert result.exit_code == 2, (message[-2000:], result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in message
    assert value.split(",")[-1].lstrip("-") in message
    assert len(message) < 600
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


def _without_bos(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("bos_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_invalid_input_ends_in_one_line(name, make, tmp_path, monkeypatch):
    arguments, *words = CASES[name]
    command = [str(argument) for argument in arguments(make)]
    before = {p: p.stat().st_mtime_ns for p in make.folder.rglob("*") if p.is_file()}
    current_folder = tmp_path / "current"
    current_folder.mkdir()
    monkeypatch.chdir(current_folder)
    result = runner.invoke(app, command)
    assert result.exit_code == 2, (result.output[-2000:], result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.output.count("ntps:") == 1
    message = " ".join(result.output.partition("ntps:")[2].split())
    assert [word for word in words if word not in message] == [], message
    assert [p for p in current_folder.rglob("*") if p.is_file()] == []
    assert {p: p.stat().st_mtime_ns for p in make.folder.rglob("*") if p.is_file()} == before


SHORT_SCORE = ["score", "lab/XS", GOOD, "--max-texts", "60", "--batch-size", "16"]
FULL_DISK: dict[str, tuple[list[str], str]] = {
    "scores": ([*SHORT_SCORE, "--json", "scores.json"], "scores.json"),
    "checkpoint": ([*SHORT_SCORE, "--checkpoint", "state.safetensors"], "state.safetensors"),
    "cells": (
        [B, "--models", "lab/XS", "--datasets", GOOD, "--no-lora", "--n-train", "60", "--n-test", "60"],
        "cells/",
    ),
    "weights": (["lab", "pretrain", "XS", "--steps", "2", "--out", "lab"], "lab/XS/step-2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_DISK)
def test_full_disk_names_the_file_and_leaves_no_partial_files(name, tmp_path):
    """A limit of 600 bytes on the size of files simulates a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
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
    (message,) = (line for line in done.stderr.splitlines() if line.startswith("ntps:"))
    assert re.search(rf"{file}.* could not be written: .*too large", message, re.I)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    files = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert files == (["run.json"] if name == "weights" else [])  # the settings, complete before the training


VALID: dict[str, tuple[str, bytes]] = {
    "byte order mark": ("a.csv", b"\xef\xbb\xbftext,label\na b,0\nc,1\n"),
    "byte order mark in JSONL": ("a.jsonl", b'\xef\xbb\xbf{"text": "a b", "label": 0}\n{"text": "c", "label": 1}\n'),
    "line endings of Windows": ("a.csv", b"text,label\r\na b,0\r\nc,1\r\n"),
    "suffix in capitals": ("A.CSV", b"text,label\na b,0\nc,1\n"),
    "blank lines at the end": ("a.csv", b"text,label\na b,0\nc,1\n\n\n"),
    "other columns": ("a.csv", b"id,label,text\n7,0,a b\n8,1,c\n"),
    "quoted numbers": ("a.csv", b'"text","label"\n"a b","0"\n"c","1"\n'),
}


@pytest.mark.parametrize("name", VALID)
def test_unusual_files_are_loaded_correctly(name, make):
    dataset = load_texts(make.file(*VALID[name]))
    assert (dataset.texts, dataset.labels.tolist(), dataset.label_names) == (("a b", "c"), [0, 1], ("0", "1"))


def test_words_for_missing_values_are_texts(make):
    """By default, pandas parses these words as missing values."""
    words = ("NA", "null", "None", "nan", "N/A")
    rows = "".join(f"{word},{i % 2}\n" for i, word in enumerate(words))
    assert load_texts(make.file("a.csv", f"text,label\n{rows}")).texts == words


@pytest.mark.slow
def test_texts_of_a_million_characters_are_truncated_with_a_warning(make):
    texts = ["the bell rang . " * 62_500 if i % 4 == 0 else f"a bell rang {'loudly ' * i}" for i in range(24)]
    with pytest.warns(ExtractionWarning, match="cut-texts"):
        report = score_model("lab/XS", make.csv([0, 1] * 12, texts), layers="0", k_v=[0.5])
    assert np.isfinite(report.rows[0].excess_loss)

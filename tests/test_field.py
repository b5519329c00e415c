"""Situations that people report of tools like this one: odd outputs, terminals, files, labels and models."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AddedToken, AutoTokenizer
from typer.testing import CliRunner

from ntps_utils._utils.files import check_writable, write_text
from ntps_utils.cli.benchmark import parse_names
from ntps_utils.cli.main import app
from ntps_utils.evidence.experiment import ExperimentConfig, run_experiment
from ntps_utils.evidence.prescreen import prescreen
from ntps_utils.evidence.tables import load_recorded
from ntps_utils.models import finetuning
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import DatasetWarning, TextDataset, as_dataset, load_texts
from ntps_utils.models.extraction import ExtractionWarning, default_precision, extract, tokenize
from ntps_utils.models.features import layer_facts
from ntps_utils.models.finetuning import (
    FinetuneConfig,
    FinetuneWarning,
    attention_projections,
    finetune,
    projection_modules,
)
from ntps_utils.models.loading import CausalModel, load_model, text_modules
from ntps_utils.models.scoring import score_model
from tests.conftest import TRANSFORMERS_4, labeled

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
def test_a_closed_standard_output_ends_quietly(tmp_path):
    target = tmp_path / "scores.json"
    command = f"{Path(sys.executable).with_name('ntps')} {' '.join(SCORE)} --json {target} >&-"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True)
    assert b"Traceback" not in done.stderr
    assert json.loads(target.read_text())["rows"]


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
def test_results_reach_a_terminal_that_lacks_their_characters(tmp_path):
    data, texts = tmp_path / "評価.csv", load_texts("lab/topic").head(60)
    pd.DataFrame({"text": texts.texts, "label": texts.labels}).to_csv(data, index=False)
    done = ntps("score", "lab/XS", str(data), "--json", str(tmp_path / "h.json"), encoding="ascii", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "h.json").is_file()
    assert b"NTPS" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize("command", [["lab", "tasks"], ["models", "list"], ["datasets", "list"], ["--help"]])
def test_characters_that_a_terminal_lacks_are_replaced(command, encoding):
    outcome = CliRunner(charset=encoding).invoke(app, command)
    assert outcome.exit_code == 0, outcome.exception


# -- files -------------------------------------------------------------------------

ROWS = [("a good day", "yes"), ("a bad day, alas", "no"), ("nothing; at all", "no"), ("good", "yes")]
EXPECTED = (tuple(text for text, _ in ROWS), [1, 0, 0, 1], ("no", "yes"))


def csv_text(separator: str) -> str:
    lines = [f"text{separator}label", *(f'"{text}"{separator}{label}' for text, label in ROWS)]
    return "\n".join(lines) + "\n"


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["text", "label"])


FILES = {
    "d.csv": lambda p: p.write_text(csv_text(",")),
    "semicolons.csv": lambda p: p.write_text(csv_text(";")),
    "tabs.csv": lambda p: p.write_text(csv_text("\t")),
    "bars.csv": lambda p: p.write_text(csv_text("|")),
    "d.tsv": lambda p: p.write_text(csv_text("\t")),
    "excel.csv": lambda p: p.write_bytes(b"\xef\xbb\xbf" + csv_text(";").replace("\n", "\r\n").encode()),
    "d.csv.gz": lambda p: p.write_bytes(gzip.compress(csv_text(",").encode())),
    "d.json": lambda p: p.write_text(frame().to_json(orient="records")),
    "columns.json": lambda p: p.write_text(frame().to_json()),
    "lines.json": lambda p: p.write_text(frame().to_json(orient="records", lines=True)),
    "d.jsonl": lambda p: p.write_text(frame().to_json(orient="records", lines=True)),
    "d.jsonl.gz": lambda p: p.write_bytes(gzip.compress(frame().to_json(orient="records", lines=True).encode())),
    "d.parquet": lambda p: frame().to_parquet(p),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_all_kinds_hold_the_same_texts(tmp_path, name):
    FILES[name](tmp_path / name)
    data = load_texts(tmp_path / name)
    assert (data.texts, data.labels.tolist(), data.label_names) == EXPECTED
    assert data.name == name.partition(".")[0]


def hub_clone(folder: Path) -> None:
    (folder / "data").mkdir()
    for i, part in enumerate((frame()[:3], frame()[3:])):
        part.to_parquet(folder / "data" / f"train-0000{i}-of-00002.parquet")
    frame()[::-1].to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\n")


def saved_to_disk(folder: Path) -> None:
    parts = {"train": frame(), "test": frame()[::-1]}
    stored = {name: datasets.Dataset.from_pandas(part, preserve_index=False) for name, part in parts.items()}
    datasets.DatasetDict(stored).save_to_disk(str(folder))


def mixed_kinds(folder: Path) -> None:
    frame().to_csv(folder / "train.csv", index=False)
    frame()[::-1].to_json(folder / "test.jsonl", orient="records", lines=True)
    (folder / "notes.txt").write_text("not a table")


@pytest.mark.parametrize("make", [hub_clone, saved_to_disk, mixed_kinds])
def test_folders_of_all_kinds_hold_the_same_splits(tmp_path, make):
    make(tmp_path)
    data, test = load_texts(tmp_path, "train"), load_texts(tmp_path, "test")
    assert (data.texts, data.labels.tolist(), data.label_names) == EXPECTED
    assert test.texts == EXPECTED[0][::-1]
    assert data.name == tmp_path.name
    with pytest.raises(HubError, match="has no split 'dev'"):
        load_texts(tmp_path, "dev")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00001-0a1b2c3d4e5f6a7b.parquet", "test-00000-of-00001-0a1b.parquet"], None),
        (["train-00000-of-00002.parquet"], "has 1 of the 2 files of the split 'train'"),
    ],
)
def test_parts_of_a_split_are_complete_and_may_have_a_hash(tmp_path, names, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset_infos.json").write_text("{}")
    for name in names:
        frame().to_parquet(tmp_path / "data" / name)
    if message is None:
        assert load_texts(tmp_path, "test").texts == EXPECTED[0]
    else:
        with pytest.raises(HubError, match=message):
            load_texts(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path, tiny_model):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "d.parquet").write_text(pointer)
    with pytest.raises(HubError, match="is a pointer of Git LFS"):
        load_texts(tmp_path / "d.parquet")
    model = shutil.copytree(tiny_model, tmp_path / "model")
    next(model.glob("*.safetensors")).write_text(pointer)
    with pytest.raises(HubError, match=r"safetensors is a pointer of Git LFS.*git lfs pull"):
        load_model(model)


def test_two_files_of_one_split_are_refused(tmp_path):
    for name in ("train.csv", "train.tsv"):
        (tmp_path / name).write_text(csv_text(","))
    with pytest.raises(HubError, match=r"several files of the split 'train': train\.csv, train\.tsv"):
        load_texts(tmp_path)


DAMAGED = {
    "broken.csv.gz": b'{"text": [1, 2',
    "cut.csv.gz": gzip.compress(b"text,label\n" * 5000)[:40] + b"x" * 40,
    "broken.csv.xz": b"\xfd7zXZ\x00broken",
    "broken.csv.zst": b"(\xb5/\xfdbroken",
    "broken.json": b'{"text": [1, 2',
    "broken.parquet": b'{"text": [1, 2',
    "broken.jsonl": b'{"text": [1, 2',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(HubError, match=r"could not be read|is not UTF-8") as error:
        load_texts(tmp_path / name)
    assert "\n" not in str(error.value)


def test_text_pairs_are_joined(tmp_path, tiny_model):
    path = tmp_path / "pairs.csv"
    path.write_text("premise,hypothesis,label\nw1 w2,w3 w4,1\nw1 w2,w5,0\n")
    data = load_texts(path, text_column="premise,hypothesis")
    assert data.texts == ("w1 w2 w3 w4", "w1 w2 w5")
    with pytest.raises(HubError, match="has no column 'conclusion'; it has premise, hypothesis, label"):
        load_texts(path, text_column="premise,conclusion")
    report = score_model(tiny_model, path, layers="last", text_column="premise,hypothesis")
    assert report.provenance["text_column"] == "premise,hypothesis, joined by a space"


def test_a_quotation_mark_that_is_not_closed_is_refused(tmp_path):
    rows = [f"a good day number {i},1" for i in range(60)]
    rows[10] = '"' + rows[10]
    rows[40] = '"' + rows[40]
    (tmp_path / "quotes.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(HubError, match=r"row 11: the text has 31 lines, and \d+ of them look like rows"):
        load_texts(tmp_path / "quotes.csv")
    (tmp_path / "lines.csv").write_text('text,label\n"two\nlines",1\n"one, two",0\n')
    assert load_texts(tmp_path / "lines.csv").texts == ("two\nlines", "one, two")


@pytest.mark.parametrize("columns", [("label", "text"), ("text", "label", "id"), ("id", "label", "text")])
def test_a_quotation_mark_that_is_not_closed_is_refused_in_any_order_of_columns(tmp_path, columns):
    values = [{"text": f"a good day number {i}", "label": str(i % 2), "id": f"r{i}"} for i in range(60)]
    for i in (10, 40):
        values[i]["text"] = '"' + values[i]["text"]
    rows = [",".join(value[name] for name in columns) for value in values]
    (tmp_path / "quotes.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    with pytest.raises(HubError, match=r"look like rows of their own|more fields than the header|could not be read"):
        load_texts(tmp_path / "quotes.csv")
    lines = {"text": '"1 of two\nlines, and more"', "label": "1", "id": "a"}
    other = {"text": "one", "label": "0", "id": "b"}
    rows = [",".join(value[name] for name in columns) for value in (lines, other)]
    (tmp_path / "lines.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    assert load_texts(tmp_path / "lines.csv").texts == ("1 of two\nlines, and more", "one")


# -- labels ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([0, 2, 1], [0, 2, 1]),
        ([0.0, 1.0, 1.0], [0, 1, 1]),
        ([True, False, True], [1, 0, 1]),
        (["b", "a", "c"], [1, 0, 2]),
    ],
)
def test_labels_have_the_same_numbers_in_all_files(tmp_path, kind, labels, numbers):
    assert load_texts(labeled(tmp_path, kind, labels)).labels.tolist() == numbers


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([3.7, 1.0, 2.0], "row 1: the label is the number 3.7, not a class"),
        ([1, 2, 0.25], "row 3: the label is the number 0.25, not a class"),
        ([[0, 2], [1, 3], [0, 1]], "row 1: the label .* holds several values"),
        (["0,1", "2", "0,2"], "row 1: the label '0,1' holds several values"),
        (["?", *map(str, np.arange(20) / 8)], "row 3: the label is the number 0.125, not a class"),
    ],
)
def test_labels_that_are_no_classes_are_refused_in_all_files(tmp_path, kind, labels, message):
    with pytest.raises(HubError, match=message):
        load_texts(labeled(tmp_path, kind, labels))


@pytest.mark.parametrize(("train", "test"), [([0, 1, 2], [0, 1]), ([0, 1], [0, 1, 2]), ([1, 2], [2, 1])])
def test_all_splits_have_the_same_classes(tmp_path, train, test):
    for split, labels in (("train", train), ("test", test)):
        table = pd.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
        table.to_csv(tmp_path / f"{split}.csv", index=False)
    one, two = load_texts(tmp_path, "train"), load_texts(tmp_path, "test")
    assert one.label_names == two.label_names == ("0", "1", "2")
    assert (one.labels.tolist(), two.labels.tolist()) == (train, test)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("train", "test", "names", "numbers"),
    [
        (["1", "2"], ["1", "2", "x"], ("1", "2", "x"), ([0, 1], [0, 1, 2])),
        (["a", "c"], ["b", "c"], ("a", "b", "c"), ([0, 2], [1, 2])),
        (["True", "True"], ["True", "False"], ("False", "True"), ([1, 1], [1, 0])),
    ],
)
def test_class_names_have_one_numbering_in_all_splits(tmp_path, stored, train, test, names, numbers):
    tables = {
        split: pd.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
        for split, labels in (("train", train), ("test", test))
    }
    if stored:
        parts = {name: datasets.Dataset.from_pandas(table, preserve_index=False) for name, table in tables.items()}
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path))
    else:
        for name, table in tables.items():
            table.to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / "notes.csv").write_text("label,remark\n0.5,a table of something else\n")
    found = [load_texts(tmp_path, split) for split in ("train", "test")]
    assert [data.label_names for data in found] == [names, names]
    assert [data.labels.tolist() for data in found] == list(numbers)


def test_labels_that_hold_several_names_are_noted(tmp_path):
    with pytest.warns(DatasetWarning, match="the label 'angry,sad' looks like several labels"):
        load_texts(labeled(tmp_path, "csv", ["sad", "angry", "angry,sad", "sad"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_texts(labeled(tmp_path, "csv", ["Paris, France", "Rome, Italy"] * 2))


def test_a_split_without_labels_does_not_matter_for_the_others(tmp_path):
    frame().to_csv(tmp_path / "train.csv", index=False)
    frame()[["text"]].to_csv(tmp_path / "test.csv", index=False)
    assert load_texts(tmp_path).label_names == ("no", "yes")


def test_classes_of_one_text_each_are_noted(tmp_path):
    path = labeled(tmp_path, "csv", [f"id{i}" for i in range(30)])
    with pytest.warns(DatasetWarning, match="30 of 30 classes have one text each. Is the column of labels one of"):
        load_texts(path)


def test_a_single_file_has_no_texts_to_test_on(tmp_path):
    path = labeled(tmp_path, "csv", [0, 1] * 20)
    with pytest.raises(HubError, match=r"d\.csv is a single table.*folder with train\.csv and test\.csv"):
        ExperimentConfig().texts(str(path))
    datasets.Dataset.from_pandas(frame()).save_to_disk(str(tmp_path / "stored"))
    assert load_texts(tmp_path / "stored").split == "all"
    with pytest.raises(HubError, match="stored is a single table"):
        ExperimentConfig().texts(str(tmp_path / "stored"))
    outcome = CliRunner().invoke(app, ["benchmark", "--models", "lab/XS", "--datasets", str(path)])
    assert outcome.exit_code == 2
    assert "is a single table" in outcome.output


def test_paths_may_contain_separators(tmp_path):
    for name in ("lr=1", "a,b"):
        (tmp_path / name).mkdir()
        assert parse_names(str(tmp_path / name), "--datasets") == {str(tmp_path / name): str(tmp_path / name)}
    assert parse_names("x=a,y", "--datasets") == {"x": "a", "y": "y"}


@pytest.mark.slow
def test_a_cell_leaves_out_texts_without_tokens(tiny_model, tiny_data, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.backend_tokenizer.post_processor = None  # no token for an empty text
    for split in ("train", "test"):
        table = pd.read_csv(tiny_data / f"{split}.csv", dtype=str, keep_default_na=False)
        table = table.rename(columns={"text": "body", "label": "kind"})
        table.loc[3, "body"] = ""
        table.to_csv(tmp_path / f"{split}.csv", index=False)
    lora = FinetuneConfig(max_steps=2, eval_steps=1)
    settings = ExperimentConfig(
        lora=lora, frozen=replace(lora, method="frozen"), text_column="body", label_column="kind"
    )
    model = replace(load_model(tiny_model, dtype="float32"), tokenizer=tokenizer)
    with pytest.warns(ExtractionWarning, match="1 of 90 texts of .* have no token and are left out"):
        result = run_experiment(model, *settings.texts(str(tmp_path)), settings)
    assert (result.n_train, result.n_test) == (89, 44)
    assert result.finetuning is not None


# -- texts -------------------------------------------------------------------------


def words(share_unknown: float, n: int = 200) -> TextDataset:
    n_unknown = round(10 * share_unknown)
    texts = [" ".join(["w1"] * (10 - n_unknown) + ["zzz"] * n_unknown) for _ in range(n)]
    return as_dataset((texts, [i % 2 for i in range(n)]))


def test_unknown_tokens_are_noted_and_refused(tiny_model):
    model = load_model(tiny_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(model, words(0.0))
    with pytest.warns(ExtractionWarning, match="18% of the tokens of texts are unknown to the tokenizer"):
        tokenize(model, words(0.2))
    with pytest.raises(ValueError, match=r"73% of the tokens of texts are unknown .* Use another model"):
        tokenize(model, words(0.8))


def test_control_tokens_in_texts_are_noted(tiny_model):
    data = as_dataset((["w1 w2", "w1 <unk> w2", "<s> w1 <unk>"], [0, 1, 1]))
    with pytest.warns(ExtractionWarning, match="2 texts of texts contain <unk>, which the tokenizer .* control token"):
        tokenize(load_model(tiny_model), data)


def test_control_tokens_that_were_added_to_a_tokenizer_are_noted(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("w10", special=True)])
    model = replace(load_model(tiny_model), tokenizer=tokenizer)
    with pytest.warns(ExtractionWarning, match="1 texts of texts contain w10, which"):
        tokenize(model, as_dataset((["w1 w2", "w1 w10"], [0, 1])))


def sorted_file(folder: Path) -> Path:
    path = folder / "sorted.csv"
    rows = [f"{word} day number {i},{label}" for label, word in enumerate("abcd") for i in range(30)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def test_classes_that_the_first_texts_lack_are_noted(tmp_path, tiny_model):
    with pytest.warns(DatasetWarning, match="The first 70 texts of sorted have none of the class '3'"):
        score_model(tiny_model, as_words(sorted_file(tmp_path)), max_texts=70, layers="last", controls=False)


def as_words(path: Path) -> TextDataset:
    """The same rows in words that the tokenizer of the tiny model knows."""
    data = load_texts(path)
    return replace(data, texts=tuple(f"w{i % 40} w{label}" for i, label in enumerate(data.labels)))


def test_classes_that_the_first_texts_of_a_split_lack_are_noted(tmp_path):
    for split in ("train", "test"):
        sorted_file(tmp_path).rename(tmp_path / f"{split}.csv")
    with pytest.warns(DatasetWarning, match="The first 70 texts of .* have none of the class '3'"):
        ExperimentConfig(n_train=70, n_test=None).texts(str(tmp_path))


def test_absent_classes_are_not_counted(tiny_model):
    report = score_model(
        tiny_model, TextDataset("x", "all", ["w1 w2", "w3"] * 8, [1, 2] * 8, list("abc")), layers="last"
    )
    assert report.provenance["n_classes"] == 2


def test_repeated_texts_are_noted(tiny_model):
    data = as_dataset((["w1 w2", "w3 w4"] * 20, [0, 1] * 20))
    with pytest.warns(DatasetWarning, match="95% of the texts of texts repeat others"):
        score_model(tiny_model, data, layers="last", controls=False)


def test_empty_texts_are_counted(tiny_model):
    data = as_dataset((["good", " ", "", "bad"], [1, 0, 1, 0]))
    with pytest.warns(DatasetWarning, match=r"2 of 4 texts of .* are empty"):
        score_model(tiny_model, data)


def test_texts_cut_at_the_limit_of_the_model_are_not_told_to_raise_it(tmp_path):
    data = as_dataset((["the cat sees the dog . " * 40, "the bird sleeps . " * 60], [0, 1]))
    model = load_model("lab/XS")
    with pytest.warns(ExtractionWarning, match=r"truncated to 128 tokens; .* This is the limit of the model\."):
        extract(model, data)
    with pytest.warns(ExtractionWarning, match="Raise max_length to read more of them"):
        extract(model, data, max_length=20)


def test_a_separator_in_an_unquoted_text_is_named(tmp_path):
    file = tmp_path / "commas.csv"
    file.write_text("text,label\ngood film,1\nbad, very bad, film,0\n")
    with pytest.raises(HubError, match="put texts that contain the separator in quotation marks"):
        load_texts(str(file))


def test_a_folder_without_a_tokenizer_is_named(tmp_path, tiny_model):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, tmp_path / "model")
    with pytest.raises(HubError, match=r"^There is no tokenizer in .*model\. Save the tokenizer"):
        load_model(str(tmp_path / "model"))


def test_weights_that_are_no_numbers_are_not_called_an_overflow(tmp_path):
    broken = load_model("lab/XS").model
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "nan")
    load_model("lab/XS").tokenizer.save_pretrained(tmp_path / "nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(str(tmp_path / "nan"))
    with pytest.raises(ValueError, match=r"not finite \(NaN\)"):
        extract(model, load_texts("lab/topic").head(20))


def test_a_backend_that_is_not_there_is_named_in_one_line():
    with pytest.raises(HubError, match=r"^The device 'xpu' cannot be used: .{1,220}$"):
        load_model("lab/XS", device="xpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lab", "tasks", "--examples", "-1"], "greater than or equal to 0"),
        (["benchmark", "--models", "lab/XS", "--datasets", "lab/topic", "--flops", "0"], "--flops must be"),
        ([*SCORE, "--jackknife", "500"], "choose between 3 and 60"),
        ([*SCORE, "--k-v", "0"], "--k-v 0 is below 1"),
    ],
)
def test_options_out_of_range_are_refused_with_the_range(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_prescreening_does_not_predict_from_fewer_texts_than_features():
    report = prescreen(load_model("lab/M", dtype="float32"), load_texts("lab/topic").head(60), calibration="lab")
    assert (report.verdict, report.interval) == ("open", "spread")
    assert any("60 texts are fewer than the 96 features" in note for note in report.notes)


@pytest.mark.slow
def test_prescreening_does_not_decide_without_skill():
    """A verdict rests on a step whose interval of the skill lies above zero, or on the headroom."""
    model = load_model("lab/S", dtype="float32")
    for name in ("lab/topic", "lab/agreement", "lab/count"):
        report = prescreen(model, load_texts(name).head(150), calibration="lab", threshold=0.03)
        skills = {step.name: step.low for step in report.calibration.steps}
        if report.verdict != "open" and report.step != "headroom":
            assert skills[report.step] > 0, report.reason
        assert (report.interval == "calibrated") == (skills.get(report.step, -1.0) > 0)


@pytest.mark.parametrize(("value", "shown"), [("150", "150"), ("-1", "-1")])
def test_the_threshold_is_refused_in_the_units_of_the_option(value, shown):
    outcome = CliRunner().invoke(app, ["prescreen", "lab/XS", "lab/topic", "--threshold", value])
    assert outcome.exit_code == 2
    assert f"--threshold must be a number in [0, 100), got {shown}" in " ".join(outcome.output.split())


def test_a_small_calibration_is_refused_before_the_model_is_loaded(tmp_path):
    cells = load_recorded("lab").query("dataset in ['lab/topic', 'lab/tense']")
    cells.to_csv(tmp_path / "few_cells.csv", index=False)
    with pytest.raises(ValueError, match=r"has too few datasets: 1, besides those that are left out\. At least 5"):
        prescreen("no/model", load_texts("lab/topic").head(50), calibration=str(tmp_path / "few_cells.csv"))


# -- models ------------------------------------------------------------------------


def saved(folder: Path, config: transformers.PretrainedConfig, cls: type, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    cls(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
UNSUPPORTED = {
    "bidirectional gemma": (
        transformers.Gemma3ForCausalLM,
        transformers.Gemma3TextConfig(
            **SMALL, intermediate_size=64, head_dim=16, num_key_value_heads=1, use_bidirectional_attention=True
        ),
        "not a causal model",
    ),
    "opt-350m": (
        transformers.OPTForCausalLM,
        transformers.OPTConfig(
            **SMALL, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False, max_position_embeddings=64
        ),
        "hidden states of the widths",
    ),
    "bart": (
        transformers.BartForConditionalGeneration,
        transformers.BartConfig(
            vocab_size=60,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
        ),
        r"encoder-decoder model \(bart\); give a causal language model",
    ),
    "t5": (
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(vocab_size=60, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2),
        r"encoder-decoder model \(t5\)",
    ),
    "xlnet": (
        transformers.XLNetLMHeadModel,
        transformers.XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=2, d_inner=64),
        "not a causal model",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_models_are_refused_by_name(name, tmp_path, tiny_model, tiny_data):
    cls, config, message = UNSUPPORTED[name]
    folder = saved(tmp_path / "m", config, cls, tiny_model)
    with pytest.raises(ValueError, match=message) as error:
        score_model(folder, tiny_data, dtype="float32", layers="last")
    assert "\n" not in str(error.value)
    assert cls.__name__.split("For")[0][:4].lower() in str(error.value).lower()


def test_models_that_do_not_run_in_float64_run_in_float32(tmp_path, tiny_model, tiny_data):
    config = transformers.MixtralConfig(
        **SMALL, intermediate_size=64, num_key_value_heads=1, num_local_experts=2, max_position_embeddings=64
    )
    folder = saved(tmp_path / "moe", config, transformers.MixtralForCausalLM, tiny_model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_model(folder, device="cpu")
    if str(model.model.dtype) == "torch.float32":
        assert any("does not run in float64" in str(w.message) for w in caught)
        with pytest.raises(ValueError, match=r"does not run in float64 on cpu: .* Try the dtype float32"):
            score_model(folder, tiny_data, dtype="float64", device="cpu", layers="last")
    assert len(list(score_model(folder, tiny_data, device="cpu", layers="last"))) == 1


def test_a_model_with_a_leftover_adapter_is_refused(tmp_path, tiny_model):
    folder = tmp_path / "merged"
    load_model(tiny_model).model.save_pretrained(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(HubError, match="holds a whole model and an adapter, which may be merged into it already"):
        load_model(folder)


@pytest.mark.slow
def test_models_for_images_and_text_are_scored_and_finetuned_by_their_text_part(tmp_path, tiny_model, tiny_data):
    text = transformers.Gemma3TextConfig(**SMALL, intermediate_size=64, head_dim=16, num_key_value_heads=1)
    vision = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=4, image_token_index=59
    )
    folder = saved(tmp_path / "vision", config, transformers.Gemma3ForConditionalGeneration, tiny_model)
    model = load_model(folder, dtype="float32")
    names = projection_modules(model.model)
    assert names
    assert not any("vision" in name for name in names)
    lora = FinetuneConfig(max_steps=2, eval_steps=1, r=1)
    settings = ExperimentConfig(lora=lora, frozen=replace(lora, method="frozen"))
    result = run_experiment(model, *settings.texts(str(tiny_data)), settings)
    assert result.finetuning is not None
    assert np.isfinite(result.transferability["linearized"].value)


TEXT = {**SMALL, "hidden_size": 16, "intermediate_size": 32, "num_key_value_heads": 1, "pad_token_id": 0}
IMAGE = {**SMALL, "hidden_size": 16, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
WITH_IMAGES = {
    "llava": (
        transformers.LlavaForConditionalGeneration,
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": IMAGE | {"model_type": "clip_vision_model"}},
    ),
    "gemma3": (
        transformers.Gemma3ForConditionalGeneration,
        {
            "text_config": TEXT | {"head_dim": 8},
            "vision_config": IMAGE | {"model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
        },
    ),
    "qwen2_vl": (
        transformers.Qwen2VLForConditionalGeneration,
        {
            "text_config": TEXT
            | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
            "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 14},
        },
    ),
    "idefics3": (
        transformers.Idefics3ForConditionalGeneration,
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": IMAGE, "scale_factor": 2},
    ),
    "git": (transformers.GitForCausalLM, TEXT | {"max_position_embeddings": 64, "vision_config": IMAGE}),
    "kosmos-2": (
        transformers.Kosmos2ForConditionalGeneration,
        {
            "text_config": {"vocab_size": 60, "embed_dim": 16, "layers": 2, "ffn_dim": 32, "attention_heads": 2},
            "vision_config": IMAGE,
        },
    ),
    "qwen2_audio": (
        transformers.Qwen2AudioForConditionalGeneration,
        {
            "text_config": TEXT | {"model_type": "qwen2"},
            "audio_config": {
                "model_type": "qwen2_audio_encoder",
                "d_model": 16,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "num_mel_bins": 8,
                "max_source_positions": 16,
            },
        },
    ),
}
"""Models for text and images or sound, both of whose parts have two layers of width 16."""


@pytest.mark.parametrize("kind", WITH_IMAGES)
def test_the_text_part_is_read_where_both_parts_have_the_same_depth(kind, tiny_model, tiny_data):
    if kind in ("qwen2_vl", "kosmos-2") and TRANSFORMERS_4:
        pytest.skip(f"transformers 4 runs {kind} with images only")
    cls, values = WITH_IMAGES[kind]
    torch.manual_seed(0)
    network = cls(transformers.AutoConfig.for_model(kind, **values)).eval()
    model = CausalModel(kind, network, load_model(tiny_model).tokenizer, kind)
    data = load_texts(tiny_data).head(12)
    streamed, whole = (extract(model, data, stream=stream).moments for stream in (True, False))
    torch.testing.assert_close(streamed.A0, whole.A0, rtol=1e-4, atol=1e-4 * float(whole.A0.abs().max()))
    assert float(streamed.A0.abs().amax((1, 2)).min()) > 0
    others = ("vision", "visual", "image", "audio")
    modules = text_modules(network)
    assert not any(other in name for name in modules for other in others)
    names = projection_modules(network, ("query", "key", "value") if kind == "git" else None)
    assert len(names) == 6
    assert set(names) <= modules.keys()


@pytest.mark.slow
def test_a_model_without_known_projections_lacks_one_predictor_only(monkeypatch):
    monkeypatch.setattr(finetuning, "ATTENTION", ())
    settings = ExperimentConfig(lora=None, n_train=60, n_test=30)
    model = load_model("lab/XS", dtype="float32")
    with pytest.warns(FinetuneWarning, match="The score 'linearized' is left out: LlamaForCausalLM has no query"):
        result = run_experiment(model, *settings.texts("lab/topic"), settings)
    assert "linearized" not in result.transferability
    assert "headroom" in result.transferability
    report = prescreen(model, load_texts("lab/topic").head(120), calibration="lab")
    assert any(
        "Neither gradients nor a trial run: " in note and "--target-modules NAME" in note for note in report.notes
    )
    assert "headroom" in report.predictors
    given = prescreen(
        model, load_texts("lab/topic").head(120), calibration="lab", target_modules=("q_proj", "k_proj", "v_proj")
    )
    monkeypatch.undo()
    usual = prescreen(model, load_texts("lab/topic").head(120), calibration="lab")
    assert given.predictors == usual.predictors
    monkeypatch.setattr(finetuning, "ATTENTION", ())
    lora = FinetuneConfig(max_steps=1, target_modules=("q_proj", "v_proj"))
    assert finetune(model, *settings.texts("lab/topic"), lora).n_trainable > 0
    with pytest.raises(ValueError, match=r"has no modules named c_attn; it has .*q_proj"):
        projection_modules(model.model, ("c_attn",))


MLA = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("W_pack",), ("W_pack",)),
        (("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"), ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj")),
        (
            ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
            ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
        ),
    ],
)
def test_projections_of_other_families_are_known(names, expected):
    assert attention_projections(torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in names})) == expected


class DeviceWithoutFloat64(TorchDispatchMode):
    """Simulate a device, such as Apple's MPS, that has no float64: results of its tensors are on it until ``cpu()``."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.there = WeakTensorKeyDictionary()
        for tensor in (*model.parameters(), *model.buffers()):
            self.there[tensor] = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if any(isinstance(x, torch.Tensor) and x in self.there for x in tree_leaves((args, kwargs))):
            for x in tree_leaves(result):
                if isinstance(x, torch.Tensor):
                    if x.dtype == torch.float64:
                        raise TypeError(
                            f"Cannot convert a tensor to float64 ({function}): the device does not support it."
                        )
                    self.there[x] = True
        return result

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let ``cpu()`` and ``to("cpu")`` copy to the CPU, and cast first where a call does both."""
        to = torch.Tensor.to

        def leave(tensor: torch.Tensor) -> torch.Tensor:
            copied = tensor.clone()
            self.there.pop(copied, None)
            return copied

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            return leave(tensor) if tensor in self.there else tensor

        def moved(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            places = [torch.device(x).type for x in (*args, *kwargs.values()) if isinstance(x, (str, torch.device))]
            if "mps" in places:
                args = tuple(x for x in args if not isinstance(x, (str, torch.device)))
                result = to(tensor, *args, **kwargs) if args or kwargs else tensor.clone()
                self.there[result] = True
                return result
            result = to(tensor, *args, **kwargs)
            return cpu(result) if "cpu" in places else result

        monkeypatch.setattr(torch.Tensor, "cpu", cpu)
        monkeypatch.setattr(torch.Tensor, "to", moved)


@pytest.mark.parametrize("stream", [True, False])
def test_models_run_on_a_device_without_float64(monkeypatch, stream):
    model = load_model("lab/XS", device="cpu", dtype="float32")
    data = load_texts("lab/topic").head(60)
    expected = extract(model, data, features="last", stream=stream)
    with DeviceWithoutFloat64(model.model) as device:
        with pytest.raises(TypeError, match="float64"):
            next(iter(model.model.parameters())).double()
        device.patch(monkeypatch)
        found = extract(model, data, features="last", stream=stream)
    last = model.n_layers - 1
    assert np.allclose(found.features[last], expected.features[last], atol=1e-6)
    for name in ("A0", "A1", "S", "C"):
        one, two = (getattr(part.moments.layer(last), name) for part in (found, expected))
        assert np.allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(two).max()), name


def test_sums_are_on_the_cpu_where_a_device_has_no_float64(monkeypatch):
    """The device calls itself mps, so that an array cannot be made there."""
    model = load_model("lab/XS", device="cpu", dtype="float32")
    data = load_texts("lab/topic").head(60)
    expected, facts = extract(model, data).moments, layer_facts(model, data)
    assert default_precision(model) == "float64"
    with DeviceWithoutFloat64(model.model) as device:
        device.patch(monkeypatch)
        monkeypatch.setattr(type(model.model), "device", torch.device("mps"))
        assert default_precision(model) == "float32"
        found, other_facts = extract(model, data).moments, layer_facts(model, data)
    assert found.A0.device.type == "cpu"
    assert torch.allclose(found.A0, expected.A0, rtol=1e-4, atol=1e-4 * float(expected.A0.abs().max()))
    pd.testing.assert_frame_equal(facts, other_facts, check_exact=False, rtol=1e-3, atol=1e-3)


def test_a_device_that_refuses_the_type_of_a_model_is_named(monkeypatch, tiny_model):
    def refuse(self, device):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype.\nMore")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "to", refuse)
    with pytest.raises(
        HubError, match=r"cannot be moved to the device cpu in float64: Cannot .*dtype\. Choose another"
    ):
        load_model(tiny_model, device="cpu", dtype="float64")


def test_finetuning_runs_on_a_device_without_float64(monkeypatch):
    model = load_model("lab/XS", device="cpu", dtype="float32")
    train, test = load_texts("lab/topic").head(60), load_texts("lab/topic", "test").head(30)
    config = FinetuneConfig(max_steps=2, eval_steps=1, r=1)
    expected = finetune(model, train, test, config)
    with DeviceWithoutFloat64(model.model) as device:
        device.patch(monkeypatch)
        found = finetune(model, train, test, config)
    assert found.test.cross_entropy == pytest.approx(expected.test.cross_entropy, abs=1e-3)


# -- words that end a search ---------------------------------------------------------


def test_missing_columns_are_named_together_with_the_options(tmp_path):
    file = tmp_path / "tickets.csv"
    file.write_text("subject,category\nhello,a\nbye,b\n")
    with pytest.raises(HubError) as error:
        load_texts(file)
    assert str(error.value) == (
        f"{file} has no columns 'text' and 'label'; it has subject, category. Give the right names with --text-column "
        "and --label-column (text_column and label_column in Python)."
    )
    with pytest.raises(HubError, match=r"no column 'label'; it has subject, category\. .* with --label-column \(label"):
        load_texts(file, text_column="subject")
    assert len(load_texts(file, text_column="subject", label_column="category")) == 2


def test_rows_without_a_label_are_counted(tmp_path):
    file = tmp_path / "tickets.csv"
    file.write_text("text,label\nhello,a\nbye,\nagain,b\nonce,\n")
    with pytest.raises(HubError, match=r"row 2: the label is ''; .* Remove the 2 rows without a label\."):
        load_texts(file)


def test_a_real_model_is_recommended_where_the_lab_reads_nothing(tmp_path):
    file = tmp_path / "tickets.csv"
    rows = "".join(f"please reset my password again number {i},{i % 2}\n" for i in range(20))
    file.write_text("text,label\n" + rows)
    with pytest.raises(ValueError, match="models of the lab read its artificial language only"):
        score_model("lab/XS", file)


def test_a_file_is_divided_into_two(tmp_path):
    file, folder = tmp_path / "tickets.csv", tmp_path / "parts"
    rows = [f"{'good' if i % 4 else 'bad'} text {i // 2 if i % 4 == 0 else i}" for i in range(200)]
    names = ["no" if row.startswith("bad") else "yes" for row in rows]
    pd.DataFrame({"subject": rows + rows[:20], "kind": names + names[:20]}).to_csv(file, index=False)
    command = ["datasets", "split", str(file), str(folder), "--text-column", "subject", "--label-column", "kind"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "test"))
    assert len(train) + len(test) == 220
    assert set(train["text"]).isdisjoint(test["text"])  # repeated texts stay together
    assert set(train["text"]) | set(test["text"]) == set(rows)
    assert test["text"].nunique() == pytest.approx(0.2 * len(set(rows)), abs=1)
    assert test.drop_duplicates()["label"].eq("no").mean() == pytest.approx(0.25, abs=0.02)
    assert dict(zip(rows, names, strict=True)).items() >= dict(zip(test["text"], test["label"], strict=True)).items()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists already; give a new folder" in " ".join(again.output.split())
    one = CliRunner().invoke(app, [*command[:3], str(tmp_path / "other"), *command[4:], "--test-share", "0.001"])
    assert one.exit_code == 2
    assert "cannot be divided with 0.001 of each class" in " ".join(one.output.split())
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("error_stream", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_results_are_written_where_the_error_stream_is_closed_or_full(error_stream, tmp_path):
    command = " ".join([str(Path(sys.executable).with_name("ntps")), *SCORE, "--no-controls", "--json", "out.json"])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}  # as most users have it
    done = subprocess.run(
        ["bash", "-c", f"{command} {error_stream}"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["rows"]
    assert b"NTPS" in done.stdout


@pytest.mark.parametrize("option", ["--json", "--checkpoint"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "it is a folder"),
        ("loop", "it is a link that leads back to itself"),
        ("/dev/fd/77", "it is not open"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(option, place, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    outcome = CliRunner().invoke(app, [*SCORE, option, str(tmp_path / place)])
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.output.split())
    assert "reading texts" not in outcome.output


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (
            score_model,
            {"max_texts": np.int64(60), "seed": np.int64(1), "k_v": (np.int64(4),), "jackknife": np.int32(3)},
        ),
        (score_model, {"max_length": np.int64(16), "batch_size": np.int32(8)}),
        (prescreen, {"max_texts": np.int64(150), "seed": np.int64(1), "threshold": np.float32(0.5)}),
        (prescreen, {"max_length": np.int64(16), "worth": np.float32(0.2), "trial": np.float64(0.0)}),
    ],
)
@pytest.mark.filterwarnings("ignore::ntps_utils.models.extraction.ExtractionWarning")
def test_options_may_be_numbers_of_numpy(function, options):
    report = function("lab/XS", "lab/topic", **({"max_texts": 150} | options))
    assert json.loads(report.to_json())["provenance"]["versions"]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
def test_seeds_that_a_library_refuses_are_refused_before_the_work(seed):
    for make in (ExperimentConfig, FinetuneConfig):
        with pytest.raises(ValueError, match="seed must be an integer from 0 to 4294967295"):
            make(seed=seed)
    with pytest.raises(ValueError, match="seed must be an integer from 0 to 4294967295"):
        prescreen("lab/XS", "lab/topic", seed=seed)

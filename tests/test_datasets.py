"""Texts and labels in all forms: files, folders, lists, tables and objects, and what is wrong with them."""

from __future__ import annotations

import warnings
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import DatasetWarning, as_dataset, load_texts

# -- labels ------------------------------------------------------------------------


def labeled(folder: Path, kind: str, labels: list[object]) -> Path:
    path = folder / f"d.{kind}"
    table = pd.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
    writer = {"csv": table.to_csv, "parquet": table.to_parquet, "jsonl": table.to_json}[kind]
    writer(
        path, **({"index": False} if kind == "csv" else {"orient": "records", "lines": True} if kind == "jsonl" else {})
    )
    return path


def pair(labels: object) -> tuple[list[str], object]:
    return [f"text {i}" for i in range(len(labels))], labels


def written(folder: Path, kind: str, labels: object) -> object:
    """Labels as a pair, a DataFrame, a Dataset, or the path of a file."""
    if kind == "pair":
        return pair(labels)
    table = pd.DataFrame(dict(zip(("text", "label"), pair(labels), strict=True)))
    if kind == "DataFrame":
        return table
    if kind == "Dataset":
        return datasets.Dataset.from_pandas(table, preserve_index=False)
    table.to_parquet(folder / "d.parquet")
    return folder / "d.parquet"


MISSING_LABELS = {
    "Int64": pd.array([0, 1, pd.NA, 1], dtype="Int64"),
    "Float64": pd.array([0.0, 1.0, pd.NA, 1.0], dtype="Float64"),
    "boolean": pd.array([True, False, pd.NA, True], dtype="boolean"),
    "string": pd.array(["a", "b", pd.NA, "a"], dtype="string"),
    "category": pd.Categorical(["a", "b", None, "a"]),
    "dates": pd.to_datetime(["2020-01-01", "2021-01-01", None, "2020-01-01"]),
    "float32": np.array([0, 1, np.nan, 1], dtype=np.float32),
    "None": ["a", "b", None, "a"],
    "blank": ["a", "b", " ", "a"],
    "no-break space": ["a", "b", "\u00a0", "a"],
    "words beside numbers": ["0", "1", "NaN", "1"],
    "words beside truth values": ["True", "False", "None", "True"],
}


@pytest.mark.parametrize("kind", ["pair", "DataFrame", "Dataset", "parquet"])
@pytest.mark.parametrize("name", MISSING_LABELS)
def test_missing_labels_are_refused_in_all_forms(tmp_path, kind, name):
    with pytest.raises(HubError, match=r"row 3: the label is .* Remove this row\."):
        as_dataset(written(tmp_path, kind, MISSING_LABELS[name]))


@pytest.mark.parametrize(
    "missing",
    [pd.NA, pd.NaT, np.datetime64("NaT"), float("nan"), np.float32("nan"), Decimal("NaN"), torch.tensor(np.nan)],
)
@pytest.mark.parametrize("others", [[0, 1], ["a", "b"]])
def test_missing_labels_in_lists_are_refused(missing, others):
    with pytest.raises(HubError, match="row 3: the label is"):
        as_dataset(pair([*others, missing]))


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "N/A", "n/a", "None", "none", "null", "NULL", "<NA>", "?", " "])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_words_for_missing_labels_are_refused_beside_numbers(tmp_path, word, kind):
    with pytest.raises(HubError, match=r"row 2: the label is .* Remove the 2 rows without a label"):
        load_texts(labeled(tmp_path, kind, ["0", word, "1", "2", word]))
    (tmp_path / "test.csv").write_text(f"text,label\na,1\nb,{word}\n")
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / f"d.{kind}").unlink()
    assert load_texts(tmp_path).label_names == ("0", "1")


@pytest.mark.parametrize(("word", "noted"), [("None", True), ("null", True), ("NA", True), ("none", False)])
def test_words_for_missing_labels_are_classes_beside_names(tmp_path, word, noted):
    path = labeled(tmp_path, "csv", ["person", word, "place", word])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert word in load_texts(path).label_names
    assert [f"the label '{word}' is what programs write" in str(one.message) for one in caught] == [True] * noted


CODES = {
    "leading zeros": ["01", "1", "02", "2"],
    "postal codes": ["01067", "10115", "80331", "01067"],
    "exponents": ["1E1", "10", "2E0", "2"],
    "no plain number": ["1E1", "1E2", "0E0", "1e2"],
    "hexadecimal": ["0x1F", "1F", "0x01", "1"],
    "digits of another alphabet": ["\uff11", "1", "2", "3"],
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", CODES)
def test_codes_stay_apart(tmp_path, kind, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        data = load_texts(labeled(tmp_path, kind, CODES[name]))
    assert [data.label_names[i] for i in data.labels] == CODES[name]
    assert data.n_classes == len(set(CODES[name]))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_advice_for_codes_works(tmp_path, kind):
    codes = ["94110", "10115", "94110", "10117"]
    with pytest.raises(HubError, match="write a letter in front of them, such as 'c94110'"):
        load_texts(labeled(tmp_path, kind, codes))
    data = load_texts(labeled(tmp_path, kind, [f"c{code}" for code in codes]))
    assert data.label_names == ("c10115", "c10117", "c94110")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("text", ["1.0", " 1", "1 ", "+1", "1.000000000000000000e+00"])
def test_class_numbers_may_be_written_in_several_ways(tmp_path, kind, text):
    assert load_texts(labeled(tmp_path, kind, ["0", text, "1"])).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("other", [" pos", "pos ", "Pos", "POS", "pos\u00a0", "p\u00ados", "\ufeffpos", "\uff50os"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_that_look_alike_are_noted(tmp_path, kind, other):
    with pytest.warns(DatasetWarning, match="differ only in spaces") as caught:
        data = load_texts(labeled(tmp_path, kind, ["pos", other, "neg"]))
    assert data.n_classes == 3
    assert ascii(other) in str(caught[0].message)
    assert ascii("pos") in str(caught[0].message)


def test_labels_that_look_alike_in_different_splits_are_noted(tmp_path):
    for split, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        (tmp_path / f"{split}.csv").write_text(f"text,label\na,{name}\nb,bar\n", "utf-8")
    with pytest.warns(DatasetWarning, match=r"'cafe\\u0301' and 'caf\\xe9'"):
        assert load_texts(tmp_path).n_classes == 3


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("train", "test"), [(["neg", "pos"], ["0", "1"]), (["0", "1"], ["neg", "pos"])])
def test_names_in_one_split_and_numbers_in_another_are_refused(tmp_path, stored, train, test):
    tables = {"train": pd.DataFrame({"text": ["a", "b"], "label": train})}
    tables["test"] = pd.DataFrame({"text": ["c", "d"], "label": test})
    source: object = tmp_path
    if stored:
        source = datasets.DatasetDict({k: datasets.Dataset.from_pandas(t) for k, t in tables.items()})
    else:
        for name, table in tables.items():
            table.to_csv(tmp_path / f"{name}.csv", index=False)
    for split in tables:
        with pytest.raises(
            HubError, match=r"labels of (train|test) are numbers .*such as 0.* names .*'neg'.*label_names"
        ):
            as_dataset(source, split)
    if not stored:
        (tmp_path / "label_names.json").write_text('["neg", "pos"]')
        found = [load_texts(tmp_path, split) for split in tables]
        assert [data.label_names for data in found] == [("neg", "pos")] * 2
        assert [data.labels.tolist() for data in found] == [[0, 1]] * 2


def test_class_names_of_stored_splits_agree():
    def stored(names: list[str]) -> datasets.Dataset:
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)

    same = datasets.DatasetDict({"train": stored(["neg", "pos"]), "test": stored(["neg", "pos"])})
    assert as_dataset(same, "test").label_names == ("neg", "pos")
    other = datasets.DatasetDict({"train": stored(["neg", "pos"]), "test": stored(["pos", "neg"])})
    with pytest.raises(HubError, match="train and test have different class names"):
        as_dataset(other)


@pytest.mark.parametrize(
    "content",
    [
        '{"0": "a"}',
        "[]",
        '["a", "a"]',
        '["a", null]',
        '["a", ["b"]]',
        '["a", ""]',
        "[0, 1]",
        '"ab"',
        "null",
        "",
        "a, b",
    ],
)
def test_class_names_in_a_file_are_different_strings(tmp_path, content):
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "label_names.json").write_text(content)
    with pytest.raises(
        HubError, match=r"label_names\.json must contain a JSON list of class names.*strings that differ"
    ):
        load_texts(tmp_path)


def test_class_names_that_are_numbers_are_names(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,5\nb,1\n")
    (tmp_path / "label_names.json").write_text('["1", "2", "3", "4", "5"]')
    data = load_texts(tmp_path)
    assert (data.labels.tolist(), data.label_names) == ([4, 0], ("1", "2", "3", "4", "5"))

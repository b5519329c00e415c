"""Texts and labels in all forms: files, folders, lists, tables and objects, and what is wrong with them."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from ntps_utils.cli.main import app
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import DatasetWarning, TextDataset, as_dataset, load_texts, split_texts
from tests.conftest import labeled

# -- labels ------------------------------------------------------------------------


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


def test_labels_that_are_all_words_for_missing_are_refused(tmp_path):
    with pytest.raises(HubError, match=r"row 1: the label is 'nan'.*Remove the 3 rows"):
        load_texts(labeled(tmp_path, "csv", ["nan", "NA", "null"]))
    assert load_texts(labeled(tmp_path, "csv", ["?", ".", "?"])).label_names == (".", "?")


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


# -- files -------------------------------------------------------------------------

ROWS = [("the cat sat", 0), ("a dog ran", 1), ("one bird flew", 0), ("two fish swam", 1)]
TEXTS, NUMBERS = (list(part) for part in zip(*ROWS, strict=True))
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
RECORDS = [{"text": text, "label": label} for text, label in ROWS]


def quoted(columns: tuple[str, ...], column: str, first: int, last: int) -> str:
    """A CSV file with a quotation mark that opens in one row and closes in another."""
    rows = [{"text": f"t {i}", "label": str(i % 2), "note": f"n{i}", "id": f"r{i}"} for i in range(40)]
    rows[first][column] = '"' + rows[first][column]
    rows[last][column] += '"'
    return "\n".join([",".join(columns), *(",".join(row[name] for name in columns) for row in rows)]) + "\n"


COLUMN_ORDERS = [
    ("text", "label"),
    ("label", "text"),
    ("text", "label", "note"),
    ("note", "text", "label"),
    ("text", "note", "label"),
    ("label", "note", "text"),
    ("id", "text", "label", "note"),
]


@pytest.mark.parametrize("last", [11, 12, 30])
@pytest.mark.parametrize(("columns", "column"), [(columns, name) for columns in COLUMN_ORDERS for name in columns])
def test_a_stray_quotation_mark_is_found_in_every_column(tmp_path, columns, column, last):
    path = tmp_path / "d.csv"
    path.write_text(quoted(columns, column, 10, last))
    with pytest.raises(HubError, match=r"d\.csv, row 11: the .* look like rows of their own"):
        load_texts(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stray_quotation_mark_is_found_with_all_line_ends(tmp_path, end):
    (tmp_path / "d.csv").write_bytes(quoted(("text", "label", "note"), "note", 10, 30).replace("\n", end).encode())
    with pytest.raises(HubError, match="the column 'note' has 21 lines"):
        load_texts(tmp_path / "d.csv")


def test_a_stray_quotation_mark_in_another_split_is_found(tmp_path):
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / "test.csv").write_text(quoted(("label", "text"), "label", 10, 30))
    with pytest.raises(HubError, match=r"test\.csv, row 11: the column 'label' has 21 lines"):
        load_texts(tmp_path)


def test_lines_in_other_columns_are_no_rows(tmp_path):
    table = pd.DataFrame({"text": TEXTS, "label": NUMBERS, "note": ["one\ntwo, three", "a, b, c\nd, e, f", "\n", ""]})
    table.to_csv(tmp_path / "d.csv", index=False)
    assert load_texts(tmp_path / "d.csv").texts == tuple(TEXTS)


def twice(column: str) -> pd.DataFrame:
    table = pd.DataFrame(RECORDS)
    table["other"] = table[column]
    return table.rename(columns={"other": column})


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("form", ["DataFrame", "d.csv", "d.tsv", "d.jsonl", "d.json", "d.parquet"])
def test_a_column_that_occurs_twice_is_refused(tmp_path, form, column):
    table: object = twice(column)
    if form in ("d.csv", "d.tsv"):
        twice(column).to_csv(tmp_path / form, index=False, sep="," if form == "d.csv" else "\t")
    elif form == "d.parquet":
        pa_table = pyarrow.table([TEXTS, NUMBERS, TEXTS if column == "text" else NUMBERS], ["text", "label", column])
        pyarrow.parquet.write_table(pa_table, tmp_path / form)
    elif form != "DataFrame":
        rows = [f'{{"text": "{text}", "label": {label}, "{column}": "x"}}' for text, label in ROWS]
        (tmp_path / form).write_text("\n".join(rows) if form == "d.jsonl" else f"[{','.join(rows)}]")
    with pytest.raises(HubError, match=rf"2 columns '{column}'|'{column}' twice|[Dd]uplicate"):
        as_dataset(table if form == "DataFrame" else tmp_path / form)


def test_other_columns_may_occur_twice(tmp_path):
    (tmp_path / "d.csv").write_text("text,id,label,id\na,1,0,2\nb,3,1,4\n")
    assert load_texts(tmp_path / "d.csv").texts == ("a", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.csv", "train-00000-of-00002.tsv"], "part 0 of the split 'train' twice"),
        (["train-00000-of-00002.csv", "train-00000-of-00002-0a1b.csv"], "part 0 of the split 'train' twice"),
        (["train-00001-of-00002.csv", "train-00002-of-00002.csv"], r"numbered 0 \.\.\. 1"),
        (["train-00000-of-00001.csv", "train-00001-of-00002.csv"], "different versions of the split 'train'"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "has 2 of the 3 files"),
        (["train-00001-of-00001.csv"], r"numbered 0 \.\.\. 0"),
        (["train-00000-of-00001.csv", "train.csv"], "several files of the split 'train'"),
    ],
)
def test_parts_of_a_split_are_numbered_from_zero(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text(CSV)
    with pytest.raises(HubError, match=message):
        load_texts(tmp_path)


def test_parts_of_a_split_have_the_same_columns(tmp_path):
    (tmp_path / "train-00000-of-00002.csv").write_text(CSV)
    (tmp_path / "train-00001-of-00002.csv").write_text(CSV.replace("text", "sentence"))
    with pytest.raises(HubError, match=r"train-00001-of-00002\.csv has no column 'text'; it has sentence, label"):
        load_texts(tmp_path)


@pytest.mark.parametrize(
    "name", ["._train.csv", ".DS_Store", "~$train.csv", ".~lock.train.csv#", "._train-00000-of-00009.csv"]
)
def test_leftovers_in_a_folder_are_ignored(tmp_path, name):
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / name).write_bytes(b"\0\5\x16\7\xff")
    assert load_texts(tmp_path).texts == tuple(TEXTS)
    with pytest.raises(HubError, match=r"no split 'test'; it has train\.csv\."):
        load_texts(tmp_path, "test")


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


SHAPES: dict[str, tuple[str, str | bytes]] = {
    "ZIP": ("d.zip", zipped({"d.csv": CSV})),
    "ZIP with the suffix of the table": ("d.csv.zip", zipped({"d.csv": CSV})),
    "ZIP made by macOS": (
        "d.zip",
        zipped({"folder/d.csv": CSV, "__MACOSX/folder/._d.csv": "x", "note.txt": "x"}),
    ),
    "ZIP of JSON": ("d.zip", zipped({"d.json": json.dumps(RECORDS)})),
    "rows in an object": ("d.json", json.dumps({"version": 1, "data": RECORDS})),
    "only rows in an object": ("d.json", json.dumps({"rows": RECORDS})),
    "several lists, one of rows": ("d.json", json.dumps({"data": RECORDS, "names": ["a", "b", "c", "d"]})),
    "a list in JSON lines": ("d.jsonl", json.dumps(RECORDS)),
    "a separator for Excel": ("d.csv", "sep=;\n" + CSV.replace(",", ";")),
    "a separator and a byte order mark": ("d.csv", "\ufeffsep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n")),
    "a quoted separator": ("d.csv", '"sep=;"\r\n' + CSV.replace(",", ";")),
    "a separator that is a comma": ("d.csv", "sep=,\n" + CSV),
    "a separator that is a tab": ("d.csv", "sep=\t\n" + CSV.replace(",", "\t")),
    "an unusual separator": ("d.csv", "sep=^\n" + CSV.replace(",", "^")),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_in_other_shapes_are_read(tmp_path, shape):
    name, content = SHAPES[shape]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    data = load_texts(tmp_path / name)
    assert (data.texts, data.labels.tolist(), data.name) == (tuple(TEXTS), NUMBERS, "d")


def test_zip_archives_are_splits_of_a_folder(tmp_path):
    for name in ("train.zip", "test.csv.zip"):
        (tmp_path / name).write_bytes(zipped({"d.csv": CSV}))
    assert load_texts(tmp_path, "train").texts == load_texts(tmp_path, "test").texts == tuple(TEXTS)


BAD_SHAPES: dict[str, tuple[str, str | bytes, str]] = {
    "ZIP of two tables": ("d.zip", zipped({"a.csv": CSV, "b.csv": CSV}), "a ZIP archive must contain one of them"),
    "ZIP without a table": ("d.zip", zipped({"a.txt": "x"}), "a ZIP archive must contain one of them"),
    "no ZIP archive": ("d.zip", "PK", "a ZIP archive must contain one of them"),
    "empty JSON": ("d.json", "", "is empty"),
    "JSON of white space": ("d.json", " \n", "is empty"),
    "empty JSON lines": ("d.jsonl", "", "is empty"),
    "several tables": ("d.json", json.dumps({"train": RECORDS, "test": RECORDS}), "has several tables: train, test"),
    "many columns": (
        "d.json",
        json.dumps({f"id{i}": {"a": 1} for i in range(999)}),
        "it has id0, .*and 979 others",
    ),
    "no table": ("d.json", "[]", "it has none"),
    "deep JSON": ("d.json", "[" * 5000 + "{" + "]" * 5000, "could not be read"),
    "deep objects": ("d.json", '{"a":' * 5000, "could not be read"),
    "a number": ("d.json", "5", "has no columns"),
    "a quotation mark in the header": ("d.csv", '"text,label\na,0\nb",1\n', r"it has 'text,label\\na,0\\nb', 1\."),
    "a quotation mark at the end": ("d.csv", 'text,label,note\na,0,"x\nb,1,y\n', "A quotation mark is not closed"),
    "another separator than told": ("d.csv", "sep=;\n" + CSV, "has no columns"),
}


@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_files_without_a_table_are_refused(tmp_path, shape):
    name, content, message = BAD_SHAPES[shape]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(HubError, match=message) as error:
        load_texts(tmp_path / name)
    assert len(str(error.value)) < 600


# -- columns -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label_column": "text"}, "'text' is given as the column of labels and of texts"),
        ({"text_column": "text,label"}, "'label' is given as the column of labels and of texts"),
        ({"text_column": "label"}, "'label' is given as the column of labels and of texts"),
        ({"text_column": "text, text"}, "has the same name twice"),
        (
            {"label_column": "kind"},
            r"no column 'kind'; it has text, label\. .* --label-column \(label_column in Python",
        ),
        ({"text_column": "body"}, r"no column 'body'; it has text, label\. .* --text-column \(text_column in Python"),
        (
            {"text_column": "body", "label_column": "kind"},
            "no columns 'body' and 'kind'.*--text-column and --label-col",
        ),
        ({"text_column": ["text"]}, r"text_column must be the name of a column, got \['text'\]; several text columns"),
        ({"text_column": None}, "text_column must be the name of a column, got None"),
        ({"label_column": None}, "label_column must be the name of a column, got None"),
        ({"split": None}, "split must be a name, got None"),
        ({"split": 0}, "split must be a name, got 0"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "DataFrame", "Dataset"])
def test_wrong_columns_are_named(tmp_path, form, columns, message):
    (tmp_path / "d.csv").write_text(CSV)
    table = pd.DataFrame(RECORDS)
    dataset = {"csv": tmp_path / "d.csv", "DataFrame": table, "Dataset": datasets.Dataset.from_pandas(table)}[form]
    with pytest.raises((HubError, TypeError, ValueError), match=message):
        as_dataset(dataset, **columns)


def test_columns_of_a_table_may_be_numbers_but_have_one_level():
    data = as_dataset(pd.DataFrame({0: TEXTS, 1: NUMBERS}), text_column=0, label_column=1)
    assert data.texts == tuple(TEXTS)
    with pytest.raises(HubError, match="names of columns with 2 levels"):
        as_dataset(pd.DataFrame({("text", "a"): TEXTS, ("label", "a"): NUMBERS}))


# -- objects -----------------------------------------------------------------------

BAD_TEXTS = {
    "None": (None, "missing"),
    "NA": (pd.NA, "missing"),
    "NaN": (float("nan"), "missing"),
    "NaT": (pd.NaT, "missing"),
    "a list": (["a", "b"], "list"),
    "an array": (np.array(["a", "b"]), "ndarray"),
    "bytes": (b"a", "bytes"),
    "a dictionary": ({"en": "a"}, "dict"),
    "a number": (5, "int"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
@pytest.mark.parametrize("form", ["pair", "DataFrame"])
def test_texts_that_are_no_strings_are_refused(name, form):
    value, message = BAD_TEXTS[name]
    texts = ["a", value, "b"]
    table = pd.DataFrame({"text": pd.Series(texts, dtype=object), "label": [0, 1, 0]})
    with pytest.raises(HubError, match=f"row 2: the text is {message}"):
        as_dataset((texts, [0, 1, 0]) if form == "pair" else table)
    if form == "DataFrame":
        with pytest.raises(HubError, match="row 2: the text of the column 'text' is missing or not a string"):
            as_dataset(table.assign(other="x"), text_column="text,other")


GOOD_PAIRS = {
    "lists": (TEXTS, NUMBERS),
    "generators": (iter(TEXTS), iter(NUMBERS)),
    "arrays": (np.array(TEXTS), np.array(NUMBERS)),
    "series": (pd.Series(TEXTS, index=[3, 2, 1, 0]), pd.Series(NUMBERS)),
    "a tensor": (TEXTS, torch.tensor(NUMBERS)),
    "a masked array": (TEXTS, np.ma.array(NUMBERS)),
    "a tensor with gradients": (TEXTS, torch.tensor(NUMBERS, dtype=torch.float64, requires_grad=True)),
    "scalars of tensors": (TEXTS, list(torch.tensor(NUMBERS))),
}


@pytest.mark.parametrize("name", GOOD_PAIRS)
def test_pairs_of_all_kinds_are_read(name):
    texts, labels = GOOD_PAIRS[name]
    data = as_dataset((texts, labels))
    assert (data.texts, data.labels.tolist()) == (tuple(TEXTS), NUMBERS)


ONE_HOT = np.eye(2, dtype=int)[NUMBERS]
NO_DATASETS: dict[str, tuple[object, str]] = {
    "None": (None, "got NoneType"),
    "a number": (3, "got int"),
    "bytes": (b"d.csv", "got bytes"),
    "a set": ({"a", "b"}, "got set"),
    "a generator": (iter(ROWS), "got list_iterator|got .*iterator"),
    "three parts": ((TEXTS, NUMBERS, ["a", "b"]), "got tuple of 3 items"),
    "rows": (ROWS, "got list of 4 items.*DataFrame"),
    "two rows": (ROWS[:2], "the text is int"),
    "records": (RECORDS, "got list of 4 items.*DataFrame"),
    "columns": ({"text": TEXTS, "label": NUMBERS}, "got dict.*DataFrame"),
    "an empty dictionary": ({}, "got dict"),
    "two texts": (["a b", "c d"], "texts must be a list, an array or another sequence, got str"),
    "texts in a string": (("abcd", NUMBERS), "texts must be .* got str"),
    "labels in a string": ((TEXTS, "0101"), "labels must be .* got str"),
    "labels in bytes": ((TEXTS, b"0101"), "labels must be .* got bytes"),
    "texts in a set": ((set(TEXTS), NUMBERS), "texts must be .* got set"),
    "labels in a set": ((TEXTS[:2], {0, 1}), "labels must be .* got set"),
    "texts in a dictionary": ((dict.fromkeys(TEXTS), NUMBERS), "texts must be .* got dict"),
    "no texts": ((None, NUMBERS), "texts must be .* got NoneType"),
    "no labels": ((TEXTS, None), "labels must be .* got NoneType"),
    "one label": ((TEXTS, 1), "labels must be .* got int"),
    "a scalar tensor": ((TEXTS, torch.tensor(1)), r"labels must have one dimension, got shape \(\)"),
    "another number of labels": ((TEXTS, [0, 1]), "4 texts need as many labels; got 2"),
    "nothing": (([], []), "has no rows"),
    "a masked label": ((TEXTS, np.ma.array(NUMBERS, mask=[0, 1, 0, 0])), "row 2: the label is None"),
    "a table of texts": (
        (pd.DataFrame({"text": TEXTS}), NUMBERS),
        r"texts must have one dimension, got shape \(4, 1\)",
    ),
    "one-hot array": ((TEXTS, ONE_HOT), r"one dimension, got shape \(4, 2\).*argmax"),
    "one-hot tensor": ((TEXTS, torch.tensor(ONE_HOT)), r"one dimension, got shape \(4, 2\).*argmax"),
    "one-hot table": ((TEXTS, pd.DataFrame(ONE_HOT)), r"one dimension, got shape \(4, 2\).*argmax"),
    "one-hot lists": ((TEXTS, ONE_HOT.tolist()), r"row 1: the label \[1, 0\] holds several values.*argmax"),
    "rows of a tensor": ((TEXTS, list(torch.tensor(ONE_HOT))), "row 1: the label tensor.* holds several values"),
    "a column of an array": ((TEXTS, np.array(NUMBERS)[:, None]), r"got shape \(4, 1\).*reshape"),
    "a column of a tensor": ((TEXTS, torch.tensor(NUMBERS)[:, None]), r"got shape \(4, 1\).*reshape"),
    "a list among names": ((TEXTS, ["a", ["b"], "c", "a"]), r"row 2: the label \['b'\] holds several values"),
    "bytes as labels": ((TEXTS, [b"a", b"b"] * 2), "row 1: the label b'a' is bytes"),
    "a path without a name": ("", "must be a name or a path, got ''"),
}


@pytest.mark.parametrize("name", NO_DATASETS)
def test_objects_that_are_no_datasets_are_refused(name):
    dataset, message = NO_DATASETS[name]
    with pytest.raises((TypeError, ValueError), match=message):
        as_dataset(dataset)


@pytest.mark.parametrize("dataset", [None, 3, b"d.csv", pd.DataFrame(RECORDS), (TEXTS, NUMBERS), ""])
def test_load_texts_takes_names_and_paths_only(dataset):
    with pytest.raises(TypeError, match=r"dataset must be a name or a path, got .* as_dataset\(\.\.\.\) takes texts"):
        load_texts(dataset)


@pytest.mark.parametrize("data", [None, 3, TEXTS, (TEXTS, NUMBERS), "lab/topic"])
def test_split_texts_takes_a_dataset_only(data):
    with pytest.raises(TypeError, match=r"data must be a TextDataset, got .*as_dataset"):
        split_texts(data)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 1.0, "1", None, True])
def test_seeds_are_in_the_range_of_numpy(seed):
    with pytest.raises(ValueError, match="seed must be an integer from 0 to 4294967295, got"):
        split_texts(as_dataset((TEXTS * 3, NUMBERS * 3)), seed=seed)


def test_the_largest_seed_divides_texts():
    data = as_dataset(([f"t {i}" for i in range(20)], [0, 1] * 10))
    assert len(split_texts(data, np.float32(0.25))[1]) == 5
    assert len(split_texts(data, seed=2**32 - 1)[1]) == len(split_texts(data, seed=np.int64(3))[1]) == 4


NAMES = ["negative", "positive"]
BAD_TEXT_DATASETS: dict[str, tuple[tuple[object, object, object], str]] = {
    "texts in a string": (("ab", [0, 1], NAMES), "texts must be a list"),
    "texts in a set": (({"a", "b"}, [0, 1], NAMES), "texts must be a list"),
    "no texts": ((None, [0, 1], NAMES), "texts must be a list"),
    "a text is a number": ((["a", 1], [0, 1], NAMES), "row 2: texts must be strings, got int"),
    "no labels": ((["a", "b"], None, NAMES), "labels must be a list"),
    "labels in a string": ((["a", "b"], "01", NAMES), "labels must be a list"),
    "labels in a set": ((["a", "b"], {0, 1}, NAMES), "labels must be a list"),
    "lists as labels": ((["a", "b"], [[0], [0, 1]], NAMES), "one for each text; got lists"),
    "one-hot": ((["a", "b"], np.eye(2), NAMES), r"labels of shape \(2, 2\)"),
    "a column of a tensor": ((["a", "b"], torch.tensor([[0], [1]]), NAMES), r"labels of shape \(2, 1\)"),
    "names as labels": ((["a", "b"], NAMES, NAMES), "labels must be class numbers"),
    "truth values": ((["a", "b"], [True, False], NAMES), "labels must be class numbers"),
    "decimals": ((["a", "b"], [0.0, 1.0], NAMES), "labels must be class numbers"),
    "a missing label": ((["a", "b"], [0, None], NAMES), "labels must be class numbers"),
    "a masked label": ((["a", "b"], np.ma.array([0, 1], mask=[0, 1]), NAMES), "some are masked"),
    "no names": ((["a", "b"], [0, 1], None), "label_names must be a list"),
    "names that repeat": ((["a", "b"], [0, 1], ["a", "a"]), "names of the classes must differ"),
}


@pytest.mark.parametrize("name", BAD_TEXT_DATASETS)
def test_wrong_parts_of_a_dataset_are_refused(name):
    parts, message = BAD_TEXT_DATASETS[name]
    with pytest.raises((TypeError, ValueError), match=message):
        TextDataset("reviews", "train", *parts)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), iter([0, 1]), pd.Series([0, 1], dtype="Int64"), np.array([0, 1], np.uint8)]
)
def test_labels_of_a_dataset_may_be_any_sequence(labels):
    data = TextDataset("reviews", "train", iter(["a", "b"]), labels, NAMES)
    assert (data.texts, data.labels.tolist(), data.labels.dtype) == (("a", "b"), [0, 1], np.int64)


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([2, 0], [2, 0]),
        ([-1], [3]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, False, False], [1]),
        (pd.Series([True, False, True, False]), [0, 2]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (pd.array([True, False, True, False], dtype="boolean"), [0, 2]),
        (pd.Series([2, 0], dtype="Int64"), [2, 0]),
        (torch.tensor([3]), [3]),
        (range(2), [0, 1]),
        ([], []),
        ([False] * 4, []),
    ],
)
def test_rows_are_selected_by_index_or_truth_value(rows, texts):
    selected = as_dataset((TEXTS, NUMBERS)).select(rows)
    assert selected.texts == tuple(TEXTS[i] for i in texts)
    assert selected.labels.tolist() == [NUMBERS[i] for i in texts]


@pytest.mark.parametrize(
    "rows", [[True, False], [True] * 5, [0.0, 1.0], [[0], [1]], np.eye(4, dtype=bool), ["a"], [4], [-5], [None]]
)
def test_rows_that_are_neither_indices_nor_truth_values_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be indices below 4, or 4 truth values; got"):
        as_dataset((TEXTS, NUMBERS)).select(rows)


@pytest.mark.parametrize("rows", [None, 1, "0", {0, 1}])
def test_rows_are_a_sequence(rows):
    with pytest.raises(TypeError, match="rows must be a list"):
        as_dataset((TEXTS, NUMBERS)).select(rows)


# -- division of a file ------------------------------------------------------------

NASTY = {
    "quotation marks": ['say "hi"', '"', '""', '"quoted"', 'open "', "it's"],
    "carriage returns": ["a\rb", "\ra", "a\r"],
    "line feeds": ["a\nb", "\n", "a\n\nb"],
    "both": ["a\r\nb", "\r\n", "a\n\rb"],
    "other line ends": ["a\u2028b", "a\x85b", "a\x0bb\x0cc"],
    "separators": ["a, b", "a; b", "a\tb", "a|b", ",", ",,,"],
    "rows": ["a,yes\nb,no", 'a",yes\n"b', "yes,a\nno,b", "a;yes\nb;no", "text,label"],
    "byte order marks": ["\ufeffa", "a\ufeff", "\ufeff"],
    "formulas": ["=1+1", "+1", "-1", "@x", "sep=;"],
    "spaces": [" a", "a ", "\u00a0a", "\ta", "  "],
    "words for missing": ["NA", "nan", "null", "None", ""],
    "escapes": ["a\\nb", "\\", "\\\\", "a\\", "&amp;", "\x1b[0m", "\u0001"],
    "other scripts": ["\u6f22\u5b57", "\U0001f600", "e\u0301", "\u200f\u05d0"],
}


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    "classes", [("yes", "no"), (" yes", "a,b"), ("None", "ok"), ("01", "1E1"), ("0", "1"), ('"a', "b\nc")]
)
def test_a_divided_file_is_read_as_it_was(tmp_path, name, classes):
    texts = [*NASTY[name], *(f"text {i}" for i in range(30))]
    rows = [{"text": text, "label": classes[i % 2]} for i, text in enumerate(texts)]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    result = CliRunner().invoke(app, ["datasets", "split", str(tmp_path / "d.json"), str(tmp_path / "parts")])
    assert result.exit_code == 0, result.output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        parts = [load_texts(tmp_path / "parts", split) for split in ("train", "test")]
    found = sorted(
        (text, part.label_names[i]) for part in parts for text, i in zip(part.texts, part.labels, strict=True)
    )
    assert found == sorted((row["text"], row["label"]) for row in rows)


def test_a_divided_file_is_csv_where_that_is_safe(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f'"text {i}\n, and more",{i % 2}\n' for i in range(20)))
    CliRunner().invoke(app, ["datasets", "split", str(tmp_path / "d.csv"), str(tmp_path / "parts")])
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["test.csv", "train.csv"]
    again = CliRunner().invoke(app, ["datasets", "split", str(tmp_path / "d.csv"), str(tmp_path / "parts")])
    assert (again.exit_code, "exists already" in " ".join(again.output.split())) == (2, True)


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_seeds_of_the_division_are_checked(tmp_path, seed):
    (tmp_path / "d.csv").write_text(CSV)
    command = ["datasets", "split", str(tmp_path / "d.csv"), str(tmp_path / "parts"), f"--seed={seed}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert not (tmp_path / "parts").exists()


# -- splits of one file ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["d.csv", "train.csv", "d.csv.gz"])
def test_one_file_has_no_test_split(tmp_path, name):
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_csv(tmp_path / name, index=False)
    with pytest.raises(HubError, match=r"is one file and has no split 'test'\. Leave the split out, or give a folder"):
        as_dataset(tmp_path / name, "test")
    assert len(as_dataset(tmp_path / name)) == 2


def test_a_file_may_be_named_after_its_split(tmp_path):
    labeled(tmp_path, "csv", [0, 1]).rename(tmp_path / "test.csv")
    assert len(load_texts(tmp_path / "test.csv", "test")) == 2

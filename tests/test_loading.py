"""Datasets and models from local files, and the one-line errors around them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset, load_texts, registered_datasets
from ntps_utils.models.loading import load_model

ROWS = pd.DataFrame({"text": ["NA", "null", "a, b", 'say "x"', "ü\nn"], "label": [0, 1, 1, 0, 2]})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_every_file_type_gives_the_same(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        ROWS.to_csv(path, index=False)
    elif suffix == "parquet":
        ROWS.to_parquet(path)
    else:
        ROWS.to_json(path, orient="records", lines=True)
    data = load_texts(path)
    assert data.texts == tuple(ROWS["text"])
    assert data.labels.tolist() == [0, 1, 1, 0, 2]
    assert data.label_names == ("0", "1", "2")
    assert len(data) == 5
    np.testing.assert_array_equal(data.one_hot.argmax(1), data.labels)


def test_named_classes_get_the_same_number_in_every_split(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nx,pos\ny,neg\n")
    (tmp_path / "test.csv").write_text("text,label\nz,pos\nw,mixed\n")
    train, test = load_texts(tmp_path), load_texts(tmp_path, "test")
    assert train.label_names == test.label_names == ("mixed", "neg", "pos")
    assert train.labels.tolist() == [2, 1]
    assert test.labels.tolist() == [2, 0]


def test_label_names_file(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nx,0\ny,1\n")
    (tmp_path / "label_names.json").write_text(json.dumps(["no", "yes", "maybe"]))
    assert load_texts(tmp_path).n_classes == 3
    (tmp_path / "label_names.json").write_text(json.dumps(["no"]))
    with pytest.raises(HubError, match="only 1 class names"):
        load_texts(tmp_path)


def test_other_columns(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("body,kind\nx,1\ny,0\n")
    assert load_texts(path, text_column="body", label_column="kind").texts == ("x", "y")
    with pytest.raises(HubError, match="no column 'label'; it has body, kind"):
        load_texts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nx,-1\ny,0\n", "row 1: the label is -1"),
        ("text,label\nx,1\ny,\n", "row 2: the label is ''"),
        ("text,label\n", "no rows"),
        ("text;label\nx;1\n", "no column 'label'"),
        ("", "could not be read"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    path = tmp_path / "d.csv"
    path.write_text(content)
    with pytest.raises(HubError, match=message):
        load_texts(path)


def test_float_labels_are_refused(tmp_path):
    path = tmp_path / "d.parquet"
    pd.DataFrame({"text": ["x", "y"], "label": [0.5, 1.0]}).to_parquet(path)
    with pytest.raises(HubError, match=r"label is 0\.5"):
        load_texts(path)


def test_encoding_and_type_errors(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(HubError, match="not UTF-8"):
        load_texts(path)
    other = tmp_path / "d.txt"
    other.write_text("x")
    with pytest.raises(HubError, match=r"unknown type '\.txt'"):
        load_texts(other)
    numbers = tmp_path / "n.parquet"
    pd.DataFrame({"text": [1, 2], "label": [0, 1]}).to_parquet(numbers)
    with pytest.raises(HubError, match="row 1: the text is int"):
        load_texts(numbers)


def test_unknown_names_get_suggestions(tmp_path):
    with pytest.raises(HubError, match="Did you mean sst2"):
        load_texts("sst-2")
    with pytest.raises(HubError, match="Registered names: banking77"):
        load_texts("qqqq")
    (tmp_path / "train.csv").write_text("text,label\nx,0\n")
    with pytest.raises(HubError, match=r"no split 'dev'; found train\.csv"):
        load_texts(tmp_path, "dev")


def test_registered_entries_are_complete_and_their_texts_format():
    entries = registered_datasets()
    assert len(entries) >= 10
    row = {"choices": {"text": list("abcde")}}
    row |= dict.fromkeys(("text", "sentence", "question", "sms", "question_1", "question_2", "title"), "x")
    for name, entry in entries.items():
        assert entry.get("hub", "a/b").count("/") == 1, name
        assert {"why", "license", "citation", "languages"} <= set(entry)
        assert ("hold_out" in entry) == ("hub" in entry and "test" not in entry["splits"])
        assert entry["text"].format(**row)
        assert "train" in entry["splits"]
    assert entries["commonsense_qa"]["text"].format(**row) == "x (0) a (1) b (2) c (3) d (4) e"


def test_hub_datasets_go_through_the_datasets_library(monkeypatch):
    """The Hub path with its download replaced by data in memory; no network is needed."""
    import datasets

    asked = {}

    def fake(path, split, revision):
        asked.update(path=path, split=split)
        features = datasets.Features(
            {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
        )
        return datasets.Dataset.from_dict({"sentence": ["good", "bad"], "label": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load_texts("sst2", "test")
    assert asked == {"path": "stanfordnlp/sst2", "split": "validation"}
    assert data.texts == ("good", "bad")
    assert data.label_names == ("neg", "pos")
    with pytest.raises(HubError, match="no split 'dev'"):
        load_texts("sst2", "dev")
    with pytest.raises(HubError, match="no column 'wrong'"):
        load_texts("owner/name", label_column="wrong")
    assert load_texts("owner/name", text_column="sentence").labels.tolist() == [1, 0]


def test_offline_is_one_sentence():
    with pytest.raises(HubError, match="could not be loaded from the Hub") as error:
        load_texts("sst2")
    assert "\n" not in str(error.value)


def test_head_and_fingerprint():
    data = TextDataset("d", "train", ("a", "b"), np.array([0, 1]), ("x", "y"))
    assert data.head(1).texts == ("a",)
    assert data.fingerprint != data.head(1).fingerprint
    with pytest.raises(ValueError, match="at least 1"):
        data.head(0)


def test_small_models_run_in_float64_on_a_cpu(tiny_model):
    lm = load_model(tiny_model, device="cpu")
    assert str(lm.model.dtype) == "torch.float64"
    assert (lm.n_layers, lm.dimension, lm.max_length) == (3, 16, 32)
    assert not lm.model.training
    assert str(load_model(tiny_model, device="cpu", dtype="bfloat16").model.dtype) == "torch.bfloat16"
    assert lm.fingerprint == load_model(tiny_model).fingerprint


def test_models_that_cannot_be_loaded(tiny_model, tmp_path):
    with pytest.raises(HubError, match="dtype 'int8'"):
        load_model(tiny_model, dtype="int8")
    with pytest.raises(HubError, match="device 'warp'"):
        load_model(tiny_model, device="warp")
    with pytest.raises(HubError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(HubError, match="not a folder, and not a Hub id"):
        load_model("/no/such/folder")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(HubError, match="could not be loaded"):
        load_model(copy)
    weights.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(HubError, match="pickled checkpoints are not read"):
        load_model(copy)

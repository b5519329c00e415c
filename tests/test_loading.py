"""Datasets and models from names, local files and objects in memory, and their one-line errors."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import peft
import pytest
import torch

from ntps_utils.models import _hub
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset, as_dataset, load_texts, registered_datasets
from ntps_utils.models.loading import as_model, backbone, evaluation_mode, load_model, weights_fingerprint

ROWS = pd.DataFrame({"text": ["NA", "null", "a, b", 'say "x"', "ü\nn"], "label": [0, 1, 1, 0, 2]})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_file_types_give_the_same_dataset(tmp_path, suffix):
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


def test_splits_share_class_numbers(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nx,pos\ny,neg\n")
    (tmp_path / "test.csv").write_text("text,label\nz,pos\nw,mixed\n")
    train, test = load_texts(tmp_path), load_texts(tmp_path, "test")
    assert train.label_names == test.label_names == ("mixed", "neg", "pos")
    assert train.labels.tolist() == [2, 1]
    assert test.labels.tolist() == [2, 0]


def test_label_names_are_read_from_a_file(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nx,0\ny,1\n")
    (tmp_path / "label_names.json").write_text(json.dumps(["no", "yes", "maybe"]))
    assert load_texts(tmp_path).n_classes == 3
    (tmp_path / "label_names.json").write_text(json.dumps(["no"]))
    with pytest.raises(HubError, match="only 1 class names"):
        load_texts(tmp_path)


def test_columns_are_selected_by_name(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("body,kind\nx,1\ny,0\n")
    assert load_texts(path, text_column="body", label_column="kind").texts == ("x", "y")
    with pytest.raises(HubError, match="no columns 'text' and 'label'; it has body, kind"):
        load_texts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nx,-1\ny,0\n", "row 1: the label is -1"),
        ("text,label\nx,1\ny,\n", "row 2: the label is ''"),
        ("text,label\n", "no rows"),
        ("text:label\nx:1\n", "no columns 'text' and 'label'; it has text:label"),
        ("", "could not be read"),
    ],
)
def test_invalid_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "d.csv"
    path.write_text(content)
    with pytest.raises(HubError, match=message):
        load_texts(path)


def test_float_labels_are_refused(tmp_path):
    path = tmp_path / "d.parquet"
    pd.DataFrame({"text": ["x", "y"], "label": [0.5, 1.0]}).to_parquet(path)
    with pytest.raises(HubError, match=r"row 1: the label is the number 0\.5, not a class"):
        load_texts(path)


def test_invalid_files_are_refused(tmp_path):
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
    with pytest.raises(HubError, match=r"no split 'dev'; it has train\.csv"):
        load_texts(tmp_path, "dev")


def test_registered_datasets_are_complete():
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


def test_hub_datasets_are_loaded_by_the_datasets_library(monkeypatch):
    """The download is replaced by data in memory."""
    requests = []

    def load_dataset(path, split, revision):
        requests.append((path, split))
        features = datasets.Features(
            {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
        )
        return datasets.Dataset.from_dict({"sentence": ["good", "bad"], "label": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_texts("sst2", "test")
    assert requests == [("stanfordnlp/sst2", "validation")]
    assert data.texts == ("good", "bad")
    assert data.label_names == ("neg", "pos")
    with pytest.raises(HubError, match="no split 'dev'"):
        load_texts("sst2", "dev")
    with pytest.raises(HubError, match="no column 'wrong'"):
        load_texts("owner/name", label_column="wrong")
    assert load_texts("owner/name", text_column="sentence").labels.tolist() == [1, 0]


def test_class_names_of_a_hub_dataset_have_one_numbering_in_all_splits(monkeypatch):
    splits = {"train": ["a", "c"], "test": ["b", "c"]}
    parts = {name: datasets.Dataset.from_dict({"text": ["x", "y"], "label": own}) for name, own in splits.items()}

    def load_dataset(path, split, revision):
        return datasets.DatasetDict(parts) if split is None else parts[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for split, numbers in (("train", [0, 2]), ("test", [1, 2])):
        data = load_texts("owner/name", split)
        assert (data.labels.tolist(), data.label_names) == (numbers, ("a", "b", "c"))


def test_failed_download_is_one_sentence():
    with pytest.raises(HubError, match="could not be loaded from the Hub") as error:
        load_texts("sst2")
    assert "\n" not in str(error.value)


# -- connection to the Hub ---------------------------------------------------------


@pytest.fixture
def connection(monkeypatch):
    """Record the requests to the Hub, whose answers a test appends, and the offline mode of each download."""
    log = SimpleNamespace(answers=[], n_requests=0, offline=[])

    def urlopen(request, timeout):
        log.n_requests += 1
        answer = log.answers.pop(0)
        if answer is not None:
            raise answer

    def load_dataset(path, split, revision):
        log.offline.append(offline_modes())
        return datasets.Dataset.from_dict({"sentence": ["good", "bad"], "label": [1, 0]})

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_hub, "_failed_at", float("-inf"))
    monkeypatch.setattr(_hub.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return log


def offline_modes() -> tuple[bool, bool]:
    return huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE


def test_failed_connection_does_not_last(connection, monkeypatch):
    monkeypatch.setattr(_hub, "RETRY_AFTER", 0.0)
    connection.answers = [OSError("no route to host"), None]
    load_texts("sst2")
    assert connection.offline == [(True, True)]
    assert offline_modes() == (False, False)
    load_texts("sst2")
    assert connection.offline == [(True, True), (False, False)]
    assert connection.n_requests == 2


def test_failed_connection_is_not_repeated_at_once(connection):
    connection.answers = [OSError("no route to host")]
    load_texts("sst2")
    load_texts("sst2")
    assert connection.offline == [(True, True)] * 2
    assert connection.n_requests == 1
    assert offline_modes() == (False, False)


def test_offline_mode_is_restored_after_an_error(connection):
    connection.answers = [OSError("no route to host")]
    with pytest.raises(HubError, match="no column 'wrong'"):
        load_texts("owner/name", label_column="wrong")
    assert offline_modes() == (False, False)
    with pytest.raises(KeyError), _hub.hub_connection():
        raise KeyError
    assert offline_modes() == (False, False)


def test_error_status_counts_as_an_answer(connection):
    connection.answers = [urllib.error.HTTPError("http://hub", 404, "not found", None, None)]
    load_texts("sst2")
    assert connection.offline == [(False, False)]


# -- datasets in memory ------------------------------------------------------------


def test_text_dataset_accepts_lists():
    data = TextDataset("reviews", "train", ["a", "b", "c"], [0, 2, 1], ["x", "y", "z"])
    assert data.texts == ("a", "b", "c")
    assert data.label_names == ("x", "y", "z")
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.one_hot, np.eye(3)[[0, 2, 1]])
    arrays = TextDataset("reviews", "train", np.array(["a", "b", "c"]), np.array([0, 2, 1]), ("x", "y", "z"))
    assert arrays.fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (
            ["a", "b"],
            [0, 2],
            r"reviews, row 2: the label is 2, but there are 2 class names; labels are numbers 0 \.\.\. 1",
        ),
        (["a", "b"], [-1, 0], "reviews, row 1: the label is -1"),
        (["a", "b"], [0.0, 1.0], r"labels must be class numbers 0 \.\.\. 1, got float64"),
        (["a", "b"], ["x", "y"], r"labels must be class numbers .* convert class names with as_dataset"),
        (["a", "b"], [0], r"2 texts need as many labels; got labels of shape \(1,\)"),
        (["a", "b"], [[0], [1]], r"labels of shape \(2, 1\)"),
        (["a", 5], [0, 1], "texts must be strings"),
        ("ab", [0, 1], "texts must be strings"),
    ],
)
def test_invalid_text_datasets_are_refused(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        TextDataset("reviews", "train", texts, labels, ("x", "y"))


def test_head_selects_the_first_rows():
    data = TextDataset("d", "train", ("a", "b"), np.array([0, 1]), ("x", "y"))
    assert data.head(1).texts == ("a",)
    assert data.head(9).texts == ("a", "b")
    assert data.fingerprint != data.head(1).fingerprint
    with pytest.raises(ValueError, match="number of texts must be an integer of at least 1, got 0"):
        data.head(0)


TEXTS, NAMES = ["good film", "bad film", "a film"], ("negative", "positive")
FRAME = pd.DataFrame({"text": TEXTS, "label": [1, 0, 1]})
NAMED = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(NAMES))})


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (TextDataset("d", "train", TEXTS, [1, 0, 1], NAMES), NAMES),
        ((TEXTS, [1, 0, 1]), ("0", "1")),
        ([tuple(TEXTS), np.array([1, 0, 1])], ("0", "1")),
        ((pd.Series(TEXTS), torch.tensor([1, 0, 1])), ("0", "1")),
        ((TEXTS, ["positive", "negative", "positive"]), NAMES),
        ((np.array(TEXTS), [True, False, True]), ("False", "True")),
        (FRAME, ("0", "1")),
        (FRAME.replace({"label": {0: "negative", 1: "positive"}}), NAMES),
        (datasets.Dataset.from_pandas(FRAME), ("0", "1")),
        (datasets.Dataset.from_pandas(FRAME, features=NAMED), NAMES),
        (datasets.DatasetDict(train=datasets.Dataset.from_pandas(FRAME, features=NAMED)), NAMES),
    ],
)
def test_as_dataset_converts_objects_in_memory(source, names):
    data = as_dataset(source)
    assert data.texts == tuple(TEXTS)
    assert all(type(text) is str for text in data.texts)
    assert data.labels.tolist() == [1, 0, 1]
    assert data.label_names == names
    assert data.split == "train"


def test_as_dataset_loads_names_and_paths(tmp_path):
    FRAME.to_csv(tmp_path / "test.csv", index=False)
    assert as_dataset(tmp_path, "test").texts == as_dataset(str(tmp_path / "test.csv")).texts == tuple(TEXTS)
    assert as_dataset("lab/tense", "test").fingerprint == load_texts("lab/tense", "test").fingerprint


def test_as_dataset_selects_columns_by_name():
    frame = FRAME.rename(columns={"text": "body", "label": "kind"})
    for source in (frame, datasets.Dataset.from_pandas(frame)):
        assert as_dataset(source, text_column="body", label_column="kind").labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (5, TypeError, r"A dataset must be a name, .* a pair \(texts, labels\), .* got int"),
        (None, TypeError, "got NoneType"),
        ({"text": TEXTS, "label": [1, 0, 1]}, TypeError, "got dict"),
        (TEXTS, TypeError, "got list"),
        (("good film", "bad film"), TypeError, "got tuple"),
        ((TEXTS, [1, 0]), HubError, "3 texts need as many labels; got 2 labels"),
        ((TEXTS, [1, None, 0]), HubError, "texts, row 2: the label is None"),
        ((TEXTS, [1, -1, 0]), HubError, "texts, row 2: the label is -1"),
        ((["a", 5, "c"], [1, 0, 1]), HubError, "texts, row 2: the text is int, not a string"),
        (([], []), HubError, "texts has no rows"),
        (FRAME[["text"]], HubError, "The DataFrame has no column 'label'; it has text"),
        (datasets.Dataset.from_pandas(FRAME[["label"]]), HubError, "The dataset has no column 'text'; it has label"),
        (
            datasets.DatasetDict(test=datasets.Dataset.from_pandas(FRAME)),
            HubError,
            "The DatasetDict has no split 'train'; it has test",
        ),
        ("sst-2", HubError, "Did you mean sst2"),
    ],
)
def test_as_dataset_refuses_other_objects(source, error, message):
    with pytest.raises(error, match=message):
        as_dataset(source)


# -- models ------------------------------------------------------------------------


def test_small_models_are_loaded_in_float64_on_a_cpu(tiny_model):
    lm = load_model(tiny_model, device="cpu")
    assert str(lm.model.dtype) == "torch.float64"
    assert (lm.n_layers, lm.dimension, lm.max_length) == (3, 16, 32)
    assert not lm.model.training
    assert str(load_model(tiny_model, device="cpu", dtype="bfloat16").model.dtype) == "torch.bfloat16"
    assert lm.fingerprint == load_model(tiny_model).fingerprint


def test_as_model_converts_names_paths_and_pairs(tiny_model):
    lm = load_model(tiny_model, device="cpu")
    assert as_model(lm) is lm
    assert as_model(tiny_model, device="cpu").fingerprint == as_model(str(tiny_model)).fingerprint == lm.fingerprint
    for pair in ((lm.model, lm.tokenizer), (lm.tokenizer, lm.model), [lm.model, lm.tokenizer]):
        converted = as_model(pair)
        assert converted.model is lm.model
        assert converted.tokenizer is lm.tokenizer
        assert converted.name == tiny_model.name
        assert converted.fingerprint == weights_fingerprint(lm.model)


def test_as_model_refuses_other_objects(tiny_model):
    lm = load_model(tiny_model, device="cpu")
    with pytest.raises(TypeError, match=r"A LlamaForCausalLM needs its tokenizer; give the pair \(model, tokenizer\)"):
        as_model(lm.model)
    for other, name in ((5, "int"), (None, "NoneType"), ((lm.model, 5), "tuple"), ((lm.model,), "tuple")):
        with pytest.raises(TypeError, match=f"A model must be a name, a folder, a pair .* got {name}"):
            as_model(other)


def test_weights_fingerprint_distinguishes_checkpoints():
    weights = load_model("lab/XS").model
    assert weights_fingerprint(weights) == weights_fingerprint(load_model("lab/XS").model)
    assert weights_fingerprint(weights) != weights_fingerprint(load_model("lab/XS@400").model)
    assert re.fullmatch("[0-9a-f]{16}", weights_fingerprint(weights))


def test_backbone_removes_the_head_and_wrappers(tiny_model):
    model = load_model(tiny_model, device="cpu").model
    assert backbone(model) is model.model
    assert backbone(torch.nn.DataParallel(model)) is model.model
    assert backbone(SimpleNamespace(_orig_mod=model)) is model.model  # torch.compile
    assert backbone(SimpleNamespace(_orig_mod=torch.nn.DataParallel(model))) is model.model


def test_backbone_includes_adapters(tiny_model):
    model = load_model(tiny_model, device="cpu").model
    tokens = torch.tensor([[1, 2, 3]])
    original = backbone(model)(input_ids=tokens).last_hidden_state
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    assert type(backbone(adapted)).__name__ == "LlamaModel"
    hidden = backbone(adapted)(input_ids=tokens).last_hidden_state
    assert not torch.allclose(hidden, original)
    with adapted.disable_adapter():
        torch.testing.assert_close(backbone(adapted)(input_ids=tokens).last_hidden_state, original)
    assert backbone(torch.nn.DataParallel(adapted)) is backbone(adapted)


def test_evaluation_mode_is_restored_for_every_submodule():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    module[0].eval()
    flags = [m.training for m in module.modules()]
    with evaluation_mode(module):
        assert not any(m.training for m in module.modules())
    assert [m.training for m in module.modules()] == flags == [True, False, True, True]
    with pytest.raises(KeyError), evaluation_mode(module):
        raise KeyError
    assert [m.training for m in module.modules()] == flags


def test_invalid_models_are_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"dtype must be 'auto', .* got 'int8'"):
        load_model(tiny_model, dtype="int8")
    with pytest.raises(HubError, match="device 'warp'"):
        load_model(tiny_model, device="warp")
    with pytest.raises(HubError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(HubError, match=r"not a folder, not a \.gguf file, and not a Hub id"):
        load_model("/no/such/folder")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(HubError, match="could not be loaded"):
        load_model(copy)
    weights.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(HubError, match="pickled checkpoints are not loaded"):
        load_model(copy)

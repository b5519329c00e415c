"""Datasets and models from names, local files and objects in memory, and their one-line errors."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ntps_utils.models import _hub
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import TextDataset, as_dataset, load_texts, registered_datasets
from ntps_utils.models.extraction import ExtractionWarning, extract
from ntps_utils.models.features import layer_facts
from ntps_utils.models.loading import (
    CausalModel,
    LoadingWarning,
    as_model,
    backbone,
    evaluation_mode,
    load_model,
    weights_fingerprint,
)
from ntps_utils.models.projection import word_features
from ntps_utils.models.scoring import score_model
from tests.conftest import TRANSFORMERS_4

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
        ("ab", [0, 1], "texts must be a list, an array or another sequence, got str"),
    ],
)
def test_invalid_text_datasets_are_refused(texts, labels, message):
    with pytest.raises((ValueError, TypeError), match=message):
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
        (("good film", "bad film"), TypeError, r"In a pair \(texts, labels\), texts must be a list"),
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


# -- weights without a place ---------------------------------------------------------


def edited(folder: Path, source: Path, config: dict[str, object], weights: dict[str, torch.Tensor]) -> Path:
    """Copy a model, and change its configuration and the weights of its file."""
    shutil.copytree(source, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    file = folder / "model.safetensors"
    save_file(load_file(file) | weights, file, {"format": "pt"})
    return folder


BIASES = {
    f"model.layers.{i}.self_attn.{name}_proj.bias": torch.ones(size)
    for i in (0, 1)
    for name, size in zip("qkv", (16, 8, 8), strict=True)
}
WITHOUT_PLACE = {
    "fewer layers": ({"num_hidden_layers": 1}, {}, r"the weights model\.layers\.1\..* and 8 more"),
    "more weights": (
        {},
        {"model.layers.2.mlp.up_proj.weight": torch.ones(32, 16)},
        r"layers\.2\.mlp\.up_proj\.weight of",
    ),
    "biases": ({}, BIASES, r"layers\.0\.self_attn\.k_proj\.bias and 5 more"),
    "norms": ({}, {"model.layers.0.self_attn.q_norm.weight": torch.ones(4)}, "q_norm"),
    "scales": ({}, {"model.layers.0.self_attn.q_proj.weight_scale_inv": torch.ones(1)}, "weight_scale_inv"),
    "unmerged adapter": ({}, {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 16)}, "lora_A"),
}
"""Changes of a configuration, further weights of the file, and what the error says."""


@pytest.mark.parametrize("name", WITHOUT_PLACE)
def test_weights_that_a_model_would_ignore_are_refused(name, tiny_model, tmp_path):
    config, weights, message = WITHOUT_PLACE[name]
    folder = edited(tmp_path / "model", tiny_model, config, weights)
    with pytest.raises(HubError, match=message) as error:
        load_model(folder)
    assert "LlamaForCausalLM has no place for" in str(error.value)
    assert "Check model_type and the number of layers in config.json" in str(error.value)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size"])
def test_weights_of_other_shapes_are_named(name, tiny_model, tmp_path):
    folder = edited(tmp_path / "model", tiny_model, {name: 24}, {})
    with pytest.raises(HubError, match=r"weight and \d+ more of the checkpoint have other shapes .*not \(.*24"):
        load_model(folder)


def test_a_wrong_type_of_model_is_refused(tiny_model, tmp_path):
    with_biases = edited(tmp_path / "qwen2", tiny_model, {"model_type": "qwen2"}, BIASES)
    load_model(with_biases)
    as_llama = edited(tmp_path / "llama", with_biases, {"model_type": "llama"}, {})
    with pytest.raises(HubError, match="LlamaForCausalLM has no place for"):
        load_model(as_llama)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "transformer.h.0.attn.masked_bias",
        "transformer.h.0.attn.bias",
        "gpt_neox.layers.0.attention.bias",
        "model.position_ids",
        "v_head.summary.weight",
        "score.weight",
        "mtp.layers.0.mlp.up_proj.weight",
        "vision_tower.encoder.layers.0.q_proj.weight",
    ],
)
def test_weights_that_no_feature_depends_on_are_left_out(name, tiny_model, tmp_path):
    folder = edited(tmp_path / "model", tiny_model, {}, {name: torch.ones(2)})
    assert weights_fingerprint(load_model(folder).model) == weights_fingerprint(load_model(tiny_model).model)


@pytest.mark.parametrize("name", ["future_head.weight", "model.future_head.0.weight"])
def test_unknown_parts_beside_the_language_model_are_left_out_with_a_warning(name, tiny_model, tmp_path):
    folder = edited(tmp_path / "model", tiny_model, {}, {name: torch.ones(2)})
    with pytest.warns(LoadingWarning, match=f"LlamaForCausalLM leaves out the weights {re.escape(name)} of the"):
        model = load_model(folder)
    assert weights_fingerprint(model.model) == weights_fingerprint(load_model(tiny_model).model)


# -- kinds of models, and lengths ----------------------------------------------------

T5 = {"vocab_size": 46, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
BART = {"vocab_size": 46, "d_model": 16, "decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 2}
BART |= {"encoder_attention_heads": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32}
ENCODER_DECODERS = {
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "umt5": lambda: transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**T5)),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)),
    "bart base": lambda: transformers.BartModel(transformers.BartConfig(**BART)),
    "t5 with an adapter": lambda: peft.get_peft_model(ENCODER_DECODERS["t5"](), peft.LoraConfig(target_modules=["q"])),
}


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoder_models_in_memory_are_refused(name, tiny_model, tiny_data):
    model = ENCODER_DECODERS[name]()
    tokenizer = load_model(tiny_model).tokenizer
    message = rf"is an encoder-decoder model \({name.split()[0]}\); give a causal language model"
    with pytest.raises(HubError, match=message):
        as_model((model, tokenizer))
    given, data = CausalModel("step 0", model, tokenizer, ""), load_texts(tiny_data).head(12)
    for read in (score_model, extract, layer_facts, lambda one, texts: word_features(one, texts, layer=-1)):
        with pytest.raises(HubError, match=message):
            read(given, data)


LLAMA = {"vocab_size": 46, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 8.0, 16.0, 32.0],
}
LENGTHS = {
    "llama": ({"max_position_embeddings": 40}, 40),
    "gpt2": ({"n_positions": 40}, 40),
    "mpt": ({"max_seq_len": 40}, 40),
    "dbrx": ({"max_seq_len": 40}, 40),
    "ctrl": ({"n_positions": 40}, 40),
    "codegen": ({"n_positions": 40, "n_ctx": 40}, 40),
    "bloom": ({}, None),
    "whisper": ({"max_target_positions": 40}, 40),
    "roberta": ({"max_position_embeddings": 42, "pad_token_id": 1}, 40),
    "xlm-roberta": ({"max_position_embeddings": 42, "pad_token_id": 1}, 40),
    "camembert": ({"max_position_embeddings": 41, "pad_token_id": 0}, 40),
    "bert": ({"max_position_embeddings": 40}, 40),
    "opt": ({"max_position_embeddings": 40}, 40),
    "phi3": (
        {
            "max_position_embeddings": 80,
            "original_max_position_embeddings": 40,
            "rope_parameters": LONGROPE | {"original_max_position_embeddings": 40},
            "hidden_size": 16,
            "num_attention_heads": 2,
        },
        40,
    ),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_the_largest_length_is_known_by_many_names(kind, tiny_model):
    values, expected = LENGTHS[kind]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model, model_max_length=10**20)
    config = transformers.AutoConfig.for_model(kind, **values)
    model = CausalModel(kind, SimpleNamespace(config=config), tokenizer, "")
    assert model.max_length == expected
    assert replace(model, tokenizer=SimpleNamespace(model_max_length=7)).max_length == 7


@pytest.mark.parametrize("name", ["max_sequence_length", "seq_length", "max_seq_length", "n_ctx"])
def test_names_of_the_largest_length_in_own_configurations(name, tiny_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model, model_max_length=10**20)
    config = transformers.PretrainedConfig(**{name: 40})
    assert CausalModel(name, SimpleNamespace(config=config), tokenizer, "").max_length == 40


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("roberta", {"max_position_embeddings": 42, "pad_token_id": 1, "is_decoder": True}),
        ("camembert", {"max_position_embeddings": 42, "pad_token_id": 1, "is_decoder": True}),
        ("opt", {"max_position_embeddings": 40, "word_embed_proj_dim": 16, "ffn_dim": 32}),
        ("biogpt", {"max_position_embeddings": 40}),
        ("xglm", {"max_position_embeddings": 40, "d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 32}),
        ("gpt2", {"n_positions": 40, "n_head": 2, "n_embd": 16, "n_layer": 2}),
        ("mpt", {"max_seq_len": 40, "d_model": 16, "n_layers": 2, "n_heads": 2}),
        ("trocr", {"max_position_embeddings": 40, "d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2}),
    ],
)
def test_a_text_of_the_largest_length_runs(kind, values, tiny_model):
    if kind == "biogpt" and TRANSFORMERS_4:
        pytest.skip("transformers 4 returns other hidden states of biogpt than the inputs of its blocks")
    config = transformers.AutoConfig.for_model(kind, **(LLAMA | {"intermediate_size": 32} | values))
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model, model_max_length=10**20)
    model = CausalModel(kind, network, tokenizer, kind)
    assert model.max_length == 40
    data = as_dataset((["w1 w2 " * 30, "w3 " * 5, "w5 " * 60, "w2 w1"] * 3, [0, 1, 0, 1] * 3))
    with pytest.warns(ExtractionWarning, match="truncated to 40 tokens"):
        assert extract(model, data, layers="last").n_truncated == 6


LENGTHENED = {
    "longrope": LONGROPE | {"original_max_position_embeddings": 12},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "dynamic of another length": {
        "rope_type": "dynamic",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 12,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 12},
}


@pytest.mark.parametrize("kind", LENGTHENED)
def test_lengthened_positions_do_not_depend_on_the_batch(kind, tiny_model):
    rope = LENGTHENED[kind]
    config = transformers.LlamaConfig(
        **LLAMA, intermediate_size=32, max_position_embeddings=30, rope_parameters=rope, initializer_range=0.5
    )
    torch.manual_seed(0)
    network = transformers.LlamaForCausalLM(config).double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model, model_max_length=10**20)
    model = CausalModel(kind, network, tokenizer, kind)
    assert model.max_length == (12 if kind == "longrope" else 30)
    texts = [" ".join(f"w{(7 * i + j) % 40}" for j in range(3 + 5 * (i % 8))) for i in range(24)]
    data = as_dataset((texts, [0, 1] * 12))
    with pytest.warns(ExtractionWarning, match="truncated"):
        together, alone, whole = (
            extract(model, data, layers="last", **options).moments.A0
            for options in ({}, {"batch_size": 1}, {"stream": False, "batch_size": 24})
        )
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(whole, alone)
    if kind == "longrope":
        with pytest.raises(ValueError, match="max_length must be between 2 and 12 tokens, the limit of longrope"):
            extract(model, data, max_length=20)


# -- errors that say nothing ----------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("Llama"), "KeyError: 'Llama'"),
        (ValueError(""), "ValueError"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("Error(s) in loading:\n\tsize mismatch for x.\n"), "Error(s) in loading: size mismatch for x"),
        (OSError("No file.\nMore"), "No file"),
    ],
)
def test_the_message_of_an_error_says_something(error, expected):
    assert _hub.first_line(error) == expected


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("tokenizer.json", "{", "tokenizer"),
        ("tokenizer.json", "{}", "tokenizer"),
        ("tokenizer_config.json", "[]", "tokenizer"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "NopeTokenizer", "auto_map": {"AutoTokenizer": 3}}',
            "tokenizer",
        ),
        ("config.json", '{"model_type": "nope"}', "configuration"),
        ("config.json", "{}", "configuration"),
        ("model.safetensors", "", "model"),
    ],
)
def test_the_file_that_cannot_be_read_is_named(file, content, part, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(HubError, match=f"The {part} in {folder} could not be loaded: .* ") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    assert ("Save the tokenizer of the model there again" in str(error.value)) == (part == "tokenizer")


def test_a_folder_of_checkpoints_is_refused_with_their_names(tmp_path):
    """A run of a trainer keeps its models in folders such as checkpoint-500."""
    for name in ("checkpoint-500", "checkpoint-1000", "logs"):
        (tmp_path / name).mkdir()
    for name in ("checkpoint-500", "checkpoint-1000"):
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(HubError, match=r"no config.json. Folders in it are models: checkpoint-1000, checkpoint-500\."):
        load_model(tmp_path)
    with pytest.raises(HubError, match=r"it has no config.json\.$"):
        load_model(tmp_path / "logs")

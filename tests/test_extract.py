"""Extraction against one text at a time, with hidden states straight from transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ntps_utils.extract import ExtractionWarning, extract, parse_layers, random_groups
from ntps_utils.hub import load_model, load_texts
from ntps_utils.moments import TENSORS, Moments


@pytest.fixture(scope="module")
def lm(tiny_model):
    return load_model(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def data(tiny_data):
    return load_texts(tiny_data)


def one_by_one(lm, data, layer: int) -> Moments:
    texts = []
    with torch.inference_mode():
        for text in data.texts:
            ids = lm.tokenizer(text, return_tensors="pt")["input_ids"]
            texts.append(lm.model(ids, output_hidden_states=True).hidden_states[layer][0].numpy())
    return Moments.from_texts(texts, data.one_hot)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_agrees_with_one_text_at_a_time(lm, data, layer):
    mine, reference = extract(lm, data).moments.layer(layer), one_by_one(lm, data, layer).layer(0)
    for name in ("A0", "A1", "S", "C", "Y", "s", "q"):
        a, b = getattr(mine, name), getattr(reference, name)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batch_size_does_not_matter(tiny_model, data, dtype):
    lm = load_model(tiny_model, device="cpu", dtype=dtype)
    a, b = (extract(lm, data, batch_size=size).moments for size in (1, 32))
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    for name in TENSORS:
        x, y = getattr(a, name), getattr(b, name)
        assert float((x - y).abs().max()) <= tolerance * float(y.abs().max()), name


def test_groups_partition_the_texts(lm, data):
    groups = random_groups(len(data), 4, seed=3)
    assert np.bincount(groups).tolist() == [23, 23, 22, 22]
    parts = extract(lm, data, groups=groups)
    assert [p.n_texts for p in parts.parts] == [23, 23, 22, 22]
    whole = extract(lm, data).moments
    np.testing.assert_allclose(parts.moments.A0, whole.A0, rtol=1e-10, atol=1e-8)
    with pytest.raises(ValueError, match="cannot form 5 groups"):
        random_groups(4, 5, 0)


def test_truncation_and_counts(lm, data):
    texts = ("w1", "w1 w2 w3", "w1 " * 50, "w4 w5")
    few = replace(data, texts=texts, labels=np.array([0, 1, 2, 0]))
    with pytest.warns(ExtractionWarning, match="1 of 4 texts were cut to 32 tokens"):
        done = extract(lm, few)
    assert (done.n_truncated, done.n_single, done.max_length) == (1, 0, 32)
    assert done.moments.n_tokens == 2 + 4 + 32 + 3
    with pytest.warns(ExtractionWarning, match="were cut"):
        assert extract(lm, few, max_length=3).moments.n_tokens == 2 + 3 + 3 + 3


def test_texts_without_tokens_are_left_out(lm, data):
    lm.tokenizer.backend_tokenizer.post_processor, kept = None, lm.tokenizer.backend_tokenizer.post_processor
    try:
        few = replace(data, texts=("w1 w2", "", "w3"), labels=np.array([0, 1, 2]))
        with pytest.warns(ExtractionWarning, match="1 texts have no token"):
            done = extract(lm, few)
    finally:
        lm.tokenizer.backend_tokenizer.post_processor = kept
    assert (done.moments.n_texts, done.n_single, done.n_empty) == (2, 1, 1)


def test_broken_weights_name_layer_and_text(tiny_model, data):
    broken = load_model(tiny_model, device="cpu")
    broken.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"Layer 2 .* row \d+ of tiny-data"):
        extract(broken, data)


def test_settings_out_of_range(lm, data):
    with pytest.raises(ValueError, match="batch_size"):
        extract(lm, data, batch_size=0)
    for length in (1, 33):
        with pytest.raises(ValueError, match="between 2 and 32"):
            extract(lm, data, max_length=length)


def test_tokenizer_of_another_model(lm, data):
    small = load_model(lm.name, device="cpu")
    small.model.resize_token_embeddings(10)
    with pytest.raises(ValueError, match="do not belong together"):
        extract(small, data)


def test_layers():
    assert parse_layers("all", 3) == (0, 1, 2)
    assert parse_layers("last", 3) == (2,)
    assert parse_layers("0,-1,2", 3) == (0, 2)
    with pytest.raises(ValueError, match="no layer 3"):
        parse_layers("3", 3)
    with pytest.raises(ValueError, match="numbers such as"):
        parse_layers("first", 3)

"""Extraction against hidden states that transformers computes for one text at a time."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ntps_utils.models import extraction
from ntps_utils.models._hub import HubError
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import ExtractionWarning, extract, length_batches, pad_batch, random_groups, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.theory.moments import TENSORS, Accumulator, Moments


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
def test_moments_agree_with_one_text_at_a_time(lm, data, layer):
    moments, reference = extract(lm, data).moments.layer(layer), one_by_one(lm, data, layer).layer(0)
    for name in ("A0", "A1", "S", "C", "Y", "s", "q"):
        a, b = getattr(moments, name), getattr(reference, name)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_moments_do_not_depend_on_the_batch_size(tiny_model, data, dtype):
    lm = load_model(tiny_model, device="cpu", dtype=dtype)
    a, b = (extract(lm, data, batch_size=size).moments for size in (1, 32))
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    for name in TENSORS:
        x, y = getattr(a, name), getattr(b, name)
        assert float((x - y).abs().max()) <= tolerance * float(y.abs().max()), name


def test_moments_of_groups_add_up_to_those_of_all_texts(lm, data):
    groups = random_groups(len(data), 4, seed=3)
    assert np.bincount(groups).tolist() == [23, 23, 22, 22]
    extraction = extract(lm, data, groups=groups)
    assert [p.n_texts for p in extraction.parts] == [23, 23, 22, 22]
    whole = extract(lm, data).moments
    np.testing.assert_allclose(extraction.moments.A0, whole.A0, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("n_groups", [0, 2, 5])
def test_random_groups_need_a_text_each(n_groups):
    with pytest.raises(ValueError, match=f"4 texts cannot form {n_groups} groups; choose between 3 and 4"):
        random_groups(4, n_groups, 0)


def test_random_groups_need_three_texts():
    with pytest.raises(ValueError, match="2 texts cannot form 2 groups; at least 3 texts are needed"):
        random_groups(2, 2, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g[:-1], r"one integer for each of the 90 texts, got shape \(89,\)"),
        (lambda g: g[:, None], r"one integer for each of the 90 texts, got shape \(90, 1\)"),
        (lambda g: g - 1, r"numbered 0, 1, \.\.\. without gaps, got the numbers \[-1, 0, 1\]"),
        (lambda g: 2 * g, r"numbered 0, 1, \.\.\. without gaps, got the numbers \[0, 2, 4\]"),
        (lambda g: g + 1, r"without gaps, got the numbers \[1, 2, 3\]"),
        (lambda g: np.arange(90) * 2, r"got the numbers \[0, 2, 4, 6, 8, 10, 12, 14\] \.\.\."),
        (lambda g: g.astype(float), "one integer for each of the 90 texts, got .* type float64"),
        (lambda g: g > 0, "one integer for each of the 90 texts, got .* type bool"),
    ],
)
def test_invalid_groups_are_refused(lm, data, change, message):
    with pytest.raises(ValueError, match=f"groups must .*{message}"):
        extract(lm, data, groups=change(np.arange(90) % 3))


def test_truncated_texts_are_counted(lm, data):
    few = replace(data, texts=("w1", "w1 w2 w3", "w1 " * 50, "w4 w5"), labels=np.array([0, 1, 2, 0]))
    with pytest.warns(ExtractionWarning, match="1 of 4 texts were truncated to 32 tokens"):
        extraction = extract(lm, few)
    assert (extraction.n_truncated, extraction.n_single, extraction.max_length) == (1, 0, 32)
    assert extraction.moments.n_tokens == 2 + 4 + 32 + 3
    with pytest.warns(ExtractionWarning, match="were truncated to 3 tokens"):
        assert extract(lm, few, max_length=3).moments.n_tokens == 2 + 3 + 3 + 3


@pytest.fixture
def without_bos(lm):
    """Let the tokenizer add no token, so that a text can be empty."""
    backend = lm.tokenizer.backend_tokenizer
    processor, backend.post_processor = backend.post_processor, None
    yield
    backend.post_processor = processor


@pytest.mark.usefixtures("without_bos")
def test_texts_without_tokens_are_excluded(lm, data):
    few = replace(data, texts=("w1 w2", "", "w3"), labels=np.array([0, 1, 2]))
    with pytest.warns(ExtractionWarning, match="1 of 3 texts have no token and were excluded"):
        extraction = extract(lm, few, features="last")
    assert (extraction.moments.n_texts, extraction.n_single, extraction.n_empty) == (2, 1, 1)
    assert extraction.row_indices.tolist() == [0, 2]
    assert extraction.features[2].shape == (2, 16)


def test_invalid_weights_are_reported_with_layer_and_row(tiny_model, data):
    broken = load_model(tiny_model, device="cpu")
    broken.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"Layer 2 .* row \d+ of tiny-data"):
        extract(broken, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"save_every": 0}, "save_every must be an integer of at least 1"),
        ({"max_length": 1}, "max_length must be an integer of at least 2, or None, got 1"),
        ({"max_length": 33}, "max_length must be between 2 and 32 tokens, the limit of .*, got 33"),
        ({"pooling": "max"}, "pooling must be 'mean' or 'last', got 'max'"),
        ({"precision": "float16"}, "precision must be"),
        ({"layers": 3}, "There is no layer 3"),
        ({"layers": (2,), "features": (1,)}, r"features must be a subset of layers; layers \[1\] are not extracted"),
    ],
)
def test_invalid_settings_are_refused(lm, data, options, message):
    with pytest.raises(ValueError, match=message):
        extract(lm, data, **options)


def test_tokenizer_of_another_model_is_refused(lm, data):
    small = load_model(lm.name, device="cpu")
    small.model.resize_token_embeddings(10)
    with pytest.raises(ValueError, match=r"makes the token \d+, but the model has embeddings for 10 tokens"):
        extract(small, data)


def test_given_tokens_replace_tokenization(lm, data):
    tokens = tokenize(lm, data, max_length=6)
    untokenizable = replace(lm, tokenizer=None)
    with pytest.warns(ExtractionWarning, match="truncated to 6 tokens"):
        extraction = extract(untokenizable, data, tokens=tokens)
    with pytest.warns(ExtractionWarning, match="truncated to 6 tokens"):
        same(extraction.moments, extract(lm, data, max_length=6).moments, 0.0)
    assert (extraction.max_length, extraction.n_truncated) == (6, tokens.n_truncated)


def test_tokens_of_other_texts_are_refused(lm, data):
    other = replace(data, texts=data.texts[::-1])
    for mismatch in (other, data.head(50)):
        with pytest.raises(
            ValueError, match=r"tokens are those of \d+ other texts than the 90 texts of tiny-data-?\d*/train"
        ):
            extract(lm, data, tokens=tokenize(lm, mismatch))
    extract(lm, replace(data, labels=data.labels[::-1]), tokens=tokenize(lm, data))  # labels may differ


@pytest.mark.parametrize("layers", ["all", "last", "0,-1", 1, -1, -3, (-1,), (2, 0), (-1, 0), (0, -2, 2), [-1, 2, 1]])
def test_streaming_extracts_the_same_layers(lm, data, layers):
    few = data.head(12)
    whole = extract(lm, few, layers=layers, features=layers)
    streamed = extract(lm, few, layers=layers, features=layers, stream=True)
    assert all(layer >= 0 for layer in whole.moments.layers)
    same(streamed.moments, whole.moments)
    assert list(streamed.features) == list(whole.features) == list(whole.moments.layers)
    reference = extract(lm, few).moments
    for layer in whole.moments.layers:
        np.testing.assert_allclose(streamed.features[layer], whole.features[layer], atol=1e-10)
        np.testing.assert_allclose(streamed.moments.layer(layer).S, reference.layer(layer).S, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stream", [False, True])
def test_extraction_excludes_dropout(dropout_model, data, stream):
    model = dropout_model.model
    model.transformer.h[0].eval()  # as for a block that is frozen in training
    flags = [m.training for m in model.modules()]
    first, second = (extract(dropout_model, data, stream=stream).moments for _ in range(2))
    assert [m.training for m in model.modules()] == flags
    model.eval()
    evaluation = extract(dropout_model, data, stream=stream).moments
    for name in TENSORS:
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(getattr(first, name), getattr(evaluation, name))
    assert not model.training


def test_training_mode_is_restored_after_an_error(dropout_model, data):
    def interrupt(_):
        raise KeyboardInterrupt

    flags = [m.training for m in dropout_model.model.modules()]
    with pytest.raises(KeyboardInterrupt):
        extract(dropout_model, data, progress=interrupt)
    assert [m.training for m in dropout_model.model.modules()] == flags
    assert all(flags)


# -- architectures -----------------------------------------------------------------

FAMILIES = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": 2, "head_dim": 8}),
    "gpt2": ("GPT2Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "opt": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 16}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny_model, tmp_path_factory):
    """A small random model of an architecture, saved and loaded again."""
    import transformers

    name, options = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    for file in tiny_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    torch.manual_seed(1)
    config = getattr(transformers, name)(
        vocab_size=46,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
        **options,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    # Some architectures have their own tokenizer class, which is not tested here.
    return replace(load_model(folder, device="cpu"), tokenizer=load_model(tiny_model, device="cpu").tokenizer)


def same(a: Moments, b: Moments, tolerance: float = 1e-10) -> None:
    """Assert that moments agree, relative to the largest entry of each sum."""
    assert a.layers == b.layers
    for name in TENSORS:
        x, y = getattr(a, name), getattr(b, name)
        assert float((x - y).abs().max()) <= tolerance * max(1.0, float(y.abs().max())), name


def test_architectures_agree_with_one_text_at_a_time(family, data):
    few = data.head(30)
    whole = extract(family, few, features=(1, 3))
    for layer in range(4):
        moments, reference = whole.moments.layer(layer), one_by_one(family, few, layer).layer(0)
        for name in ("A0", "A1", "S", "C", "s"):
            a, b = getattr(moments, name), getattr(reference, name)
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.abs(b).max())
    # The moments are those of the text features.
    x = whole.features[3]
    np.testing.assert_allclose(x.T @ x / len(x), whole.moments.layer(3).S, rtol=1e-9, atol=1e-12)
    streamed = extract(family, few, features=(1, 3), stream=True, batch_size=7)
    same(streamed.moments, whole.moments)
    np.testing.assert_allclose(streamed.features[1], whole.features[1], atol=1e-10)
    half = replace(family, model=load_model(family.name, device="cpu", dtype="bfloat16").model)
    approximate = extract(half, few, precision="float32").moments.layer(3).S
    assert np.abs(approximate - whole.moments.layer(3).S).max() < 0.2 * np.abs(approximate).max()


def test_last_token_pooling(lm, data):
    few = data.head(9)
    last = extract(lm, few, layers=(2,), features=(2,), pooling="last", batch_size=4).features[2]
    with torch.inference_mode():
        for row, text in zip(last, few.texts, strict=True):
            ids = lm.tokenizer(text, return_tensors="pt")["input_ids"]
            expected = lm.model(ids, output_hidden_states=True).hidden_states[2][0, -1]
            np.testing.assert_allclose(row, expected, atol=1e-10)


def test_bos_is_added_or_omitted(lm, data):
    few = replace(data, texts=("w1 w2", "w3 w4 w5 w6"), labels=np.array([0, 1]))
    assert tokenize(lm, few).ids[0][0] == 1
    assert tokenize(lm, few, bos=True).ids == tokenize(lm, few).ids
    assert [len(row) for row in tokenize(lm, few, bos=False).ids] == [2, 4]


@pytest.mark.usefixtures("without_bos")
def test_bos_is_added_if_the_tokenizer_omits_it(lm, data):
    few = replace(data, texts=("w1 w2", "w3 w4 w5 w6"), labels=np.array([0, 1]))
    assert [row[0] for row in tokenize(lm, few, bos=True).ids] == [1, 1]
    tokens = tokenize(lm, few, 3, bos=True)
    assert (tokens.ids[1][0], len(tokens.ids[1]), tokens.n_truncated) == (1, 3, 1)


def test_bos_needs_a_tokenizer_that_has_it(tiny_model, data):
    model = load_model(tiny_model, device="cpu")
    model.tokenizer.bos_token = None
    with pytest.raises(ValueError, match="no beginning-of-sequence token"):
        tokenize(model, data, bos=True)


@pytest.mark.parametrize("stream", [False, True])
def test_out_of_memory_halves_the_batch_and_adds_every_text_once(lm, data, monkeypatch, stream):
    reference = extract(lm, data, features=(2,))
    add_layer = Accumulator.add_layer

    def limited(self, place, hidden):
        if len(hidden) > 5 and place >= 1:  # in the middle of a batch, after its first layer was added
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return add_layer(self, place, hidden)

    monkeypatch.setattr(Accumulator, "add_layer", limited)
    with pytest.warns(ExtractionWarning, match="A batch of 9 texts did not fit into memory; continuing with 4 texts"):
        result = extract(lm, data, features=(2,), stream=stream)
    same(result.moments, reference.moments)
    np.testing.assert_allclose(result.features[2], reference.features[2], atol=1e-10)

    def no_memory(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Accumulator, "add_layer", no_memory)
    with (
        pytest.warns(ExtractionWarning),
        pytest.raises(MemoryError, match="does not fit into memory even as a batch of one text"),
    ):
        extract(lm, data)


@pytest.mark.parametrize("stream", [False, True])
def test_interrupted_extraction_resumes_from_its_checkpoint(lm, data, tmp_path, stream):
    options = {"groups": random_groups(len(data), 3, 0), "batch_size": 7, "features": (2,), "stream": stream}
    reference = extract(lm, data, **options, checkpoint=tmp_path / "whole.safetensors", save_every=2)
    file = tmp_path / "state.safetensors"
    for attempt in range(20):
        batches = iter(range(4 * (attempt + 1)))

        def interrupt(_, batches=batches):
            if next(batches, None) is None:
                raise KeyboardInterrupt

        try:
            extraction = extract(lm, data, **options, checkpoint=file, save_every=2, progress=interrupt)
            break
        except KeyboardInterrupt:
            assert file.exists()
    assert attempt >= 3
    for part, expected in zip(extraction.parts, reference.parts, strict=True):
        for name in TENSORS:
            assert torch.equal(getattr(part, name), getattr(expected, name))
    assert np.array_equal(extraction.features[2], reference.features[2])
    with pytest.raises(ValueError, match="checkpoint of another extraction"):
        extract(lm, data, **{**options, "batch_size": 8}, checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        extract(lm, data, **options, checkpoint=file)


def test_resumed_extraction_in_single_precision_equals_an_uninterrupted_one(lm, data, tmp_path):
    options = {"precision": "float32", "batch_size": 7, "save_every": 2}
    reference = extract(lm, data, **options, checkpoint=tmp_path / "whole.safetensors").moments
    batches = iter(range(3))

    def interrupt(_):
        if next(batches, None) is None:
            raise KeyboardInterrupt

    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        extract(lm, data, **options, checkpoint=file, progress=interrupt)
    resumed = extract(lm, data, **options, checkpoint=file).moments
    for name in TENSORS:
        assert torch.equal(getattr(resumed, name), getattr(reference, name))


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), size=st.integers(1, 9), tokens=st.integers(1, 90))
def test_batches_respect_both_limits(lengths, size, tokens):
    batches = length_batches([[0] * n for n in lengths], range(len(lengths)), size, tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or (len(batch) <= size and len(batch) * longest <= tokens)


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    size=st.integers(1, 7),
    tokens=st.integers(1, 150),
    overhead=st.integers(0, 60),
)
def test_batches_have_the_least_cost_of_all_divisions(lengths, size, tokens, overhead):
    def cost(batches):
        return sum(len(batch) * max(batch) + overhead for batch in batches)

    lengths = sorted(lengths)
    costs = []
    for cuts in itertools.product((False, True), repeat=len(lengths) - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut]
        batches = [lengths[a:b] for a, b in itertools.pairwise([0, *ends, len(lengths)])]
        if all(len(b) == 1 or (len(b) <= size and len(b) * max(b) <= tokens) for b in batches):
            costs.append(cost(batches))
    found = length_batches([[0] * n for n in lengths], range(len(lengths)), size, tokens, overhead)
    assert cost([[lengths[row] for row in batch] for batch in found]) == min(costs)


def test_forward_passes_respect_the_limit_of_tokens(lm, data, monkeypatch):
    reference = extract(lm, data).moments
    sizes = []
    pad = pad_batch

    def recorded(ids, device):
        tokens, mask = pad(ids, device)
        sizes.append(tokens.numel())
        return tokens, mask

    monkeypatch.setattr("ntps_utils.models.extraction.pad_batch", recorded)
    limited = extract(lm, data, batch_tokens=30).moments
    assert max(sizes) <= max(30, max(map(len, tokenize(lm, data).ids)))
    same(limited, reference)


# -- processes ---------------------------------------------------------------------

SCRIPT = """
import os, sys, time, torch
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import load_model

torch.set_num_threads(1)
model, data, folder = load_model(sys.argv[1], device="cpu"), load_texts(sys.argv[2]), sys.argv[3]
options = {"batch_size": 2, "features": (2,), "checkpoint": f"{folder}/state"}
"""

SLOW_SCRIPT = f"""{SCRIPT}
extract(model, data, save_every=1, progress=lambda n: time.sleep(0.05), **options)
"""

# The variables that torchrun and accelerate set.
TWO_PROCESSES_SCRIPT = f"""{SCRIPT}
os.environ |= {{"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[4]}}
other = os.fork()
rank = os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
extract(model, data, **options).moments.save(f"{{folder}}/moments{{rank}}")
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.mark.slow
def test_killed_extraction_resumes_from_its_checkpoint(lm, data, tiny_model, tiny_data, tmp_path):
    file = tmp_path / "state"
    command = [sys.executable, "-c", SLOW_SCRIPT, str(tiny_model), str(tiny_data), str(tmp_path)]
    process = subprocess.Popen(command)
    while process.poll() is None and not file.exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with safe_open(str(file), framework="pt") as state:
        assert 0 < int(state.metadata()["n_done"]) < 45
    resumed = extract(lm, data, batch_size=2, features=(2,), checkpoint=file)
    whole = extract(lm, data, batch_size=2, features=(2,))
    same(resumed.moments, whole.moments, 1e-14)  # the other process may have added up in another order
    np.testing.assert_allclose(resumed.features[2], whole.features[2], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_two_processes_return_the_moments_of_one(lm, data, tiny_model, tiny_data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", TWO_PROCESSES_SCRIPT, str(tiny_model), str(tiny_data), str(tmp_path), port]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr[-2000:]
    assert sorted(p.name for p in tmp_path.glob("state*")) == ["state.0of2", "state.1of2"]
    whole = extract(lm, data).moments
    for rank in (0, 1):
        same(Moments.load(tmp_path / f"moments{rank}"), whole)


# -- remote code -------------------------------------------------------------------

REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own-model"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_repository_with_code_needs_consent(lm, data, tiny_model, tmp_path):
    """The repository of OpenELM, for example, contains its modeling code."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    (folder / "modeling_own.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-model", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HubError, match="trust_remote_code"):
        load_model(folder)
    own = load_model(folder, device="cpu", trust_remote_code=True)
    assert type(own.model).__name__ == "OwnForCausalLM"
    few = data.head(10)
    same(extract(own, few).moments, extract(lm, few).moments, 1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_products_of_another_shape_is_not_taken_for_reading_ahead(lm, dtype, monkeypatch):
    """A causal model whose features change by a tenth with the number of tokens is accepted in 16 bits only."""
    actual = extraction.hidden_states

    def rounded(model, ids):
        states = actual(model, ids)
        return tuple(one * (1.0 + 0.1 * (len(ids[0]) % 12 > 0)) for one in states)

    monkeypatch.setattr(extraction, "hidden_states", rounded)
    narrow = replace(lm, model=copy.deepcopy(lm.model).to(dtype))
    extraction.check_model(narrow)
    with pytest.raises(ValueError, match="is not a causal model"):
        extraction.check_model(replace(lm, model=copy.deepcopy(lm.model).float()))


def test_a_model_that_reads_ahead_is_refused_in_16_bits(lm, monkeypatch):
    actual = extraction.hidden_states

    def ahead(model, ids):
        return tuple(one + one.flip(1) for one in actual(model, ids))

    monkeypatch.setattr(extraction, "hidden_states", ahead)
    with pytest.raises(ValueError, match="is not a causal model"):
        extraction.check_model(replace(lm, model=copy.deepcopy(lm.model).bfloat16()))

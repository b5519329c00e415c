"""Extraction against one text at a time, with hidden states straight from transformers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import ExtractionWarning, extract, parse_layers, random_groups, tokenize
from ntps_utils.models.loading import load_model
from ntps_utils.theory.moments import TENSORS, Moments


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


# -- every family, every way -------------------------------------------------------

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
    """A tiny random model of a family, saved and loaded like any other."""
    import shutil

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
    # Some families have a tokenizer class of their own; what is tested here is the model.
    return replace(load_model(folder, device="cpu"), tokenizer=load_model(tiny_model, device="cpu").tokenizer)


def same(a: Moments, b: Moments, tolerance: float = 1e-10) -> None:
    assert a.layers == b.layers
    for name in TENSORS:
        x, y = getattr(a, name), getattr(b, name)
        assert float((x - y).abs().max()) <= tolerance * max(1.0, float(y.abs().max())), name


def test_every_family_agrees_with_one_text_at_a_time(family, data):
    few = data.head(30)
    whole = extract(family, few, features=(1, 3))
    for layer in range(4):
        mine, reference = whole.moments.layer(layer), one_by_one(family, few, layer).layer(0)
        for name in ("A0", "A1", "S", "C", "s"):
            a, b = getattr(mine, name), getattr(reference, name)
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.abs(b).max())
    # Text features are those of the moments.
    x = whole.features[3]
    np.testing.assert_allclose(x.T @ x / len(x), whole.moments.layer(3).S, rtol=1e-9, atol=1e-12)
    streamed = extract(family, few, features=(1, 3), stream=True, batch_size=7)
    same(streamed.moments, whole.moments)
    np.testing.assert_allclose(streamed.features[1], whole.features[1], atol=1e-10)
    half = replace(family, model=load_model(family.name, device="cpu", dtype="bfloat16").model)
    rough = extract(half, few, precision="float32").moments.layer(3).S
    assert np.abs(rough - whole.moments.layer(3).S).max() < 0.2 * np.abs(rough).max()


def test_last_token_features(lm, data):
    few = data.head(9)
    last = extract(lm, few, layers=(2,), features=(2,), pooling="last", batch_size=4).features[2]
    with torch.inference_mode():
        for row, text in zip(last, few.texts, strict=True):
            ids = lm.tokenizer(text, return_tensors="pt")["input_ids"]
            expected = lm.model(ids, output_hidden_states=True).hidden_states[2][0, -1]
            np.testing.assert_allclose(row, expected, atol=1e-10)
    with pytest.raises(ValueError, match="pooling must be"):
        extract(lm, few, pooling="max")
    with pytest.raises(ValueError, match=r"layers \[1\] are asked for"):
        extract(lm, few, layers=(2,), features=(1,))


def test_bos_in_and_out(lm, data):
    few = replace(data, texts=("w1 w2", "w3 w4 w5 w6"), labels=np.array([0, 1]))
    assert tokenize(lm, few).ids[0][0] == 1
    assert tokenize(lm, few, bos=True).ids == tokenize(lm, few).ids
    assert [len(row) for row in tokenize(lm, few, bos=False).ids] == [2, 4]
    processor = lm.tokenizer.backend_tokenizer.post_processor
    lm.tokenizer.backend_tokenizer.post_processor = None
    try:
        assert [row[0] for row in tokenize(lm, few, bos=True).ids] == [1, 1]
        cut = tokenize(lm, few, 3, bos=True)
        assert (cut.ids[1][0], len(cut.ids[1]), cut.n_truncated) == (1, 3, 1)
    finally:
        lm.tokenizer.backend_tokenizer.post_processor = processor
    lm.tokenizer.bos_token = None
    try:
        with pytest.raises(ValueError, match="no beginning-of-sequence token"):
            tokenize(lm, few, bos=True)
    finally:
        lm.tokenizer.bos_token = "<s>"


@pytest.mark.parametrize("stream", [False, True])
def test_out_of_memory_halves_the_batch_and_loses_nothing(lm, data, monkeypatch, stream):
    reference = extract(lm, data, features=(2,))
    true_add = Moments.update

    def scarce(self, hidden, lengths, targets, **options):
        # Streaming fails in the middle of a batch, when its first layers have been added.
        if len(lengths) > 5 and self.layers[-1] >= 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        true_add(self, hidden, lengths, targets, **options)

    monkeypatch.setattr(Moments, "update", scarce)
    with pytest.warns(ExtractionWarning, match="Out of memory with 16 texts in a batch; going on with 8"):
        done = extract(lm, data, features=(2,), stream=stream)
    same(done.moments, reference.moments)
    np.testing.assert_allclose(done.features[2], reference.features[2], atol=1e-10)

    def none_left(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Moments, "update", none_left)
    with pytest.warns(ExtractionWarning), pytest.raises(MemoryError, match="does not fit into memory by itself"):
        extract(lm, data)


@pytest.mark.parametrize("stream", [False, True])
def test_an_interrupted_extraction_goes_on_and_ends_the_same(lm, data, tmp_path, stream):
    options = {"groups": random_groups(len(data), 3, 0), "batch_size": 7, "features": (2,), "stream": stream}
    reference = extract(lm, data, **options)
    file = tmp_path / "state.safetensors"
    for attempt in range(20):
        left = iter(range(4 * (attempt + 1)))

        def interrupt(_, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        try:
            done = extract(lm, data, **options, checkpoint=file, save_every=2, progress=interrupt)
            break
        except KeyboardInterrupt:
            assert file.exists()
    assert attempt >= 3
    for mine, theirs in zip(done.parts, reference.parts, strict=True):
        for name in TENSORS:
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
    assert np.array_equal(done.features[2], reference.features[2])
    with pytest.raises(ValueError, match="checkpoint of another extraction"):
        extract(lm, data, **{**options, "batch_size": 8}, checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        extract(lm, data, **options, checkpoint=file)


CODE = """
import sys, torch
torch.set_num_threads(1)
from ntps_utils.models.extraction import extract
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.loading import load_model
lm, data = load_model(sys.argv[1], device="cpu"), load_texts(sys.argv[2])
done = extract(lm, data, batch_size=2, checkpoint=sys.argv[3], save_every=1, features=(2,))
if done.moments.n_texts == len(data):
    done.moments.save(sys.argv[4])
"""


def test_a_killed_extraction_goes_on(tiny_model, tiny_data, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(CODE)

    def command(name):
        return [sys.executable, str(script), str(tiny_model), str(tiny_data), str(tmp_path / name), str(tmp_path / "m")]

    subprocess.run(command("whole"), check=True)
    whole = Moments.load(tmp_path / "m")
    (tmp_path / "m").unlink()
    process = subprocess.Popen(command("cut"))
    while process.poll() is None and not (tmp_path / "cut").exists():
        time.sleep(0.005)
    process.kill()
    process.wait()
    subprocess.run(command("cut"), check=True)
    same(Moments.load(tmp_path / "m"), whole, 0.0)


def test_two_processes_give_the_moments_of_one(lm, data, tiny_model, tiny_data, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(CODE)
    # What `accelerate launch --multi_gpu` runs, which without GPUs would want MPI.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [str(script), str(tiny_model), str(tiny_data), str(tmp_path / "state"), str(tmp_path / "m")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in tmp_path.glob("state*")) == ["state.0of2", "state.1of2"]
    same(Moments.load(tmp_path / "m"), extract(lm, data).moments)


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own-model"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_model_with_code_of_its_own_needs_consent(lm, data, tiny_model, tmp_path):
    """The way in which OpenELM comes: the repository's own modeling code."""
    import json
    import shutil

    from ntps_utils.models._hub import HubError

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
    same(extract(own, few).moments.select_layer(2), replace(extract(lm, few).moments.select_layer(2), source=""), 1e-9)

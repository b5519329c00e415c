"""Folders of models of many architectures: each is scored and finetuned, or refused by name.

The models are random and tiny. Their class is the one that transformers loads for causal language modeling.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ntps_utils.models.datasets import TextDataset, as_dataset, load_texts
from ntps_utils.models.extraction import Extraction, extract, hidden_states
from ntps_utils.models.finetuning import FinetuneConfig, ProjectionError, finetune
from ntps_utils.models.loading import CausalModel, LoadingWarning, load_model

SIZES = {
    "hidden_size d_model n_embd": 32,
    "num_hidden_layers n_layers n_layer num_layers decoder_layers": 2,
    "num_attention_heads n_heads n_head num_heads decoder_attention_heads encoder_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size ffn_dim d_ff ffn_hidden_size n_inner decoder_ffn_dim encoder_ffn_dim dff": 64,
    "vocab_size unpadded_vocab_size": 60,
    "max_position_embeddings n_positions n_ctx max_seq_len": 128,
    "head_dim": 16,
    "rotary_dim": 8,
    "encoder_layers": 1,
    "num_local_experts num_experts n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size shared_expert_intermediate_size": 32,
    "embed_dim": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Values of the attributes with these names, in any configuration that has them."""

LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
SUPPORTED: dict[str, dict[str, Any]] = {
    "afmoe": {},
    "apertus": {},
    "arcee": {},
    "bart": {},
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {"num_attention_heads": 4, "n_head": 4},
    "cohere": {},
    "cohere2": {},
    "ctrl": {},
    "deepseek_v2": LATENT | {"head_dim": 8, "first_k_dense_replace": 2},
    "deepseek_v3": LATENT | {"head_dim": 8, "first_k_dense_replace": 2},
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": {},
    "falcon": {"head_dim": None},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "glm": {},
    "glm4": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "gpt_neox": {},
    "gpt_oss": {},
    "gptj": {},
    "granite": {},
    "granitemoe": {},
    "helium": {},
    "hrm_text": {},
    "hunyuan_v1_dense": {},
    "inkling2_text": {},
    "jamba": {"num_hidden_layers": 5},
    "lfm2": {},
    "llama": {},
    "llama4_text": {},
    "minimax": {},
    "mistral": {},
    "mixtral": {},
    "modernbert-decoder": {},
    "mpt": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": {},
    "openai-gpt": {},
    "opt": {"word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": {},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_moe": {},
    "qwen3_next": {"num_hidden_layers": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "xglm": {},
}
"""Architectures by the name in their configuration, and values besides ``SIZES``."""

WINDOW = {"sliding_window": 4}
DECODER = {"is_decoder": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local gpt_neo": ("gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": 4}),
    "windows of gemma2": ("gemma2", WINDOW),
    "windows of gemma3": ("gemma3_text", WINDOW),
    "windows of mistral": ("mistral", WINDOW),
    "windows of mixtral": ("mixtral", WINDOW),
    "windows of qwen2": ("qwen2", WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "windows of cohere2": ("cohere2", WINDOW),
    "windows of gpt_oss": ("gpt_oss", WINDOW),
    "windows of phi3": ("phi3", WINDOW),
    "windows of starcoder2": ("starcoder2", WINDOW),
    "windows of modernbert": ("modernbert-decoder", {"local_attention": 4}),
    "windows of recurrent_gemma": ("recurrent_gemma", {"num_hidden_layers": 3, "attention_window_size": 4}),
    "falcon with alibi": ("falcon", {"head_dim": None, "alibi": True}),
    "falcon with groups": ("falcon", {"head_dim": None, "new_decoder_architecture": True}),
    "norms at the end of opt": ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "experts of qwen2_moe": ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "experts of mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "experts of phimoe": ("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "experts of deepseek_v3": (
        "deepseek_v3",
        LATENT
        | {"head_dim": 8, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
        | {"n_routed_experts": 4, "num_experts_per_tok": 2},
    ),
    "xlstm": ("xlstm", {}),
    "bert as a decoder": ("bert", DECODER),
    "roberta as a decoder": ("roberta", DECODER),
    "big_bird as a decoder": ("big_bird", DECODER),
    "xlm as a decoder": ("xlm", {"causal": True}),
    "xglm": ("xglm", {}),
}
"""Architectures and values of configurations that change what a token attends to."""

QUICK = ("windows of gemma2", "windows of gemma3", "local gpt_neo", "xglm")

REFUSED = {
    "bert": "is not a causal model",
    "big_bird": "is not a causal model",
    "camembert": "is not a causal model",
    "cpmant": "is not a causal model",
    "data2vec-text": "is not a causal model",
    "deepseek_v4": r"have the shape \(1, 12, .*where \(texts, tokens, features\) is expected",
    "electra": "is not a causal model",
    "falcon_mamba": "are not the inputs of its blocks",
    "mamba": "are not the inputs of its blocks",
    "mamba2": "are not the inputs of its blocks",
    "qwen4_exp_text": "hidden states of the widths",
    "reformer": "are not the inputs of its blocks",
    "roberta": "is not a causal model",
    "rwkv": "are not the inputs of its blocks",
    "xlm": "is not a causal model",
    "xmod": "does not run in float32 on cpu: Input language unknown",
}
"""Architectures that are not scored, and what the error says."""

REFUSED_VALUES: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 4, "n_groups": 1},
    "reformer": DECODER | {"axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
}
"""Values of their configurations besides ``SIZES``."""


WITHOUT_LORA = {
    "jetmoe": "has no query, key and value projections of a known name; name the modules to adapt: --target-modules",
    "moshi": "LoRA cannot adapt the modules q_proj, k_proj, v_proj of MoshiForCausalLM: Target module MoshiLinear",
}
"""Architectures that are scored, but not finetuned, and what the error says."""


def test_at_least_forty_kinds_of_models_are_tried():
    assert len(SUPPORTED) >= 40
    assert SUPPORTED.keys().isdisjoint(REFUSED)


@pytest.fixture(scope="module")
def texts(tiny_data: Path) -> tuple[TextDataset, TextDataset]:
    return load_texts(str(tiny_data)).head(16), load_texts(str(tiny_data), "test").head(8)


def saved_model(kind: str, folder: Path, tokenizer: Path, more: dict[str, Any]) -> CausalModel:
    """Save a random model of an architecture, and load it as a user would."""
    torch.manual_seed(0)
    default = AutoConfig.for_model(kind)
    values = {name: value for names, value in SIZES.items() for name in names.split() if hasattr(default, name)}
    values = {name: value for name, value in (values | more).items() if value is not None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.save_pretrained(folder)
    # A folder with this tokenizer may be read as that of its architecture.
    return replace(load_model(folder, device="cpu", dtype="float32"), tokenizer=words)


def moments(extraction: Extraction) -> Iterator[np.ndarray[Any, Any]]:
    (layer,) = extraction.moments.layers
    return (getattr(extraction.moments.layer(layer), name) for name in ("A0", "A1", "S", "C"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUPPORTED)
def test_models_of_this_architecture_are_scored_and_finetuned(kind, tmp_path, tiny_model, texts):
    model = saved_model(kind, tmp_path / kind, tiny_model, SUPPORTED[kind])
    train, test = texts
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="transformers|torch")
        together = extract(model, train, features="last", layers="last")
        alone = extract(model, train, features="last", layers="last", batch_size=1, stream=False)
        lora = finetune(model, train, test, FinetuneConfig(max_steps=1, eval_steps=1, r=1, base_dtype="float32"))
    last = model.n_layers - 1
    states = [hidden_states(model, [model.tokenizer(text).input_ids])[last][0].mean(0).numpy() for text in train.texts]
    scale = np.abs(states).max()
    for features in (together.features[last], alone.features[last]):
        assert np.abs(features - np.array(states)).max() < 1e-4 * scale
    for one, two in zip(moments(together), moments(alone), strict=True):
        assert np.abs(one - two).max() < 1e-4 * np.abs(one).max()
    assert lora.n_trainable > lora.model.dimension * train.n_classes + train.n_classes  # more than the head
    assert np.isfinite(lora.test.cross_entropy)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in VARIANTS])
def test_moments_do_not_depend_on_the_batches_or_on_streaming(name, tmp_path, tiny_model):
    """Texts of very different lengths, in the type of numbers that is chosen automatically and in float32."""
    kind, values = VARIANTS[name]
    data = as_dataset(
        ([" ".join(f"w{(7 * i + j) % 40}" for j in range(2 + 5 * i % 23)) for i in range(30)], [0, 1] * 15)
    )
    model = saved_model(kind, tmp_path / kind, tiny_model, values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=LoadingWarning)  # some run in float32 only
        automatic = replace(load_model(tmp_path / kind, device="cpu"), tokenizer=model.tokenizer)
    for one in (model, automatic):
        expected, *others = (
            extract(one, data, **options).moments
            for options in ({"batch_size": 1}, {}, {"stream": False, "batch_size": 30})
        )
        for other in others:
            for field in ("A0", "A1", "S", "C"):
                a, b = getattr(other, field), getattr(expected, field)
                assert ((a - b).abs().amax((1, 2)) <= 1e-4 * b.abs().amax((1, 2))).all(), field


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITHOUT_LORA)
def test_models_without_known_projections_are_scored_only(kind, tmp_path, tiny_model, texts):
    model = saved_model(kind, tmp_path / kind, tiny_model, {})
    assert extract(model, texts[0], layers="last").moments.n_texts == 16
    with pytest.raises(ProjectionError, match=WITHOUT_LORA[kind]) as error:
        finetune(model, *texts, FinetuneConfig(max_steps=1))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_models_of_this_architecture_are_refused_by_name(kind, tmp_path, tiny_model, texts):
    model = saved_model(kind, tmp_path / kind, tiny_model, REFUSED_VALUES.get(kind, {}))
    with pytest.raises(ValueError, match=REFUSED[kind]) as error:
        extract(model, texts[0], layers="last")
    assert "\n" not in str(error.value)
    assert type(model.model).__name__ in str(error.value)

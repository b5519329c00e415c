"""Architectures and checkpoints of many kinds: adapters, shards, tied embeddings, half precision, fused projections."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ntps_utils import lab
from ntps_utils.cli.main import app
from ntps_utils.models.datasets import as_dataset
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import CausalModel, HubError, as_model, load_model, model_config, model_fingerprint
from ntps_utils.models.scoring import score_model

TEXTS = ["good film", "bad film", "w1 good w2", "w3 bad", "a good film", "a bad film w4"] * 4
DATA = as_dataset((TEXTS, [1, 0, 1, 0, 1, 0] * 4))


def save_adapter(base: CausalModel, folder: Path, targets: tuple[str, ...] = ("q_proj", "v_proj")) -> torch.Tensor:
    """Save a random adapter, and return the last hidden states of the adapted model for one text."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(base.model.float(), config)
    adapted.save_pretrained(folder)
    with torch.no_grad():
        return adapted.get_base_model().base_model(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state


@pytest.mark.slow
def test_adapters_are_merged_into_their_base(tiny_model, tmp_path):
    expected = save_adapter(load_model(tiny_model), tmp_path / "adapter")
    lm = load_model(tmp_path / "adapter", dtype="float32")
    assert not any("lora" in name for name, _ in lm.model.named_parameters())
    torch.testing.assert_close(lm.backbone(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state, expected)
    assert lm.origin == f"adapter merged into {tiny_model}"
    base = load_model(tiny_model)
    assert lm.fingerprint == model_fingerprint(tmp_path / "adapter") != base.fingerprint
    assert model_config(tmp_path / "adapter").hidden_size == base.dimension
    scores = [score_model(model, DATA, layers="last").rows[0].ntps for model in (base, tmp_path / "adapter")]
    assert scores[0] != scores[1]


def test_base_of_an_adapter_is_found_by_name_path_or_option(tiny_model, tmp_path):
    folder = tmp_path / "run" / "adapter"
    expected = save_adapter(load_model(tiny_model), folder)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())

    def rename(base: str | None) -> None:
        file.write_text(json.dumps(config | {"base_model_name_or_path": base}))

    def states(**options: object) -> torch.Tensor:
        lm = load_model(folder, dtype="float32", **options)
        return lm.backbone(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state

    rename("no/such/folder")
    with pytest.raises(HubError, match=r"The base model no/such/folder of the adapter in .* give it with base_model"):
        load_model(folder)
    torch.testing.assert_close(states(base_model=tiny_model), expected)
    rename(None)
    with pytest.raises(HubError, match="does not name its base model; give it with base_model"):
        load_model(folder)
    rename("../base")
    shutil.copytree(tiny_model, tmp_path / "run" / "base")
    torch.testing.assert_close(states(), expected)
    with pytest.raises(HubError, match="does not fit lab/XS"):
        load_model(folder, base_model="lab/XS")
    with pytest.raises(HubError, match="base_model is for the folder of a peft adapter"):
        load_model(tiny_model, base_model="lab/XS")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(HubError, match=r"no adapter_model\.safetensors; pickled adapters are not loaded"):
        load_model(folder, base_model=tiny_model)


def rename_weights(folder: Path, name: Callable[[str], str]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name(key): weight for key, weight in load_file(file).items()}, file, {"format": "pt"})


def edit(folder: Path, **values: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


MISMATCHES = {
    "other modules": (lambda f: rename_weights(f, lambda key: key.replace("q_proj", "query")), "have no place there"),
    "other prefix": (lambda f: rename_weights(f, lambda key: f"module.{key}"), "have no place there"),
    "no prefix": (lambda f: rename_weights(f, lambda key: key.replace("base_model.model.", "")), "no place there"),
    "other path": (lambda f: rename_weights(f, lambda key: key.replace("model.layers", "h")), "have no place there"),
    "more layers": (lambda f: rename_weights(f, lambda key: key.replace("layers.1.", "layers.9.")), "layers.9."),
    "fewer layers": (
        lambda f: save_file(
            {k: w for k, w in load_file(f / "adapter_model.safetensors").items() if "layers.0" in k},
            f / "adapter_model.safetensors",
        ),
        r"it lacks .*layers\.1\..* and 3 more",
    ),
    "no weights": (lambda f: save_file({}, f / "adapter_model.safetensors"), "it lacks .* and 7 more"),
    "fewer modules": (lambda f: edit(f, target_modules=["q_proj"]), "v_proj.* and 3 more have no place there"),
    "other rank": (lambda f: edit(f, r=5), "size mismatch"),
    "unknown modules": (lambda f: edit(f, target_modules=["nope"]), "not found in the base model"),
}
"""Changes of an adapter's folder, and what the error says."""


@pytest.mark.parametrize("name", MISMATCHES)
def test_adapters_that_do_not_match_their_base_are_refused(name, tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path / "adapter")
    change, message = MISMATCHES[name]
    change(tmp_path / "adapter")
    with pytest.raises(HubError, match=message) as error:
        load_model(tmp_path / "adapter")
    assert re.match(rf"The adapter in {tmp_path / 'adapter'} does not fit {tiny_model}: ", str(error.value))
    assert "Save the adapter again, or choose the model that it was trained on" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pointer_of_git_lfs_and_an_absent_base_are_named(tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path)
    edit(tmp_path, base_model_name_or_path="owner/absent")
    with pytest.raises(
        HubError, match=rf"owner/absent could not be .* the base model of the adapter in {tmp_path}; give"
    ):
        load_model(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "adapter_model.safetensors").write_text(pointer)
    with pytest.raises(HubError, match=r"adapter_model\.safetensors is a pointer of Git LFS.*git lfs pull"):
        load_model(tmp_path)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_adapters_of_a_base_with_other_layers_are_refused(n_layers, tiny_model, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny_model, num_hidden_layers=n_layers)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    save_adapter(load_model(tiny_model), tmp_path / "adapter")
    with pytest.raises(HubError, match="does not fit") as error:
        load_model(tmp_path / "adapter", base_model=tmp_path / "base")
    assert "layers." in str(error.value)


KINDS = {
    "dora": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=2, target_modules=["q_proj"]),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "one layer": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1]),
    "whole modules": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "tokens": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5, 6]),
    "embeddings": lambda: peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_many_kinds_are_merged(kind, tiny_model, tmp_path):
    adapted = peft.get_peft_model(load_model(tiny_model, dtype="float32").model, KINDS[kind]())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 6]])
    expected = adapted.get_base_model().base_model(input_ids=ids).last_hidden_state
    found = load_model(tmp_path, dtype="float32").backbone(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_the_head_of_a_classifier_is_left_out(tiny_model, tmp_path):
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="SEQ_CLS")
    adapted = peft.get_peft_model(classifier, config).eval()
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 6]])
    expected = adapted.get_base_model().base_model(input_ids=ids).last_hidden_state
    found = load_model(tmp_path, dtype="float32").backbone(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected)


def save_adapter_with_tokens(base: Path, folder: Path, embeddings: bool) -> torch.Tensor:
    """Save an adapter with a tokenizer of two more tokens, and return the hidden states of the second of them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["new1", "new2"])
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    if embeddings:
        model.resize_token_embeddings(len(tokenizer))
    more = ["embed_tokens", "lm_head"] if embeddings else None
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=more)
    adapted = peft.get_peft_model(model, config).eval()
    adapted.save_pretrained(folder, save_embedding_layers=embeddings)
    tokenizer.save_pretrained(folder)
    ids = torch.tensor([[1, len(tokenizer) - 1 if embeddings else 3]])
    return adapted.get_base_model().base_model(input_ids=ids).last_hidden_state


def test_an_adapter_has_its_own_tokenizer_and_embeddings(tiny_model, tmp_path):
    expected = save_adapter_with_tokens(tiny_model, tmp_path, embeddings=True)
    model = load_model(tmp_path, dtype="float32")
    (ids,) = tokenize(model, as_dataset((["new2", "w1"], [0, 1]))).ids[:1]
    assert ids == [1, model.model.get_input_embeddings().num_embeddings - 1]
    torch.testing.assert_close(model.backbone(input_ids=torch.tensor([ids])).last_hidden_state, expected)


def test_added_tokens_without_embeddings_are_refused_where_they_occur(tiny_model, tmp_path):
    save_adapter_with_tokens(tiny_model, tmp_path, embeddings=False)
    model = load_model(tmp_path)
    assert tokenize(model, DATA).ids == tokenize(load_model(tiny_model), DATA).ids
    with pytest.raises(ValueError, match=r"The tokenizer makes the token 47, but the model has embeddings for 46"):
        tokenize(model, as_dataset((["new2", "w1"], [0, 1])))


def test_a_damaged_tokenizer_of_an_adapter_is_named(tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(HubError, match=r"The tokenizer of the adapter in .* could not be loaded: .* remove its files"):
        load_model(tmp_path)


PROMPTS = {
    "PROMPT_TUNING": peft.PromptTuningConfig,
    "PREFIX_TUNING": peft.PrefixTuningConfig,
    "P_TUNING": peft.PromptEncoderConfig,
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_learned_prompts_are_refused(kind, tiny_model, tmp_path):
    base = load_model(tiny_model, dtype="float32")
    adapted = peft.get_peft_model(base.model, PROMPTS[kind](task_type="CAUSAL_LM", num_virtual_tokens=3))
    message = f"an adapter of the kind {kind}, which puts learned vectors before the text"
    for model in ((adapted, base.tokenizer), CausalModel("tuned", adapted, base.tokenizer, "")):
        with pytest.raises(HubError, match=message):
            as_model(model)
        with pytest.raises(HubError, match=message):
            score_model(model, DATA)
    with pytest.raises(HubError, match=message):
        extract(CausalModel("tuned", adapted, base.tokenizer, ""), DATA)
    adapted.save_pretrained(tmp_path)
    with pytest.raises(HubError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("command", ["score", "prescreen"])
def test_commands_take_the_base_model_of_an_adapter(command, tiny_model, tiny_data, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path)
    edit(tmp_path, base_model_name_or_path="no/such/folder")
    arguments = [command, str(tmp_path), str(tiny_data), "--max-texts", "40"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert "--base-model of ntps score and ntps prescreen" in " ".join(outcome.output.split())
    outcome = CliRunner().invoke(app, [*arguments, "--base-model", str(tiny_model)])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize("own", [".", "", "itself", "two"])
def test_adapters_that_lead_back_to_themselves_are_refused(own, tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    name = {".": ".", "": "./", "itself": str(tmp_path / "one"), "two": "../two"}[own]
    edit(tmp_path / "one", base_model_name_or_path=name)
    edit(tmp_path / "two", base_model_name_or_path=str(tmp_path / "one"))
    for read in (load_model, model_fingerprint, model_config):
        with pytest.raises(HubError, match=r"lead back to it: .*one -> .*one\. .* give it with base_model"):
            read(tmp_path / "one")
    assert load_model(tmp_path / "one", base_model=tiny_model).dimension == 16


def test_an_adapter_of_an_adapter_is_merged_into_the_merged_model(tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path / "one")
    expected = save_adapter(load_model(tmp_path / "one"), tmp_path / "two")
    edit(tmp_path / "two", base_model_name_or_path=str(tmp_path / "one"))
    found = load_model(tmp_path / "two", dtype="float32").backbone(input_ids=torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(found.last_hidden_state, expected)
    assert model_config(tmp_path / "two").hidden_size == 16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"peft_type": "NOPE"},
            r"configuration of the adapter in .* could not be read: .*NOPE.*Save the adapter again",
        ),
        ({"peft_type": None}, r"configuration of the adapter in .* could not be read: .*Save the adapter again"),
        ({"base_model_name_or_path": 3}, "names the base model 3, which is no text"),
        ({"base_model_name_or_path": ["a"]}, r"names the base model \['a'\], which is no text"),
    ],
)
def test_configurations_of_adapters_that_cannot_be_read_are_named(values, message, tiny_model, tmp_path):
    save_adapter(load_model(tiny_model), tmp_path)
    edit(tmp_path, **values)
    with pytest.raises(HubError, match=message):
        load_model(tmp_path)


@pytest.mark.slow
def test_adapters_of_the_finetuning_are_models(tmp_path):
    base = load_model("lab/XS", dtype="float32")
    config = FinetuneConfig(max_steps=3, eval_steps=3, r=2)
    data = as_dataset("lab/topic", "train").head(40)
    result = finetune(base, data, data, config, keep_adapter=True)
    result.adapter.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype="float32", base_model="lab/XS")
    for a, b in zip(loaded.model.parameters(), result.model.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_sharded_half_precision_checkpoints_with_tied_embeddings_are_loaded(tiny_model, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    load = transformers.AutoTokenizer.from_pretrained(tiny_model)
    load.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    lm = load_model(tmp_path, dtype="bfloat16")
    assert lm.model.dtype == torch.bfloat16
    assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight
    for a, b in zip(lm.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert load_model(tmp_path).model.dtype == torch.float64  # small: see load_model
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].unlink()
    with pytest.raises(HubError, match="could not be loaded"):
        load_model(tmp_path)


SMALL = {"vocab_size": 46, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES = {
    "gpt2": ({"vocab_size": 46, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}, ("c_attn",)),
    "gpt_neox": (SMALL | {"intermediate_size": 32}, ("query_key_value",)),
    "falcon": (SMALL, ("query_key_value",)),
    "bloom": ({"vocab_size": 46, "hidden_size": 16, "n_layer": 2, "n_head": 4}, ("query_key_value",)),
    "phi": (SMALL | {"intermediate_size": 32}, ("q_proj", "k_proj", "v_proj")),
    "phi3": (SMALL | {"intermediate_size": 32, "pad_token_id": 0}, ("qkv_proj",)),
    "opt": (SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 16}, ("q_proj", "k_proj", "v_proj")),
    "mpt": ({"vocab_size": 46, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 32}, ("Wqkv",)),
    "gptj": (
        {"vocab_size": 46, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "rotary_dim": 4},
        ("q_proj", "k_proj", "v_proj"),
    ),
    "olmo2": (SMALL | {"intermediate_size": 32}, ("q_proj", "k_proj", "v_proj")),
    "qwen3": (
        SMALL | {"intermediate_size": 32, "head_dim": 4, "num_key_value_heads": 2},
        ("q_proj", "k_proj", "v_proj"),
    ),
    "gemma3_text": (
        SMALL | {"intermediate_size": 32, "head_dim": 4, "num_key_value_heads": 2},
        ("q_proj", "k_proj", "v_proj"),
    ),
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_extraction_and_lora_work_for_every_architecture(kind, tiny_model, tmp_path):
    settings, names = ARCHITECTURES[kind]
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **settings)).save_pretrained(
        tmp_path
    )
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    lm = load_model(tmp_path, dtype="float32")
    moments = extract(lm, DATA).moments
    assert moments.layers == (0, 1, 2)
    streamed = extract(lm, DATA, stream=True).moments
    torch.testing.assert_close(streamed.A1, moments.A1)
    config = FinetuneConfig(max_steps=2, eval_steps=2, r=2, learning_rates=(1e-2,))
    result = finetune(lm, DATA, DATA, config, keep_adapter=True)
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name in result.adapter.state_dict() if ".lora_A" in name}
    assert adapted == set(names)
    assert np.isfinite(result.accuracy)


def test_quantized_checkpoints_name_the_package_that_they_need(tiny_model, tmp_path):
    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed; it is refused only without it")
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(HubError, match="quantized with bitsandbytes: pip install bitsandbytes, or give the original"):
        load_model(copy)


@pytest.mark.parametrize(("option", "tolerance"), [("load_in_8bit", 0.01), ("load_in_4bit", 0.1)])
def test_quantized_checkpoints_are_scored_and_not_finetuned(tmp_path, option, tolerance):
    pytest.importorskip("bitsandbytes", reason="needs the package bitsandbytes")
    quantized = transformers.AutoModelForCausalLM.from_pretrained(
        lab.checkpoint("S"), quantization_config=transformers.BitsAndBytesConfig(**{option: True}), dtype=torch.float32
    )
    quantized.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(lab.checkpoint("S")).save_pretrained(tmp_path)
    lm = load_model(tmp_path)
    assert lm.origin == "weights quantized with bitsandbytes"
    data = as_dataset("lab/topic").head(40)
    A0, expected = (extract(one, data).moments.A0 for one in (lm, load_model("lab/S")))
    assert 0 < float((A0 - expected).abs().max() / expected.abs().max()) < tolerance
    with pytest.raises(ValueError, match="quantized weights, which cannot be finetuned here; load the original model"):
        finetune(lm, data, data)

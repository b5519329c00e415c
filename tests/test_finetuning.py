"""Finetuning: what is trained, what is not, what is chosen; presets and errors."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import transformers

from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.finetuning import (
    PAPER_FINETUNING,
    FinetuneConfig,
    attention_projections,
    finetune,
    randomly_initialized,
)
from ntps_utils.models.loading import CausalModel, load_model

QUICK = FinetuneConfig(max_steps=30, eval_steps=10, batch_size=16, learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return load_model("lab/XS", dtype="float32")


@pytest.fixture(scope="module")
def task() -> tuple[TextDataset, TextDataset]:
    return load_texts("lab/agreement").head(300), load_texts("lab/agreement", "test").head(200)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "frozen"])
def test_the_model_given_is_unchanged_and_the_same_seed_gives_the_same(model, task, method):
    before = {name: p.clone() for name, p in model.model.state_dict().items()}
    config = replace(QUICK, method=method, validation=0.0)  # the last step, whatever it is worth
    one, two = finetune(model, *task, config), finetune(model, *task, config)
    assert one.accuracy == two.accuracy
    assert np.array_equal(one.predictions, two.predictions)
    for name, p in model.model.state_dict().items():
        assert torch.equal(p, before[name])
    changed = [name for name, p in one.model.model.state_dict().items() if not torch.allclose(p, before[name])]
    if method == "frozen":
        assert changed == []
    elif method == "full":
        assert len(changed) > 10
    else:
        assert all(name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")) for name in changed)
        # A merged adapter is a change of low rank.
        delta = one.model.model.state_dict()[changed[0]] - before[changed[0]]
        assert torch.linalg.matrix_rank(delta, rtol=1e-4) <= config.r
    d, c = model.dimension, 2
    expected = {"frozen": 0, "lora": 3 * 3 * config.r * 2 * d, "full": sum(p.numel() for p in before.values())}
    if method != "full":  # tied embeddings stand twice in a state dict
        assert one.n_trainable == expected[method] + c * (d + 1)


@pytest.mark.slow
def test_lora_learns_what_frozen_features_do_not_show(model):
    train, test = load_texts("lab/agreement"), load_texts("lab/agreement", "test")
    longer = replace(QUICK, max_steps=120, eval_steps=20)
    frozen, lora = (finetune(model, train, test, replace(longer, method=m)) for m in ("frozen", "lora"))
    assert frozen.accuracy < 0.65
    assert lora.accuracy > frozen.accuracy + 0.15
    # The merged model shows in its features what the adapter learned.
    layer = (model.n_layers - 1,)
    merged = extract(lora.model, test, layers=layer, features=layer).features[layer[0]]
    assert lora.model.model.dtype == model.model.dtype
    from ntps_utils.models.probes import linear_probe

    assert linear_probe(merged[:250], test.labels[:250], merged[250:], test.labels[250:]).test_accuracy > 0.6


def test_the_frozen_head_starts_from_the_probe_and_is_never_worse_on_validation(model, task):
    result = finetune(model, *task, replace(QUICK, method="frozen", learning_rates=(1e-6,)))
    assert result.n_steps in (0, 10, 20, 30)
    random_start = finetune(model, *task, replace(QUICK, method="frozen", warm_head=False))
    assert random_start.n_steps > 0


def test_without_a_validation_split_the_last_step_counts(model, task):
    config = replace(PAPER_FINETUNING, max_steps=12)
    result = finetune(model, *task, config)
    assert result.n_steps == 12
    assert result.validation_accuracy is None
    assert result.learning_rate == 1e-4
    assert (
        PAPER_FINETUNING.r,
        PAPER_FINETUNING.lora_alpha,
        PAPER_FINETUNING.batch_size,
        PAPER_FINETUNING.max_steps,
    ) == (32, 32.0, 1, 5000)


def test_an_adapter_can_be_saved_as_peft_saves_it(model, task, tmp_path):
    from peft import PeftModel

    result = finetune(model, *task, QUICK, keep_adapter=True)
    result.adapter.save_pretrained(tmp_path)
    base = load_model("lab/XS", dtype="float32").model
    again = PeftModel.from_pretrained(base, tmp_path).merge_and_unload()
    for name, p in result.model.model.state_dict().items():
        torch.testing.assert_close(p, again.state_dict()[name])


def test_several_rates_and_one_that_diverges(model, task):
    with np.errstate(all="ignore"):
        result = finetune(model, *task, replace(QUICK, method="full", learning_rates=(1e-3, 3e-3)))
    assert result.learning_rate in (1e-3, 3e-3)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (lambda: transformers.LlamaConfig, ("q_proj", "k_proj", "v_proj")),
        (lambda: transformers.GPT2Config, ("c_attn",)),
        (lambda: transformers.GPTNeoXConfig, ("query_key_value",)),
    ],
)
def test_projections_are_found_by_architecture(architecture, expected):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = architecture()(vocab_size=30, **sizes)
    assert attention_projections(transformers.AutoModelForCausalLM.from_config(config)) == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "LoRA", "method must be 'lora', 'full' or 'frozen', got 'LoRA'"),
        ("method", None, "method must be"),
        ("r", 0, "r must be an integer of at least 1, got 0"),
        ("r", 2.5, "r must be an integer"),
        ("r", True, "r must be an integer"),
        ("lora_alpha", -1, "lora_alpha must be a number greater than 0, got -1"),
        ("lora_alpha", float("nan"), "lora_alpha must be"),
        ("lora_dropout", 3, r"lora_dropout must be a number in \[0, 1\), got 3"),
        ("lora_dropout", "0.1", "lora_dropout must be a number"),
        ("target_modules", "q_proj", "target_modules must be a tuple of module names"),
        ("target_modules", (), "target_modules must be a tuple"),
        ("optimizer", "sgd", "optimizer must be 'adamw' or 'adafactor', got 'sgd'"),
        ("learning_rates", (), "learning_rates must be a tuple of positive numbers"),
        ("learning_rates", 1e-3, "learning_rates must be a tuple"),
        ("learning_rates", (-1.0,), "each of learning_rates must be a number greater than 0"),
        ("learning_rates", (float("inf"),), "each of learning_rates"),
        ("max_steps", 0, "max_steps must be an integer of at least 1"),
        ("batch_size", 0, "batch_size must be"),
        ("warmup_ratio", 9, r"warmup_ratio must be a number in \[0, 1\], got 9"),
        ("eval_steps", -5, "eval_steps must be"),
        ("early_stopping_patience", 0, "early_stopping_patience must be"),
        ("validation", 1.0, r"validation must be a number in \[0, 1\)"),
        ("warm_head", "no", "warm_head must be True or False, got 'no'"),
        ("seed", -1, "seed must be an integer of at least 0"),
    ],
)
def test_invalid_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **{field: value})


def test_every_field_of_the_settings_is_validated():
    """Each field has a case above, so that a new field cannot be forgotten."""
    (mark,) = (m for m in test_invalid_settings_are_refused.pytestmark if m.name == "parametrize")
    assert {field for field, *_ in mark.args[1]} == {f.name for f in fields(FinetuneConfig)}


def test_bad_data_is_refused(model, task):
    train, test = task
    with pytest.raises(ValueError, match="different classes"):
        finetune(model, train, replace(test, label_names=("a", "b")), QUICK)
    with pytest.raises(ValueError, match="too few to hold out"):
        finetune(model, train.head(3), test, QUICK)


def test_from_scratch_starts_from_other_weights_and_learns(model):
    fresh, again, other = (
        randomly_initialized(model, seed=1),
        randomly_initialized(model, seed=1),
        randomly_initialized(model, seed=2),
    )
    name = "model.layers.0.self_attn.q_proj.weight"
    weights = [m.model.state_dict()[name] for m in (model, fresh, again, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.allclose(weights[1], weights[3])
    assert not torch.allclose(weights[0], weights[1])
    assert fresh.fingerprint != model.fingerprint
    train, test = load_texts("lab/tense").head(400), load_texts("lab/tense", "test").head(300)
    config = replace(QUICK, method="full", max_steps=60, warm_head=False, learning_rates=(3e-3,))
    assert finetune(fresh, train, test, config).accuracy > 0.75

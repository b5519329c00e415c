"""Cost estimates against counted operations, stored activations, sizes and durations."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, Qwen2Config, Qwen2ForCausalLM

from ntps_utils.evidence import cost, prescreen
from ntps_utils.evidence.experiment import GPU, ExperimentConfig, run_experiment
from ntps_utils.evidence.tables import load_text_sizes
from ntps_utils.evidence.trials import trial_cost, trial_step
from ntps_utils.models.datasets import load_texts, registered_datasets
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.finetuning import FinetuneConfig, finetune, trial_run
from ntps_utils.models.loading import load_model, registered_models

TEXTS = cost.TextSize(300, 150, 3, 30.0, 60)


def body(kind: str, d: int = 128, n_layers: int = 3) -> torch.nn.Module:
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    return model(
        config(
            vocab_size=50,
            hidden_size=d,
            intermediate_size=3 * d,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=kind == "qwen2",
            attn_implementation="eager",  # torch does not count the fused kernel
        )
    )


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize(("batch", "length"), [(3, 16), (2, 64)])
def test_forward_operations_match_the_counter_of_torch(kind, batch, length):
    model = body(kind)
    size = cost._size(model)
    assert size.n_parameters == sum(p.numel() for p in model.parameters())
    assert size.n_body == sum(p.numel() for p in model.model.parameters()) - 50 * 128
    ids = torch.randint(50, (batch, length))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.model(input_ids=ids)
    assert cost.forward_flops(size, batch * length, length) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_training_step_of_adapters_costs_two_forward_passes(kind):
    model = body(kind).model
    size = cost._size(body(kind))
    tuned = cost._with_adapters(model, FinetuneConfig(r=2))
    ids = torch.randint(50, (4, 32))
    with FlopCounterMode(display=False) as counter:
        tuned(input_ids=ids).last_hidden_state.square().mean().backward()
    assert 1.5 < counter.get_total_flops() / cost.forward_flops(size, 4 * 32, 32) < 2.3


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_stored_activations_match_the_estimate(kind):
    model = body(kind, n_layers=4).model
    tuned = cost._with_adapters(model, FinetuneConfig(r=2))
    size = cost._size(body(kind, n_layers=4))
    stored: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in tuned.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        tuned(input_ids=torch.randint(50, (8, 64))).last_hidden_state.sum()
    per_layer_and_token = sum(stored.values()) / (8 * 64 * size.n_layers)
    assert 0.5 < per_layer_and_token / (cost.ACTIVATIONS * size.n_body / size.n_layers / size.dimension) < 1.3


RUN = FinetuneConfig(learning_rates=(1e-2, 3e-3), max_steps=12, eval_steps=4, early_stopping_patience=9)


@pytest.mark.slow
@pytest.mark.parametrize(("more", "after"), [(False, True), (True, True), (True, False)])
def test_passes_match_those_of_an_experiment(more, after):
    """Count the texts in forward calls of an experiment without early stopping."""
    settings = ExperimentConfig(
        lora=RUN,
        frozen=replace(RUN, method="frozen"),
        n_train=200,
        n_test=100,
        controls=more,
        test_last_step=more,
        score_after=after,
    )
    model = load_model("lab/XS", dtype="float32")
    train, test = settings.texts("lab/tense")
    counts = {"texts": 0, "steps": 0}

    def count(module, arguments, keywords, output):
        if isinstance(module, LlamaModel):
            ids = keywords.get("input_ids")
            rows = (keywords["inputs_embeds"] if ids is None else ids).shape[0]
            counts["steps" if torch.is_grad_enabled() and module.training else "texts"] += rows

    handle = torch.nn.modules.module.register_module_forward_hook(count, with_kwargs=True)
    try:
        finetuning = run_experiment(model, train, test, settings).finetuning
    finally:
        handle.remove()
    assert finetuning is not None
    passes = cost.experiment_passes(cost.TextSize(200, 100, train.n_classes, 30.0, 60), settings)
    assert counts["steps"] == passes.step_texts == 2 * 12 * RUN.batch_size
    backward = min(200, cost.LINEARIZED_TEXTS) * cost.LINEARIZED_GRADIENTS  # they call no forward function
    once = 100 * (more and finetuning.n_steps == RUN.max_steps)  # the last step is the chosen checkpoint
    assert counts["texts"] == pytest.approx(passes.texts - backward - once, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "frozen"])
def test_the_cost_of_a_finetuning_run_matches_the_counter_of_torch(method):
    """Operations of a run without early stopping, relative to those of a forward pass of its texts."""
    config = replace(RUN, method=method, r=1)
    model = load_model("lab/XS", dtype="float32")
    model.model.set_attn_implementation("eager")  # torch does not count the fused kernel
    train, test = (load_texts("lab/tense", split).head(n) for split, n in (("train", 200), ("test", 100)))
    with FlopCounterMode(display=False) as forward:
        extract(model, train, layers="last", batch_size=32)
    with FlopCounterMode(display=False) as counter:
        finetune(model, train, test, config)
    estimate = cost.finetuning_cost(config, len(train), len(test)) * forward.get_total_flops() / len(train)
    assert estimate == pytest.approx(counter.get_total_flops(), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_the_cost_of_a_trial_run_matches_the_counter_of_torch(share):
    config = replace(RUN, method="lora", r=1, max_steps=40, eval_steps=(2, 10, 40), learning_rates=(1e-3,))
    model = load_model("lab/XS", dtype="float32")
    model.model.set_attn_implementation("eager")  # torch does not count the fused kernel
    train = load_texts("lab/tense").head(200)
    short: dict[str, Any] = {"max_length": 6}  # all texts have as many tokens, so that nothing is padded
    with FlopCounterMode(display=False) as forward:
        found = extract(model, train, layers="last", features="last", batch_size=40, **short)
    with FlopCounterMode(display=False) as counter:
        for point in trial_run(model, train, config, features=found.features[model.n_layers - 1], **short):
            if point.step == trial_step(share, config.max_steps):
                break
    estimate = trial_cost(config, share, len(train)) * forward.get_total_flops() / len(train)
    assert estimate == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_trial_run_of_all_steps_costs_a_finetuning_run_without_the_features_of_the_frozen_model():
    config = replace(RUN, method="lora", learning_rates=(1e-3,))
    assert trial_cost(config, 1.0, 300) == cost.finetuning_cost(config, 300, 0) - 300


@pytest.mark.slow
def test_prescreening_estimates_the_lora_run_by_the_same_function(monkeypatch):
    monkeypatch.setattr(prescreen, "finetuning_cost", lambda config, n_train, n_test: 0.0)
    data = load_texts("lab/tense").head(60)
    report = prescreen.prescreen(load_model("lab/XS", dtype="float32"), data, calibration="lab")
    assert report.lora_seconds == 0.0


@pytest.mark.slow
def test_operations_of_a_cell_match_the_counter_of_torch():
    config = replace(RUN, learning_rates=(1e-2,))
    settings = ExperimentConfig(lora=config, frozen=replace(config, method="frozen"), n_train=200, n_test=100)
    model = load_model("lab/S", dtype="float32")
    model.model.set_attn_implementation("eager")  # torch does not count the fused kernel
    train, test = settings.texts("lab/agreement")
    lengths = [len(row) for row in tokenize(model, train).ids]
    texts = replace(cost.text_size(train, test, None), mean_tokens=float(np.mean(lengths)))
    with FlopCounterMode(display=False) as counter:
        run_experiment(model, train, test, settings)
    estimate = cost.cell_cost(cost.model_size("lab/S"), texts, settings, SPEED)
    assert estimate.flops == pytest.approx(counter.get_total_flops(), rel=0.3)


def test_the_duration_of_a_cell_is_the_sum_of_its_parts():
    """Operations over speed, calls times overhead, probes and dense solves, each counted by hand."""
    size, free = cost.ModelSize(1000, 100, 8, 2), cost.Speed(1e12, 1e12, 0.0, 0.0, 0.0, 0.0, 0.0)
    frozen = ExperimentConfig(lora=None)
    only = cost.cell_cost(size, TEXTS, frozen, free)
    assert only.seconds == pytest.approx(only.flops / 1e12)
    assert cost.cell_cost(size, TEXTS, frozen, replace(free, flops=5e11)).seconds == pytest.approx(2 * only.seconds)

    def added(settings, **speed):
        return cost.cell_cost(size, TEXTS, settings, replace(free, **speed)).seconds - only.seconds

    calls = cost.experiment_passes(TEXTS, frozen).calls
    assert added(frozen, layer_seconds=1.0) == pytest.approx(calls * 2)
    assert added(frozen, layer_step_seconds=1.0) == pytest.approx(0.0)
    n, d = TEXTS.n_train, 8
    assert added(frozen, probe_seconds=1.0) == pytest.approx(cost.FROZEN_PROBES * n * d)
    assert added(frozen, class_seconds=1.0) == pytest.approx(cost.FROZEN_PROBES * n * d * 3)
    assert added(frozen, dense_seconds=1.0) == pytest.approx(cost.N_SOLVES * d**3 + 2 * n * d * d)
    lora = ExperimentConfig()
    steps = cost.experiment_passes(TEXTS, lora).steps
    one, two = (cost.cell_cost(size, TEXTS, lora, replace(free, layer_step_seconds=s)) for s in (0.0, 1.0))
    assert two.seconds - one.seconds == pytest.approx(steps * 2)


def test_sizes_of_registered_lab_and_local_models(tiny_model):
    assert cost.model_size("Llama-3-8B") == cost.ModelSize(8030261248, 1050673152, 4096, 32)
    model = load_model("lab/S", dtype="float32")
    assert cost.model_size("lab/S").n_parameters == model.model.num_parameters()
    assert (cost.model_size("lab/S").dimension, cost.model_size("lab/S").n_layers) == (64, 3)
    local = load_model(tiny_model, dtype="float32").model
    assert cost.model_size(tiny_model).n_parameters == local.num_parameters()
    for name, entry in registered_models().items():
        size = cost.ModelSize(**entry["size"])
        assert 0 < size.n_embedding < size.n_parameters, name
        millions = float(entry["parameters"].rstrip("BM")) * (1000 if entry["parameters"].endswith("B") else 1)
        assert size.n_parameters / 1e6 == pytest.approx(millions, rel=0.1), name


# Kind, vocabulary, features, feed-forward features, blocks, heads, heads of keys and values, and features of a head.
CONFIGURATIONS = {
    "SmolLM2-135M": ("llama", 49152, 576, 1536, 30, 9, 3, 64),
    "SmolLM2-360M": ("llama", 49152, 960, 2560, 32, 15, 5, 64),
    "SmolLM2-1.7B": ("llama", 49152, 2048, 8192, 24, 32, 32, 64),
    "Qwen2.5-0.5B": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64),
    "Qwen2.5-1.5B": ("qwen2", 151936, 1536, 8960, 28, 12, 2, 128),
    "Qwen3-0.6B": ("qwen3", 151936, 1024, 3072, 28, 16, 8, 128),
    "Llama-3.2-1B": ("llama", 128256, 2048, 8192, 16, 32, 8, 64),
    "gemma-3-270m": ("gemma3_text", 262144, 640, 2048, 18, 4, 1, 256),
    "gemma-3-1b": ("gemma3_text", 262144, 1152, 6912, 26, 4, 1, 256),
    "OLMo-2-1B": ("olmo2", 100352, 2048, 8192, 16, 16, 16, 128),
    "pythia-70m": ("gpt_neox", 50304, 512, 2048, 6, 8, 8, 64),
    "pythia-160m": ("gpt_neox", 50304, 768, 3072, 12, 12, 12, 64),
    "pythia-410m": ("gpt_neox", 50304, 1024, 4096, 24, 16, 16, 64),
    "pythia-1.4b": ("gpt_neox", 50304, 2048, 8192, 24, 16, 16, 128),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_registered_sizes_follow_from_the_configurations(name):
    kind, vocabulary, d, d_ff, n_blocks, n_heads, n_kv, d_head = CONFIGURATIONS[name]
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        hidden_size=d,
        intermediate_size=d_ff,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv,
        head_dim=d_head,
        tie_word_embeddings=kind not in ("olmo2", "gpt_neox"),
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert cost._size(model) == cost.ModelSize(**registered_models()[name]["size"])


def test_recorded_text_sizes_match_the_datasets(shared):
    recorded = load_text_sizes()
    assert set(recorded.index) == set(registered_datasets()) - {"bias_identification"}
    folders = {"medical_questions_pairs": "medical", "intent_classification": "intent_clinc150"}
    for name, row in recorded.iterrows():
        size = cost.text_size(*GPU.texts(str(shared / "data" / folders.get(name, name))), GPU.max_length)
        assert (size.n_train, size.n_test, size.n_classes, size.longest) == (
            row.n_train,
            row.n_test,
            row.n_classes,
            row.longest,
        )
        assert size.mean_tokens == pytest.approx(row.mean_tokens, abs=0.06)


def test_four_characters_per_token_match_the_number_of_words(shared):
    """A token of a large vocabulary is about three quarters of an English word."""
    texts = load_texts(str(shared / "data" / "rotten_tomatoes"), "test")
    words = np.mean([len(text.split()) for text in texts.texts])
    assert cost.text_size(texts, texts, None).mean_tokens == pytest.approx(words / 0.75, rel=0.15)


def test_costs_increase_with_the_model_and_are_divided_among_workers():
    speed = cost.Speed(1e12, 1e12, 1e-4, 1e-4, 1e-7, 1e-8, 1e-9)
    small, large = cost.model_size("Qwen2-0.5B"), cost.model_size("Qwen2-7B")
    one, two = (cost.cell_cost(size, TEXTS, GPU, speed) for size in (small, large))
    assert (one.flops, one.seconds, one.host_seconds, one.memory) < (
        two.flops,
        two.seconds,
        two.host_seconds,
        two.memory,
    )
    without = cost.cell_cost(large, TEXTS, replace(GPU, lora=None), speed)
    assert without.flops < two.flops / 2
    assert without.memory >= 2 * large.n_parameters
    both = cost.total([one, two], n_workers=2)
    assert both.flops == one.flops + two.flops
    assert both.seconds == pytest.approx((one.seconds + two.seconds) / 2)
    assert both.memory == two.memory
    assert cost.total([]).memory == 0
    durations = [cost.Cost(0, s, 0, 0).duration for s in (3.21, 89, 95, 5300, 5500, 40000, 1e7)]
    assert durations == ["3.2 s", "89 s", "1.6 min", "88 min", "1.5 h", "11 h", "2,780 h"]


@pytest.mark.slow
def test_the_speed_of_another_device_can_be_given():
    size = cost.model_size("Llama-3-8B")
    speed = cost.measure_speed(size, GPU, flops=2e14, least_seconds=0.05)
    assert speed.flops == speed.step_flops == 2e14
    assert 0 < speed.layer_seconds < np.inf
    for invalid in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"flops \(operations per second\) must be a number greater than 0"):
            cost.measure_speed(size, GPU, flops=invalid)


SIZE = cost.ModelSize(1000, 100, 8, 2)
SPEED = cost.Speed(1e12, 1e12, 1e-4, 1e-4, 1e-7, 1e-8, 1e-9)
INVALID = [
    (SIZE, "n_parameters", 0, "n_parameters must be an integer of at least 1, got 0"),
    (SIZE, "n_parameters", 100, "n_embedding must be smaller than n_parameters, got 100 and 100"),
    (SIZE, "n_embedding", -1, "n_embedding must be an integer of at least 0"),
    (SIZE, "dimension", 8.0, "dimension must be an integer"),
    (SIZE, "n_layers", 0, "n_layers must be"),
    (TEXTS, "n_train", 0, "n_train must be an integer of at least 1"),
    (TEXTS, "n_test", 1.5, "n_test must be"),
    (TEXTS, "n_classes", -2, "n_classes must be"),
    (TEXTS, "mean_tokens", 0.0, r"mean_tokens must be a number in \(0, 60\], got 0.0"),
    (TEXTS, "mean_tokens", 61, "mean_tokens must be"),
    (TEXTS, "longest", 0, "longest must be"),
    (SPEED, "flops", 0.0, "flops must be a number greater than 0, got 0.0"),
    (SPEED, "step_flops", float("inf"), "step_flops must be"),
    (SPEED, "layer_seconds", -1.0, "layer_seconds must be a number of at least 0"),
    (SPEED, "layer_step_seconds", "1", "layer_step_seconds must be"),
    (SPEED, "probe_seconds", float("nan"), "probe_seconds must be"),
    (SPEED, "class_seconds", None, "class_seconds must be"),
    (SPEED, "dense_seconds", -1e-9, "dense_seconds must be"),
]


@pytest.mark.parametrize(("valid", "field", "value", "message"), INVALID)
def test_invalid_sizes_and_speeds_are_refused(valid, field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(valid, **{field: value})


@pytest.mark.parametrize("valid", [SIZE, TEXTS, SPEED], ids=lambda one: type(one).__name__)
def test_every_field_of_sizes_and_speeds_is_validated(valid):
    """Each field has a case above, so that a new field cannot be forgotten."""
    assert {field for one, field, *_ in INVALID if one is valid} == {f.name for f in fields(valid)}

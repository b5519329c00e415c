"""Estimates against counters: operations, kept numbers, sizes, durations."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ntps_utils.evidence import cost
from ntps_utils.evidence import experiment as cells_module
from ntps_utils.evidence.experiment import GPU, ExperimentConfig, run_experiment
from ntps_utils.evidence.tables import load_text_sizes
from ntps_utils.models.datasets import load_texts, registered_datasets
from ntps_utils.models.extraction import tokenize
from ntps_utils.models.finetuning import FinetuneConfig
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
def test_forward_operations_are_those_that_torch_counts(kind, batch, length):
    model = body(kind)
    size = cost._size(model)
    assert size.n_parameters == sum(p.numel() for p in model.parameters())
    assert size.n_body == sum(p.numel() for p in model.model.parameters()) - 50 * 128
    ids = torch.randint(50, (batch, length))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.model(input_ids=ids)
    assert cost.forward_flops(size, batch * length, length) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_step_of_adapters_costs_twice_the_forward_pass(kind):
    """Gradients pass through the frozen weights, but none is taken of them."""
    model = body(kind).model
    size = cost._size(body(kind))
    tuned = cost._with_adapters(model, FinetuneConfig(r=2))
    ids = torch.randint(50, (4, 32))
    with FlopCounterMode(display=False) as counter:
        tuned(input_ids=ids).last_hidden_state.square().mean().backward()
    assert 1.5 < counter.get_total_flops() / cost.forward_flops(size, 4 * 32, 32) < 2.3


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_numbers_kept_for_a_step_are_about_those_reckoned(kind):
    model = body(kind, n_layers=4).model
    tuned = cost._with_adapters(model, FinetuneConfig(r=2))
    size = cost._size(body(kind, n_layers=4))
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in tuned.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        tuned(input_ids=torch.randint(50, (8, 64))).last_hidden_state.sum()
    per_layer_and_token = sum(kept.values()) / (8 * 64 * size.n_layers)
    assert 0.5 < per_layer_and_token / (cost.SAVED * size.n_body / size.n_layers / size.dimension) < 1.3


@pytest.mark.slow
def test_passes_are_those_of_a_cell(monkeypatch):
    """Count texts in forward calls of the real thing, without an early stop."""
    config = FinetuneConfig(learning_rates=(1e-2, 3e-3), max_steps=12, eval_steps=4, early_stopping_patience=9)
    settings = ExperimentConfig(lora=config, frozen=replace(config, method="frozen"), n_train=200, n_test=100)
    model = load_model("lab/XS", dtype="float32")
    train, test = settings.texts("lab/tense")
    seen = {"texts": 0, "steps": 0}

    def count(module, arguments, keywords, output):
        rows = (keywords.get("inputs_embeds") if keywords.get("input_ids") is None else keywords["input_ids"]).shape[0]
        seen["steps" if torch.is_grad_enabled() and module.training else "texts"] += rows

    original = cells_module.finetune

    def finetune(source, *rest, **options):
        handles.append(None)
        return original(source, *rest, **options)

    handles: list[None] = []
    monkeypatch.setattr(cells_module, "finetune", finetune)
    import transformers

    hook = torch.nn.modules.module.register_module_forward_hook
    with contextlib.ExitStack() as stack:
        handle = hook(
            lambda m, a, k, o: count(m, a, k, o) if isinstance(m, transformers.LlamaModel) else None, with_kwargs=True
        )
        stack.callback(handle.remove)
        run_experiment(model, train, test, settings)
    size = cost.TextSize(200, 100, train.n_classes, 30.0, 60)
    asked = cost.passes(size, settings)
    assert len(handles) == 2
    assert seen["steps"] == asked.step_texts == 2 * 12 * config.batch_size
    backward = min(200, cost.LINEARIZED_TEXTS) * cost.LINEARIZED_GRADIENTS  # counted as passes, seen as none
    assert seen["texts"] == pytest.approx(asked.texts - backward, rel=0.02)


@pytest.mark.slow
def test_estimates_are_near_what_cells_take():
    """Not a benchmark: an estimate that is wrong by a factor of three helps nobody."""
    config = FinetuneConfig(learning_rates=(1e-2,), max_steps=60, eval_steps=20, early_stopping_patience=9)
    settings = ExperimentConfig(lora=config, frozen=replace(config, method="frozen"), n_train=600, n_test=300)
    model = load_model("lab/L", dtype="float32")
    train, test = settings.texts("lab/agreement")
    lengths = [len(row) for row in tokenize(model, train).ids]
    texts = replace(cost.text_size(train, test, None), mean_tokens=float(np.mean(lengths)))
    size = cost.model_size("lab/L")
    estimate = cost.cell_cost(size, texts, settings, cost.measure_speed(size, settings, device="cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(cells_module.n_threads())
    try:
        row = run_experiment(model, train, test, settings)
    finally:
        torch.set_num_threads(threads)
    assert 1 / 3 < estimate.seconds / row["seconds"] < 3


def test_sizes_come_from_the_registry_the_lab_and_folders(tiny_model):
    assert cost.model_size("Llama-3-8B") == cost.ModelSize(8030261248, 1050673152, 4096, 32)
    model = load_model("lab/S", dtype="float32")
    assert cost.model_size("lab/S").n_parameters == model.model.num_parameters()
    assert (cost.model_size("lab/S").dimension, cost.model_size("lab/S").n_layers) == (64, 3)
    local = load_model(tiny_model, dtype="float32").model
    assert cost.model_size(tiny_model).n_parameters == local.num_parameters()
    for name, entry in registered_models().items():
        size = cost.ModelSize(**entry["size"])
        assert 0 < size.n_embedding < size.n_body, name
        millions = float(entry["parameters"].rstrip("BM")) * (1000 if entry["parameters"].endswith("B") else 1)
        assert size.n_parameters / 1e6 == pytest.approx(millions, rel=0.1), name


def test_recorded_text_sizes_are_those_of_the_copies(shared):
    recorded = load_text_sizes()
    assert set(recorded.index) == set(registered_datasets()) - {"bias_identification"}
    folders = {"medical_questions_pairs": "medical", "intent_classification": "intent_clinc150"}
    for name, row in recorded.iterrows():
        found = cost.text_size(*GPU.texts(str(shared / "data" / folders.get(name, name))), GPU.max_length)
        assert (found.n_train, found.n_test, found.n_classes, found.longest) == (
            row.n_train,
            row.n_test,
            row.n_classes,
            row.longest,
        )
        assert found.mean_tokens == pytest.approx(row.mean_tokens, abs=0.06)


def test_four_characters_a_token_is_about_right(shared):
    """For English prose and a tokenizer of a real size; counted against words, of which a token is about 3/4."""
    texts = load_texts(str(shared / "data" / "rotten_tomatoes"), "test")
    words = np.mean([len(text.split()) for text in texts.texts])
    assert cost.text_size(texts, texts, None).mean_tokens == pytest.approx(words / 0.75, rel=0.15)


def test_costs_grow_as_they_must_and_are_shared():
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
    shown = [cost.Cost(0, s, 0, 0).duration for s in (3.21, 89, 95, 5300, 5500, 40000, 1e7)]
    assert shown == ["3.2 s", "89 s", "1.6 min", "88 min", "1.5 h", "11 h", "2,780 h"]


def test_a_device_that_is_not_at_hand_is_given_by_its_speed():
    size = cost.model_size("Llama-3-8B")
    speed = cost.measure_speed(size, GPU, flops=2e14, least_seconds=0.05)
    assert speed.flops == speed.step_flops == 2e14
    assert 0 < speed.layer_seconds < 0.05
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="operations a second"):
            cost.measure_speed(size, GPU, flops=wrong)

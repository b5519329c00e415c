"""Finetuning: trained parameters, choice of the checkpoint, randomness, and errors."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import islice

import numpy as np
import peft
import pytest
import torch
import transformers
from sklearn.model_selection import train_test_split

from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.finetuning import (
    EAGER_TOKENS,
    PAPER_FINETUNING,
    FinetuneConfig,
    FinetuneWarning,
    _FinetuneRun,
    attention_projections,
    finetune,
    first_order_drop,
    randomly_initialized,
    trial_run,
)
from ntps_utils.models.loading import CausalModel, load_model
from ntps_utils.models.probes import linear_probe, logistic_probe

QUICK = FinetuneConfig(max_steps=30, eval_steps=10, batch_size=16, learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return load_model("lab/XS", dtype="float32")


@pytest.fixture(scope="module")
def task() -> tuple[TextDataset, TextDataset]:
    return load_texts("lab/agreement").head(300), load_texts("lab/agreement", "test").head(200)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "frozen"])
def test_finetuning_is_reproducible_and_does_not_change_the_model(model, task, method):
    before = {name: p.clone() for name, p in model.model.state_dict().items()}
    config = replace(QUICK, method=method, validation=0.0)  # the last step
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
    if method != "full":  # a state dict has tied embeddings twice
        assert one.n_trainable == expected[method] + c * (d + 1)


@pytest.mark.slow
def test_lora_learns_a_task_that_frozen_features_do_not_show(model):
    train, test = load_texts("lab/agreement"), load_texts("lab/agreement", "test")
    longer = replace(QUICK, max_steps=120, eval_steps=20)
    frozen, lora = (finetune(model, train, test, replace(longer, method=m)) for m in ("frozen", "lora"))
    assert frozen.accuracy < 0.65
    assert lora.accuracy > frozen.accuracy + 0.15
    # A probe reads the task off the features of the merged model.
    merged = extract(lora.model, test, layers="last", features="last").features[model.n_layers - 1]
    assert lora.model.model.dtype == model.model.dtype
    assert linear_probe(merged[:250], test.labels[:250], merged[250:], test.labels[250:]).test_accuracy > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "frozen"])
def test_curve_and_last_step_are_those_of_shorter_runs(model, task, method):
    config = replace(
        QUICK,
        method=method,
        max_steps=12,
        eval_steps=(2, 5),
        early_stopping_patience=None,
        metric_for_best_model="loss",
        learning_rates=(3e-2,),
    )
    result = finetune(model, *task, config, test_last_step=True)
    assert [point.step for point in result.curve] == [0, 2, 5, 12]
    losses = [point.cross_entropy for point in result.curve]
    assert result.n_steps == result.curve[int(np.argmin(losses))].step
    assert result.curve[0].training_loss is None
    assert all(point.gradient_norm > 0 and point.training_loss > 0 for point in result.curve[1:])
    last = finetune(model, *task, replace(config, validation=0.2, eval_steps=12))
    assert [point.step for point in last.curve] == [0, 12]
    assert last.curve[-1].cross_entropy == pytest.approx(losses[-1], rel=1e-4)
    if last.n_steps == 12:
        assert np.mean(last.predictions == result.last_step.predictions) > 0.99
    # Evaluations do not change the training: with one evaluation, the checkpoint is the last step.
    end = finetune(model, *task, replace(config, validation=0.2, eval_steps=12, warm_head=True), test_last_step=True)
    for name, value in end.last_model.model.state_dict().items():
        assert torch.equal(value, result.last_model.model.state_dict()[name])
    assert (result.last_model is result.model) == (result.n_steps == 12)
    logits_accuracy = np.mean(result.last_step.predictions == task[1].labels)
    assert result.last_step.accuracy == pytest.approx(logits_accuracy)


@pytest.mark.parametrize("base_dtype", ["float32", "bfloat16"])
def test_a_trial_run_is_the_beginning_of_the_whole_run(model, task, base_dtype):
    config = replace(QUICK, max_steps=20, eval_steps=(3, 8, 12), early_stopping_patience=None, base_dtype=base_dtype)
    whole = finetune(model, *task, config).curve
    steps: list[int] = []
    trial = list(islice(trial_run(model, task[0], config, progress=steps.append), 3))
    assert sum(steps) == 8
    assert [p.step for p in trial] == [0, 3, 8]
    for a, b in zip(trial, whole, strict=False):
        assert replace(a, seconds=0.0) == replace(b, seconds=0.0)
    features = extract(model, task[0], layers="last", features="last").features[model.n_layers - 1]
    given = list(islice(trial_run(model, task[0], config, features=features), 2))
    assert given[-1].cross_entropy == pytest.approx(trial[1].cross_entropy, rel=1e-3)


def test_a_trial_run_leaves_the_random_state_as_it_was(model, task):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run = trial_run(model, task[0], replace(QUICK, lora_dropout=0.1))
    next(run), next(run)
    run.close()
    assert torch.rand(1) == expected


def test_a_trial_run_that_diverges_is_an_error(model, task):
    config = replace(QUICK, learning_rates=(1e30,), early_stopping_patience=None)
    with pytest.raises(ValueError, match=r"diverged at the learning rate 1e\+30; try a lower one"):
        list(trial_run(model, task[0], config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rates": (1e-3, 1e-2)}, "A trial run needs one learning rate"),
        ({"validation": 0.0}, "A trial run needs .* a validation split"),
        ({"method": "frozen"}, "A trial run needs .* the method 'lora' or 'full'"),
    ],
)
def test_settings_without_a_trial_run_are_refused_before_it_starts(model, task, changes, message):
    with pytest.raises(ValueError, match=message):
        trial_run(model, task[0], replace(QUICK, **changes))


def test_without_patience_training_goes_on_to_the_last_step(model, task):
    flat = replace(
        QUICK, method="frozen", learning_rates=(1e-12,), max_steps=9, eval_steps=1, early_stopping_patience=2
    )
    assert finetune(model, *task, flat).curve[-1].step < 9
    assert finetune(model, *task, replace(flat, early_stopping_patience=None)).curve[-1].step == 9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "frozen"])
def test_given_features_replace_forward_passes(model, task, method):
    found = [extract(model, data, layers="last", features="last") for data in task]
    features = tuple(part.features[model.n_layers - 1] for part in found)
    config = replace(QUICK, method=method, max_steps=4, eval_steps=2)
    one, two = finetune(model, *task, config), finetune(model, *task, config, features=features)
    for a, b in zip(one.curve, two.curve, strict=True):
        assert a.cross_entropy == pytest.approx(b.cross_entropy, rel=1e-3)
    assert two.test.cross_entropy == pytest.approx(one.test.cross_entropy, rel=1e-3)
    with pytest.raises(ValueError, match=r"features of train must have the shape \(300, "):
        finetune(model, *task, config, features=(features[0][:5], features[1]))


def test_cross_entropy_is_that_of_the_classifier(model, task):
    config = replace(QUICK, method="frozen", max_steps=1, eval_steps=1, learning_rates=(1e-12,))
    result = finetune(model, *task, config)
    assert result.test.cross_entropy > 0
    assert result.test.accuracy == np.mean(result.predictions == task[1].labels) == result.accuracy


def test_frozen_head_starts_from_the_probe(model, task):
    """With a negligible learning rate the predictions are those of the probe."""
    train, test = task
    result = finetune(model, train, test, replace(QUICK, method="frozen", learning_rates=(1e-9,)))
    x, x_test = (extract(model, d, layers="last", features="last").features[3] for d in task)
    rows, _ = train_test_split(np.arange(300), test_size=60, random_state=0, stratify=train.labels)
    probe = logistic_probe(x[np.sort(rows)], train.labels[np.sort(rows)], x_test, test.labels)
    assert np.mean(result.predictions == probe.predictions) > 0.98
    assert result.n_steps in (0, 10, 20, 30)


def test_random_head_is_trained(model, task):
    result = finetune(model, *task, replace(QUICK, method="frozen", warm_head=False))
    assert result.n_steps > 0


def test_without_a_validation_split_the_last_step_is_used(model, task):
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


@pytest.mark.slow
def test_adapter_is_saved_and_loaded_by_peft(model, task, tmp_path):
    result = finetune(model, *task, QUICK, keep_adapter=True)
    result.adapter.save_pretrained(tmp_path)
    base = load_model("lab/XS", dtype="float32").model
    again = peft.PeftModel.from_pretrained(base, tmp_path).merge_and_unload()
    for name, p in result.model.model.state_dict().items():
        torch.testing.assert_close(p, again.state_dict()[name])


@pytest.mark.slow
@pytest.mark.parametrize("config", [QUICK, replace(QUICK, warm_head=False), replace(QUICK, method="frozen")])
def test_the_head_classifies_as_the_run_did(model, task, config):
    """The standardization of the training loop is part of the returned head."""
    result = finetune(model, *task, config)
    texts = extract(result.model, task[1], layers="last", features="last")
    logits = result.head(torch.from_numpy(texts.features[model.n_layers - 1]).double())
    assert result.head.weight.shape == (task[0].n_classes, model.dimension)
    np.testing.assert_array_equal(logits.argmax(1).numpy(), result.predictions)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(task[1].labels))
    assert float(loss) == pytest.approx(result.test.cross_entropy, rel=1e-4)


@pytest.mark.slow
def test_learning_rate_is_chosen_on_the_validation_split(model, task):
    result = finetune(model, *task, replace(QUICK, warm_head=False, learning_rates=(1e-9, 1e-2)))
    assert result.learning_rate == 1e-2


@pytest.mark.slow
def test_frozen_weights_in_bfloat16_train_as_those_in_float32(model, task):
    """Rounding moves the curve by little, and the merged model has all digits of the weights that did not change."""
    exact, rounded = (finetune(model, *task, replace(QUICK, base_dtype=d)) for d in ("float32", "bfloat16"))
    assert (exact.base_dtype, rounded.base_dtype) == ("float32", "bfloat16")
    losses = [[p.cross_entropy for p in result.curve] for result in (exact, rounded)]
    assert np.abs(np.subtract(*losses)).max() < 0.05
    assert abs(exact.accuracy - rounded.accuracy) < 0.05
    before = model.model.state_dict()
    for name, p in rounded.model.model.state_dict().items():
        assert p.dtype == torch.float32
        if not name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            assert torch.equal(p, before[name])


@pytest.mark.parametrize(
    ("base_dtype", "length", "expected"),
    [("bfloat16", EAGER_TOKENS, "eager"), ("bfloat16", EAGER_TOKENS + 1, "sdpa"), ("float32", 16, "sdpa")],
)
def test_short_texts_in_bfloat16_have_attention_by_matrix_products(model, base_dtype, length, expected):
    run = _FinetuneRun(model, 2, replace(QUICK, base_dtype=base_dtype, warm_head=False))
    run.prepare([[1] * length, [2, 3]], np.array([0, 1]), np.arange(2), None)
    assert run.whole.config._attn_implementation == expected
    assert model.model.config._attn_implementation == "sdpa"


def test_diverging_learning_rates_are_excluded(model, task):
    config = replace(QUICK, method="full", max_steps=10)
    with pytest.warns(FinetuneWarning, match=r"diverged for the learning rates \[1e\+30\], which were excluded"):
        result = finetune(model, *task, replace(config, learning_rates=(1e30, 1e-3)))
    assert result.learning_rate == 1e-3
    with pytest.raises(ValueError, match=r"diverged for every learning rate of \(1e\+30,\); try lower ones"):
        finetune(model, *task, replace(config, learning_rates=(1e30,)))


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(1e-2,), (1e-9, 1e-2)])
def test_dropout_is_reproducible_and_leaves_the_global_random_state(model, task, rates):
    config = replace(QUICK, lora_dropout=0.3, validation=0.0, learning_rates=(1e-2,))
    torch.manual_seed(1)
    first = finetune(model, *task, config)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = finetune(model, *task, replace(config, learning_rates=rates))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert second.learning_rate == 1e-2
    for a, b in zip(first.model.model.parameters(), second.model.model.parameters(), strict=True):
        assert torch.equal(a, b)
    other_seed = finetune(model, *task, replace(config, seed=1))
    assert not torch.equal(
        first.model.model.model.layers[0].self_attn.q_proj.weight,
        other_seed.model.model.model.layers[0].self_attn.q_proj.weight,
    )


@pytest.mark.parametrize("method", ["lora", "full", "frozen"])
def test_training_mode_of_the_model_does_not_matter(dropout_model, tiny_data, method):
    """Features and evaluations exclude dropout, and the model stays in its mode."""
    train, test = load_texts(tiny_data), load_texts(tiny_data, "test")
    config = replace(QUICK, method=method, max_steps=4, eval_steps=2)
    in_training = finetune(dropout_model, train, test, config)
    assert all(m.training for m in dropout_model.model.modules())
    dropout_model.model.eval()
    in_evaluation = finetune(dropout_model, train, test, config)
    np.testing.assert_array_equal(in_training.predictions, in_evaluation.predictions)
    assert in_training.validation_accuracy == in_evaluation.validation_accuracy
    for a, b in zip(in_training.model.model.parameters(), in_evaluation.model.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(m.training for m in in_training.model.model.modules())


def test_evaluations_exclude_dropout_and_restore_the_mode(dropout_model):
    run = _FinetuneRun(dropout_model, 2, replace(QUICK, method="full"))
    run.body.train()
    first, second = run.logits([[1, 2, 3], [4]]), run.logits([[1, 2, 3], [4]])
    assert torch.equal(first, second)
    assert all(m.training for m in run.body.modules())
    with pytest.raises(IndexError):
        run.logits([[10**6]])  # a token without an embedding
    assert all(m.training for m in run.body.modules())


@pytest.mark.slow
def test_given_tokens_replace_tokenization(model, task):
    train, test = task
    config = replace(QUICK, max_steps=5)
    expected = finetune(model, train, test, config, max_length=6)
    tokens = {"train_tokens": tokenize(model, train, 6), "test_tokens": tokenize(model, test, 6)}
    result = finetune(replace(model, tokenizer=None), train, test, config, **tokens)
    np.testing.assert_array_equal(result.predictions, expected.predictions)
    assert result.validation_accuracy == expected.validation_accuracy


def test_tokens_of_other_texts_are_refused(model, task):
    train, test = task
    shuffled = replace(train, texts=train.texts[::-1])
    for options in (
        {"train_tokens": tokenize(model, test)},
        {"train_tokens": tokenize(model, shuffled)},
        {"test_tokens": tokenize(model, train)},
    ):
        with pytest.raises(ValueError, match=r"tokens are those of .* other texts than the .* texts of lab/agreement"):
            finetune(model, train, test, QUICK, **options)


def test_texts_without_tokens_are_refused(tiny_model, tiny_data):
    model, train, test = load_model(tiny_model), load_texts(tiny_data), load_texts(tiny_data, "test")
    tokens = replace(tokenize(model, test), ids=[[5], [], *[[5]] * 43])
    with pytest.raises(ValueError, match=r"Row 2 of tiny-data\d*/test has no token; remove it"):
        finetune(model, train, test, QUICK, test_tokens=tokens)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (lambda: transformers.LlamaConfig, ("q_proj", "k_proj", "v_proj")),
        (lambda: transformers.GPT2Config, ("c_attn",)),
        (lambda: transformers.GPTNeoXConfig, ("query_key_value",)),
    ],
)
def test_attention_projections_of_architectures(architecture, expected):
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
        ("eval_steps", (), "eval_steps must be"),
        ("eval_steps", (8, 0), "each of eval_steps must be an integer of at least 1, got 0"),
        ("early_stopping_patience", 0, "early_stopping_patience must be an integer of at least 1, or None"),
        ("metric_for_best_model", "f1", "metric_for_best_model must be 'accuracy' or 'loss', got 'f1'"),
        ("validation", 1.0, r"validation must be a number in \[0, 1\)"),
        ("warm_head", "no", "warm_head must be True or False, got 'no'"),
        ("base_dtype", "float16", "base_dtype must be 'auto', 'float32' or 'bfloat16', got 'float16'"),
        ("seed", -1, "seed must be an integer from 0"),
    ],
)
def test_invalid_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **{field: value})


def test_every_field_of_the_settings_is_validated():
    """Each field has a case above, so that a new field cannot be forgotten."""
    (mark,) = (m for m in test_invalid_settings_are_refused.pytestmark if m.name == "parametrize")
    assert {field for field, *_ in mark.args[1]} == {f.name for f in fields(FinetuneConfig)}


def test_unusable_datasets_are_refused(model, task):
    train, test = task
    with pytest.raises(ValueError, match="train and test must have the same classes"):
        finetune(model, train, replace(test, label_names=("a", "b")), QUICK)
    with pytest.raises(ValueError, match="too few to hold out"):
        finetune(model, train.head(3), test, QUICK)


@pytest.mark.slow
def test_randomly_initialized_model_learns(model):
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


@pytest.mark.parametrize("method", ["lora", "frozen"])
def test_first_order_drop_is_exact_for_small_steps(task, method):
    model = load_model("lab/XS", dtype="float64")
    config = replace(QUICK, method=method, warm_head=False)
    result = first_order_drop(model, task[0].head(120), config, steps=(1e-1, 1e-2))
    errors = np.abs(np.array(result.ratios) - 1)
    assert errors[1] < 0.05
    assert errors[1] < 0.2 * errors[0]  # the error is of the order of the step
    assert (result.adapters > 0) == (method == "lora")
    assert result.drops[1] == pytest.approx(1e-2 * (result.head + result.adapters), rel=0.05)


@pytest.mark.slow
def test_first_order_drop_is_the_quadratic_form_of_the_tangent_kernel(model, task):
    """|g|^2 = r^T K r / n^2 with K = J J^T from the gradients of every class score of every text."""
    data = task[0].head(12)
    config = replace(QUICK, warm_head=False)
    found = first_order_drop(model, data, config)
    run = _FinetuneRun(model, 2, replace(config, validation=0.0))
    run.body.eval()
    logits = torch.cat([run._classify(run._pool([ids])) for ids in tokenize(model, data).ids])
    residuals = torch.softmax(logits, 1).detach() - torch.nn.functional.one_hot(torch.as_tensor(data.labels), 2)
    n_head = sum(p.numel() for p in run.head.parameters())
    rows = []
    for value in logits.flatten():
        gradients = torch.autograd.grad(value, run.trainable, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(run.trainable, gradients, strict=True)
                ]
            )
        )
    J, r = torch.stack(rows).double(), residuals.flatten().double()
    for part, value in ((J[:, :-n_head], found.adapters), (J[:, -n_head:], found.head)):
        assert float(r @ (part @ part.T) @ r) / 12**2 == pytest.approx(value, rel=1e-3)


@pytest.mark.slow
def test_a_waiting_or_abandoned_trial_run_leaves_the_global_random_state(model, task):
    config = replace(QUICK, lora_dropout=0.3, learning_rates=(1e-2,), eval_steps=(1, 2), max_steps=4)
    train, _ = task
    whole = [point.cross_entropy for point in trial_run(model, train, config)]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    waiting = trial_run(model, train, config)
    found = [next(waiting).cross_entropy]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(4)  # what others do with the global state changes nothing
    found.append(next(waiting).cross_entropy)
    state = torch.random.get_rng_state()
    waiting.close()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found == whole[:2]

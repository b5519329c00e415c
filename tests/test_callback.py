"""The score along finetuning with a real transformers.Trainer on a model of the lab."""

from __future__ import annotations

import pytest
import torch
import transformers

from ntps_utils.lab import checkpoint
from ntps_utils.models.callback import NTPSCallback
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.scoring import score_model


class Rows(torch.utils.data.Dataset):
    """Tokenized texts for the Trainer."""

    def __init__(self, data: TextDataset, tokenizer, *, with_labels: bool) -> None:
        self.ids = tokenizer(list(data.texts))["input_ids"]
        self.labels = data.labels.tolist() if with_labels else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict:
        row = {"input_ids": self.ids[i], "attention_mask": [1] * len(self.ids[i])}
        return row if self.labels is None else {**row, "labels": self.labels[i]}


def train(model, tokenizer, data, callback, tmp_path, *, with_labels: bool, max_steps: int = 6):
    collator = (
        transformers.DataCollatorWithPadding(tokenizer)
        if with_labels
        else transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=max_steps,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        logging_steps=3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=Rows(data, tokenizer, with_labels=with_labels),
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    return trainer


@pytest.fixture
def parts():
    folder = checkpoint("XS")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return folder, tokenizer, load_texts("lab/topic").head(96)


@pytest.mark.slow
def test_scores_follow_the_training_of_a_language_model(parts, tmp_path):
    folder, tokenizer, data = parts
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = score_model((model, tokenizer), data, layers="last")
    callback = NTPSCallback(data, every=3)
    trainer = train(model, tokenizer, data, callback, tmp_path, with_labels=False)
    assert list(callback.reports) == [0, 3, 6]
    assert callback.reports[0].rows[0].ntps == pytest.approx(
        before.rows[0].ntps, rel=1e-6
    )  # float32 features depend on the batch
    after = score_model((trainer.model.eval(), tokenizer), data, layers="last")
    assert callback.reports[6].rows[0].ntps == pytest.approx(
        after.rows[0].ntps, rel=1e-6
    )  # float32 features depend on the batch
    assert callback.reports[6].rows[0].ntps != callback.reports[0].rows[0].ntps
    table = callback.to_frame()
    assert table["step"].tolist() == [0, 3, 6]
    assert {"ntps", "ntps_metric", "layer"} <= set(table)
    logged = [entry for entry in trainer.state.log_history if any(key.startswith("ntps/") for key in entry)]
    assert [entry["step"] for entry in logged] == [0, 3, 6]
    assert logged[0]["ntps/layer_3/k_16/ntps"] == callback.reports[0].rows[0].ntps


@pytest.mark.slow
def test_training_is_the_same_with_and_without_the_callback(parts, tmp_path):
    """The callback neither changes the mode of the model nor draws random numbers."""
    folder, tokenizer, data = parts
    weights = []
    for callbacks in ([NTPSCallback(data, every=2)], [transformers.TrainerCallback()]):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attention_dropout=0.1)
        trainer = train(model, tokenizer, data, callbacks[0], tmp_path, with_labels=False, max_steps=4)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.slow
def test_adapters_and_a_classification_head_are_scored(parts, tmp_path):
    peft = pytest.importorskip("peft")
    folder, tokenizer, data = parts
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=data.n_classes
    )
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"]))
    callback = NTPSCallback((list(data.texts), data.labels), every=100, layers=[0, -1], k_v=[0.5, 8])
    train(model, tokenizer, data, callback, tmp_path, with_labels=True)
    assert list(callback.reports) == [0, 6]
    assert len(callback.to_frame()) == 2 * 2 * 2
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = score_model(CausalModel("base", plain, tokenizer, ""), data, layers=[0, -1], k_v=[0.5, 8])
    for row, other in zip(callback.reports[0], expected, strict=True):  # adapters start at zero
        assert row.ntps == pytest.approx(other.ntps, rel=1e-5)


def test_wrong_settings_are_named(parts, tmp_path):
    folder, tokenizer, data = parts
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        NTPSCallback(data, every=0)
    with pytest.raises(TypeError, match="A dataset must be"):
        NTPSCallback(5)
    assert NTPSCallback(data).to_frame().empty
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match="NTPSCallback needs a tokenizer"):
        NTPSCallback(data).on_train_begin(None, transformers.TrainerState(), None, model=model)

"""Named diagnostics: each is reported once, with its name and a section of the book that exists."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntps_utils._utils import diagnostics
from ntps_utils.evidence.experiment import ExperimentConfig, run_experiment
from ntps_utils.evidence.prescreen import prescreen
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import ExtractionWarning
from ntps_utils.models.loading import load_model
from ntps_utils.models.probes import ProbeWarning, linear_probe, logistic_probe, warn_of_shared_texts
from ntps_utils.models.scoring import score_model
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import NumericalWarning
from tests.conftest import ROOT


@pytest.mark.parametrize("name", diagnostics.DIAGNOSTICS)
def test_diagnostics_refer_to_sections_that_exist(name):
    chapter, section = diagnostics.DIAGNOSTICS[name]
    (source,) = (ROOT / "notebooks").glob(f"{chapter:02d}_*.py")
    assert f"\n# ## {section}\n" in source.read_text()
    message = diagnostics.with_reference(name, "Something happened.")
    assert message == f'Something happened. [{name}: see chapter {chapter}, "{section}"]'
    assert diagnostics.diagnostic_in(message) == name
    assert diagnostics.diagnostic_in("Something happened.") is None


def test_layer_warnings_are_merged():
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        score_model("lab/XS", "lab/tense", max_texts=20, k_v=[0.5])
    few = [str(w.message) for w in records if "few-texts" in str(w.message)]
    assert len(few) == 1
    assert few[0].startswith("Layer 0: 20 texts for 32 features")
    assert few[0].endswith("(The same in 3 other layers.)")
    assert all(w.category is NumericalWarning for w in records if "few-texts" in str(w.message))


def test_dropped_directions_are_reported():
    model = load_model("lab/XS")
    embeddings = model.model.model.embed_tokens
    with torch.no_grad():  # two features are always equal
        embeddings.weight[:, 1] = embeddings.weight[:, 0]
    with pytest.warns(NumericalWarning, match="rank-cut: see chapter 4"):
        score_model(model, load_texts("lab/tense").head(100), layers="0", k_v=[0.5])


def test_truncated_texts_are_reported_above_five_percent():
    with pytest.warns(ExtractionWarning, match="were truncated to 8 tokens.*cut-texts: see chapter 4"):
        score_model("lab/XS", "lab/tense", max_texts=100, max_length=8)


def test_overflow_is_an_error():
    moments = Moments.zeros((0,), 4, 2)
    features = torch.ones(2, 3, 4).half() * 60000
    features[1, 1, 2] = torch.inf  # 70,000 in float16
    with pytest.raises(ValueError, match=r"wider dtype.*overflow: see chapter 4"):
        moments.update([features], torch.tensor([3, 3]), torch.eye(2, dtype=torch.float64))


def test_imbalance_is_reported_for_unbalanced_classes_only():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 5)), np.zeros(400, dtype=int)
    y[:12] = 1
    with pytest.warns(ProbeWarning, match="97% of the texts to classify.*imbalance: see chapter 7"):
        logistic_probe(x, y, x, y)
    y[:100] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", ProbeWarning)
        logistic_probe(x, y, x, y)


def test_accuracy_far_below_chance_is_reported():
    """Every test text is also a training text with the other label, as in medical pairs without one question."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 400))
    y = np.arange(300) % 2
    with pytest.warns(ProbeWarning, match="far below one half.*below-chance: see chapter 10"):
        logistic_probe(x, y, x, 1 - y)


def test_linear_probe_reports_too_few_texts():
    x = np.eye(5)
    with pytest.warns(ProbeWarning, match="few-texts: see chapter 2"):
        linear_probe(x, [0, 1, 0, 1, 0], x, [0, 1, 0, 1, 0])


def test_shared_texts_are_reported_above_five_percent():
    texts = [f"text {i}" for i in range(100)]
    with pytest.warns(ProbeWarning, match="6% of the test texts are training texts too.*shared-texts: see chapter 10"):
        warn_of_shared_texts(texts, [*texts[:6], *(f"other {i}" for i in range(94))])
    with pytest.warns(ProbeWarning, match="10% of the texts repeat others; the accuracy of cross-validation may"):
        warn_of_shared_texts([*texts[:90], *texts[:10]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_shared_texts(texts, [*texts[:5], *(f"other {i}" for i in range(95))])
        warn_of_shared_texts(texts)


@pytest.mark.slow
def test_experiments_and_prescreening_report_shared_texts():
    data = load_texts("lab/tense").head(60)
    settings = ExperimentConfig(lora=None)
    with pytest.warns(ProbeWarning, match="100% of the test texts are training texts too"):
        run_experiment(load_model("lab/XS"), data, data, settings)
    twice = replace(data, texts=data.texts * 2, labels=np.tile(data.labels, 2))
    assert any(note.startswith("50% of the texts repeat others") for note in prescreen("lab/XS", twice).notes)

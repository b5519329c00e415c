"""Silent traps are loud: once, by name, with a section of the book that exists."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("trap", diagnostics.DIAGNOSTICS)
def test_each_trap_leads_to_a_section_that_exists(trap):
    chapter, section = diagnostics.DIAGNOSTICS[trap]
    assert f"\n# ## {section}\n" in (ROOT / "notebooks" / f"{chapter}.py").read_text()
    said = diagnostics.with_reference(trap, "Something.")
    assert re.fullmatch(rf"Something\. \[{trap}: chapter \d+, .+, notebooks/{chapter}\.ipynb\]", said)
    assert (ROOT / re.search(r"notebooks/\S+ipynb", said)[0]).is_file()
    assert diagnostics.diagnostic_in(said) == trap
    assert diagnostics.diagnostic_in("Something.") is None


def test_a_trap_of_every_layer_is_said_once():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        score_model("lab/XS", "lab/tense", max_texts=20, k_v=[0.5])
    few = [str(w.message) for w in warned if "few-texts" in str(w.message)]
    assert len(few) == 1
    assert few[0].startswith("Layer 0: 20 texts for 32 features")
    assert few[0].endswith("(The same in 3 other layers.)")
    assert all(w.category is NumericalWarning for w in warned if "few-texts" in str(w.message))


def test_a_truncated_rank_is_said_by_name():
    model = load_model("lab/XS")
    body = model.model.model
    with torch.no_grad():  # two features that are always equal
        for layer in (body.embed_tokens,):
            layer.weight[:, 1] = layer.weight[:, 0]
    with pytest.warns(NumericalWarning, match="rank-cut: chapter 4"):
        score_model(model, load_texts("lab/tense").head(100), layers="0", k_v=[0.5])


def test_cut_texts_are_said_by_name_beyond_five_percent():
    with pytest.warns(ExtractionWarning, match="were cut to 8 tokens.*cut-texts: chapter 4"):
        score_model("lab/XS", "lab/tense", max_texts=100, max_length=8)


def test_an_overflow_is_an_error_by_name():
    moments = Moments.zeros((0,), 4, 2)
    features = torch.ones(2, 3, 4).half() * 60000
    features[1, 1, 2] = torch.inf  # what float16 makes of 70,000
    with pytest.raises(ValueError, match=r"wider dtype.*overflow: chapter 4"):
        moments.update([features], torch.tensor([3, 3]), torch.eye(2, dtype=torch.float64))


def test_imbalance_is_said_by_name_and_only_then():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 5)), np.zeros(400, dtype=int)
    y[:12] = 1
    with pytest.warns(ProbeWarning, match="97% of the test texts.*imbalance: chapter 7"):
        logistic_probe(x, y, x, y)
    y[:100] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", ProbeWarning)
        logistic_probe(x, y, x, y)


def test_a_leak_between_splits_is_said_by_name():
    """Every test text stands in training with the other label: the paper's medical pairs, read wrongly."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 400))
    y = np.arange(300) % 2
    with pytest.warns(ProbeWarning, match="far below one half.*below-chance: chapter 10"):
        logistic_probe(x, y, x, 1 - y)


def test_too_few_texts_are_said_by_the_linear_probe_too():
    x = np.eye(5)
    with pytest.warns(ProbeWarning, match="few-texts: chapter 2"):
        linear_probe(x, [0, 1, 0, 1, 0], x, [0, 1, 0, 1, 0])


def test_texts_in_both_splits_are_said_by_name_beyond_five_percent():
    texts = [f"text {i}" for i in range(100)]
    with pytest.warns(
        ProbeWarning, match="6% of the texts to test on are training texts too.*shared-texts: chapter 10"
    ):
        warn_of_shared_texts(texts, [*texts[:6], *(f"other {i}" for i in range(94))])
    with pytest.warns(ProbeWarning, match="10% of the texts to test on repeat others"):
        warn_of_shared_texts([*texts[:90], *texts[:10]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_shared_texts(texts, [*texts[:5], *(f"other {i}" for i in range(95))])
        warn_of_shared_texts(texts)


def test_cells_and_prescreening_warn_of_shared_texts():
    """The same texts on both sides."""
    data = load_texts("lab/tense").head(60)
    settings = ExperimentConfig(lora=None)
    with pytest.warns(ProbeWarning, match="100% of the texts to test on are training texts too"):
        run_experiment(load_model("lab/XS"), data, data, settings)
    twice = replace(data, texts=data.texts * 2, labels=np.tile(data.labels, 2))
    with pytest.warns(ProbeWarning, match="50% of the texts to test on repeat others"):
        prescreen("lab/XS", twice)

"""The sweep over layers and widths."""

from __future__ import annotations

import numpy as np
import pytest

from ntps_utils.evidence.sweep import FRACTIONS, sweep
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.loading import load_model
from ntps_utils.models.scoring import score_model


@pytest.mark.slow
def test_every_score_of_the_sweep_matches_score_model():
    model = load_model("lab/XS")
    pairs = [
        (load_texts(f"lab/{task}").head(150), load_texts(f"lab/{task}", "test").head(100))
        for task in ("topic", "tense")
    ]
    table = sweep(model, pairs, fractions=(0.25, 0.5))
    assert table.datasets == ("lab/topic", "lab/tense")
    assert table.flat("ntps").shape == (8, 2)
    for j, (train, _) in enumerate(pairs):
        reports = [score_model(model, train, k_v=(0.25, 0.5), center=c).to_frame() for c in (False, True)]
        for name, scores in table.scores.items():
            expected = reports[name != "ntps"][name].to_numpy().reshape(model.n_layers, 2)
            np.testing.assert_allclose(scores[:, :, j], expected, rtol=1e-7, atol=1e-9)
    assert table.accuracy.shape == (4, 2)
    assert len(FRACTIONS) == 19
    assert (FRACTIONS[0], FRACTIONS[-1]) == pytest.approx((0.05, 0.95))

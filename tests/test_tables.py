"""The paper's numbers as cited facts."""

from __future__ import annotations

import pandas as pd
import pytest

from ntps_utils.evidence.statistics import spearman
from ntps_utils.evidence.tables import TARGETS, as_plotted, load_printed_coefficients, load_reported, tie_orders
from tests.conftest import SHARED


def test_96_cells():
    cells = load_reported()
    assert len(cells) == 96
    assert cells.groupby("model")["dataset"].nunique().eq(12).all()
    assert cells["model"].nunique() == 8
    assert not cells.isna().any().any()
    shares = cells.filter(regex="accuracy|ntps_vs")
    assert shares.min().min() >= 0
    assert shares.max().max() <= 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", load_printed_coefficients().index)
def test_the_24_printed_coefficients(model, target):
    """To two decimals, up to how one tie at an MSE of zero is broken."""
    x, y = as_plotted(load_reported().query("model == @model"), target)
    printed = load_printed_coefficients().loc[model, target]
    if y.is_unique:
        assert round(spearman(x, y), 2) == printed
    else:
        assert (model, target) == ("meta-llama/Meta-Llama-3-8B", "mse")
        assert y[y.duplicated(keep=False)].eq(0).all()
        assert sorted(round(spearman(x, ranks), 2) for ranks in tie_orders(y)) == [printed, 0.56]


def test_ntps_and_gain_are_negatively_related_within_every_model():
    for _, cells in load_reported().groupby("model"):
        assert spearman(cells["ntps_vs_gain"], cells["gain"]) < 0


def test_unknown_target():
    with pytest.raises(ValueError, match="no target 'loss'"):
        as_plotted(load_reported(), "loss")


def test_facts_are_those_of_the_source():
    source = SHARED / "paper_reported" / "cells.csv"
    if not source.is_file():
        pytest.skip("the source of the reported cells is not beside this checkout")
    pd.testing.assert_frame_equal(load_reported()[pd.read_csv(source).columns], pd.read_csv(source))

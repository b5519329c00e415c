"""The released script's score: agreement with this library's score, and invalid shares."""

from __future__ import annotations

import numpy as np
import pytest

from ntps_utils.theory.released import OURS, released_ntps
from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import random_problem

pytestmark = pytest.mark.filterwarnings("ignore::ntps_utils.theory.score.NumericalWarning")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
def test_released_score_with_our_settings_is_our_score(seed, share):
    moments = random_problem(seed, d=12, n_texts=80, n_targets=3, condition=30.0).moments()
    solved = subspaces(moments)
    assert released_ntps(moments, share, **OURS) == pytest.approx(solved.row(solved.width(share)).ntps, abs=1e-8)
    assert released_ntps(moments, share, **{**OURS, "pseudo_inverse": True}) == pytest.approx(
        released_ntps(moments, share, **OURS), abs=1e-8
    )
    ascending = subspaces(moments, order="ascending")
    assert released_ntps(moments, share, **{**OURS, "ascending": True}) == pytest.approx(
        ascending.row(ascending.width(share)).ntps, abs=1e-8
    )


def test_released_score_without_directions_is_nan_and_an_invalid_share_is_rejected():
    moments = random_problem(0, d=6, n_texts=50).moments()
    assert np.isnan(released_ntps(moments, 0.05))
    with pytest.raises(ValueError, match="fraction in"):
        released_ntps(moments, 1.5)

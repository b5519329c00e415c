"""The released recipe: with every choice undone it is our score; each choice does what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from ntps_utils.theory.released import OURS, released_ntps
from ntps_utils.theory.score import subspaces
from ntps_utils.theory.synthetic import random_problem


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
def test_with_every_choice_undone_it_is_our_score(seed, share):
    moments = random_problem(seed, d=12, n_texts=80, n_targets=3, condition=30.0).moments()
    solved = subspaces(moments)
    assert released_ntps(moments, share, **OURS) == pytest.approx(solved.row(solved.width(share)).ntps, abs=1e-8)
    assert released_ntps(moments, share, **{**OURS, "pseudo_inverse": True}) == pytest.approx(
        released_ntps(moments, share, **OURS), abs=1e-8
    )
    order = subspaces(moments, order="ascending")
    assert released_ntps(moments, share, **{**OURS, "ascending": True}) == pytest.approx(
        order.row(order.width(share)).ntps, abs=1e-8
    )


def test_no_direction_is_nan_and_a_bad_share_is_refused():
    moments = random_problem(0, d=6, n_texts=50).moments()
    assert np.isnan(released_ntps(moments, 0.05))
    with pytest.raises(ValueError, match="fraction in"):
        released_ntps(moments, 1.5)

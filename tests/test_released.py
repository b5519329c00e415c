"""The released script's score: agreement with this library's score, and invalid shares."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

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
    for share in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="fraction in"):
            released_ntps(moments, share)
    assert released_ntps(moments, 1.0, **OURS) == pytest.approx(1.0, abs=1e-8)  # V is the whole space


def test_the_defaults_are_the_choices_of_the_script():
    moments = random_problem(3, d=12, n_texts=80, n_targets=3, condition=30.0).moments()
    script = {
        "ascending": True, "fill_u": True, "single": True, "absolute_cut": 1e-8, "round_down": True,
        "pseudo_inverse": True,
    }  # fmt: skip
    value = released_ntps(moments, 0.55)
    assert released_ntps(moments, 0.55, **script) == value
    for name in ("ascending", "fill_u", "single"):
        assert released_ntps(moments, 0.55, **script | {name: False}) != value


def test_single_precision_rounds_and_changes_little_where_nothing_is_near_the_cut():
    moments = random_problem(1, d=12, n_texts=80, n_targets=3, condition=30.0).moments()
    double, single = (released_ntps(moments, 0.5, **OURS | {"single": value}) for value in (False, True))
    assert single != double
    assert single == pytest.approx(double, abs=1e-3)


def test_the_number_of_directions_is_cut_off_or_rounded():
    moments = random_problem(2, d=12, n_texts=80, n_targets=3, condition=30.0).moments()
    solved = subspaces(moments)
    share = 3.6 / solved.rank
    rounded, cut = (released_ntps(moments, share, **OURS | {"round_down": value}) for value in (False, True))
    assert (rounded, cut) == pytest.approx((solved.row(4).ntps, solved.row(3).ntps), abs=1e-8)


@pytest.mark.parametrize("cut", [None, 1e-8])
def test_an_absolute_cut_off_removes_small_features(cut):
    """Eigenvalues of 1e-11 are kept by the relative cut-off, and removed by the absolute one."""
    problem = random_problem(4, d=10, n_texts=80, n_targets=3, condition=3.0)
    moments = problem.transform(np.diag([1.0] * 8 + [3e-6] * 2)).moments()
    value = released_ntps(moments, 0.5, **OURS | {"absolute_cut": cut})
    rows = {}
    for name, (M, cross) in {"V": (moments.A0, moments.A1), "U": (moments.S, moments.C)}.items():
        values, vectors = np.linalg.eigh(M)
        basis = vectors[:, values > (1e-8 if cut else 1e-14 * values.max())]
        reduced = basis.T @ cross
        rows[name] = basis @ scipy.linalg.eigh(reduced @ reduced.T, basis.T @ M @ basis)[1][:, ::-1]
    rank = rows["V"].shape[1]
    assert rank == (8 if cut else 10)
    V, U = np.linalg.qr(rows["V"][:, : rank // 2])[0], rows["U"][:, :3]
    assert value == pytest.approx(np.linalg.norm(V.T @ U) ** 2 / np.linalg.norm(U) ** 2, abs=1e-6)

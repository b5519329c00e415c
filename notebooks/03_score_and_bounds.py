# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The score and its bounds
#
# :::{admonition} After this chapter you can
# :class: tip
# - define the Next Token Perception Score (NTPS) and compute it for all pairs of widths from one QR factorization;
# - derive the excess loss *exactly*, and three scores from it: one that gives the loss, and two that bound it;
# - say how loose each bound is from the condition number of the features and the ratio of two eigenvalues;
# - give examples with a high score and a large loss, and the reverse;
# - say which score stays the same under which change of the features.
#
# It uses two results, proved in chapters 1 and 2 and restated here. It runs in half a minute on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that the overlap of the two subspaces bounds, from above and from below, the loss that is added
# when a task can use only the directions that next-token prediction keeps. **The code does** compute that in {mod}`ntps_utils.theory.score`, and adds two
# scores in the metric of the loss. **We find** that bounds of the paper's form hold in every case that we try (the paper states the case of equal width; the constants are ours). For ill-conditioned features the lower and the upper one are so far apart
# that they hardly constrain the loss. The identity from which they follow gives the loss exactly, without constants.

# %% tags=["parameters"]
profile = "default"
seed = 0
n_problems = 2000

# %% tags=["hide-input"]
import warnings

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from myst_nb import glue
from scipy.stats import spearmanr

from ntps_utils.evidence.records import load_record
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import (
    COLORS,
    house_style,
    identity_scatter,
    panels,
    subspace_explorer,
)
from ntps_utils.theory.score import NumericalWarning, subspaces
from ntps_utils.theory.synthetic import (
    Problem,
    exact_problem,
    planted_problem,
    random_problem,
)
from ntps_utils.theory.uncertainty import excess_loss_test, softmax_score_test
from ntps_utils.theory.verification import check_bounds

house_style()
warnings.simplefilter(
    "ignore", NumericalWarning
)  # small and singular problems are wanted here

# %% [markdown]
# ## Two subspaces
#
# From chapters 1 and 2 we take two families of directions in the feature space $\R^d$, each with the strongest first:
#
# - **autoregressive** directions $V = (v_1, \dots, v_{k_v})$, those that serve linear next-token prediction best;
# - **perception** directions $U = (u_1, \dots, u_r)$, those that serve the labels. They are normalized to $U^\top S U = I$, where
#   $S = \E\, \xbar\xbar^\top$, and have eigenvalues $\beta_1 \ge \dots \ge \beta_r > 0$: what each removes from the loss.
#
# Suppose that pretraining has kept only the span of $V$. How much does the loss of the task rise? The best linear prediction of the labels
# from $V^\top \xbar$ has the loss $L(V)$, and that from all features has the loss $L^*$. The difference is the **excess loss**
#
# $$
# \Delta(V) = L(V) - L^* \;\ge\; 0 .
# $$ (eq-excess)
#
# ## The paper's score
#
# Let $P_V = V V^+$ be the orthogonal projector on the span of $V$. Then
#
# $$
# \mathrm{NTPS} = \frac{\|P_V U\|_F^2}{\|U\|_F^2} \in [0, 1]
# $$ (eq-ntps)
#
# is the share of $U$ that lies in the span of $V$. It is 1 if $V$ contains all perception directions and 0 if it is orthogonal to all.
#
# The value depends on how the columns of $U$ are scaled. With $U^\top S U = I$ it follows from the two spans and from $S$; without this normalization another basis of the same span gives another value. (The excess loss needs the $\beta_i$ as well.) With the normalization a direction in which
# the mean tokens have the mean square $m$ gets the length $1/\sqrt m$, because $u^\top S u = 1$ means $\|u\|^2 m = 1$. So directions in which features vary little count most.
#
# The score depends on two widths: how many perception directions are used, $k_u \le r$, and how many autoregressive ones, $k_v$. There is no need to compute it for each pair. Factor $V = QR$ with $Q$ orthonormal; because the
# spans are nested, the first $k_v$ columns of $Q$ span the same as those of $V$, for every $k_v$ at once. With $H_{ij} = (q_i^\top u_j)^2$,
#
# $$
# \mathrm{NTPS}(k_u, k_v) = \frac{\sum_{j \le k_u} \sum_{i \le k_v} H_{ij}}{\sum_{j\le k_u} \|u_j\|^2} .
# $$
#
# This takes one factorization, one product and two cumulative sums, and no pseudo-inverse.
#
# ## The excess loss, exactly
#
# Chapter 2 gave the loss of any encoder $V$: $L(V) = \tr Y - \tr\big[(V^\top S V)^{-1} V^\top C C^\top V\big]$. Go to white coordinates,
# $\tilde V = S^{1/2} V$. The matrix $\tilde V (\tilde V^\top \tilde V)^{-1} \tilde V^\top = \tilde P_V$ is the orthogonal projector on the span of
# $\tilde V$, and with $B = S^{-1/2} C C^\top S^{-1/2} = \sum_i \beta_i \tilde u_i \tilde u_i^\top$
#
# $$
# L(V) = \tr Y - \tr\big(\tilde P_V B\big), \qquad L^* = \tr Y - \tr B .
# $$
#
# :::{prf:theorem} a. Exact identity
# :label: thm-identity
#
# $$
# \Delta(V) = \tr\big((I - \tilde P_V) B\big) = \sum_{i=1}^{r} \beta_i \big(1 - \|\tilde P_V \tilde u_i\|^2\big) .
# $$ (eq-identity)
#
# The excess loss is a weighted sum of squared sines, measured in white coordinates. Nothing has been estimated or bounded.
# :::
#
# ## Three scores, and bounds for two of them
#
# The task-weighted score gives the excess loss itself. The metric-matched and the Euclidean score bound it. A further theorem (e) compares $V$ with the best encoder of the same width.
#
# :::{prf:theorem} b. Task-weighted score
# :label: thm-task
#
# Divide {eq}`eq-identity` by $\tr B$:
#
# $$
# \mathrm{wNTPS} = \frac{\tr(\tilde P_V B)}{\tr B}, \qquad \Delta(V) = \tr B \,\big(1 - \mathrm{wNTPS}\big) .
# $$
# :::
#
# It is the share of the **explainable loss** $\tr B$, the loss that all features together remove, that $V$ removes too: $R^2(V) / R^2(\text{all})$ for centered moments. Apart from tr B, which comes from the same moments, the equation contains no constant, so that it is an equality and not a bound.
#
# :::{prf:theorem} c. Metric-matched score
# :label: thm-metric
#
# Give all perception directions the same weight:
#
# $$
# \mathrm{NTPS}_S = \frac1r \sum_{i=1}^r \|\tilde P_V \tilde u_i\|^2,
# $$
#
# $$
# \beta_r\, r\, (1 - \mathrm{NTPS}_S) \;\le\; \Delta(V) \;\le\; \beta_1\, r\, (1 - \mathrm{NTPS}_S) .
# $$ (eq-metric)
# :::
#
# :::{prf:proof}
# In {eq}`eq-identity` replace each $\beta_i$ by the smallest, or by the largest. ∎
# :::
#
# :::{prf:theorem} d. The paper's Euclidean score
# :label: thm-euclidean
#
# With $\lambda_{\min}, \lambda_{\max}$ the extreme eigenvalues of $S$,
#
# $$
# \begin{aligned}
# \Delta(V) &\ge \beta_r\, \lambda_{\min}\, \|U\|_F^2\, (1 - \mathrm{NTPS}) , \\
# \Delta(V) &\le \beta_1\, \lambda_{\max}\, \|U\|_F^2\, (1 - \mathrm{NTPS}) .
# \end{aligned}
# $$ (eq-euclidean)
# :::
#
# :::{prf:proof}
# The squared sine is a squared distance. Since $\|\tilde u_i\| = 1$,
# $1 - \|\tilde P_V \tilde u_i\|^2 = \min_a \|\tilde u_i - \tilde V a\|^2 = \min_a\, (u_i - V a)^\top S\, (u_i - V a)$. For every vector $w$,
# $\lambda_{\min}\|w\|^2 \le w^\top S w \le \lambda_{\max} \|w\|^2$, and so the minimum lies between $\lambda_{\min}$ and $\lambda_{\max}$ times
# $\min_a \|u_i - V a\|^2 = \|u_i\|^2 - \|P_V u_i\|^2$. Sum over $i$: $\sum_i \big(\|u_i\|^2 - \|P_V u_i\|^2\big) = \|U\|_F^2 (1 -
# \mathrm{NTPS})$. Then bound the $\beta_i$ as in (c). ∎
# :::
#
# :::{prf:theorem} e. Against the best encoder of the same width
# :label: thm-rank-k
#
# If $k = \dim V < r$, no encoder of that width can reach $L^*$, and it is fairer to compare with
# the best one, which keeps $\beta_1, \dots, \beta_k$. Let $\Delta_k = \sum_{i\le k} \beta_i - \tr(\tilde P_V B)$ and
# $\mathrm{NTPS}_{S,k} = \frac1k \sum_{i \le k} \|\tilde P_V \tilde u_i\|^2$. Then
#
# $$
# \begin{aligned}
# \Delta_k &\ge (\beta_k - \beta_{k+1})\, k\, (1 - \mathrm{NTPS}_{S,k}) , \\
# \Delta_k &\le (\beta_1 - \beta_{\min})\, k\, (1 - \mathrm{NTPS}_{S,k}) ,
# \end{aligned}
# $$ (eq-rank-k)
#
# where $\beta_{\min}$ is the smallest eigenvalue of $B$, zero if $r < d$.
# :::
#
# :::{prf:proof}
# Complete $\tilde u_1, \dots, \tilde u_r$ to an orthonormal basis $\tilde u_1, \dots, \tilde u_d$ of eigenvectors of $B$, with $\beta_i = 0$ for $i > r$, and let $c_i = \|\tilde P_V \tilde u_i\|^2$. Then $\sum_i c_i =
# \tr \tilde P_V = k$, so what the first $k$ miss, the others have: $\sum_{i\le k} (1 - c_i) = \sum_{i > k} c_i = k(1 - \mathrm{NTPS}_{S,k}) =: \delta$. Now
# $\Delta_k = \sum_{i \le k} \beta_i (1 - c_i) - \sum_{i>k} \beta_i c_i$. The first sum lies between $\beta_k \delta$ and $\beta_1 \delta$, the second between
# $\beta_{\min} \delta$ and $\beta_{k+1} \delta$. ∎
# :::
#
# With the Euclidean distances in place of the white ones, as in (d), the same holds with $\lambda_{\min} \|U_k\|_F^2 (1 - \mathrm{NTPS}_{k,k})$ below and $\lambda_{\max} \|U_k\|_F^2 (1 -
# \mathrm{NTPS}_{k,k})$ above in place of $k\,(1 - \mathrm{NTPS}_{S,k})$, where $U_k$ are the first $k$ perception directions and $\mathrm{NTPS}_{k,k}$ is their score. The paper's theorem is about encoders of equal width; the constants in (d)
# and here are ours.
#
# ## Sharper bounds, from the angles
#
# (c) and (d) use one number for all angles together, and only the extreme eigenvalues. With every principal angle, the lower and the upper bound come closer.
#
# :::{prf:theorem} f. All angles in the metric of the loss
# :label: thm-angles
#
# Let $\sin^2\theta_1 \le \dots \le \sin^2\theta_r$ be the eigenvalues of $\Theta = \tilde U^\top (I - \tilde P_V) \tilde U$; the $\theta_i$ are the principal angles between $U$ and $V$ in white
# coordinates. Then
#
# $$
# \sum_{i=1}^r \beta_i \sin^2\theta_i \;\le\; \Delta(V) \;\le\; \sum_{i=1}^r \beta_i \sin^2\theta_{r+1-i} .
# $$ (eq-angles)
#
# Both ends are attained.
# :::
#
# :::{prf:proof}
# $\Delta(V) = \tr\big(\mathrm{diag}(\beta_1, \dots, \beta_r)\, \Theta\big)$. The trace of a product of two symmetric matrices with given eigenvalues is largest when both have the
# same eigenvectors in the same order, and smallest in the opposite order (von Neumann). To attain the ends, keep the spans of $U$ and $V$, and turn the basis of $U$ within its span so that its vectors are the principal vectors, with the angles in one order or in the other. ∎
# :::
#
# :::{prf:theorem} g. The Euclidean score with restricted constants
# :label: thm-restricted
#
# The eigenvalues of $S$ enter (d) only through the ratio of two squared distances of the same vector to $V$, and only for vectors in the span of $U$. Let $\Theta_E = U^\top (I - P_V) U$ be the Euclidean
# counterpart of $\Theta$, and $\mu_{\min}, \mu_{\max}$ the extreme generalized eigenvalues of $(\Theta, \Theta_E)$ on the range of $\Theta_E$. Then
#
# $$
# \begin{aligned}
# \Delta(V) &\ge \beta_r\, \mu_{\min}\, \|U\|_F^2\, (1 - \mathrm{NTPS}) , \\
# \Delta(V) &\le \beta_1\, \mu_{\max}\, \|U\|_F^2\, (1 - \mathrm{NTPS}) ,
# \end{aligned}
# $$ (eq-restricted)
#
# and $\mu_{\min}, \mu_{\max}$ lie between the extreme eigenvalues of $S$ on the span of $U$ and $V$.
# :::
#
# :::{prf:proof}
# For $u = Ub$ the squared distances are $b^\top \Theta b$ and $b^\top \Theta_E b$, so $\mu_{\min}\, \tr \Theta_E \le \tr \Theta \le \mu_{\max}\, \tr \Theta_E$, and $\tr \Theta_E = \|U\|_F^2 (1 - \mathrm{NTPS})$. Bound the $\beta_i$ as in (c). The remainders $u - Va$ lie in the
# span of $U$ and $V$, so the proof of (d) on that span bounds the ratios. ∎
# :::
#
# **If $S$ is singular**, everything happens on its range: whiten with the eigenvectors that are kept, and read the distances in (d) after projecting on
# that range. The code does so and reports the numerical rank.
#
# ## Does it hold?
#
# Random problems as in chapters 1 and 2, each at a random $k_v$, every second one centered. The excess loss is *measured* by two least-squares fits on the
# texts, and compared with identity and bounds. The table shows the smallest, the median and the largest value of each column: `rank` is that of $S$, `r` the number of perception directions, and
# `kappa(S)` the ratio $\kappa(S)$ of the largest to the smallest eigenvalue of $S$, its condition number.

# %%
problems = [random_problem(seed + i) for i in range(n_problems)]
records = [
    check_bounds(p, seed=seed + i, center=i % 2 == 1) for i, p in enumerate(problems)
]
checks = pd.DataFrame(records)
violations = sum(record.violated for record in records)
worst = float((checks["measured"] - checks["excess"]).abs().max())
below_r = int(checks["excess_rank_k"].notna().sum())
shown = ["d", "n_texts", "rank", "r", "k_v", "condition", "beta_ratio"]
names = {"condition": "kappa(S)", "beta_ratio": "beta_1 / beta_r"}
summary = checks[shown].rename(columns=names).describe()
summary.loc[["min", "50%", "max"]].map("{:.3g}".format)

# %% tags=["remove-cell"]
glue("n_problems", n_problems, display=False)
glue("violations", violations, display=False)
glue("worst", worst, display=False)
glue("below_r", below_r, display=False)
glue("max_condition", float(checks["condition"].max()), display=False)

# %% [markdown]
# Identity (a) agrees with the measured excess loss to {glue:text}`worst:.0e` of $\tr B$ over {glue:text}`n_problems` problems with $\kappa(S)$ up to
# {glue:text}`max_condition:.0e`. The bounds (c), (d), (f) and (g), and both of (e) in the {glue:text}`below_r` problems with $k_v < r$, were violated {glue:text}`violations`
# times; (f) was never wider than (c), nor (g) than (d).

# %% tags=["hide-input"]
lossy = checks[(checks["excess"] > 1e-9) & (checks["lower"] > 0)]
narrow = checks[checks["excess_rank_k"] > 1e-9]
pairs = {
    "Euclidean (d)": (
        lossy["excess"],
        lossy["lower"],
        lossy["upper"],
        COLORS["euclidean"],
    ),
    "metric (c)": (
        lossy["excess"],
        lossy["lower_metric"],
        lossy["upper_metric"],
        COLORS["metric"],
    ),
    "same width (e)": (
        narrow["excess_rank_k"],
        narrow["lower_rank_k"].clip(lower=1e-12),
        narrow["upper_rank_k"],
        COLORS["task"],
    ),
}
typical_euclidean = float((lossy["upper"] / lossy["excess"]).median())
typical_metric = float((lossy["upper_metric"] / lossy["excess"]).median())

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: measured excess loss against the identity, on the diagonal. Middle and right: histograms of how far the upper bounds lie above and the lower bounds below; Euclidean bounds are off by orders of magnitude."}, "figure": {"caption": "The identity is exact, the bounds hold, and the Euclidean one is loose. Left: identity against measurement. Middle and right: slack factor of the upper and of the lower bound, 1 = tight; nothing lies below 1 (problems in which V loses nothing are left out). Values that only rounding puts below 1 are drawn at 1, and values above $10^8$ at $10^8$.", "name": "fig-slack"}}
figure, (left, middle, right) = panels(3, height=3.2)
identity_scatter(
    left,
    checks["measured"].clip(lower=1e-12),
    checks["excess"].clip(lower=1e-12),
    COLORS["exact"],
)
left.set(
    xlabel="measured excess loss / tr B",
    ylabel="by the identity",
    title="(a) identity",
)
for name, (excess, lower, upper, color) in pairs.items():
    for ax, ratio in ((middle, upper / excess), (right, excess / lower)):
        equal = ratio.between(1 - 1e-8, 1)  # below 1 by rounding only
        ax.hist(
            ratio.mask(equal, 1.0).clip(upper=1e8),
            bins=np.logspace(-1, 8, 46),
            histtype="step",
            lw=1.8,
            color=color,
            label=name,
        )
middle.set(
    xscale="log",
    xlabel="upper bound / excess",
    ylabel="problems",
    title="upper bounds",
)
right.set(xscale="log", xlabel="excess / lower bound", title="lower bounds")
_ = right.legend(fontsize=9)

# %% [markdown]
# In the left panel all points lie on the diagonal, so the identity gives the measured excess loss. In the other two no problem lies below 1, so no bound is violated; in many problems the loss equals a bound of (c) or (e). The Euclidean bounds are looser than the others because they contain the extreme eigenvalues of $S$.

# %% tags=["remove-cell"]
glue("typical_euclidean", typical_euclidean, display=False)
glue("typical_metric", typical_metric, display=False)

# %% [markdown]
# In the median problem the upper bound is {glue:text}`typical_metric:.1f` times the excess loss when it is read from the metric-matched score, and
# {glue:text}`typical_euclidean:.0f` times when it is read from the Euclidean one.
#
# ## How loose is each bound?
#
# Both bounds of a pair contain one minus the score, so that their ratio is that of their constants, whatever the score is. From (c) and (d),
#
# $$
# \text{metric: } \frac{\beta_1}{\beta_r}, \qquad\qquad \text{Euclidean: } \kappa(S)\, \frac{\beta_1}{\beta_r}, \qquad \kappa(S) = \frac{\lambda_{\max}}{\lambda_{\min}} .
# $$
#
# We vary one of the two at a time: first features of growing condition number with all $\beta_i$ equal, then well-conditioned features with labels of growing
# $\beta_1 / \beta_r$. The moments are second moments, not centered.


# %% tags=["hide-input"]
def looseness(condition, beta_ratio, seed):
    solved = subspaces(
        exact_problem(seed, condition=condition, beta_ratio=beta_ratio).moments()
    )
    middle = solved.rank_v // 2 - 1
    return {
        "kappa": condition,
        "beta ratio": beta_ratio,
        "Euclidean": solved.bounds.looseness[middle],
        "metric": solved.bounds_metric.looseness[middle],
        "gap Euclidean": solved.bounds.upper[middle] / solved.excess_loss[middle],
        "gap metric": solved.bounds_metric.upper[middle]
        / solved.excess_loss[middle],
    }


by_kappa = pd.DataFrame(
    [looseness(10**e, 1.0, seed + i) for e in range(7) for i in range(10)]
)
by_beta = pd.DataFrame(
    [
        looseness(10.0, 10**e, seed + i)
        for e in np.arange(0, 4.1, 0.5)
        for i in range(10)
    ]
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two log-log panels. Against the condition number the Euclidean looseness grows in proportion while the metric one stays at one. Against the eigenvalue ratio both grow in proportion."}, "figure": {"caption": "The Euclidean bound loosens with the condition number of the features, and the metric bound does not. Lines: ratio of upper to lower constant, by the formulas above. Points: how far the upper bound actually lies above the excess loss, for ten problems each at half of all directions.", "name": "fig-looseness"}}
figure, axes = panels(2, sharey=True)
for ax, (frame, column) in zip(
    axes, ((by_kappa, "kappa"), (by_beta, "beta ratio")), strict=True
):
    for name, key in (("Euclidean", "euclidean"), ("metric", "metric")):
        mean = frame.groupby(column)[name].mean()
        ax.plot(mean.index, mean, color=COLORS[key], label=f"{name}: constants")
        ax.scatter(
            frame[column],
            frame[f"gap {name}"],
            s=12,
            alpha=0.5,
            color=COLORS[key],
            linewidths=0,
            label=f"{name}: upper / excess",
        )
    ax.set(xscale="log", yscale="log")
axes[0].set(
    xlabel=r"$\kappa(S)$   ($\beta_1 = \beta_r$)", ylabel="looseness, 1 = tight"
)
axes[1].set(xlabel=r"$\beta_1 / \beta_r$   ($\kappa(S) = 10$)")
_ = axes[0].legend(fontsize=9)

# %% tags=["remove-cell"]
big = by_kappa[by_kappa["kappa"] == 10**6]
glue("gap_at_million", float(big["gap Euclidean"].median()), display=False)
glue("gap_metric_at_million", float(big["gap metric"].median()), display=False)

# %% [markdown]
# In the left panel the ratio of the two constants of the Euclidean bounds grows in proportion to $\kappa(S)$, and that of the metric-matched bounds does not change, because $S$ does not occur in them. In the right panel both ratios grow in proportion to $\beta_1 / \beta_r$; the upper bounds themselves stay closer to the excess loss than that. At $\kappa(S) = 10^6$ the Euclidean upper bound is
# {glue:text}`gap_at_million:,.0f` times the excess loss in the median problem here, the metric-matched one, with all $\beta_i$ equal,
# {glue:text}`gap_metric_at_million:.2f` times. So for features with a large condition number the Euclidean bound says little. An upper bound above $\tr B$ says nothing, since the excess loss is never larger than $\tr B$.
# `ntps score --json FILE` writes the bounds for your own model.
#
# ## All bounds on one axis
#
# Random problems, and three real language models that read movie reviews (sst2, last layer, half of all directions, centered; recorded). Each bar spans a lower and an upper bound, the dot is the excess loss. The
# first row contains the random problems with more than one perception direction and a positive lower bound (d). The two ends of its bars and its dot are medians, each for itself.

# %% tags=["hide-input"]
BOUNDS = {
    "Euclidean (d)": ("lower", "upper", COLORS["euclidean"]),
    "restricted (g)": (
        "lower_restricted",
        "upper_restricted",
        COLORS["autoregressive"],
    ),
    "metric (c)": ("lower_metric", "upper_metric", COLORS["metric"]),
    "angles (f)": ("lower_angles", "upper_angles", COLORS["task"]),
}
real = load_record("real_models")["models"]
several = checks[
    (checks["excess"] > 1e-9) & (checks["lower"] > 0) & (checks["r"] > 1)
]
subjects = {"random problems\n(medians)": several.median(numeric_only=True)}
for name, facts in real.items():
    row = facts["scores"]["centered"]
    ends = {
        f"{end}{kind}": row[f"{end}_bound{kind}"]
        for end in ("lower", "upper")
        for kind in ("", "_restricted", "_metric", "_angles")
    }
    subjects[name] = {"excess": row["excess_loss"], **ends}
    subjects[name] = {k: v / row["trace_b"] for k, v in subjects[name].items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "For random problems and three language models, four horizontal bars each: the Euclidean bounds span many orders of magnitude, the restricted ones fewer, the metric ones and those by angles span the least."}, "figure": {"caption": "What each bound leaves open. Lower to upper bound as shares of tr B, with the excess loss (dots). Two classes have one perception direction after centering, so that for the three models (c), (f) and (g) are exact.", "name": "fig-all-bounds"}}
figure, (ax,) = panels(1, height=3.8)
for i, values in enumerate(subjects.values()):
    for j, (kind, (low, high, color)) in enumerate(BOUNDS.items()):
        at = i + 0.17 * (j - 1.5)
        ax.plot(
            [max(values[low], 1e-8), max(values[high], 1e-8)],
            [at, at],
            lw=4,
            solid_capstyle="butt",
            color=color,
            marker="|",
            ms=9,
            label=kind if i == 0 else None,
        )
    ax.plot(values["excess"], i, "o", color=COLORS["exact"], ms=5, zorder=5)
ax.axvline(1, color=COLORS["other"], lw=0.8)
ax.set(xscale="log", xlabel="share of tr B", yticks=range(len(subjects)))
ax.set_yticklabels(subjects)
ax.invert_yaxis()
_ = ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))

# %% tags=["remove-cell"]
glue(
    "room_euclidean",
    float((several["upper"] / several["lower"]).median()),
    display=False,
)
glue(
    "room_restricted",
    float((several["upper_restricted"] / several["lower_restricted"]).median()),
    display=False,
)
glue(
    "room_metric",
    float((several["upper_metric"] / several["lower_metric"]).median()),
    display=False,
)
glue(
    "room_angles",
    float((several["upper_angles"] / several["lower_angles"]).median()),
    display=False,
)
worst_real = max(subjects[name]["upper"] / subjects[name]["excess"] for name in real)
glue("room_real", float(worst_real), display=False)

# %% [markdown]
# From (d) over (g) and (c) to (f) the lower and the upper bound come closer. In the random problems the median of the ratio of upper to lower bound, which is not the ratio of the medians in the figure, is {glue:text}`room_euclidean:,.0f` for (d), {glue:text}`room_restricted:.1f` for (g), {glue:text}`room_metric:.1f` for (c) and {glue:text}`room_angles:.1f` for (f).
# For the language models the Euclidean upper bound (d) is up to {glue:text}`room_real:,.0f` times the excess loss, and larger than $\tr B$, so that it says nothing there. In practice no bound is needed, because the identity gives the excess loss itself from the same moments.
#
# ## How sure is the excess loss?
#
# *This section uses F tests. It can be skipped, together with question 3 of the quiz and the last exercise; no later chapter needs more of it than {numref}`fig-coverage`.*
#
# $\Delta$ is exact for the texts that it was computed from. Their labels are noisy, and every direction explains a part of the noise. With $r_S$ the rank of $S$, $k$ directions kept and N texts, labels with noise of variance $\sigma^2$ and no relation to the
# features have an excess loss of about $\sigma^2 (r_S - k) / N$. Since $\Delta$ is what the features outside $V$ explain beyond $V$, it is the numerator of the F test of two nested linear models,
#
# $$
# F = \frac{\Delta / (r_S - k)}{L^* / (N - 1 - r_S)} .
# $$ (eq-f)
#
# With centered moments (as here), if the labels depend on the features only through $V$, apart from noise (then the excess loss without noise is zero), F has the F distribution with $r_S - k$ and $N - 1 - r_S$ degrees of freedom, exactly for a single target with normal errors. The labels of two classes amount to a single target, but their errors are not normal, so that this is an approximation for many texts. With more classes the degrees of freedom are approximate, too.
# The 95% interval for the excess loss without noise contains every value under which the measured $\Delta$ lies between the 2.5% and the 97.5% quantile of its distribution. For a known noise variance $\sigma^2$ this is a noncentral chi-square distribution: $N \Delta / \sigma^2$ has $r_S - k$ degrees of freedom, and a noncentrality that is $N / \sigma^2$ times the excess loss without noise. But $\sigma^2$ is not known. Its estimate comes from the errors of the probe: $X = N L^* / \sigma^2$ has a chi-square distribution with $N - 1 - r_S$ degrees of freedom. So we draw $X$ from it, set $\sigma^2 = N L^* / X$, and take the mean over $X$ of the distribution function of $\Delta$; the quantiles are those of this mean.
# Subtracting the mean of the noise from $\Delta$ gives $\Delta - (r_S - k)\,
# L^* / (N - 1 - r_S)$ ({func}`ntps_utils.theory.uncertainty.excess_loss_test`). Another way is to compute the loss on texts that the encoders have not seen ({func}`ntps_utils.theory.uncertainty.held_out_loss`). It needs only the moments of five groups of texts, each left out in turn. For the three pretrained models (computed once, and read from a file):

# %%
lines = []
for name, facts in real.items():
    row, y = facts["scores"]["centered"], facts["held_out"]["0.0"]["trace_y"]
    held = facts["held_out"]["0.1"]
    share = {
        "these texts": row["excess_loss"],
        "without noise": row["excess_loss_debiased"],
        "95%, low": row["excess_loss_low"],
        "95%, high": row["excess_loss_high"],
        "held out": held["loss_v"] - held["loss"],
    }
    lines.append(
        {"model": name}
        | {k: np.nan if v is None else v / y for k, v in share.items()}
        | {"p": row["excess_loss_p"]}
    )
sure = pd.DataFrame(lines).set_index("model")
sure.round(3)

# %% tags=["remove-cell"]
big = sure.iloc[:2] if len(sure) < 3 else sure
glue(
    "sure_noise_low",
    float((sure["these texts"] - sure["without noise"]).min()),
    display=False,
)
glue(
    "sure_noise_high",
    float((sure["these texts"] - sure["without noise"]).max()),
    display=False,
)
glue("sure_held_low", float(sure["held out"].min()), display=False)
glue("sure_held_high", float(sure["held out"].max()), display=False)

# %% [markdown]
# All columns but the last, the p-value of the F test, are shares of the variance of the labels. Noise alone contributes {glue:text}`sure_noise_low:.2f` to {glue:text}`sure_noise_high:.2f` to the excess loss on these texts. The column *held out* is the loss that V adds on texts left out, from {glue:text}`sure_held_low:+.3f` to
# {glue:text}`sure_held_high:+.3f`; both predictors have a ridge of a tenth of the mean variance. A negative value means that V predicts *better* than all features there, because fewer directions overfit less.
#
# Probes are mostly trained with cross-entropy instead of squared errors. The same moments also give a test for that loss.
#
# :::{prf:theorem} h. Score test of softmax regression
# :label: thm-score-test
#
# Let $q$ be the shares of the classes, and $S$ and $C$ centered moments of $N$ texts. At the point where no feature has a weight, Rao's score statistic {cite}`rao1948` of softmax regression with intercepts is
#
# $$
# N\, \tr\!\big( C^\top S^{-1} C \; \mathrm{diag}(q)^{-1} \big) ,
# $$ (eq-score-test)
#
# and tends to a chi-square with $r_S\,(c - 1)$ degrees of freedom if the labels do not depend on the features.
# :::
#
# :::{prf:proof}
# The log likelihood of weights $w_j$ and intercepts $a_j$ is $\sum_n \big[ a_{y_n} + w_{y_n}^\top \xbar_n - \log \sum_j \exp(a_j + w_j^\top \xbar_n) \big]$, where $\xbar_n$ is the centered mean token of text $n$, $y_n$ its class, and $y_{nj}$ is 1 for this class and 0 for others. With all weights zero the fitted probabilities are $q$, so the gradient with respect to $w_j$ is
# $\sum_n (y_{nj} - q_j)\, \xbar_n = N C_j$, with $C_j$ the column of $C$ of class $j$, and the information of the weights, once the intercepts are fitted, is $N\, (\mathrm{diag}(q) - q q^\top) \otimes S$. Each row of $C$ adds up to zero over the classes, and on such vectors the inverse of
# $\mathrm{diag}(q) - q q^\top$ is $\mathrm{diag}(q)^{-1}$. The quadratic form of the gradient in the inverse information is {eq}`eq-score-test`. ∎
# :::
#
# It is $N$ times $\tr B$, with the labels divided by the root of their class's share: rare classes count more. That its limit is a chi-square distribution is Rao's general result on score tests. The part of it outside $V$ is
#
# $$
# N\, \tr\!\big( C^\top S^{-1/2} (I - \tilde P_V)\, S^{-1/2} C \; \mathrm{diag}(q)^{-1} \big) ,
# $$
#
# with $(r_S - k)(c - 1)$ degrees of freedom. It tests whether the other features add anything, if those in $V$ have no or a small effect ({func}`ntps_utils.theory.uncertainty.softmax_score_test`). We draw labels in two ways on the
# features of a planted problem with twelve features, where $V$ is the first six directions: without any relation to the features, and from softmax regression on the twelfth direction. How often does each test find something at the level of 5%?

# %%
base = planted_problem(seed, d=12, n_texts=400)
found = subspaces(base.moments(), center=True)
z = base.means - base.means.mean(0)
outside = z @ found.V[:, -1] / (z @ found.V[:, -1]).std()
generator = np.random.default_rng(seed)
rates = []
for strength in (0.0, 0.25):
    logits = strength * np.outer(outside, [-1.0, 0.0, 1.0])
    p_values = []
    for _ in range(n_problems // 10):
        noise = generator.gumbel(size=logits.shape)
        labels = np.eye(3)[(logits + noise).argmax(1)]
        drawn = Problem(base.texts, labels).moments()
        fit = subspaces(drawn, center=True)
        p_values.append(
            (
                excess_loss_test(drawn, fit, 6).p_value,
                softmax_score_test(drawn, fit, 6).p_value,
            )
        )
    rates.append((np.array(p_values) < 0.05).mean(0))
pd.DataFrame(
    rates,
    index=["labels without relation", "labels from outside V"],
    columns=["F test (squares)", "score test (cross-entropy)"],
).map("{:.1%}".format)

# %% tags=["remove-cell"]
glue("level_squares", float(100 * rates[0][0]), display=False)
glue("level_entropy", float(100 * rates[0][1]), display=False)
glue("power_squares", float(100 * rates[1][0]), display=False)
glue("power_entropy", float(100 * rates[1][1]), display=False)
glue("n_draws", n_problems // 10, display=False)

# %% [markdown]
# Without a relation, the two tests find one in {glue:text}`level_squares:.1f`% and {glue:text}`level_entropy:.1f`% of the {glue:text}`n_draws` draws, which is within the 5% that the level allows. With a relation they find it in {glue:text}`power_squares:.0f`% and {glue:text}`power_entropy:.0f`%.
#
# For the scores there is no such formula. `ntps score --jackknife 10` leaves out each of ten groups of texts in turn. How often does the interval from it contain the true score? We simulate texts and labels with known populations (recorded; {glue:text}`n_simulated` problems for each point):

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coverage of nominal 95% intervals against the number of texts for each feature: that of the excess loss is near or above 95% throughout, those of the three scores rise from six or seven tenths at two texts for each feature to almost nine tenths at fifty."}, "figure": {"caption": "Intervals of scores need many texts. Left: how often nominal 95% intervals contain the true value; that of the excess loss is described above, those of the scores are from the jackknife. Right: mean error of the score itself.", "name": "fig-coverage"}}
coverage = load_record("coverage")
simulated = pd.DataFrame(coverage["rows"]).query("ratio >= 2")
figure, (left, right) = panels(2, height=3.2)
for quantity, label, style, color in (
    ("ntps uncentered", "Euclidean, uncentered", "o-", COLORS["euclidean"]),
    ("ntps_metric centered", "metric-matched, centered", "s-", COLORS["metric"]),
    ("ntps_task centered", "task-weighted, centered", "^--", COLORS["task"]),
    ("excess loss", "excess loss", "D-", COLORS["exact"]),
):
    part = simulated[simulated["quantity"] == quantity]
    left.plot(part["ratio"], part["coverage"], style, ms=4, color=color, label=label)
    if quantity != "excess loss":
        right.plot(part["ratio"], part["bias"], style, ms=4, color=color)
left.axhline(0.95, color=COLORS["other"], lw=0.8)
right.axhline(0.0, color=COLORS["other"], lw=0.8)
for ax in (left, right):
    ax.set(xscale="log", xlabel="texts for each feature")
    ax.set_xticks(part["ratio"], [f"{ratio:g}" for ratio in part["ratio"]])
    ax.minorticks_off()
left.set(ylabel="coverage", ylim=(0, 1.03))
right.set(ylabel="mean error of the score")
_ = left.legend(fontsize=9)

# %% tags=["remove-cell"]
five = simulated[simulated["ratio"] == 5.0].set_index("quantity")
fifty = simulated[simulated["ratio"] == 50.0].set_index("quantity")
glue(
    "cover_fifty",
    float(
        fifty.loc[
            ["ntps uncentered", "ntps_metric centered", "ntps_task centered"],
            "coverage",
        ].min()
    ),
    display=False,
)
glue(
    "cover_five",
    float(
        five.loc[
            ["ntps uncentered", "ntps_metric centered", "ntps_task centered"],
            "coverage",
        ].min()
    ),
    display=False,
)
glue(
    "cover_excess",
    float(simulated[simulated["quantity"] == "excess loss"]["coverage"].min()),
    display=False,
)
glue("bias_five", float(five.loc["ntps uncentered", "bias"]), display=False)
glue("n_simulated", int(simulated["n"].max()), display=False)

# %% [markdown]
# The interval of the excess loss contains the true value in at least {glue:text}`cover_excess:.0%` of the problems. The intervals of the scores are too narrow: at five texts for each feature, the worst of the three contains the true score in {glue:text}`cover_five:.0%`. For the paper's score the right panel shows one reason: few texts raise it ({glue:text}`bias_five:+.2f` at five texts for each feature). $U$ spans the columns of $S^{-1} C$, and the factor $S^{-1}$ enlarges label noise along directions of small variance; $V$ leans towards them too, by the factor $A_0^{-1/2}$ ({numref}`fig-net-landscape`). The other two scores are hardly biased; their intervals are too narrow although the score is about right. `ntps score` therefore gives intervals of scores only from fifty texts for each feature on, where they are still somewhat too narrow ({glue:text}`cover_fifty:.0%` in place of 95%). With fewer texts it says why there are none. The figure begins at two texts for each feature: with no more texts than features $S$ is singular or nearly so, and intervals mean nothing.
#
# ## See it: turn the subspace
#
# The figure has two features, one perception direction $u$ and one autoregressive direction $V$. With one direction the metric-matched score gives the excess loss exactly, so
# there is one curve for both, and the band of the Euclidean bounds around it. Turn $V$ by dragging it or with the slider, stretch the features, and
# try the buttons.

# %% tags=["remove-input"]
HTML(subspace_explorer(condition=25.0))

# %% [markdown]
# The same curves, for reading on paper:


# %% tags=["hide-input"]
def plane(theta, phi, kappa):
    """NTPS, excess, Euclidean bounds (shares of tr B); S = diag(1, 1/kappa)."""
    S = np.array([1.0, 1.0 / kappa])
    v, u = (
        np.array([np.cos(theta), np.sin(theta)]),
        np.array([np.cos(phi), np.sin(phi)]),
    )
    size = 1.0 / (u * S @ u)
    ntps = (v @ u) ** 2
    excess = 1.0 - (v * S @ u) ** 2 * size / (v * S @ v)
    return ntps, excess, S[1] * size * (1 - ntps), S[0] * size * (1 - ntps)


angles = np.radians(np.linspace(-90, 90, 361))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels for condition numbers 1, 25 and 1000: excess loss as the subspace turns, inside a band of Euclidean bounds that widens with the condition number."}, "figure": {"caption": "The band of the Euclidean bounds widens with the condition number. Excess loss (line) and Euclidean bounds (band) as V turns; u at 30 degrees. Values below $10^{-5}$ are drawn there.", "name": "fig-turn"}}
figure, axes = panels(3, height=3.2, sharey=True)
for ax, kappa in zip(axes, (1.0, 25.0, 1000.0), strict=True):
    curves = np.array(
        [plane(angle, np.radians(30), kappa) for angle in angles]
    ).T.clip(1e-5)
    ax.fill_between(
        np.degrees(angles),
        curves[2],
        curves[3],
        color=COLORS["euclidean"],
        alpha=0.25,
        label="bounds by NTPS",
    )
    ax.plot(
        np.degrees(angles), curves[1], color=COLORS["exact"], label="excess loss"
    )
    ax.set(
        yscale="log",
        xlabel="direction of V (°)",
        title=rf"$\kappa(S)$ = {kappa:g}",
        xticks=[-90, -45, 0, 45, 90],
    )
axes[0].set_ylabel("share of tr B")
_ = figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=2,
    fontsize=9,
)

# %% [markdown]
# With $\kappa(S) = 1$ the two bounds are equal and give the excess loss. With a larger $\kappa(S)$ the loss still vanishes where $V$ has the direction of $u$, but at every other angle the band covers a factor of $\kappa(S)$, because the Euclidean score does not tell whether $V$ points along a strong or a weak feature. One value of NTPS is then compatible with a small and with a large loss.
#
# ## Counterexamples
#
# There are problems at both ends of the band. Take two features, one of which has much less variance than the other. An autoregressive direction along the weak feature can have a small angle to $u$ and
# explain nothing of the label; one along the strong feature can have a large angle to $u$ and explain nearly all of it. The table uses second moments; all means are zero here, so that centering would change nothing.

# %% tags=["hide-input"]
u, kappa = np.radians(75), 4000.0
corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(
    [1.0, 1.0 / kappa]
)
label = (corners @ [np.cos(u), np.sin(u)])[:, None]
weak = Problem(tuple(np.stack([c, c]) for c in corners), label)
solved = subspaces(weak.moments())
cases = {
    "V along the weak feature": [0.0, 1.0],
    "V along the strong feature": [1.0, 0.0],
}
views = {
    name: solved.with_subspace(np.array(v)[:, None]) for name, v in cases.items()
}
table = pd.DataFrame(
    {
        name: {
            "NTPS": v.ntps[0, 0],
            "metric-matched": v.ntps_metric[0, 0],
            "excess / tr B": v.excess_loss[0] / v.trace_b,
        }
        for name, v in views.items()
    }
).T
table.round(4)

# %% tags=["remove-cell"]
glue("high_ntps", float(table.iloc[0]["NTPS"]), display=False)
glue("high_loss", float(table.iloc[0]["excess / tr B"]), display=False)
glue("low_ntps", float(table.iloc[1]["NTPS"]), display=False)
glue("low_loss", float(table.iloc[1]["excess / tr B"]), display=False)

# %% [markdown]
# With an NTPS of {glue:text}`high_ntps:.2f` the excess loss is {glue:text}`high_loss:.1%` of the explainable loss $\tr B$, and with one of {glue:text}`low_ntps:.2f` it is
# {glue:text}`low_loss:.2%`. These two examples were constructed to be extreme. How often does the Euclidean score mislead in problems that are drawn at random? We look at the random problems in three
# groups by condition number.

# %%
groups = pd.cut(
    checks["condition"],
    [0, 100, 10_000, np.inf],
    labels=["κ below 100", "100 to 10,000", "above 10,000"],
)
smaller = checks[checks["k_v"] < checks["rank"]]  # at full width every score is 1
kept = 1 - smaller["excess"]
agreement = {
    name: (
        spearmanr(g["ntps"], kept[g.index])[0],
        spearmanr(g["ntps_metric"], kept[g.index])[0],
    )
    for name, g in smaller.groupby(groups, observed=True)
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three scatter plots of NTPS against the share of explained loss kept; points scatter around the diagonal for small condition numbers and far from it for large ones."}, "figure": {"caption": "For badly conditioned features NTPS says less about the loss. Each point is a random problem at a random width below the rank; ρ is the rank correlation of each score with the share of the explainable loss that V keeps.", "name": "fig-agreement"}}
figure, axes = panels(3, height=2.9, sharey=True)
for ax, (name, g) in zip(axes, smaller.groupby(groups, observed=True), strict=True):
    ax.scatter(
        g["ntps"],
        kept[g.index],
        s=7,
        alpha=0.4,
        color=COLORS["euclidean"],
        linewidths=0,
        label="NTPS",
    )
    ax.plot([0, 1], [0, 1], color=COLORS["exact"], lw=1)
    rho, rho_metric = agreement[name]
    ax.set(xlabel="NTPS", title=f"{name}\nρ = {rho:.2f}  (metric {rho_metric:.2f})")
_ = axes[0].set_ylabel("share of tr B kept")

# %% tags=["remove-cell"]
rhos = list(agreement.values())
glue("rho_low", float(rhos[0][0]), display=False)
glue("rho_middle", float(rhos[1][0]), display=False)
glue("rho_high", float(rhos[-1][0]), display=False)
glue("rho_metric_low", float(min(rho for _, rho in rhos)), display=False)
near_one = [
    float((g["ntps"] > 0.99).mean())
    for _, g in smaller.groupby(groups, observed=True)
]
for place, share in zip(("low", "middle", "high"), near_one, strict=True):
    glue(f"near_one_{place}", share, display=False)

# %% [markdown]
# The rank correlation of NTPS with the share of the explainable loss that V keeps is {glue:text}`rho_low:.2f` in the first group, {glue:text}`rho_middle:.2f` in the second and
# {glue:text}`rho_high:.2f` in the third. That of the metric-matched score is {glue:text}`rho_metric_low:.2f` in the worst of the three
# groups. NTPS exceeds 0.99 in {glue:text}`near_one_low:.0%`, {glue:text}`near_one_middle:.0%` and {glue:text}`near_one_high:.0%` of the problems of the three groups. So with ill-conditioned features an NTPS near 1 is common and says little about the loss. Random problems are not language models: this shows what can happen, not how often it happens there.
#
# ## Which changes leave a score as it is
#
# Change the features by $x \to M x$, $M$ invertible. A *given* subspace of directions moves along as $V \to M^{-\top} V$, and so does $U$. In white coordinates this
# is a rotation, so (a), (b), (c) and $\tr B$ do not change. The Euclidean score stays the same for every pair of subspaces only if $M$ is a rotation times a scale.
#
# The best subspace for *next-token prediction*, however, does not move along in this way, because its loss measures the error in feature units
# (exercise 1.2). If the next-token problem is solved anew after a change of features that is no rotation times a scale, $V$ is in general another subspace, and every score may change. We measure three cases, with second moments that are not centered: a rotation with V solved anew, and a stretch (along rotated axes, so that it is not only a change of units) with V carried along or solved anew.


# %%
def worst_change(M, *, resolve):
    before = subspaces(base.moments())
    after = subspaces(base.transform(M).moments())
    if not resolve:
        after = after.with_subspace(np.linalg.solve(M.T, before.V))
    names = ("ntps", "ntps_metric", "ntps_task")
    return {
        name: float(
            np.abs(getattr(after, name)[..., :] - getattr(before, name)).max()
        )
        for name in names
    }


base = random_problem(seed + 11, d=8, n_texts=120, rank=8, condition=5.0, offset=1.0)
turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
stretch = turn @ np.diag(np.geomspace(1, 30, 8)) @ turn.T
changes = {
    "rotation, V solved anew": worst_change(turn, resolve=True),
    "stretch along rotated axes, V carried along": worst_change(
        stretch, resolve=False
    ),
    "stretch along rotated axes, V solved anew": worst_change(stretch, resolve=True),
}
columns = ["Euclidean", "metric-matched", "task-weighted"]
pd.DataFrame(changes).T.set_axis(columns, axis=1).map("{:.1e}".format)

# %% [markdown]
# The table shows the largest change of each score over all widths. So for a given pair of subspaces the metric-matched and the task-weighted score do not depend on the units of the features; the choice of $V$ does.
#
# ## The order of eigenvectors
#
# Numerical solvers return eigenvalues in ascending order. The theory needs the *largest* first. The script released with the paper keeps the first columns as they
# come, and counts $k$ as a fraction of the full rank for $U$ as well, beyond the number of classes; so its $U$ holds no label direction at all until nearly all columns are kept, if classes are few. (This is an
# observation about the script; it is not known which code made the published values.) We try it on a problem whose answer is known. Three classes differ in the two
# directions that next-token prediction uses first, so the score must be near 1 from $k_v = 2$ on.

# %%
planted = planted_problem(seed)
solved = subspaces(planted.moments(), center=True)
fractions = np.arange(0.05, 1.0, 0.05)
widths = np.maximum(1, (fractions * solved.rank).astype(int))
described = solved.ntps[-1, widths - 1]
mirrored = []
for i in range(10):
    turn = np.linalg.qr(
        np.random.default_rng(seed + i).normal(size=(planted.d, planted.d))
    )[0]
    grid = subspaces(
        planted.transform(turn).moments(),
        center=True,
        order="ascending",
        fill_u=True,
    ).ntps
    mirrored.append(grid[widths - 1, widths - 1])
mirrored = np.array(mirrored)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Score against the fraction of directions kept. In descending order it is near one from the start; in ascending order it rises slowly and its value depends on a mere rotation of the data."}, "figure": {"caption": "Counting from the smallest eigenvalue and filling U hides what was planted. Score (centered moments) on three classes planted in the two leading next-token directions, for ten rotations of the same data, which should not matter. The band is the range over rotations.", "name": "fig-order"}}
figure, (axes,) = panels(1, height=3.2)
axes.plot(
    fractions,
    described,
    "o-",
    color=COLORS["euclidean"],
    ms=4,
    label="largest first, U capped at rank C",
)
axes.fill_between(
    fractions,
    mirrored.min(axis=0),
    mirrored.max(axis=0),
    color=COLORS["other"],
    alpha=0.4,
)
axes.plot(
    fractions,
    mirrored.mean(axis=0),
    "s-",
    color=COLORS["other"],
    ms=4,
    label="smallest first, U filled up",
)
axes.set(xlabel="k as a fraction of the rank", ylabel="NTPS", ylim=(0, 1.03))
_ = axes.legend(loc="lower right")

# %% tags=["remove-cell"]
at = widths.tolist().index(2) if 2 in widths else 0
glue("planted_down", float(described[at]), display=False)
glue("planted_up", float(mirrored[:, at].mean()), display=False)
glue(
    "planted_half",
    float(mirrored[:, np.abs(fractions - 0.5).argmin()].mean()),
    display=False,
)
glue("planted_range", float(np.ptp(mirrored, axis=0).max()), display=False)

# %% [markdown]
# In descending order the score is near 1 at every width, as it must be. In ascending order, with U filled, it rises slowly: the two directions that matter are kept last, and U is filled with others. {numref}`fig-eigen-order` shows the two changes one by one. At $k_v = 2$ the two scores are {glue:text}`planted_down:.2f` and {glue:text}`planted_up:.2f`; at half the rank the latter is still
# {glue:text}`planted_half:.2f`. A rotation of the data alone moves it by up to {glue:text}`planted_range:.2f`, because the columns that fill $U$ up are not determined by the data. `order="ascending"` and `fill_u=True` reproduce this choice in the library.
#
# ## Verdict on the claim
#
# :::{admonition} Claim (i): NTPS bounds the excess loss from both sides
# :class: note
# **Held**: it is a theorem. In {numref}`fig-slack` the bound is never violated. But the ratio of its constants is $\kappa(S)\,\beta_1/\beta_r$ ({numref}`fig-looseness`), so for
# ill-conditioned features it hardly says more than $0 \le \Delta \le \tr B$. The task-weighted score gives the excess loss exactly ($\tr B$ times one minus the score), and costs no more to compute.
# :::
#
# ## Summary
#
# - $\Delta(V) = \tr((I - \tilde P_V) B)$: the excess loss is known exactly, from the same moments as the score.
# - Bounds that use all angles are the closest; restricted to the span of $U$, the two constants of the Euclidean bound come closer by orders of magnitude.
# - The excess loss has an F test and an interval; scores need about fifty texts for each feature before an interval means anything.
# - Task-weighted: no constants. Metric-matched: loose by $\beta_1/\beta_r$. Euclidean (the paper's): loose by $\kappa(S)\,\beta_1/\beta_r$.
# - A problem with a high Euclidean score can have a large excess loss, and one with a low score almost none.
# - For a given pair of subspaces, the task-weighted and the metric-matched score stay the same under any invertible linear change of features, the Euclidean score under rotations and a common scale.
# - Eigenvectors must be taken in descending order, and no more perception directions than classes.
#
# ## Quiz
#
# **1.** NTPS is 0.95. How large can the excess loss be, as a share of $\tr B$?
#
# - (a) It can be nearly 100%
# - (b) At most 5%
# - (c) At least 5%
#
# :::{admonition} Answer
# :class: dropdown
# (a). The Euclidean score measures angles in feature coordinates. V can be at a small angle to U there and explain nothing, if it points along a feature of little variance. With several directions the longest count most, and they may explain little. (b) is wrong because that would hold for the task-weighted score. (c) is wrong because the excess loss can also be as small as one likes, if the directions that $V$ misses explain little.
# :::
#
# **2.** Which score does not change when features are measured in other units, with a given pair of subspaces?
#
# - (a) The Euclidean and the metric-matched score
# - (b) None
# - (c) The metric-matched and the task-weighted score
#
# :::{admonition} Answer
# :class: dropdown
# (c). Both are angles in white coordinates, which a change of units only rotates. (a) is wrong because the Euclidean score stays the same only under rotations and a common scale. (b) is wrong because the two scores of (c) remain.
# :::
#
# **3.** Your model has 576 features and you have 1,000 texts. `ntps score --jackknife 10` prints standard errors, but no interval for NTPS. Why?
#
# - (a) The score is exact
# - (b) It needs about fifty texts for each feature before its interval means something
# - (c) There are too many classes
#
# :::{admonition} Answer
# :class: dropdown
# (b). With fewer texts the intervals miss the true score too often, and the score itself is too high. (a) is wrong because the score is exact for these texts only, and other texts give another one. (c) is wrong because the number of classes does not decide whether there is an interval.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
import scipy.linalg

from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} When are the two scores the same?
# :label: ex-3-1
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# Show that $\mathrm{NTPS} = \mathrm{NTPS}_S$ for every $V$ if $S$ is a multiple of the identity. What do the bounds (c) and (d) become if all $\beta_i$ are equal, too? Write a function of the $\beta_i$ and $\lambda$ with $S = \lambda I$ that returns the lower and the upper constant of (d), those in front of $1 - \mathrm{NTPS}$.
#
# ```python
# def constants(beta, lam):
#     ...
#
# check("3.1", constants)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# How long is a perception direction in feature coordinates if $U^\top S U = I$ and $S = \lambda I$?
# :::
#
# ```{solution} ex-3-1
# :class: dropdown
# If $S = \lambda I$, white coordinates are feature coordinates times $\sqrt\lambda$: $\tilde P_V = P_V$ and $\tilde u_i = \sqrt\lambda\, u_i$ with $\|u_i\|^2 = 1/\lambda$. Both scores are
# $\frac1r \sum_i \|P_V \tilde u_i\|^2$. With $\lambda_{\min} = \lambda_{\max} = \lambda$ and $\|U\|_F^2 = r / \lambda$ the constants of (d) become those of (c); with equal $\beta_i$ lower and upper bound
# coincide with the excess loss.
#
# So the lower constant of (d) is $\beta_r\, r$ and the upper one $\beta_1\, r$; $\lambda$ cancels.
# ```
#
# ````{exercise} Many classes
# :label: ex-3-2
#
# *Difficulty 2 of 5, importance 3 of 5, about 5 minutes.*
#
# A task has at least as many classes as there are features, and $r = d$. What is $\mathrm{NTPS}_S(k_v)$? Which of the three scores still says something about the task? Write the score as a function.
#
# ```python
# def score(k_v, d):
#     ...
#
# check("3.2", score)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The $\tilde u_i$ are an orthonormal basis. What is the sum of squared projections of an orthonormal basis?
# :::
#
# ```{solution} ex-3-2
# :class: dropdown
# The $\tilde u_i$ are then an orthonormal basis of the whole space, and $\frac1d \sum_i \|\tilde P_V \tilde u_i\|^2 = \frac1d \tr \tilde P_V = k_v / d$, whatever the task. The Euclidean score is
# $\tr(P_V S^{-1}) / \tr S^{-1}$, since $U U^\top = S^{-1}$, and does not depend on the labels either. Only the task-weighted score still depends on the task, through the $\beta_i$.
# ```
#
# ````{exercise} The chance level of a score
# :label: ex-3-3
#
# *Difficulty 2 of 5, importance 5 of 5, about 10 minutes.*
#
# Let the span of $V$ be a uniformly random subspace of dimension $k$ in white coordinates. What are the expected values of $\mathrm{NTPS}_S$ and of wNTPS? What does this say about comparing scores at different
# $k$, or between models with different numbers of features? Write the expected value as a function.
#
# ```python
# def expected(k, d):
#     ...
#
# check("3.3", expected)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Rotate the subspace instead of drawing it. Over all vectors of an orthonormal basis, the squared projections add up to $k$.
# :::
#
# ```{solution} ex-3-3
# :class: dropdown
# By symmetry $\E\,\|\tilde P_V \tilde u\|^2 = k/d$ for any unit vector, so both expectations are $k/d$. (These are white coordinates of $S$; chapter 1 whitens with $A_0$.) A score of 0.5 at $k = d/2$ is what a subspace without any construction gives by chance. (If the $w_i$ of chapter 1 are replaced by random vectors, $V$ still has a Euclidean score above $k/d$: chapter 6.) Compare a score with $k/d$, at the same fraction of
# $d$, and never across fractions.
# ```
#
# ````{exercise} Make V invariant, too
# :label: ex-3-4
#
# *Difficulty 4 of 5, importance 3 of 5, about 25 minutes.*
#
# With the error in the metric of the predicted tokens (exercise 1.2), $V$ moves along with any invertible change of features $x \to M x$, so the metric-matched score does not change. Here is another such loss. A language model uses its last
# features only through the logits $E x_t$, with $E$ its output embedding; new features have the same logits if $E \to E M^{-1}$. Measure the error in logits, and show that $V \to M^{-\top} V$. Which of the two losses is closer to the one
# that the model was trained with? Write a function that returns the directions of the loss in logits as columns, the leading one first.
#
# ```python
# def directions(A0, A1, E):
#     ...
#
# check("3.4", directions)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The square in the loss is $\|E(x_{t+1} - W^\top V^\top p_t)\|^2$. Which matrix takes the place of $A_1 A_1^\top$?
# :::
#
# ```{solution} ex-3-4
# :class: dropdown
# The loss is the old one with $E x_{t+1}$ in place of $x_{t+1}$, so $V$ solves $A_1 E^\top E A_1^\top v = \gamma A_0 v$. With $A_0 \to M A_0 M^\top$, $A_1 \to M A_1 M^\top$ and $E \to E M^{-1}$, the matrix on the left becomes $M A_1 E^\top E A_1^\top M^\top$,
# so that $v \to M^{-\top} v$. The metric of the predicted tokens weighs all feature directions alike, also those that the model hardly uses. In logits a direction counts by what the model makes of it. That is closer to training, which minimizes the
# cross-entropy of the logits; it is not the same, because the error is squared and the prediction is linear.
#
# So the directions are `scipy.linalg.eigh(A1 @ E.T @ E @ A1.T, A0)[1][:, ::-1]`.
# ```
#
# ````{exercise} Try it: a tighter bound
# :label: ex-3-5
#
# *Difficulty 3 of 5, importance 3 of 5, about 20 minutes.*
#
# Suppose you know NTPS$_S$, $r$, and all $\beta_i$, but not the angles. Give the best possible upper bound on $\Delta(V)$. When does it improve on (c)? Write the bound as a function of the score and the $\beta_i$, largest first.
#
# ```python
# def upper(ntps_metric, beta):
#     ...
#
# check("3.5", upper)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The missing weights $1 - c_i$ lie between 0 and 1, and their sum is known. Where should they lie to cost the most?
# :::
#
# ```{solution} ex-3-5
# :class: dropdown
# The missing weights $1 - c_i \in [0, 1]$ add up to $\delta = r (1 - \mathrm{NTPS}_S)$. The sum $\sum_i \beta_i (1 - c_i)$ is largest when they sit on the largest $\beta_i$: $\sum_{i \le \lfloor \delta \rfloor} \beta_i + (\delta - \lfloor \delta \rfloor)\,
# \beta_{\lfloor \delta \rfloor + 1}$. It improves on $\beta_1 \delta$ as soon as $\delta$ exceeds the number of $\beta_i$ that are equal to $\beta_1$: if $\beta_1 > \beta_2$, as soon as $\delta > 1$. In code: `np.interp(missing, range(r + 1), np.r_[0, beta.cumsum()])` with $\delta$ as `missing`.
# ```
#
# ````{exercise} When the angles decide
# :label: ex-3-6
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# Two perception directions with $\beta = (3, 1)$ and squared sines $(0.1, 0.5)$. Give the bounds (c) and (f). Draw or describe a $V$ that attains the upper end of (f). Give both pairs of bounds, (c) first.
#
# ```python
# bounds = ((..., ...), (..., ...))
#
# check("3.6", bounds)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# (c) uses the sum of the squared sines. (f) pairs them with the $\beta_i$, once in the same order and once in the opposite one.
# :::
#
# ```{solution} ex-3-6
# :class: dropdown
# $r(1 - \mathrm{NTPS}_S) = 0.6$, so (c) says $0.6 \le \Delta \le 1.8$. (f) says $3 \cdot 0.1 + 1 \cdot 0.5 = 0.8 \le \Delta \le 3 \cdot 0.5 + 1 \cdot 0.1 = 1.6$. For the upper end, $V$ misses half of $\tilde u_1$ and a tenth of
# $\tilde u_2$: with $e_1, e_2$ orthonormal, and orthogonal to $\tilde u_1$ and $\tilde u_2$, $\tilde v_1 = \sqrt{0.5}\, \tilde u_1 + \sqrt{0.5}\, e_1$ and $\tilde v_2 = \sqrt{0.9}\, \tilde u_2 + \sqrt{0.1}\, e_2$.
#
# The two pairs of bounds are `((0.6, 1.8), (0.8, 1.6))`.
# ```
#
# ````{exercise} One direction
# :label: ex-3-7
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# A task with two classes has one perception direction once the moments are centered. Show that (c), (f) and (g) are then equalities, whatever $\kappa(S)$ is, and that the two ends of (d) differ if $\kappa(S) > 1$ and $V$ does not contain the direction. Write the ratio of the constants of (d) as a function of $\kappa(S)$.
#
# ```python
# def ratio(kappa):
#     ...
#
# check("3.7", ratio)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# With $r = 1$ a sum has one term, and the smallest and the largest $\beta$ are the same.
# :::
#
# ```{solution} ex-3-7
# :class: dropdown
# With $r = 1$, $\beta_1 = \beta_r$, and there is one sine: (c) and (f) both say $\Delta = \beta_1 \sin^2\theta_1$. $\Theta$ and $\Theta_E$ are numbers, so $\mu_{\min} = \mu_{\max} = \Theta / \Theta_E$ and (g) says $\Delta = \beta_1 \Theta$. The two constants of (d) are $\beta_1 \lambda_{\min} \|U\|_F^2$ and $\beta_1 \lambda_{\max} \|U\|_F^2$, so their ratio is still $\kappa(S)$.
# ```
#
# ````{exercise} Noise that looks like a loss
# :label: ex-3-8
#
# *Difficulty 3 of 5, importance 5 of 5, about 15 minutes.*
#
# 600 texts in two balanced classes ($\tr Y = 0.5$ after centering), 400 features, labels by tossing a coin, V with 200 directions. What excess loss do you expect on these texts, and what is left after the mean of the noise has been subtracted? What would you conclude from an excess loss of 0.17? Give the excess loss that you expect.
#
# ```python
# excess = ...
#
# check("3.8", excess)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# How much of $\tr Y$ does one direction explain in the mean if the labels are noise? How many directions does V leave out?
# :::
#
# ```{solution} ex-3-8
# :class: dropdown
# Each direction explains $\tr Y / (N - 1) = 0.5 / 599$ of pure noise in the mean, so $\Delta \approx 200 \cdot 0.5 / 599 = 0.167$. The residual loss is $L^* \approx 0.5 \cdot 199 / 599 = 0.166$ with $N - 1 - r_S = 199$ degrees of freedom; the debiased value is
# $0.167 - 200 \cdot 0.166 / 199 \approx 0$, and F is about 1. An excess loss of 0.17 is therefore no evidence of a loss: coin tosses give as much. The expected excess loss is 0.167.
# ```

# %% tags=["remove-input"]
Markdown(provenance_note(profile=profile, seed=seed, problems=n_problems))

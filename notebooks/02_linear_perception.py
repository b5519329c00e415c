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
# # Linear perception: what the labels want
#
# :::{admonition} After this chapter you can
# :class: tip
# - solve a perception task on mean tokens in closed form, for every width at once;
# - say what whitening does, and why it makes the loss of a subspace an *angle*;
# - read $\tr B$, the ceiling of linear probes, and know when it is too optimistic;
# - decide whether to center.
#
# It needs linear algebra only. The steps of chapter 1 are repeated here in short, so that this chapter can be read alone, except for the box on coin tosses and the last question of exercise 2.2.
# It runs in half a minute on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that a perception task (sentiment, intent, spam, ...) has a subspace of its own, $U$, to
# be compared with that of next-token prediction. **The code does** what the paper says, with one addition: $U$ has no more columns
# than there are classes. **We find** that the closed form is exact, and that with few texts it is far too optimistic, because it then also explains labels that are pure noise.

# %% tags=["parameters"]
profile = "default"
seed = 0
n_problems = 2000
n_steps = 3000

# %% tags=["hide-input"]
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import (
    COLORS,
    closed_form_figure,
    descent_figure,
    house_style,
    panels,
)
from ntps_utils.theory.score import NumericalWarning, subspaces
from ntps_utils.theory.synthetic import Problem, planted_problem, random_problem
from ntps_utils.theory.verification import check_perception, descend

house_style()
warnings.simplefilter(
    "ignore", NumericalWarning
)  # small and singular problems are wanted here

# %% [markdown]
# ## The problem
#
# To classify a text, take its **mean token**, the mean of the features of its tokens, $\xbar = \tfrac1T \sum_t x_t \in \R^d$, and predict the target
# $y \in \R^c$ from it. For classes, $y$ is one-hot: a one in the place of the class. An encoder $U \in \R^{d \times k}$ keeps $k$
# directions, a decoder $W \in \R^{k \times c}$ predicts:
#
# $$
# L(U, W) = \E \big\| y - W^\top U^\top \xbar \big\|^2 .
# $$ (eq-perception-loss)
#
# ## The solution, step by step
#
# **Step 1: moments.** With
#
# $$
# S = \E\, \xbar \xbar^\top \;(d \times d), \qquad C = \E\, \xbar y^\top \;(d\times c), \qquad Y = \E\, y y^\top \;(c \times c),
# $$
#
# expanding the square gives $L(U,W) = \tr Y - 2\tr(W^\top U^\top C) + \tr(W^\top U^\top S\, U W)$.
#
# **Step 2: the best decoder.** The gradient in $W$ vanishes at $W = (U^\top S U)^{-1} U^\top C$, and
#
# $$
# L(U) = \tr Y - \tr\Big[ (U^\top S U)^{-1}\, U^\top C C^\top U \Big] .
# $$ (eq-perception-profile)
#
# **Step 3: white coordinates.** Only the span of $U$ counts, so normalize $U^\top S U = I$ and set $\tilde U = S^{1/2} U$, whose columns are orthonormal. Let $S$ be invertible; otherwise restrict everything to its range, as for $A_0$ in chapter 1. The **whitened task matrix**
#
# $$
# B = S^{-1/2}\, C\, C^\top S^{-1/2}
# $$ (eq-b)
#
# is the only matrix that remains: $L(U) = \tr Y - \tr(\tilde U^\top B\, \tilde U)$.
#
# **Step 4: leading eigenvectors.** Let $B = \sum_i \beta_i \tilde u_i \tilde u_i^\top$, $\beta_1 \ge \beta_2 \ge \dots$, orthonormal
# $\tilde u_i$. For any orthonormal $\tilde U$ the trace is $\sum_i \beta_i c_i$ with weights $0 \le c_i = \|\tilde U^\top \tilde u_i\|^2 \le 1$ that add up to $k$;
# it is largest when the $k$ largest $\beta_i$ get weight one.
#
# **Step 5: how many.** The rank of $B$ is that of $C$, at most $c$. Call it $r$. Beyond $r$ directions all $\beta_i$ are zero.
# Further directions do not lower the loss, and *which* of them one adds is arbitrary.
#
# :::{prf:theorem} Best encoder for the labels
# :label: thm-perception
#
# A best encoder of width $k \le r$ spans $u_i = S^{-1/2} \tilde u_i$, $i \le k$, the leading generalized eigenvectors of
# $(C C^\top, S)$. Its loss is $\tr Y - \beta_1 - \dots - \beta_k$. Its span is the only best one if $\beta_k > \beta_{k+1}$. From all features together the best loss is
#
# $$
# L^* = \tr Y - \tr B , \qquad \tr B = \beta_1 + \dots + \beta_r .
# $$
#
# **$\tr B$ is the ceiling**: no linear probe without an intercept removes more of this loss from these features. A probe with an intercept removes at most $\|q\|^2$, which predicting the class frequencies $q = \E\, y$ removes, plus $\tr B$ of the centered moments (below). On centered features and one-hot targets $\tr B$ is known as the H-score {cite}`bao2019hscore`, up to the scaling of the classes.
# :::
#
# **In practice** no $d \times d$ eigenproblem in $B$ is needed. Whiten $S$ once, and take the singular value decomposition of the thin
# $d \times c$ matrix $S^{-1/2} C$: its left singular vectors are the $\tilde u_i$, its squared singular values the $\beta_i$.
#
# ## What whitening does
#
# Features differ in scale and are correlated. In the plane below, the mean of all texts has been subtracted, so that two classes have one perception direction $u$. Along $u$ the features vary little, and it separates the two classes well. The class means differ along
# another direction, which varies more and separates them worse. White coordinates $z = S^{-1/2} \xbar$ make all directions equal. A direction $u$ is a weight vector and not a point: it becomes $\tilde u = S^{1/2} u$, so that $\tilde u^\top z = u^\top \xbar$ stays the same. Then the output of every unit vector has the same variance, and how much of the labels a direction explains depends on its *angle* to $\tilde u$ alone. Chapter 3
# measures the overlap of two subspaces in both kinds of coordinates, and gets two different answers.

# %% tags=["hide-input"]
rng = np.random.default_rng(seed)
labels = rng.integers(0, 2, 500)
stretch = np.array([[3.0, 1.2], [0.0, 0.5]])
cloud = (
    rng.normal(size=(500, 2)) + (2 * labels[:, None] - 1) * np.array([0.8, 1.1])
) @ stretch
cloud -= cloud.mean(axis=0)
toy = Problem(
    tuple(point[None].repeat(2, axis=0) for point in cloud), np.eye(2)[labels]
)
toy_solved = subspaces(toy.moments(), center=True)
values, vectors = np.linalg.eigh(np.cov(cloud.T, bias=True))
root = (vectors * values**0.5) @ vectors.T  # S^(1/2)
u = toy_solved.U[:, 0]
views = {
    "feature space": (cloud, u, "$u$"),
    "white coordinates": (
        cloud @ np.linalg.inv(root),
        root @ u,
        r"$\tilde{u}$",
    ),
}


def squared_cosine(a, b):
    return float((a @ b) ** 2 / ((a @ a) * (b @ b)))


gap = cloud[labels == 1].mean(axis=0) - cloud[labels == 0].mean(axis=0)  # m_1 - m_0
cosines = {
    "feature space": squared_cosine(gap, u),
    "white coordinates": squared_cosine(root @ gap, root @ u),
}
gap_share = float(toy_solved.with_subspace(gap[:, None]).ntps_task[0])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two scatter plots of two classes. In feature space the cloud is stretched and the perception direction u points to a thin side; in white coordinates the cloud is round and the direction, there u with a tilde, points from one class to the other. The class means are joined by a line, which lies along u on the right only."}, "figure": {"caption": "Whitening turns explained variance into an angle. The same 500 points, colored by class, with the two class means (black) and the perception direction. Left: features as they are, with $u$. Right: after whitening, with $\\tilde u$, which points straight from one class to the other. The lengths of the arrows are not to scale.", "name": "fig-whitening"}}
figure, axes = panels(2)
for ax, (name, (points, arrow, symbol)) in zip(axes, views.items(), strict=True):
    for label, color in ((0, COLORS["other"]), (1, COLORS["metric"])):
        ax.scatter(
            *points[labels == label].T, s=9, alpha=0.55, color=color, linewidths=0
        )
    means = np.array([points[labels == label].mean(axis=0) for label in (0, 1)])
    ax.plot(*means.T, "k-o", ms=6, lw=1.5, mec="white")
    arrow = 0.45 * np.abs(points).max() * arrow / np.linalg.norm(arrow)
    arrow *= np.sign(arrow @ (means[1] - means[0]))
    ax.annotate(
        "",
        arrow,
        -arrow,
        arrowprops={"arrowstyle": "-|>", "color": COLORS["perception"], "lw": 2.5},
    )
    ax.annotate(
        symbol,
        arrow,
        textcoords="offset points",
        xytext=(6, 2),
        color=COLORS["perception"],
        fontsize=13,
        weight="bold",
    )
    ax.set(aspect="equal", title=name, adjustable="datalim")

# %% tags=["remove-cell"]
glue("cosine_feature", cosines["feature space"], display=False)
glue("cosine_white", cosines["white coordinates"], display=False)
glue("gap_share", gap_share, display=False)

# %% [markdown]
# On the left $u$ points along a direction in which the features hardly vary. It does not point from one class mean to the other, because $u \propto S^{-1}$ times their difference (exercise 2.1). On the right the cloud of all texts is round (each class alone is flattened along $\tilde u$), and $\tilde u$ points from the mean of one class to that of the other.
#
# On the right, a direction at the angle $\theta$ to $\tilde u$ explains the share $\cos^2\theta$ of what $\tilde u$ explains (with two classes; with more, each $\tilde u_i$ has its part). On the left the angle does not tell this. Take the difference of the class means on the left, $m_1 - m_0$, as a direction. The squared cosine of its angle to $u$ is {glue:text}`cosine_feature:.2f`.
# In white coordinates it becomes $S^{1/2} (m_1 - m_0)$, as every direction does, and the squared cosine of its angle to $\tilde u$ is {glue:text}`cosine_white:.2f`. (This is not the line between the means on the right, which is the difference of the points, $S^{-1/2} (m_1 - m_0)$. Here the difference is used as a weight vector.) It explains {glue:text}`gap_share:.0%` of what $u$ explains, as the angle on the right says. So for two classes the overlap of a subspace with $U$ tells its loss if it is measured in white coordinates; with more classes each $\tilde u_i$ counts with its $\beta_i$. White coordinates are fixed only up to a rotation, which changes no angle; the figure uses the symmetric root.
#
# ## Does it hold?
#
# As in chapter 1: random problems with one-hot or real targets, the closed form against least squares on the texts, and random and
# nearby encoders that try to do better. The table shows the smallest, the median and the largest value of each column: `rank` and `condition` are those of $S$, `k` is the width, and `closed` and
# `measured` are the two losses, as shares of the loss of predicting zero.

# %%
problems = [random_problem(seed + i) for i in range(n_problems)]
checks = pd.DataFrame(
    [check_perception(p, seed=seed + i) for i, p in enumerate(problems)]
)
worst = (checks["closed"] - checks["measured"]).abs().max()
others = checks[["random", "nearby"]].min(axis=1)
beaten = (others < checks["measured"] - 1e-9).sum()
shown = ["d", "n_texts", "rank", "k", "condition", "closed", "measured"]
checks[shown].describe().loc[["min", "50%", "max"]].map("{:.3g}".format)

# %% mystnb={"image": {"alt": "Left: closed-form loss against measured loss on the diagonal. Right: how much worse random and nearby encoders are; never better."}, "figure": {"caption": "The closed form of perception is exact, and nothing beats it. Left: each point is a random problem (those fitted exactly are left out). Right: excess of other encoders of the same width, as a share of the loss of predicting zero; values below $10^{-12}$ are drawn there (the bar at the left: nearly all of them problems whose width equals the rank of $S$, where every encoder is best).", "name": "fig-perception-check"}}
_ = closed_form_figure(checks, COLORS["perception"])

# %% [markdown]
# As in chapter 1, all points lie on the diagonal, and no other encoder of the same width has a smaller loss. The loss of the best encoder therefore follows from $S$, $C$ and $\tr Y$ alone.
#
# We also run gradient descent on {eq}`eq-perception-loss` from small random weights.

# %%
problem = random_problem(
    seed + 3, d=8, n_texts=200, n_targets=4, condition=3.0, rank=8, offset=0.0
)
solved = subspaces(problem.moments())
best = solved.trace_y - solved.beta.cumsum()
gaps = {
    k: (descend(problem.means, problem.targets, k, n_steps, seed) - best[k - 1])
    / solved.trace_y
    for k in (1, 2, 3, 4)
}
final_gap = max(abs(gap[-1]) for gap in gaps.values())

# %% mystnb={"image": {"alt": "Gap between gradient descent and the closed form against steps for widths one to four, falling to rounding error."}, "figure": {"caption": "Gradient descent converges to the closed form here too. Gap to the closed-form optimum, as a share of the loss of predicting zero.", "name": "fig-perception-descent"}}
_ = descent_figure(gaps, COLORS["perception"])

# %% tags=["remove-cell"]
glue("n_problems", n_problems, display=False)
glue("worst", float(worst), display=False)
glue("beaten", int(beaten), display=False)
glue("final_gap", float(final_gap), display=False)

# %% [markdown]
# All four widths reach the loss of the closed form; the largest width takes most steps. On this problem a linear probe without an intercept that is trained by gradient descent ends where the theorem says. In numbers: over {glue:text}`n_problems` problems closed form and measurement differ by at most {glue:text}`worst:.0e` of the loss of predicting
# zero, in {glue:text}`beaten` problems another encoder did better by more than $10^{-9}$ (the negative loss in the table is rounding, too), and gradient descent ends within {glue:text}`final_gap:.0e`.
#
# ## To center, or not
#
# In the language of a statistics course, second moments are least squares without an intercept, and covariances are least squares with one. The paper uses second moments as they are. Real features have a large mean, and then *the span of $U$ contains almost a constant*. With
# one-hot targets the columns of $C$ add up to $\E\,\xbar$. The span of $U$ is that of the columns of $S^{-1} C$, so the direction $S^{-1}\E\,\xbar$ is always in it. This is the regression of the number 1 on $\xbar$: its output is as close to a constant as
# the features allow. It predicts the class frequencies $q$, and does not distinguish one text from another. Covariances remove it:
#
# $$
# S - s s^\top, \qquad C - s\, q^\top, \qquad Y - q\, q^\top, \qquad s = \E\, \xbar, \quad q = \E\, y .
# $$
#
# We plant three classes of about the same size in the {glue:text}`d_planted` features of {glue:text}`n_planted:,` texts, add the constant 2 to every feature, and solve with and without centering.

# %%
planted = planted_problem(seed)
shift = np.full(planted.d, 2.0)
shifted = Problem(tuple(text + shift for text in planted.texts), planted.targets)
raw, centered = (
    subspaces(shifted.moments(), center=center) for center in (False, True)
)
output = shifted.means @ raw.U[:, 0]
spread = float(output.std() / abs(output.mean()))
pd.DataFrame(
    {
        "directions": [raw.r, centered.r],
        "eigenvalues": [raw.beta.round(3), centered.beta.round(3)],
        "tr B": [round(raw.trace_b, 3), round(centered.trace_b, 3)],
    },
    index=["uncentered", "centered"],
)

# %% tags=["remove-cell"]
glue("spread", spread, display=False)
glue("r_raw", raw.r, display=False)
glue("r_centered", centered.r, display=False)
glue("beta_1", float(raw.beta[0]), display=False)
glue(
    "q_square",
    float(planted.targets.mean(0) @ planted.targets.mean(0)),
    display=False,
)
glue("trace_b_raw", float(raw.trace_b), display=False)
glue("trace_b_centered", float(centered.trace_b), display=False)
glue("n_planted", len(planted.texts), display=False)
glue("d_planted", planted.d, display=False)

# %% [markdown]
# Without centering there are {glue:text}`r_raw` directions, with it {glue:text}`r_centered`. Here the extra one is $u_1$: its output varies by only
# {glue:text}`spread:.1%` around its mean, and its eigenvalue {glue:text}`beta_1:.3f` is nearly
# $\|q\|^2 =$ {glue:text}`q_square:.3f`, the loss that predicting the class frequencies removes. Without centering $\tr B$ is {glue:text}`trace_b_raw:.3f` in place of {glue:text}`trace_b_centered:.3f`, although the additional direction tells nothing about a single text.
#
# That $u_1$ is nearly the constant holds for classes of equal size and features that come close to a constant. For classes of equal size and features that contain an exact constant, the constant direction is, in white coordinates, itself an eigenvector of $B$ (not mixed with differences between the classes). Its eigenvalue is $1/c$, and no other is larger. (Let $a$ be the direction with $a^\top \xbar = 1$ for every text. Then $S a = \E\, \xbar\, \xbar^\top a = s$, $C^\top a = \E\, y\, \xbar^\top a = q = \tfrac1c (1, \dots, 1)^\top$ and $C\, (1, \dots, 1)^\top = s = S a$, so $C C^\top a = \tfrac1c S a$. The eigenvalues of $B$ above zero are those of $C^\top S^{-1} C$. None of them exceeds $1/c$: $Y = I/c$, and $Y - C^\top S^{-1} C$ is the second moment of what the best linear prediction leaves over, which has no negative eigenvalue.) With classes of unequal size the span of $U$ still contains the constant, but $u_1$ mixes it with differences between the classes.
#
# By default this library uses second moments, as the paper does, and each result says so. `center=True` uses covariances.
# We recommend it when tasks are to be compared.
#
# :::{admonition} Why a coin toss gets a high score
# :class: tip
# Chapter 3 divides what a subspace explains by $\tr B$. Without centering, much of $\tr B$ is $\|q\|^2$, the loss that predicting the class frequencies removes. Every subspace that can form a nearly constant output removes it too. So labels
# that are drawn by tossing a coin get a high share, although nothing can be predicted. With centering their share is about $k / d$, as for random directions. The cell below draws such labels for the texts above, and keeps half of the directions.
# :::

# %%
rng = np.random.default_rng(seed)
coins = rng.integers(0, 2, (200, len(shifted.texts)))
means, n, half = shifted.means, len(shifted.texts), planted.d // 2
bare = shifted.moments()
shares = {
    "leading half of V": [],
    "a random half": [],
    "other half of V": [],
    "leading half of V, centered": [],
}
coin_ceilings = []
for coin in coins:
    y = np.eye(2)[coin]
    tossed = replace(bare, C=means.T @ y / n, Y=y.T @ y / n, q=y.mean(0))
    toss = subspaces(tossed)
    halves = (toss.V[:, :half], rng.normal(size=(planted.d, half)), toss.V[:, half:])
    for name, basis in zip(shares, halves, strict=False):
        shares[name].append(float(toss.with_subspace(basis).ntps_task[-1]))
    toss_centered = subspaces(tossed, center=True)
    shares["leading half of V, centered"].append(
        float(toss_centered.ntps_task[half - 1])
    )
    coin_ceilings.append(toss.trace_b / toss.trace_y)
pd.DataFrame(shares).describe().loc[["mean", "min", "max"]].map("{:.1%}".format)

# %% tags=["remove-cell"]
for name, column in {
    "coin_raw": "leading half of V",
    "coin_random": "a random half",
    "coin_other": "other half of V",
    "coin_centered": "leading half of V, centered",
}.items():
    glue(name, float(np.mean(shares[column])), display=False)
glue("coin_ceiling", float(np.mean(coin_ceilings)), display=False)
glue("n_coins", len(coins), display=False)

# %% [markdown]
# The leading half of the {glue:text}`d_planted` directions of $V$ (chapter 1) gives coin tosses a share of {glue:text}`coin_raw:.1%` without centering and of {glue:text}`coin_centered:.1%` with it; the table shows the mean and the range over {glue:text}`n_coins` draws of the labels. $V$ is the same with and without centering, because centering changes $S$, $C$ and $Y$, not $A_0$ and $A_1$; only $\tr B$ and the share depend on it. A half of random directions does nearly the same ({glue:text}`coin_random:.1%` without centering),
# because the mean of the features can be seen in it. The other half of $V$ keeps only {glue:text}`coin_other:.1%`. Here is why. The next tokens contain the mean $s$, too, and it dominates $A_1$, which is nearly a multiple of $s s^\top$. So a column $v_j$ in which the mean is visible (with $v_j^\top A_0 v_j = 1$) predicts much of the next tokens: its $\gamma_j = |A_1^\top v_j|^2$ is large. The columns of the other half have small $\gamma_j$, so that the mean is nearly absent from them (exercise 2.5 has the share as a formula). The two scores that chapter 3 adds to the paper's, the metric-matched and the task-weighted one, should therefore be computed from covariances when tasks are compared. Chapters 7 to 9 do so, and keep second moments for the paper's score.
#
# ## The ceiling is too optimistic on few texts
#
# $\tr B$ is measured on the same texts that $U$ is fitted on. Center the moments, and let the targets be pure noise, independent of the features. The truth is $\tr B = 0$, and yet least squares with $d$ free directions explains, on average, a share of
#
# $$
# \frac{\tr B}{\tr Y} = \frac{d}{N - 1} \approx \frac{d}{N}
# $$
#
# of the variance of $N$ texts, and all of it as soon as $N \le d + 1$: the $N$ centered values of a noise label are a vector in $N - 1$ dimensions that prefers no direction, and the fit projects it on $d$ of them. (Without centering, and with features of mean zero, the share is $d/N$, and all as soon as $N \le d$. With another mean the class frequencies are explained, too: for the coin tosses above $\tr B / \tr Y$ is {glue:text}`coin_ceiling:.0%`, and $d/N$ is {glue:text}`coin_noise:.0%`.)
# A large model has {glue:text}`large:,` features, so that this share is large even with several thousand texts: it falls to {glue:text}`tenth:.0%` at {glue:text}`texts_tenth:,` texts, and to {glue:text}`twentieth:.0%` at {glue:text}`texts_twentieth:,`. There are two remedies, both optional here: a **ridge**, or **shrinkage** of $S$ towards a multiple of the identity with the
# intensity of Ledoit and Wolf {cite}`ledoit2004`, which this library computes from streamed moments without keeping a feature.


# %%
d = 32


def noise_ceiling(n_texts, seed, **options):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_texts, d)) * np.geomspace(1, 10, d)
    noise = np.eye(2)[rng.permutation(n_texts) % 2]
    problem = Problem(tuple(np.stack([m, m]) for m in means), noise)
    solved = subspaces(problem.moments(), center=True, **options)
    return solved.trace_b / solved.trace_y


sizes = [16, 24, 32, 48, 64, 96, 128, 256, 512, 1024]
plain, shrunk = (
    np.array(
        [[noise_ceiling(n, seed + i, shrinkage=s) for i in range(20)] for n in sizes]
    )
    for s in (0.0, "ledoit-wolf")
)
expected = np.array([min(1.0, d / (n - 1)) for n in sizes])
worst_noise = float(np.abs(plain.mean(axis=1) - expected).max())

# %% tags=["hide-input"] mystnb={"image": {"alt": "Share of label noise explained against number of texts. Without shrinkage it is one up to 33 texts and falls as d over N; with shrinkage it is lower for most numbers of texts and can exceed one for very few."}, "figure": {"caption": "On pure noise the ceiling is d/(N-1), not zero. Share of the label variance that 32 features seem to explain, mean and range over 20 draws; the truth is zero. The line is the formula.", "name": "fig-noise-ceiling"}}
figure, (axes,) = panels(1, height=3.2)
axes.plot(sizes, expected, color=COLORS["exact"], lw=1, label="min(1, d / (N - 1))")
for values, color, marker, name in (
    (plain, COLORS["perception"], "o", "no shrinkage"),
    (shrunk, COLORS["metric"], "s", "Ledoit-Wolf"),
):
    mean = values.mean(axis=1)
    error = np.abs(np.array([values.min(axis=1), values.max(axis=1)]) - mean)
    axes.errorbar(
        sizes, mean, error, fmt=marker, color=color, ms=5, capsize=2, label=name
    )
axes.axvline(d, color=COLORS["other"], ls=":")
axes.set(
    xscale="log",
    xlabel=f"texts N  ({d} features, dotted)",
    ylabel="tr B / tr Y on noise",
    ylim=(-0.03, None),
)
axes.set_xticks(
    [16, 32, 64, 128, 256, 512, 1024], labels=map(str, 2 ** np.arange(4, 11))
)
axes.minorticks_off()
_ = axes.legend()

# %% tags=["remove-cell"]
glue("worst_noise", worst_noise, display=False)
glue("noise_at_64", float(plain[sizes.index(64)].mean()), display=False)
glue("shrunk_at_64", float(shrunk[sizes.index(64)].mean()), display=False)
large = 4096
glue("large", large, display=False)
glue("coin_noise", planted.d / n, display=False)
for name, share in {"tenth": 0.1, "twentieth": 0.05}.items():
    glue(name, share, display=False)
    glue(f"texts_{name}", int(round(large / share, -3)), display=False)

# %% [markdown]
# Labels that have no relation to the features seem to be explained: completely as long as there are fewer texts than features, and by half ({glue:text}`noise_at_64:.2f`) at twice as many texts as features. The mean over draws stays within {glue:text}`worst_noise:.3f` of the formula.
# Shrinkage removes a part of this error (it leaves {glue:text}`shrunk_at_64:.2f` there).
# It also understates the variance of the strongest directions, so that with very few texts the shrunken $\tr B$ can even exceed $\tr Y$; with a ridge
# that cannot happen. So read $\tr B$ only with many texts for each feature, or compute it on texts that were not used for the fit. The library warns when there are fewer texts than features.
#
# ## Summary
#
# - A best encoder for the labels spans the leading generalized eigenvectors $U$ of $(CC^\top, S)$; there are at most as many as classes.
# - In white coordinates the loss of a subspace depends on its angles to the $\tilde u_i$, weighted by $\beta_i$.
# - $\tr B$ is the most that a linear probe without an intercept can remove from the loss, on these texts. For a probe with an intercept, center the moments.
# - Without centering the span of $U$ contains almost a constant, which predicts the class frequencies.
# - With few texts the ceiling is too optimistic: of pure noise it explains about $d/N$ (centered moments).
#
# ## Quiz
#
# **1.** A task has four classes, and the moments are not centered. How many perception directions are there at most?
#
# - (a) 3
# - (b) As many as there are features
# - (c) 4
#
# :::{admonition} Answer
# :class: dropdown
# (c). The rank of $C$ is at most the number of classes, and without centering the span of the four directions contains almost a constant. (a) is wrong because centering would be needed to remove the constant. (b) is wrong because directions beyond the rank of $C$ have the eigenvalue zero and explain nothing.
# :::
#
# **2.** Which of these does whitening leave as it is?
#
# - (a) The share of the labels that a subspace explains
# - (b) The angle between two directions
# - (c) The length of a direction
#
# :::{admonition} Answer
# :class: dropdown
# (a). The loss depends on the span only, in any coordinates. (b) is wrong because directions of different variance are stretched by different factors; only after that do angles tell what is explained. (c) is wrong because $u$ becomes $S^{1/2} u$, whose length is the root mean square of the output $u^\top \xbar$.
# :::
#
# **3.** With 500 texts and 400 features a linear probe explains 81% of the label variance on its own texts. What would you conclude?
#
# - (a) The task is nearly solved
# - (b) Little: pure noise would give about 80%
# - (c) The probe has a bug
#
# :::{admonition} Answer
# :class: dropdown
# (b). Noise explains about $d / (N - 1) = 400 / 499$ on the texts of the fit. (a) is wrong because these are the texts of the fit; the share on new texts is not known. (c) is wrong because least squares always does this when there are hardly more texts than features.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Two classes
# :label: ex-2-1
#
# *Difficulty 3 of 5, importance 4 of 5, about 15 minutes.*
#
# For two classes with different means and centered moments, show that $r = 1$ and that $u$ is proportional to $S^{-1}(m_1 - m_0)$, with $m_j$ the mean of the mean tokens of
# class $j$: Fisher's discriminant direction. Write a function of features `x` (n, d) and labels 0 or 1 that returns $u$, up to its length.
#
# ```python
# def fisher(x, labels):
#     ...
#
# check("2.1", fisher)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Write a centered one-hot target as a number times $(1, -1)$. What rank has $C$ then?
# :::
#
# ```{solution} ex-2-1
# :class: dropdown
# Centered one-hot targets are $y - q = (a, -a)$ with one number $a$ for each text, so $C$ has rank one: each column is a multiple of
# $\E[(\xbar - s)(y_1 - q_1)] = \pi_0 \pi_1 (m_1 - m_0)$, where $\pi_j$ is the share of class $j$. Then $B$ has one eigenvector with an eigenvalue above zero, $\tilde u \propto
# S^{-1/2}(m_1 - m_0)$, and $u = S^{-1/2} \tilde u \propto S^{-1} (m_1 - m_0)$. Here $S$ is the total covariance. Fisher uses the
# one within classes; the two differ by a multiple of $(m_1 - m_0)(m_1 - m_0)^\top$, which does not change the direction
# (Sherman and Morrison). In code: `np.linalg.solve(np.cov(x.T), x[labels == 1].mean(0) - x[labels == 0].mean(0))`.
# ```
#
# ````{exercise} Change of features
# :label: ex-2-2
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Let $\xbar \to M\xbar$ with $M$ invertible. Show that the $\beta_i$ do not change, and that $U \to M^{-\top} U$. Why does this differ from
# autoregression, where the answer of exercise 1.2 was "no"? Write a function that returns the new $U$.
#
# ```python
# def moved(U, M):
#     ...
#
# check("2.2", moved)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Put $S \to M S M^\top$ and $C \to M C$ into the eigenproblem, and look for a $u'$ that turns it into the old one.
# :::
#
# ```{solution} ex-2-2
# :class: dropdown
# $S \to M S M^\top$ and $C \to M C$, so $C C^\top u = \beta S u$ becomes $M C C^\top M^\top u' = \beta M S M^\top u'$, solved by
# $u' = M^{-\top} u$ with the same $\beta$. The targets $y$ do not change units with the features; in autoregression the target is a
# feature itself.
#
# So the new directions are $M^{-\top} U$: `np.linalg.inv(M).T @ U`.
# ```
#
# ````{exercise} More directions than classes
# :label: ex-2-3
#
# *Difficulty 2 of 5, importance 5 of 5, about 10 minutes.*
#
# Somebody keeps 20 perception directions for a task with two classes. What do the last eighteen contain? Does the task determine them? Would the same ones be picked by another solver, after a rotation of the features, or with one more text? With $d = 256$ features, an invertible $S$, uncentered moments and $r = 2$: what is the dimension of the space of all directions with the eigenvalue zero, from which the last eighteen are picked?
#
# ```python
# dimension = ...
#
# check("2.3", dimension)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Directions beyond the first $r$ have the eigenvalue zero. How large is the space of all such directions, in white coordinates?
# :::
#
# ```{solution} ex-2-3
# :class: dropdown
# They contain nothing about the labels: a direction $u$ with the eigenvalue zero has $C^\top u = 0$, so on these texts its output is not correlated with any label. In white coordinates they lie in the null space of $B$, which has the dimension $d - r$ if $S$ is invertible. Any orthonormal choice in it is as good as any other, and the choice of a numerical solver
# depends on its algorithm and on the coordinates: another solver or a rotation of the features gives other directions, although nothing about the task has changed. One more text moves the null space a little, but the solver may choose altogether different directions in it. A score averaged over these directions mostly
# describes that choice. {func}`ntps_utils.theory.score.subspaces` stops at $r$, unless `fill_u=True` asks for the choice of the released script. Here the dimension is $256 - 2 = 254$.
# ```
#
# ````{exercise} Try it: how fast does the optimism fade?
# :label: ex-2-4
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Let the label be a linear function of the features plus independent noise whose variance is that of the linear function. What does $\tr B / \tr Y$ become with centered moments, on average, at $N > d + 1$ texts? Compute before you simulate. Write your answer as a function.
#
# ```python
# def share(d, N):
#     ...
#
# check("2.4", share)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The half that is linear in the features is explained at every $N$. The other half is pure noise, for which the section above has a formula.
# :::
#
# ````{solution} ex-2-4
# :class: dropdown
# The linear half is explained completely. Of the other half a share of $d/(N-1)$ seems explained. The answer is $\tfrac12 + \tfrac12\, d/(N-1)$. It is an approximation, because $\tr Y$ varies with the texts; it becomes exact as $d$ and $N$ grow at a fixed ratio.
# To simulate it, replace the targets of `noise_ceiling` by a feature plus noise of the same variance, and average over seeds:
#
# ```python
# def half_real(n_texts, seed):
#     rng = np.random.default_rng(seed)
#     means = rng.normal(size=(n_texts, d))
#     target = means[:, :1] + rng.normal(size=(n_texts, 1))
#     problem = Problem(tuple(np.stack([m, m]) for m in means), target)
#     solved = subspaces(problem.moments(), center=True)
#     return solved.trace_b / solved.trace_y
# ```
# ````
#
# ````{exercise} A coin toss on paper
# :label: ex-2-5
#
# *Difficulty 3 of 5, importance 4 of 5, about 15 minutes.*
#
# The labels of two classes are tossed with a fair coin. The mean tokens $\xbar$ have the mean $s$ and the covariance $I$, and there are many texts. What is $\tr B$ without centering, approximately, and which share of it does a subspace keep that contains $s$? What is the share if the
# subspace is orthogonal to $s$, and what if the projection of $s$ on it has the squared length $f \|s\|^2$? Write $\tr B$ as a function of the length of $s$.
#
# ```python
# def explained(length):
#     ...
#
# check("2.5", explained)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Coin tosses do not depend on the features, so $C$ is a product of two means. Invert $S = I + s s^\top$ with the formula of Sherman and Morrison.
# :::
#
# ```{solution} ex-2-5
# :class: dropdown
# $C = \E\, \xbar y^\top \approx s q^\top$ with $q = (\tfrac12, \tfrac12)$, and $S = I + s s^\top$, so $\tr B = \|q\|^2\, s^\top S^{-1} s = \tfrac12 \cdot \frac{\|s\|^2}{1 + \|s\|^2}$: for a large mean nearly $\tfrac12$, the same as a constant predictor
# removes. A subspace that contains $s$ keeps all of it, so its share is 100% for a task without any signal. One that is orthogonal to $s$ keeps none. In between, with an orthonormal basis $Q$ of the subspace, $Q^\top S Q = I + Q^\top s s^\top Q$ gives
# $\tfrac12 \cdot \frac{f \|s\|^2}{1 + f \|s\|^2}$, a share of $\frac{f (1 + \|s\|^2)}{1 + f \|s\|^2}$. This is nearly all as soon as $f \|s\|^2$ is large, even for a small part $f$, and nearly nothing only if $f \|s\|^2$ is small. As a function of the length: `0.5 * length**2 / (1 + length**2)`.
# ```

# %% tags=["remove-input"]
Markdown(provenance_note(profile=profile, seed=seed, problems=n_problems))

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
# # Choosing k and a layer
#
# :::{admonition} After this chapter you can
# :class: tip
# - read a score at all layers, $k_u$ and $k_v$ instead of at one setting;
# - say what happens when eigenvectors are kept from the wrong end, or U is filled beyond its rank;
# - show that an absolute cut-off in single precision counts rounding errors as directions;
# - compute how large the best rank correlation of many settings is by chance.
#
# You need chapter 3 for the scores and chapter 4 for the moments. It runs in two minutes on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that NTPS was computed at every layer and for 19 fractions of the rank, and shows for each model the setting that correlated best
# with accuracy, with error or with the LoRA gain. **The code does** the same sweep on the lab's tasks ({func}`ntps_utils.evidence.sweep.sweep`) and keeps all of it. **We find** that scores rise with $k_v$ for any labels, that the order of eigenvectors and the width of U in a released script together change which tasks score high, and that the best coefficient of a sweep is large even when tasks are permuted. By this comparison the best coefficient of the paper's score is not larger than chance on the lab's tasks, and those of the metric-matched and the task-weighted score are, if computed from covariances (chapter 7). Covariances were chosen after first results, and this comparison does not include that choice.

# %% tags=["parameters"]
profile = "default"
seed = 0
model_name = "lab/M"
tasks = "all"
n_texts = 1000
n_permutations = 5000

# %% tags=["hide-input"]
import itertools

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from myst_nb import glue
from scipy.stats import norm

from ntps_utils.evidence.statistics import max_statistic_null, spearman
from ntps_utils.evidence.sweep import FRACTIONS, sweep
from ntps_utils.lab import TASKS
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import load_model
from ntps_utils.notebook import notebook_progress, provenance_note
from ntps_utils.plotting import COLORS, house_style, panels, sweep_explorer
from ntps_utils.theory.controls import control_directions, mean_random_scores
from ntps_utils.theory.released import released_ntps
from ntps_utils.theory.score import subspaces

house_style()
model = load_model(model_name)
names = [n for n in TASKS if n != "random"] if tasks == "all" else tasks.split()
pairs = [
    tuple(load_texts(f"lab/{n}", split).head(n_texts) for split in ("train", "test"))
    for n in names
]
table = sweep(model, pairs, progress=notebook_progress("tasks"))
last = model.n_layers - 1

# %% [markdown]
# ## One task at every width
#
# A score compares $k_u$ perception directions with $k_v$ autoregressive ones. All pairs come from one factorization (chapter 3). In this chapter the paper's
# Euclidean score is computed from second moments, and the other two from covariances (chapter 2). We begin with the task that has most classes.

# %%
shown = max(pairs, key=lambda pair: pair[0].n_classes)[0]
moments = extract(model, shown, layers=(last,)).moments.layer(last)
euclidean = subspaces(moments, layer=last)
metric = subspaces(moments, layer=last, center=True)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two heat maps over k_v and k_u: the Euclidean score on the left and the metric-matched score on the right. Both rise with k_v."}, "figure": {"caption": "Every width at once. Euclidean (left) and metric-matched score (right) of the last layer for all pairs of widths.", "name": "fig-landscape"}}
figure, axes = panels(2, height=2.8)
for ax, (title, grid) in zip(
    axes,
    {"Euclidean": euclidean.ntps, "metric-matched": metric.ntps_metric}.items(),
    strict=True,
):
    image = ax.imshow(
        grid,
        origin="lower",
        aspect="auto",
        vmin=0,
        vmax=1,
        cmap="cividis",
        extent=(0.5, grid.shape[1] + 0.5, 0.5, len(grid) + 0.5),
    )
    ax.set(title=title, xlabel="$k_v$", yticks=range(1, len(grid) + 1))
axes[0].set_ylabel("$k_u$")
_ = figure.colorbar(image, ax=axes, label="score")

# %% [markdown]
# Along $k_v$ a score can only rise, because a larger subspace contains the smaller one. On the left it rises slowly; on the right it is nearly zero for the first autoregressive directions, and then rises within a few more. The rows of a panel are alike, so for this task $k_u$ matters little and $k_v$ much.
#
# So "the best k" is not the k where the score is highest. It is the k whose ranking of
# tasks agrees best with the ranking by the quantity that the score shall predict, such as the accuracy of a probe.
#
# How much of the rise is due to next-token prediction? By chapter 1, $V = A_0^{-1/2} (w_1, \dots, w_k)$ with orthonormal $w_i$, and only the $w_i$ depend on the next token. Put random orthonormal vectors in their place: the result is the V of a **random next token**, one that
# depends on the same past through random directions. Beside the score we draw the mean score of such subspaces for every $k_v$ at once, by a formula that is approximate, and closer the more features there are
# ({func}`ntps_utils.theory.controls.mean_random_scores`), and the score of the leading principal components of S. The **net score** is the score minus the mean score for a random next token.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels over k_v. Left: the score and the mean score for a random next token lie close together; right: the score is below the random mean for the first directions, and then far above it; the score of the principal components stays near zero in the Euclidean panel and rises early in the metric-matched one."}, "figure": {"caption": "The net score is the first line minus the second. Euclidean (left) and metric-matched score (right) with all perception directions, of next-token directions, of the directions of a random next token (mean), and of principal components.", "name": "fig-net-landscape"}}
lines = {}
for i, (column, one) in enumerate(
    {"ntps": euclidean, "ntps_metric": metric}.items()
):
    components = one.with_subspace(control_directions(moments, one)["pca_s"])
    lines[column] = {
        "next token (in color)": getattr(one, column)[-1],
        "random next token": mean_random_scores(one, range(1, one.rank_v + 1))[:, i],
        "PCA of S": getattr(components, column)[-1],
    }
figure, axes = panels(2, height=3.1, sharey=True)
for ax, column, title, color in zip(
    axes,
    lines,
    ("Euclidean", "metric-matched"),
    (COLORS["euclidean"], COLORS["metric"]),
    strict=True,
):
    styles = ((color, 2, "-"), (COLORS["other"], 2, "--"), (COLORS["exact"], 1, "-"))
    for (label, values), (shade, width, style) in zip(
        lines[column].items(), styles, strict=True
    ):
        x = np.arange(1, len(values) + 1)
        ax.plot(x, values, color=shade, lw=width, ls=style, label=label)
    ax.set(title=title, xlabel="$k_v$")
axes[0].set_ylabel("score")
_ = figure.legend(
    *axes[1].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=3,
    fontsize=9,
)

# %% tags=["remove-cell"]
glue("net_task", shown.name.removeprefix("lab/"), display=False)
for column, name, one in (
    ("ntps", "euclidean", euclidean),
    ("ntps_metric", "metric", metric),
):
    middle = one.width(0.5) - 1
    own, random, pca = (float(values[middle]) for values in lines[column].values())
    glue(f"net_{name}", own - random, display=False)
    glue(f"gross_{name}", own, display=False)
    glue(f"pca_{name}", pca, display=False)
    glue(f"chance_{name}", random, display=False)
    glue(f"share_{name}", random / own, display=False)
at_half = {label: values[middle] for label, values in lines["ntps_metric"].items()}
names_of = {
    "next token": "next-token directions",
    "random next token": "directions of a random next token",
    "PCA of S": "principal components",
}
glue("highest_metric", names_of[max(at_half, key=at_half.get)], display=False)

# %% [markdown]
# On *{glue:text}`net_task`*, at half of the directions, the Euclidean score is {glue:text}`gross_euclidean:.2f`. The mean score for a random next token is {glue:text}`share_euclidean:.0%` of that: this part is due to the construction of V, and the net score is only {glue:text}`net_euclidean:+.2f`. Principal components score {glue:text}`pca_euclidean:.2f`, because U is long where features vary little, and they are the directions in which features vary most.
# The metric-matched score of the autoregressive directions is {glue:text}`gross_metric:.2f`, that for a random next token {glue:text}`chance_metric:.2f`, so the net score is {glue:text}`net_metric:+.2f`; principal components score {glue:text}`pca_metric:.2f`. The highest of the three are {glue:text}`highest_metric`. A high score alone therefore does not show that next-token prediction serves a task.
#
# The next figure shows all tasks layer by layer, at half of the directions.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels of lines over layers, one line for each task in grey and the mean in color, for the Euclidean, metric-matched and task-weighted scores at half of the autoregressive directions."}, "figure": {"caption": "Scores by layer. Each thin line is a task, the thick one their mean, at half of the autoregressive directions; layer 0 is the embeddings.", "name": "fig-by-layer"}}
figure, axes = panels(3, height=2.8, sharey=True)
half = FRACTIONS.index(0.5)
shades = {"ntps": "euclidean", "ntps_metric": "metric", "ntps_task": "task"}
labels = ("Euclidean", "metric-matched", "task-weighted")
for ax, (column, shade), label in zip(axes, shades.items(), labels, strict=True):
    lines = table.scores[column][:, half]
    ax.plot(lines, color=COLORS["other"], lw=0.7, alpha=0.7)
    ax.plot(lines.mean(axis=1), "o-", color=COLORS[shade], lw=2)
    ax.set(title=label, xlabel="layer", xticks=range(model.n_layers))
_ = axes[0].set_ylabel("score")

# %% tags=["remove-cell"]
for column, name in (("ntps", "euclid"), ("ntps_metric", "metric")):
    by_layer = table.scores[column][1:, half]  # without the embeddings
    following = [spearman(one, two) for one, two in itertools.pairwise(by_layer)]
    glue(f"next_layer_{name}", float(np.mean(following)), display=False)

# %% [markdown]
# After the embeddings the means change little from layer to layer, while single tasks move more, and lines cross. So the layer hardly changes how high scores are, but it changes the order of the tasks, most for the Euclidean score: between neighboring layers the orders have a mean rank correlation of {glue:text}`next_layer_euclid:.2f` for it, and of {glue:text}`next_layer_metric:.2f` for the metric-matched score. The metric-matched and the task-weighted panel are similar because most tasks have two classes, hence one perception direction after centering, for which the two scores are equal.
#
# ## From the wrong end
#
# Solvers of symmetric eigenproblems return eigenvalues from the smallest to the largest. Keeping "the first k" then keeps the directions that matter *least* for prediction. Moreover, U has no more
# informative directions than there are classes. If it is filled up to a share of the whole rank, most of its columns carry no information about the labels.

# %%
recipes = {
    "largest first": {"ascending": False, "fill_u": False},
    "smallest first": {"ascending": True, "fill_u": False},
    "smallest first, U filled": {"ascending": True, "fill_u": True},
}
exact = {"single": False, "absolute_cut": None, "pseudo_inverse": False}
curves = {
    recipe: np.array(
        [
            [released_ntps(moments, f, **switches, **exact) for f in FRACTIONS]
            for moments in table.moments.values()
        ]
    )
    for recipe, switches in recipes.items()
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels of NTPS against the fraction kept, one thin line a task: rising early when the largest eigenvalues come first, in another order of tasks when the smallest come first, and nearly one curve for all tasks when U is filled."}, "figure": {"caption": "Which eigenvectors are kept decides what is measured. NTPS of the last layer against the fraction of the rank, one line a task, for the order that the theory asks for, the opposite one, and the opposite one with U filled to the same fraction.", "name": "fig-eigen-order"}}
figure, axes = panels(3, height=2.8, sharey=True)
for ax, (recipe, lines) in zip(axes, curves.items(), strict=True):
    ax.plot(FRACTIONS, lines.T, color=COLORS["euclidean"], lw=0.8, alpha=0.7)
    ax.plot([0, 1], [0, 1], color=COLORS["other"], lw=0.8, ls=":")
    ax.set(title=recipe, xlabel="fraction kept")
_ = axes[0].set_ylabel("NTPS")

# %% tags=["remove-cell"]
spread = {
    recipe: float(lines.std(axis=0).mean()) for recipe, lines in curves.items()
}
glue("spread_right", spread["largest first"], display=False)
glue("spread_filled", spread["smallest first, U filled"], display=False)
agree = float(
    np.nanmean(
        [
            spearman(
                curves["largest first"][:, f],
                curves["smallest first, U filled"][:, f],
            )
            for f in range(len(FRACTIONS))
        ]
    )
)
glue("agree_filled", agree, display=False)
rng = np.random.default_rng(seed)
rotation, _ = np.linalg.qr(rng.normal(size=(model.dimension, model.dimension)))
moved = {"capped": [], "filled": []}
for train, _test in pairs[:6]:
    m = table.moments[train.name]
    from dataclasses import replace as _replace

    turned = _replace(
        m,
        A0=rotation @ m.A0 @ rotation.T,
        A1=rotation @ m.A1 @ rotation.T,
        S=rotation @ m.S @ rotation.T,
        C=rotation @ m.C,
    )
    for kind, fill in (("capped", False), ("filled", True)):
        switches = {"ascending": True, "fill_u": fill, **exact}
        moved[kind].append(
            max(
                abs(
                    released_ntps(turned, f, **switches)
                    - released_ntps(m, f, **switches)
                )
                for f in (0.25, 0.5, 0.75)
            )
        )
glue("moved_capped", f"{max(moved['capped']):.0e}", display=False)
glue("moved_filled", float(max(moved["filled"])), display=False)

# %% [markdown]
# Scores reach similar heights in all three panels, so the height does not show which eigenvectors were kept. The order of tasks differs, and with U filled the lines nearly coincide, because U, too, is filled from the smallest eigenvalue: the label directions are its last columns, of which none is kept except at the largest fractions. The standard deviation of the score over tasks, averaged over fractions, is {glue:text}`spread_right:.3f` in the right order and {glue:text}`spread_filled:.3f` from the wrong end with U filled; the two
# rankings of the tasks have a mean rank correlation of {glue:text}`agree_filled:.2f`. The filled columns are not determined by the data. Rotating the features, which changes nothing about a model, moves the
# score by up to {glue:text}`moved_filled:.2f`, and by {glue:text}`moved_capped` if U stops at its rank.
#
# ## Rounding errors counted as directions
#
# Take second moments of true rank 128 in 256 dimensions with one massive direction, and count eigenvalues above $10^{-8}$ in single precision.

# %%
rng = np.random.default_rng(seed)
basis = np.linalg.qr(rng.normal(size=(256, 256)))[0][:, :128]
values = np.r_[1e5, rng.uniform(0.5, 2.0, 127)]
planted = (basis * values) @ basis.T
float32 = np.linalg.eigvalsh(planted.astype(np.float32))
float64 = np.linalg.eigvalsh(planted)
kept_absolute = int((float32 > 1e-8).sum())
kept_relative = int((float64 > 256 * np.finfo(float).eps * float64[-1]).sum())
glue("kept_absolute", kept_absolute, display=False)
glue("kept_relative", kept_relative, display=False)
effect = [
    abs(
        released_ntps(m, f, ascending=False, fill_u=False)
        - released_ntps(m, f, ascending=False, fill_u=False, **exact)
    )
    for m in table.moments.values()
    for f in (0.25, 0.5, 0.75, 0.95)
]
glue("effect_single", float(np.nanmax(effect)), display=False)

# %% [markdown]
# The absolute cut-off keeps {glue:text}`kept_absolute` directions, the relative one in double precision {glue:text}`kept_relative`. On the lab's tasks, where no direction
# is that massive, single precision with the absolute cut-off, and with a projector from the pseudo-inverse of V in place of an orthonormal basis, as in the released script, moves NTPS by at most {glue:text}`effect_single:.2g` at four widths. So it does no harm here. With massive directions it counts rounding errors as directions; what that does to a score was not measured.
#
# ## What choosing the best setting does
#
# We now make the sweep of the paper: every layer and 19 fractions, on all tasks but the coin toss. The quantity to be predicted is the chance-adjusted accuracy (0: always naming the most frequent class, 1: no error) of a probe on the last
# layer. The largest coefficient over the sweep is compared with the largest one when tasks are permuted. A permutation keeps the correlation between neighboring settings as it is.

# %%
target = table.accuracy[last]
found, nulls = {}, {}
for column in shades:
    flat = table.flat(column)
    rho = np.array([spearman(setting, target) for setting in flat])
    found[column] = rho
    nulls[column] = max_statistic_null(flat, n_permutations, seed)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels: histogram of the best rank correlation of the sweep under permuted tasks, with the observed best as a vertical line and the value at the setting fixed in advance as a dashed one."}, "figure": {"caption": "The best of a sweep is large even without any relation. Histograms: largest Spearman coefficient over the sweep when tasks are permuted. Solid line: largest coefficient found. Dashed: the coefficient at the layer and width fixed in advance, last layer and half of the directions; covariances for the last two scores were chosen after first results (chapter 7).", "name": "fig-selection"}}
figure, axes = panels(3, height=2.7, sharey=True)
fixed = {
    c: float(r.reshape(model.n_layers, -1)[last, half]) for c, r in found.items()
}
for ax, (column, shade), label in zip(axes, shades.items(), labels, strict=True):
    ax.hist(nulls[column], bins=30, color=COLORS["other"], alpha=0.6)
    ax.axvline(np.nanmax(found[column]), color=COLORS[shade], lw=2)
    ax.axvline(fixed[column], color=COLORS[shade], lw=1.5, ls="--")
    ax.set(title=label, xlim=(-1, 1), yticks=[])
_ = figure.supxlabel("Spearman's coefficient", fontsize=11)

# %% tags=["remove-cell"]
for key, column in {
    "euclid": "ntps",
    "metric": "ntps_metric",
    "taskw": "ntps_task",
}.items():
    best = float(np.nanmax(found[column]))
    glue(f"best_{key}", best, display=False)
    glue(f"fixed_{key}", fixed[column], display=False)
    glue(f"null_median_{key}", float(np.median(nulls[column])), display=False)
    glue(f"null_edge_{key}", float(np.quantile(nulls[column], 0.95)), display=False)
    p = (1 + np.sum(nulls[column] >= best - 1e-12)) / (1 + n_permutations)
    glue(f"null_p_{key}", float(p), display=False)
edge = float(np.quantile(nulls["ntps"], 0.95))
independent = np.log(0.95) / norm.logcdf(edge * (len(names) - 1) ** 0.5)
glue("independent", float(independent), display=False)
# The same with the tail of permuted ranks in place of the normal one.
ranks = np.arange(len(names)) - (len(names) - 1) / 2
drawn = np.random.default_rng(seed).permuted(np.tile(ranks, (200_000, 1)), axis=1)
above = np.mean(drawn @ ranks / (ranks @ ranks) >= edge)
glue("independent_exact", float(np.log(0.95) / np.log1p(-above)), display=False)
glue("n_settings", len(found["ntps"]), display=False)
glue("n_tasks", len(names), display=False)

# %% [markdown]
# Nearly all of each histogram lies to the right of zero. With {glue:text}`n_settings` settings and {glue:text}`n_tasks` tasks, the largest coefficient is large even when tasks are permuted, because it was chosen as the largest. A coefficient that was chosen in this way must therefore be compared with the histogram, not with zero. The table shows the same numbers.

# %% tags=["hide-input"]
pd.DataFrame(
    {
        label: {
            "last layer, half of the directions": fixed[column],
            "best of the sweep": np.nanmax(found[column]),
            "best by chance, median": np.median(nulls[column]),
            "best by chance, 95% point": np.quantile(nulls[column], 0.95),
        }
        for column, label in zip(shades, labels, strict=True)
    }
).round(2)

# %% [markdown]
# For the Euclidean score the best coefficient of the sweep is {glue:text}`best_euclid:.2f`. When tasks are permuted, the median of the best is {glue:text}`null_median_euclid:.2f`, and the best exceeds
# {glue:text}`null_edge_euclid:.2f` in one of twenty permutations, so that the observed one has p = {glue:text}`null_p_euclid:.3f`. For the metric-matched score the best is
# {glue:text}`best_metric:.2f` (p = {glue:text}`null_p_metric:.3f`), for the task-weighted one {glue:text}`best_taskw:.2f` (p = {glue:text}`null_p_taskw:.3f`). These p-values do not include the choice of covariances for the last two scores, which was made after first results. With layer and width fixed in advance the three are {glue:text}`fixed_euclid:.2f`, {glue:text}`fixed_metric:.2f` and {glue:text}`fixed_taskw:.2f`.
#
# Look at the whole sweep, and do not quote its best coefficient without the null distribution of the best. In the figure below, choose a score and a setting (click, or use the arrow keys).

# %% tags=["remove-input"]
HTML(
    sweep_explorer(
        {
            label: table.scores[column]
            for column, label in zip(shades, labels, strict=True)
        },
        target,
        names,
        FRACTIONS,
        {label: nulls[column] for column, label in zip(shades, labels, strict=True)},
    )
)

# %% [markdown]
# The next figure shows the same coefficients for reading on paper.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three heat maps of Spearman's coefficient with probe accuracy over layers and fractions, for the Euclidean, metric-matched and task-weighted scores."}, "figure": {"caption": "The coefficient at every setting. Spearman's coefficient of each score with probe accuracy, by layer and fraction of the directions kept.", "name": "fig-sweep-map"}}
figure, axes = panels(3, height=2.4, sharey=True)
for ax, (column, label) in zip(axes, zip(shades, labels, strict=True), strict=True):
    image = ax.imshow(
        found[column].reshape(model.n_layers, -1),
        origin="lower",
        aspect="auto",
        vmin=-1,
        vmax=1,
        cmap="RdBu",
        extent=(0.025, 0.975, -0.5, model.n_layers - 0.5),
    )
    ax.set(title=label, xlabel="fraction kept", yticks=range(model.n_layers))
axes[0].set_ylabel("layer")
_ = figure.colorbar(image, ax=axes, label="coefficient")

# %% [markdown]
# Neighboring settings have similar colors, because the next fraction gives a similar order of tasks, and the next layer one that is less similar (numbers below {numref}`fig-by-layer`); the sweep therefore counts as fewer than {glue:text}`n_settings` independent settings (exercise 6.2). The coefficients of the Euclidean score are near zero or negative at most settings. Those of the other two scores are positive at nearly all widths but the smallest. Here these two are computed from covariances. From second moments, the coefficients of the task-weighted score are negative, and the sign of the metric-matched one depends on the setting (chapter 7).
#
# ## Summary
#
# - Scores rise with $k_v$ by construction; compare them with those of a random next token at the same width.
# - Keep the *largest* eigenvalues, stop U at its rank, use a relative cut-off in double precision.
# - The best coefficient of a sweep over a dozen tasks is large even without any relation; compare it with the best under permutation, or fix the setting first.
#
# ## Quiz
#
# **1.** A score rises with $k_v$ from 0.3 to 1. What does this say about next-token prediction?
#
# - (a) That more directions predict better
# - (b) That the best $k_v$ is the largest
# - (c) Nothing by itself: larger subspaces contain more of everything
#
# :::{admonition} Answer
# :class: dropdown
# (c). A score rises with $k_v$ for any labels. (a) is wrong because scores for a random next token rise as well, so this tells nothing about prediction. (b) is wrong because at the largest $k_v$ every task has the score 1, and nothing distinguishes them.
# :::
#
# **2.** The best of 95 settings has a correlation of 0.6 with accuracy over 12 tasks. Which p-value takes the selection into account, and is no larger than it has to be?
#
# - (a) That of the best of 95 when tasks are permuted
# - (b) That of a single correlation of 0.6
# - (c) That of a single one, times 95
#
# :::{admonition} Answer
# :class: dropdown
# (a). The permuted maximum contains the same selection as the observed one. (b) is wrong because it ignores the selection and is too small. (c) is valid but too large, because for similar settings the sum of the p-values counts the same event many times.
# :::
#
# **3.** A task has a Euclidean score of 0.80. Subspaces of a random next token score 0.78 on average. What does the score of 0.80 show?
#
# - (a) That V contains most of what the labels need
# - (b) That the score is high by the construction of V; next-token prediction adds 0.02
# - (c) That the random next tokens contain the labels
#
# :::{admonition} Answer
# :class: dropdown
# (b). The net score is the difference, 0.02. (a) is wrong because the Euclidean score weighs directions by length, and subspaces of a random next token get nearly the same. (c) is wrong because a random next token is drawn without looking at the labels.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Columns at random
# :label: ex-6-1
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# In the right panel of {numref}`fig-eigen-order` every task lies on nearly the same curve. Where would it be if the columns of U were random directions of unit length? Write the score as a function. Why does the curve lie above that?
#
# ```python
# def curve(k, d):
#     ...
#
# check("6.1", curve)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# What share of the squared length of a random vector lies in a fixed subspace of dimension $k$?
# :::
#
# ````{solution} ex-6-1
# :class: dropdown
# A random direction in $d$ dimensions has on average a share $k/d$ of its squared length in any fixed subspace of dimension $k$: the dotted diagonal. The columns that fill U are S-orthonormal, not of unit length. The longest ones lie where S has little variance. The factor $A_0^{-1/2}$ turns all columns of V towards such directions, those that "smallest first" keeps among them ({doc}`14_what_readers_asked`). That is why the curve lies above $k/d$. It describes the features, and depends little on the task.
# ````
#
# ````{exercise} How many independent settings?
# :label: ex-6-2
#
# *Difficulty 3 of 5, importance 3 of 5, about 20 minutes.*
#
# How many independent settings would give the same 95% point `q` of the best coefficient as this sweep? Write a function of `q` and the number of tasks `n`. Use that a single coefficient over n tasks is about normal with standard deviation $1/\sqrt{n-1}$.
#
# ```python
# def independent(q, n):
#     ...
#
# check("6.2", independent)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# If the best of $\nu$ independent coefficients stays below q with probability 0.95, each one stays below q with probability $0.95^{1/\nu}$.
# :::
#
# ````{solution} ex-6-2
# :class: dropdown
# Solve $\Phi(q \sqrt{n-1}) = 0.95^{1/\nu}$: $\nu = \log 0.95 / \log \Phi(q \sqrt{n-1})$. For the Euclidean score, with $q$ = {glue:text}`null_edge_euclid:.2f` and n = {glue:text}`n_tasks`,
# that is {glue:text}`independent:.0f` independent settings in place of {glue:text}`n_settings`, because neighboring settings give similar orders of tasks. With so few tasks the tail of the normal approximation is too heavy. With that of permuted ranks the number is {glue:text}`independent_exact:.0f`, which is the one to trust; it is below {glue:text}`n_settings`, too.
#
# ```python
# def independent(q, n):
#     return np.log(0.95) / norm.logcdf(q * np.sqrt(n - 1))
# ```
# ````
#
# ````{exercise} A p-value for the best of a sweep
# :label: ex-6-3
#
# *Difficulty 3 of 5, importance 5 of 5, about 25 minutes.*
#
# Write a function that returns the p-value of the largest Spearman coefficient over a sweep. `scores` is (settings, n), `target` has the n values to be predicted, without ties, and each row of `orders` is a permutation of n.
#
# ```python
# def p_value(scores, target, orders):
#     ...
#
# check("6.3", p_value)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# For every permutation of `target` take the largest coefficient over *all* settings. The observed order counts as one of the permutations.
# :::
#
# ````{solution} ex-6-3
# :class: dropdown
# The null distribution is that of the largest coefficient, not of a coefficient at a setting. Count the permutations, and those of them whose largest coefficient is at least as large as the observed one. The p-value is the ratio of the second number plus one to the first plus one.
#
# ```python
# def p_value(scores, target, orders):
#     def best(y):
#         return max(spearman(setting, y) for setting in scores)
#
#     exceed = sum(best(target[order]) >= best(target) - 1e-12 for order in orders)
#     return (1 + exceed) / (1 + len(orders))
# ```
# ````

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile,
        seed=seed,
        model=model.name,
        texts=n_texts,
        permutations=n_permutations,
    )
)

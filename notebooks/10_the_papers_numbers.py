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
# # The paper's numbers, recomputed
#
# :::{admonition} After this chapter you can
# :class: tip
# - recompute every coefficient printed in the paper's Figures 2 and 3, from the numbers released with it;
# - read the sign of a rank correlation off a figure with real axes;
# - say how wide the interval of a coefficient from twelve points is;
# - say what choosing the best of many settings does to a coefficient, by simulation;
# - compare a score with a rival that is easier to compute.
#
# It needs no other chapter, only what a rank correlation is. It runs in two minutes.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that NTPS correlates with the accuracy and the error of linear probes (Figure 2), and with the gain of LoRA
# finetuning (Figure 3), over 12 datasets and 8 models. **The code does** read the 96 cells that were released with the paper
# ({func}`ntps_utils.evidence.tables.load_paper_cells`) and recompute the coefficients. Where a cause is not certain, it simulates the cause in the lab. **We find** that all 24 printed coefficients follow from the cells, that NTPS and the LoRA
# gain are *negatively* related, and that coefficients from twelve datasets, with a setting that was chosen afterwards, are much less certain than their two decimals suggest.
#
# All statements about the paper in this chapter are about released numbers. The authors released them, which made this chapter possible.

# %% tags=["parameters"]
profile = "default"
seed = 0
n_permutations = 5000
n_texts = 300
n_pairs = 150

# %% tags=["hide-input"]
import random
from itertools import pairwise

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from IPython.display import Markdown
from myst_nb import glue
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ntps_utils.evidence.statistics import (
    leave_one_out,
    max_statistic_null,
    partial_spearman,
    pooled_rank_correlation,
    rank_correlation,
    spearman,
)
from ntps_utils.evidence.sweep import sweep
from ntps_utils.evidence.tables import (
    TARGETS,
    as_plotted,
    load_paper_cells,
    load_paper_coefficients,
    tie_orders,
)
from ntps_utils.lab import TASKS, WORLD
from ntps_utils.lab.world import passive_pair
from ntps_utils.models.datasets import TextDataset, load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import load_model
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, panels

house_style()

# %% [markdown]
# ## The 24 coefficients
#
# For each model the paper correlates NTPS with the probe's accuracy, with *minus* its mean squared error, and with *minus* the LoRA gain, each over 12
# datasets, by Spearman's rank correlation {cite}`spearman1904`. The gain is the accuracy after LoRA minus that of a linear head on frozen features, on
# held-out texts. In the table the columns *mse* and *gain* are the coefficients with minus the error and minus the gain.

# %%
cells, printed = load_paper_cells(), load_paper_coefficients()
by_model = dict(list(cells.groupby("model", sort=False)))
short = {model: model.split("/")[1].replace("Meta-", "") for model in by_model}
mine = pd.DataFrame(
    {
        t: {m: spearman(*as_plotted(g, t)) for m, g in by_model.items()}
        for t in TARGETS
    }
)
off = ((mine - printed).abs() > 0.005 + 1e-9).stack()
mine.rename(index=short).round(2).join(
    printed.rename(index=short), rsuffix=" (printed)"
)

# %% tags=["remove-cell"]
((odd_model, odd_target),) = off[off].index
tied = [
    spearman(as_plotted(by_model[odd_model], odd_target)[0], r)
    for r in tie_orders(as_plotted(by_model[odd_model], odd_target)[1])
]
glue("n_equal", int((~off).sum()), display=False)
glue("odd_model", short[odd_model], display=False)
glue("odd_mine", float(mine.loc[odd_model, odd_target]), display=False)
glue("odd_low", float(min(tied)), display=False)
glue("odd_high", float(max(tied)), display=False)

# %% [markdown]
# {glue:text}`n_equal` of the 24 agree to two decimals. The other one is that for the MSE of {glue:text}`odd_model`. Two of its datasets have an MSE of zero to six decimals. The
# probe was fitted and scored on the same texts and reproduces their labels exactly, as it can with as many features as texts. Which of the two is larger is decided by rounding. Depending on that, the coefficient is
# {glue:text}`odd_low:.2f` (as printed) or {glue:text}`odd_high:.2f`; if the two count as a tie, it is {glue:text}`odd_mine:.2f`.
#
# ## The sign
#
# Figure 3 of the paper plots ranks, with those of the gain reversed, so that its coefficients are positive. The next figure has the gain itself on its axis, and the coefficients are negative.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Eight scatter plots, one for each model, of LoRA gain in points of accuracy against NTPS; in each the gain falls as NTPS rises. Medical question pairs stand out below zero and commonsense QA above."}, "figure": {"caption": "NTPS and the LoRA gain are negatively related within every model. Gain in points of held-out accuracy against the NTPS that the paper chose for this purpose, 12 datasets a panel; ρ is Spearman's coefficient of NTPS and gain. Diamond: medical question pairs.", "name": "fig-paper-gain"}}
import matplotlib.pyplot as plt

figure, axes = plt.subplots(2, 4, figsize=(7.8, 4.6), sharey=True)
for ax, (model, group) in zip(axes.flat, by_model.items(), strict=True):
    medical = group["dataset"] == "medical_questions_pairs"
    for rows, marker in ((~medical, "o"), (medical, "D")):
        ax.scatter(
            group.loc[rows, "ntps_vs_gain"],
            100 * group.loc[rows, "gain"],
            s=20,
            marker=marker,
            color=COLORS["euclidean"],
        )
    ax.axhline(0, color=COLORS["other"], lw=0.8)
    ax.set_title(
        f"{short[model]}\nρ = {spearman(group['ntps_vs_gain'], group['gain']):.2f}",
        fontsize=10,
    )
figure.supxlabel("NTPS", fontsize=11)
_ = figure.supylabel("LoRA gain (points)", fontsize=11)

# %% [markdown]
# In words: where NTPS is high, LoRA adds less. This is plausible, since little can be added where next-token features already serve a task. But it means that a *low* NTPS predicts a large gain; a reader of the
# printed coefficients alone could conclude the opposite.
#
# ## Twelve points
#
# A coefficient from twelve datasets is a coarse measurement. The bars are 95% bootstrap intervals over datasets, as if one setting had been fixed in advance.

# %%
intervals = {
    (t, m): rank_correlation(*as_plotted(g, t), seed=seed)
    for t in TARGETS
    for m, g in by_model.items()
}
n_open = sum(r.low <= 0 for r in intervals.values())
width = float(np.median([r.high - r.low for r in intervals.values()]))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels of coefficients with 95 percent intervals for eight models; most intervals span half a unit or more, and several include zero."}, "figure": {"caption": "Twelve datasets determine a coefficient only roughly. The 24 coefficients, as the paper orients them, with 95% bootstrap intervals over datasets.", "name": "fig-paper-intervals"}}
figure, axes = panels(3, height=3.4, sharey=True)
names = {
    "mse": "minus probe MSE",
    "accuracy": "probe accuracy",
    "gain": "minus LoRA gain",
}
for ax, target in zip(axes, TARGETS, strict=True):
    for i, model in enumerate(by_model):
        r = intervals[target, model]
        ax.plot(
            [r.low, r.high], [i, i], color=COLORS["euclidean"], lw=1.5, alpha=0.6
        )
        ax.plot(r.rho, i, "o", color=COLORS["euclidean"], ms=5)
    ax.axvline(0, color=COLORS["other"], lw=0.8)
    ax.set(xlabel="ρ with NTPS", title=names[target], xlim=(-0.75, 1.05))
axes[0].set_yticks(range(8), short.values())
_ = axes[0].invert_yaxis()

# %% tags=["remove-cell"]
glue("n_open", int(n_open), display=False)
glue("width", width, display=False)

# %% [markdown]
# The median width is {glue:text}`width:.2f`, and {glue:text}`n_open` of the 24 intervals contain zero.
#
# ## Chosen afterwards
#
# One cell has one NTPS at a given layer and $k$. The released cells have three, and they differ widely: for each model and each target a layer and a $k$ were chosen
# from a sweep over all layers and 19 values of $k$, the number of directions that are kept, the same for all 12 datasets.

# %%
columns = ["ntps_vs_mse", "ntps_vs_accuracy", "ntps_vs_gain"]
spread = cells[columns].max(axis=1) - cells[columns].min(axis=1)
cells.groupby("model", sort=False)[columns].mean().rename(index=short).round(2)

# %% [markdown]
# The largest coefficient of a sweep is larger than a typical one even if the score is unrelated to the target. By how much, depends on how strongly neighboring
# settings are correlated, and the sweeps themselves were not released. So we simulate scores of 12 datasets at (layers × 19) settings that are smooth in layer and fraction and
# *unrelated* to the target. The correlation $c$ between neighboring settings is the unknown; we show what follows for four values of it, in a model with 24 layers.


# %%
def smooth_sweep(c, rng, layers=24, fractions=19, points=12):
    """Gaussian scores whose neighbors in layer and in fraction correlate by c."""
    x = rng.normal(size=(layers, fractions, points))
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        for i in range(1, len(x)):
            x[i] = c * x[i - 1] + np.sqrt(1 - c**2) * x[i]
        x = np.moveaxis(x, 0, axis)
    return x.reshape(-1, points)


# %%
rng = np.random.default_rng(seed)
nulls = {}
for c in (0.5, 0.9, 0.98, 0.999):
    sweeps = [smooth_sweep(c, rng) for _ in range(20)]
    draws = [
        max_statistic_null(s, n_permutations // 20, seed + i)
        for i, s in enumerate(sweeps)
    ]
    nulls[c] = np.concatenate(draws)
gain_coefficients = np.sort(mine["gain"])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Distributions of the best coefficient in a sweep unrelated to its target, for four degrees of smoothness, with the paper's eight coefficients for the gain marked; several lie within the distributions."}, "figure": {"caption": "The best of a sweep looks good even when there is nothing to find. Distribution of the largest coefficient among 24 x 19 settings for an unrelated target, by correlation of neighboring settings; box: quartiles, whiskers: 5% and 95%. Lines: the eight coefficients printed for the gain.", "name": "fig-paper-selection"}}
figure, (axes,) = panels(1, height=3.0)
axes.boxplot(
    list(nulls.values()),
    orientation="horizontal",
    whis=(5, 95),
    showfliers=False,
    tick_labels=[f"c = {c:g}" for c in nulls],
)
for value in gain_coefficients:
    axes.axvline(value, color=COLORS["euclidean"], lw=1, alpha=0.7)
_ = axes.set(xlabel="largest Spearman coefficient of the sweep", xlim=(-0.1, 1))

# %% tags=["remove-cell"]
glue("median_spread", float(spread.median()), display=False)
glue("null_smooth", float(np.median(nulls[0.98])), display=False)
glue("null_positive", float(np.mean(nulls[0.98] > 0)), display=False)
glue("null_smooth_95", float(np.quantile(nulls[0.98], 0.95)), display=False)
glue("null_very_smooth_95", float(np.quantile(nulls[0.999], 0.95)), display=False)
glue(
    "n_beyond_smooth",
    int((gain_coefficients > np.quantile(nulls[0.98], 0.95)).sum()),
    display=False,
)
glue(
    "n_beyond_very_smooth",
    int((gain_coefficients > np.quantile(nulls[0.999], 0.95)).sum()),
    display=False,
)

# %% [markdown]
# The three values of a cell differ by {glue:text}`median_spread:.2f` in the median. If neighboring settings correlate by 0.98, the best coefficient of a sweep that has
# nothing to do with its target has a median of {glue:text}`null_smooth:.2f` and a 95% point of {glue:text}`null_smooth_95:.2f`; {glue:text}`n_beyond_smooth` of the eight coefficients
# for the gain lie beyond it, and {glue:text}`n_beyond_very_smooth` beyond that of an even smoother sweep (0.999), {glue:text}`null_very_smooth_95:.2f`.
#
# How smooth is a real sweep? Here is one, of the paper's kind: the largest model of the lab, every layer and 19 fractions, on twelve of its tasks. It has fewer layers than the paper's models, so that fewer settings can be chosen. We measure the correlation of neighboring settings, and the null distribution is that of permuted targets.

# %% tags=["hide-input"]
real = sweep(
    load_model("lab/L", dtype="float32"),
    [
        (
            load_texts(f"lab/{t}").head(n_texts),
            load_texts(f"lab/{t}", "test").head(50),
        )
        for t in list(TASKS)[:12]
    ],
)
table = real.scores["ntps"]
along_k = np.mean([spearman(a, b) for one in table for a, b in pairwise(one)])
across_layers = np.mean(
    [
        spearman(table[i, f], table[i + 1, f])
        for i in range(len(table) - 1)
        for f in range(table.shape[1])
    ]
)
real_null = max_statistic_null(real.flat("ntps"), n_permutations, seed)
glue("real_k", float(along_k), display=False)
glue("real_layers", float(across_layers), display=False)
glue("real_settings", int(table.shape[0] * table.shape[1]), display=False)
glue("real_null", float(np.median(real_null)), display=False)
glue("real_null_95", float(np.quantile(real_null, 0.95)), display=False)
glue(
    "n_beyond_real",
    int((gain_coefficients > np.quantile(real_null, 0.95)).sum()),
    display=False,
)

# %% [markdown]
# Neighboring fractions correlate by {glue:text}`real_k:.2f` and neighboring layers by {glue:text}`real_layers:.2f`. The best of its {glue:text}`real_settings` settings, for a target that has nothing to do with it, has a median of
# {glue:text}`real_null:.2f` and a 95% point of {glue:text}`real_null_95:.2f`; {glue:text}`n_beyond_real` of the paper's eight coefficients for the gain lie beyond. If nothing were related, 5% of eight, or 0.4, would be expected there; but the models share their datasets, so that several coefficients tend to be large together.
#
# None of this shows that a given coefficient is due to chance. It shows that a coefficient which was chosen as the best can only be judged together with its sweep. Nor is it much evidence of a relation that all eight models agree in sign. The setting of each model was chosen by this coefficient, we assume with its sign: the largest coefficient of a sweep is positive in {glue:text}`null_positive:.0%` of the draws at 0.98, without any relation.
#
# ## A rival that needs no eigenvectors
#
# The accuracy of the linear head on frozen features, which the gain is computed from, is known before LoRA is run. Its **headroom**, here one minus this accuracy as the paper prints it (in other chapters it comes from cross-validation), is a rival for predicting the gain. The comparison has three limits. The gain contains the probe's
# accuracy with a minus sign, so the two are coupled by construction. One dataset has accuracies far below chance (see below). And the setting of NTPS was chosen, while headroom has no setting to choose.


# %%
def compare(group):
    kept = group[group["dataset"] != "medical_questions_pairs"]
    return {
        "NTPS": spearman(group["ntps_vs_gain"], group["gain"]),
        "headroom": spearman(group["headroom"], group["gain"]),
        "NTPS, 11": spearman(kept["ntps_vs_gain"], kept["gain"]),
        "headroom, 11": spearman(kept["headroom"], kept["gain"]),
        "NTPS given headroom, 11": partial_spearman(
            kept["ntps_vs_gain"], kept["gain"], kept["headroom"]
        ),
    }


rivals = pd.DataFrame({short[m]: compare(g) for m, g in by_model.items()}).T
rivals.round(2)

# %% tags=["remove-cell"]
glue(
    "n_rival",
    int((rivals["headroom, 11"].abs() >= rivals["NTPS, 11"].abs()).sum()),
    display=False,
)
glue(
    "n_ntps_12",
    int((rivals["NTPS"].abs() > rivals["headroom"].abs()).sum()),
    display=False,
)
glue(
    "n_partial_negative",
    int((rivals["NTPS given headroom, 11"] < 0).sum()),
    display=False,
)
partial_range = rivals["NTPS given headroom, 11"]
glue("partial_low", float(partial_range.min()), display=False)
glue("partial_high", float(partial_range.max()), display=False)

# %% [markdown]
# Over all 12 datasets NTPS is the stronger of the two in {glue:text}`n_ntps_12` of 8 models. Without medical question pairs (the columns with 11) headroom does as well or better in
# {glue:text}`n_rival` of 8. With headroom held fixed, NTPS and gain are still negatively related in {glue:text}`n_partial_negative` of 8, with coefficients from
# {glue:text}`partial_low:.2f` to {glue:text}`partial_high:.2f`: the sign stays negative. Whether this is more than what the choice of the setting gives cannot be told, because only the chosen setting was released.
#
# ## One dataset
#
# Medical question pairs ask whether two questions mean the same; the two answers are equally frequent. These are the accuracies on held-out texts:

# %%
medical = cells[cells["dataset"] == "medical_questions_pairs"].set_index("model")
medical[["probe_test_accuracy", "lora_test_accuracy"]].rename(
    index=short,
    columns={"probe_test_accuracy": "probe", "lora_test_accuracy": "LoRA"},
).round(3)

# %% tags=["remove-cell"]
glue(
    "medical_max",
    float(medical[["probe_test_accuracy", "lora_test_accuracy"]].max().max()),
    display=False,
)

# %% [markdown]
# All of them are at most {glue:text}`medical_max:.2f`. A classifier that has learned nothing would be near one half, so it cannot give such accuracies. A leak between training and test rows can. Each first question occurs twice, once with
# each answer. Suppose that the second question is missing from the text, and that rows are split at random. A model that remembers the answer "yes" of a training row then meets the same question in the test set, where the
# answer is "no". To avoid this, join both questions, split by question, and treat an accuracy far below chance as a sign of an error. If texts occur in both splits with the same label, the same leak makes accuracy too high;
# the library warns of both.
#
# Does this explanation give such numbers? We try it with pairs of the lab: {glue:text}`leak_n` first sentences, each once with its passive ("yes") and once with the passive of another sentence ("no"), and the
# features of the largest model, for which texts are few, as they were in the paper. We prepare the same rows in four ways.


# %% tags=["hide-input"]
def twins(n):
    """First sentences, each with a second one that repeats it and one that does not."""
    rng, pairs = random.Random(seed), {}
    while len(pairs) < n:
        doc = WORLD.document(rng)
        passive_pair(WORLD, doc, True)
        one, two = doc.text.split(" | ")
        pairs.setdefault(one, two)
    firsts, seconds = list(pairs), list(pairs.values())
    return [
        (i, firsts[i], seconds[(i + shift) % n], 1 - shift)
        for i in range(n)
        for shift in (0, 1)
    ]


def held_out_accuracy(rows, joined, by_question):
    """Mean test accuracy of a 1-nearest-neighbor memorizer and of a probe."""
    texts = [f"{a} | {b}" if joined else a for _, a, b, _ in rows]
    y = np.array([label for *_, label in rows])
    data = TextDataset("pairs", "all", tuple(texts), y, ("no", "yes"))
    at = extract(largest, data, layers=(last,), features=(last,), batch_size=64)
    x, found = at.features[last], []
    groups = np.array([i for i, *_ in rows]) if by_question else np.arange(len(y))
    for train, test in GroupShuffleSplit(
        10, train_size=0.7, random_state=seed
    ).split(x, y, groups):
        memorizer = KNeighborsClassifier(1).fit(x[train], y[train])
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=100.0, max_iter=2000)
        ).fit(x[train], y[train])
        found.append([m.score(x[test], y[test]) for m in (memorizer, probe)])
    return np.mean(found, axis=0)


largest = load_model("lab/L", dtype="float32")
last = largest.n_layers - 1
rows = twins(n_pairs)
re_enacted = pd.DataFrame(
    {
        f"{'joined' if joined else 'second lost'}, split by "
        f"{'question' if by_question else 'row'}": held_out_accuracy(
            rows, joined, by_question
        )
        for joined in (True, False)
        for by_question in (True, False)
    },
    index=["memorizer", "probe"],
).T
re_enacted.round(2)

# %% tags=["remove-cell"]
lost = re_enacted.loc["second lost, split by row"]
sound = re_enacted.loc["joined, split by question"]
glue("leak_n", n_pairs, display=False)
glue("leak_memorizer", float(lost["memorizer"]), display=False)
glue("leak_probe", float(lost["probe"]), display=False)
glue("sound_probe", float(sound["probe"]), display=False)
glue("sound_memorizer", float(sound["memorizer"]), display=False)
mixed = re_enacted.loc["joined, split by row"]
glue("joined_memorizer", float(mixed["memorizer"]), display=False)
glue("joined_probe", float(mixed["probe"]), display=False)
glue(
    "lost_group_probe",
    float(re_enacted.loc["second lost, split by question", "probe"]),
    display=False,
)

# %% [markdown]
# With the second sentence lost and rows split at random, the memorizer scores {glue:text}`leak_memorizer:.2f` and the probe {glue:text}`leak_probe:.2f`: far below one half, like the released accuracies. With pairs joined, rows split at random still mislead the memorizer ({glue:text}`joined_memorizer:.2f`), and the probe much less ({glue:text}`joined_probe:.2f`): it falls below one half only if both errors come together. With pairs joined and questions
# kept together they score {glue:text}`sound_memorizer:.2f` and {glue:text}`sound_probe:.2f`, and with the second sentence lost but questions kept together the probe scores {glue:text}`lost_group_probe:.2f`, as it should when nothing can be learned.
#
# How much does any one dataset matter? Leaving out one at a time moves a model's coefficient for the gain by up to {glue:text}`largest_change:.2f`. The table shows by how much the coefficient changes when a dataset is left out, mean
# over the models and the model it moves most:

# %%
whole = {m: spearman(g["ntps_vs_gain"], g["gain"]) for m, g in by_model.items()}
influence = pd.DataFrame(
    {
        short[m]: leave_one_out(g["ntps_vs_gain"], g["gain"]) - whole[m]
        for m, g in by_model.items()
    },
    index=next(iter(by_model.values()))["dataset"].to_numpy(),
)
pd.DataFrame(
    {
        "mean": influence.mean(axis=1),
        "most": influence.apply(lambda row: row[row.abs().idxmax()], axis=1),
        "in": influence.abs().idxmax(axis=1),
    }
).sort_values("mean").round(2)

# %% tags=["remove-cell"]
glue("largest_change", float(influence.abs().to_numpy().max()), display=False)

# %% [markdown]
#
# ## All models at once
#
# Eight models on the same twelve datasets are not 96 independent points. Three ways to pool them: all cells in one correlation, which mixes differences between models with those between datasets; the mean of the coefficients within
# models, with an interval from resampling datasets; and a mixed model of ranks with a random intercept for each dataset, which asks whether, on one and the same dataset, a model in which the score ranks higher is one in which the gain ranks lower.

# %%
wide = cells.pivot(index="model", columns="dataset")
within = pooled_rank_correlation(
    wide["ntps_vs_gain"].to_numpy(), wide["gain"].to_numpy(), seed=seed
)
one_pot = spearman(cells["ntps_vs_gain"], cells["gain"])
ranks = pd.DataFrame(
    {
        "dataset": cells["dataset"],
        "ntps": cells.groupby("model")["ntps_vs_gain"].rank() - 6.5,
        "gain": cells.groupby("model")["gain"].rank() - 6.5,
    }
)
mixed = smf.mixedlm("gain ~ ntps", ranks, groups=ranks["dataset"]).fit(reml=True)
inside = mixed.params["ntps"]
error = mixed.bse["ntps"]
spread_sets = float(mixed.cov_re.iloc[0, 0])
shared = spread_sets / (spread_sets + float(mixed.scale))

# %% tags=["remove-cell"]
glue("one_pot", one_pot, display=False)
glue("within_rho", within.rho, display=False)
glue("within_low", within.low, display=False)
glue("within_high", within.high, display=False)
glue("mixed_slope", float(inside), display=False)
glue("mixed_low", float(inside - 1.96 * error), display=False)
glue("mixed_high", float(inside + 1.96 * error), display=False)
glue("shared", float(shared), display=False)

# %% [markdown]
# Pooling all 96 cells gives {glue:text}`one_pot:.2f`. Within models the mean is {glue:text}`within_rho:.2f`, with a 95% interval of {glue:text}`within_low:.2f` to {glue:text}`within_high:.2f` from twelve datasets. These intervals ignore that each model's setting was chosen by this very coefficient. In the mixed model the slope of the
# gain's rank on the score's is {glue:text}`mixed_slope:.2f` ({glue:text}`mixed_low:.2f` to {glue:text}`mixed_high:.2f`), and differences between datasets are {glue:text}`shared:.0%` of the remaining variance. So the eight models are far from eight independent repetitions.
#
# ## Verdict on the claims, from the paper's own numbers
#
# :::{admonition} Claims (iii) and (v): NTPS correlates with probe accuracy, and predicts the LoRA gain
# :class: note
# **Reproduced as printed; open as claims.** The printed coefficients follow from the released cells (the first table of this chapter). The relation with the gain is negative in all eight models ({numref}`fig-paper-gain`).
# But the setting was chosen with the targets in view, which alone makes equal signs likely unless the scores hardly differ between settings; probe accuracy was measured on the training texts, the intervals are wide ({numref}`fig-paper-intervals`), and headroom does as well without one odd dataset
# for most models. Whether NTPS at a setting fixed in advance predicts anything on new data, these numbers cannot say. The {doc}`declared experiment </book/declared>` asks this with two models ({doc}`chapter 7 <07_scores_against_probes>` and {doc}`chapter 9 <09_predicting_the_gain>`).
# :::
#
# ## Summary
#
# - All 24 coefficients can be recomputed; one depends on the order of two errors that are both zero.
# - NTPS and LoRA gain are negatively related within each model.
# - From 12 points a rank correlation has a 95% interval {glue:text}`width:.2f` wide, in the median of the 24.
# - The best setting of a sweep must be compared with the best setting on permuted targets.
# - Compare a score with headroom, which is easier to compute, and coupled to the gain by construction.
#
# ## Quiz
#
# **1.** In the paper's numbers the coefficient of NTPS and gain is negative in all eight models. Why is the common sign no strong evidence by itself?
#
# - (a) Eight models are too few for any statement about signs
# - (b) The models were evaluated on different datasets
# - (c) For each model, the setting was chosen by this coefficient
#
# :::{admonition} Answer
# :class: dropdown
# (c). If one of many settings is chosen by the coefficient, the coefficient is large by selection, and the selection makes one sign likely, too, unless all settings are nearly alike. (a) is wrong because eight independent coefficients of one sign would be unlikely by chance. (b) is wrong because all models were evaluated on the same twelve datasets.
# :::
#
# **2.** What does an accuracy on the training texts measure?
#
# - (a) How well the features fit these texts
# - (b) How well a probe works on new texts
# - (c) The number of classes
#
# :::{admonition} Answer
# :class: dropdown
# (a). With many features a probe fits its own texts, whatever the labels are. (b) is wrong because only other texts show that. (c) is wrong because a probe with enough features reaches 100% with any number of classes.
# :::
#
# **3.** A dataset has questions that occur twice, with opposite answers. What does a very low test accuracy tell?
#
# - (a) The task is hard
# - (b) The classifier remembers the test row's twin, which is in the training rows
# - (c) The labels are balanced
#
# :::{admonition} Answer
# :class: dropdown
# (b). The twin in the training rows has the opposite label, so remembering it gives the wrong answer. (a) is wrong because a hard task has an accuracy near chance, not far below. (c) is wrong because balanced labels alone give an accuracy near one half.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Coupled by construction
# :label: ex-10-1
#
# *Difficulty 2 of 5, importance 5 of 5, about 10 minutes.*
#
# Let the accuracies after LoRA and before be independent over datasets, with the same variance. What is the (Pearson) correlation of headroom and gain?
#
# ```python
# correlation = ...
#
# check("10.1", correlation)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Both contain the accuracy before. Write gain and headroom as $a - b$ and $1 - b$.
# :::
#
# ````{solution} ex-10-1
# :class: dropdown
# Write $g = a - b$ and $h = 1 - b$. Then $\operatorname{cov}(g, h) = \operatorname{var}(b)$ and $\operatorname{var}(g) = 2\operatorname{var}(b)$, so the correlation is $1/\sqrt2 \approx 0.71$, from nothing but the shared $b$.
# ````
#
# ````{exercise} A memorizer on twins
# :label: ex-10-2
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Each question occurs in two rows with opposite answers; a share of the rows, at random, is for training. A classifier answers with the answer of the twin if it has seen it, and otherwise guesses. Which accuracy do you expect? Write it as a function of the share.
#
# ```python
# def accuracy(share):
#     ...
#
# check("10.2", accuracy)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# How often is the twin of a test row in the training rows, and how often is the answer right then?
# :::
#
# ````{solution} ex-10-2
# :class: dropdown
# A test row's twin is in training with a probability of nearly the share, and then the answer is wrong. Otherwise it is right half of the time: $(1 - \text{share}) / 2$, that is 0.15 at 70%.
# ````
#
# ````{exercise} Another statistic
# :label: ex-10-3
#
# *Difficulty 2 of 5, importance 3 of 5, about 15 minutes.*
#
# Write Kendall's coefficient of two arrays without ties: the share of concordant pairs minus that of discordant ones. Use it in the table of rivals in place of Spearman's. Does any conclusion change?
#
# ```python
# def kendall(x, y):
#     ...
#
# check("10.3", kendall)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# A pair is concordant if both arrays order it alike: look at the sign of the product of differences.
# :::
#
# ````{solution} ex-10-3
# :class: dropdown
# Kendall's coefficients are mostly smaller in size, as they usually are for moderate relations. One conclusion changes. Without medical question pairs, headroom does as well or better in the same models as before. Over all twelve datasets, NTPS is no longer the stronger one in every model: headroom is as strong in OpenELM-3B, and stronger in Llama-3-8B.
#
# ```python
# def kendall(x, y):
#     i, j = np.triu_indices(len(x), 1)
#     return np.sign((x[i] - x[j]) * (y[i] - y[j])).mean()
# ```
# ````

# %% tags=["remove-input"]
Markdown(provenance_note(profile=profile, seed=seed, permutations=n_permutations))

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
# # After LoRA
#
# :::{admonition} After this chapter you can
# :class: tip
# - say what it means to score a model after its adapters were merged;
# - compare paired measurements before and after, with an interval over tasks;
# - use a control to distinguish a rise that comes with learning from a rise that any finetuning causes.
#
# You need chapter 3 for the scores and chapter 7 for the cells. This chapter reads recorded rows and runs in half a minute.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that NTPS rises when a model is finetuned with LoRA {cite}`hu2022lora`, and more so in large models.
# **The code does** merge the adapters of every cell of chapter 7 into the weights, take the moments of the finetuned model, and score
# them at the same layer and width. (Here these are the weights after the last training step, in the lab and in the two pretrained models; in the three small models on real texts, those with the lowest validation loss.) **We find** no rise of the paper's score after LoRA, and a simulation says that so few texts could hide one. The metric-matched score rises in the lab, on texts that LoRA was not trained on, and more where accuracy rises more; in two pretrained models it rises by more than with shuffled labels in {glue:text}`later_m_positive` of {glue:text}`later_n` runs, from very few texts for each feature. On training texts it rises even on a coin toss, so that a rise means something only on test texts and beside a control.

# %% tags=["parameters"]
profile = "default"
seed = 0
n_resamples = 5000
sets = "lab real"

# %% tags=["hide-input"]
from itertools import pairwise

import numpy as np
import pandas as pd
from IPython.display import Markdown
from myst_nb import glue
from scipy import stats

from ntps_utils.evidence.claims import analyzed_runs
from ntps_utils.evidence.claims import rises as rises_of
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.runs import recorded_runs
from ntps_utils.evidence.statistics import mean_interval, pooled_rank_correlation
from ntps_utils.evidence.tables import load_recorded, recorded_on
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, interval_dots, panels

house_style()

# %% [markdown]
# ## The question, and the rule
#
# The **rise** of a score is its value after LoRA minus its value before, of one model on one task. The claim is that the rise is positive, and grows with the model. For each model we give the
# mean rise over its tasks, with a 95% interval from resampling tasks. A score *of test texts* takes all moments from the test texts and their labels, before and after LoRA; only the weights come from the training texts. The rule, as it stands now:
#
# | | |
# | --- | --- |
# | cells | those of chapter 7, lab and real texts; the coin toss apart |
# | texts (changed) | test texts in the lab; training texts on real ones, whose older rows have no scores of test texts |
# | setting (changed) | the primary one: last layer, V half as wide as the features; second moments for the Euclidean score, covariances for the other two |
# | rule, rise (*open* added) | *held* if the interval of the Euclidean score lies above zero in at least three quarters of the models of a set; *held for another score* if only that of another does; otherwise *not held*. *Open* is written in place of a verdict where scores are of training texts without a control |
# | rule, size | *held* if the mean rises from model to model with size throughout, and the largest model's interval lies above the smallest's mean |
# | control | the coin-toss task, on which LoRA learns nothing: a rise there is an effect of finetuning as such. It is shown beside the verdict, which compares with zero |
#
# The rule was written down before the differences were looked at, except for the two entries with *changed* and the word *open*. *Open* was added when it was seen that the metric-matched and the task-weighted score of training texts rise on the coin toss as much as on the tasks. For the same reason the first of the two entries was changed on 28 November 2026, after the lab's table had been made anew with 600 steps: until then rises in the lab came from training texts. The second was changed on that day, too: until then the metric-matched and the task-weighted score came from second moments (see {doc}`chapter 7 <07_scores_against_probes>`). From training texts, with covariances, the rule would say *{glue:text}`rise_lab_training`* of the rise in the lab; from test texts it says what stands in the box below. The three small models on real texts were finetuned earlier, with at most 150 steps and early stopping.

# %%
KINDS = {
    "ntps": ("Euclidean", "euclidean"),
    "ntps_metric": ("metric-matched", "metric"),
    "ntps_task": ("task-weighted", "task"),
}
cells = pd.concat(
    [load_recorded(name).assign(set=name) for name in sets.split()],
    ignore_index=True,
)
for score in KINDS:
    cells[f"train_{score}"] = cells[f"{score}_after"] - cells[score]
    test = cells[f"{score}_test_after"] - cells[f"{score}_test"]
    cells[f"rise_{score}"] = test.fillna(cells[f"train_{score}"])
control = cells[cells["dataset"] == "lab/random"]
cells = cells[cells["dataset"] != "lab/random"]
sizes = cells.groupby(["set", "model"])["n_parameters"].first().sort_values()
order = [model for name in sets.split() for model in sizes[name].index]


# %%
def mean_change(model, column):
    """Mean of a column over the tasks of a model, with its interval."""
    return mean_interval(
        cells.loc[cells["model"] == model, column],
        seed=seed,
        n_resamples=n_resamples,
    )


rises = {
    (m, score): mean_change(m, f"rise_{score}") for m in order for score in KINDS
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels, one for each score: the mean change of the score after LoRA for each model of the lab and of the real set, with intervals, smallest model first, and a cross for the coin toss."}, "figure": {"caption": "What LoRA does to each score. Mean change over tasks with 95% intervals from resampling tasks, smallest model first within each set; crosses: the coin-toss control. Lab: test texts. Three small models on real texts: training texts, without a control.", "name": "fig-after-rise"}}
figure, axes = panels(3, height=3.4)
for ax, (score, (label, shade)) in zip(axes, KINDS.items(), strict=True):
    interval_dots(ax, order, [rises[m, score] for m in order], COLORS[shade])
    flips = control.set_index("model")[f"rise_{score}"]
    for i, model in enumerate(order):
        if model in flips.index:
            ax.plot(flips[model], i, "x", color=COLORS["exact"], ms=5)
    ax.set(title=label)
    if ax is not axes[0]:
        ax.set_yticklabels([])
_ = figure.supxlabel("change of the score", fontsize=11)

# %%
lab_cells, lab_control = (t[t["set"] == "lab"] for t in (cells, control))
by_texts = pd.DataFrame(
    {
        label: {
            f"{name}, {texts} texts": rows[f"{prefix}_{score}"].mean()
            for name, rows in {"tasks": lab_cells, "coin toss": lab_control}.items()
            for texts, prefix in {"training": "train", "test": "rise"}.items()
        }
        for score, (label, _) in KINDS.items()
    }
).T
by_texts.round(3)

# %% tags=["remove-cell"]
for score in KINDS:
    flips = lab_control[f"rise_{score}"]
    glue(f"coin_least_{score}", float(flips.min()), display=False)
    glue(f"coin_most_{score}", float(flips.max()), display=False)
tosses = lab_control.set_index("model")["rise_ntps_metric"]
above = [m for m in tosses.index if rises[m, "ntps_metric"][1] > tosses[m]]
glue("above_coin", len(above), display=False)
glue("above_coin_of", len(tosses), display=False)
for score, (label, _) in KINDS.items():
    for key, column in {
        "tasks_train": "tasks, training texts",
        "tasks_test": "tasks, test texts",
        "coin_train": "coin toss, training texts",
        "coin_test": "coin toss, test texts",
    }.items():
        glue(f"{key}_{score}", float(by_texts.loc[label, column]), display=False)
positive = {
    (name, score): [rises[m, score][1] > 0 for m in sizes[name].index]
    for name in sets.split()
    for score in KINDS
}


on_training_texts = {
    score: [mean_change(m, f"train_{score}")[1] > 0 for m in sizes["lab"].index]
    for score in KINDS
    if "lab" in sets.split()
}


def rise_verdict(is_positive):
    """What the rule says of a set; by score, whether the interval of each model is positive."""
    held = {score: np.mean(is_positive[score]) >= 0.75 for score in KINDS}
    others = [KINDS[s][0] for s in ("ntps_metric", "ntps_task") if held[s]]
    if held["ntps"]:
        return "held"
    return (
        f"held for another score ({' and '.join(others)})" if others else "not held"
    )


def size_verdict(name, score="ntps"):
    means = [rises[m, score] for m in sizes[name].index]
    rising = all(a[0] < b[0] for a, b in pairwise(means))
    return "held" if rising and means[-1][1] > means[0][0] else "not held"


earlier = rise_verdict(on_training_texts) if on_training_texts else "not run"
glue("rise_lab_training", earlier, display=False)
for name in ("lab", "real"):
    there = name in sets.split()
    signs = {score: positive.get((name, score)) for score in KINDS}
    verdict = rise_verdict(signs) if there else "not run"
    glue(f"rise_{name}", verdict, display=False)
    glue(f"size_{name}", size_verdict(name) if there else "not run", display=False)
    others = [
        label
        for score, (label, _) in KINDS.items()
        if score != "ntps" and there and size_verdict(name, score) == "held"
    ]
    glue(f"size_{name}_others", " and ".join(others) or "none", display=False)
    for score in KINDS:
        values = (
            [rises[m, score][0] for m in sizes[name].index] if there else [np.nan]
        )
        glue(f"{name}_{score}_low", float(min(values)), display=False)
        glue(f"{name}_{score}_high", float(max(values)), display=False)

# %% [markdown]
# The table has the mean rise of each score in the lab, on the texts that LoRA was trained on and on test texts. It shows why the texts matter. On training texts the metric-matched score rises by {glue:text}`tasks_train_ntps_metric:.2f` on the tasks and by {glue:text}`coin_train_ntps_metric:.2f` on the coin toss, where nothing can be learned: LoRA has fitted the labels of
# these very texts. On test texts it rises by {glue:text}`tasks_test_ntps_metric:.2f` on the tasks and by {glue:text}`coin_test_ntps_metric:.2f` on the coin toss. The latter is the mean of four models, which range from {glue:text}`coin_least_ntps_metric:.2f` to {glue:text}`coin_most_ntps_metric:.2f` (the crosses): one coin toss a model is a coarse control. In {glue:text}`above_coin` of the {glue:text}`above_coin_of` models the whole interval of the rise on the tasks lies above that model's coin toss. But one coin toss has an error of its own, which is not known. The paper's score changes by {glue:text}`tasks_test_ntps:.2f` on test texts: no rise of it was measured. A later section says what could be hidden.
#
# In the lab the mean change of the Euclidean score ranges over the models from {glue:text}`lab_ntps_low:+.3f` to {glue:text}`lab_ntps_high:+.3f`, that of the metric-matched one from
# {glue:text}`lab_ntps_metric_low:+.3f` to {glue:text}`lab_ntps_metric_high:+.3f`, and that of the task-weighted one from {glue:text}`lab_ntps_task_low:+.3f` to
# {glue:text}`lab_ntps_task_high:+.3f`. On real texts the three range from {glue:text}`real_ntps_low:+.3f` to {glue:text}`real_ntps_high:+.3f`, from
# {glue:text}`real_ntps_metric_low:+.3f` to {glue:text}`real_ntps_metric_high:+.3f`, and from {glue:text}`real_ntps_task_low:+.3f` to
# {glue:text}`real_ntps_task_high:+.3f`.
#
# :::{admonition} Claim (iv): NTPS rises after LoRA, more in large models
# :class: important
# - Rises, in the lab: **{glue:text}`rise_lab`**, compared with zero; in {glue:text}`above_coin` of {glue:text}`above_coin_of` models the whole interval of the metric-matched rise lies above the model's own coin toss. Of the paper's score no rise was measured, and one of {glue:text}`planted:.1f` could have been missed. In two pretrained models, by the declared rule: **{glue:text}`declared_verdict`** (below). In three small models on real texts: **open**. The rule alone would say *{glue:text}`rise_real`* (it asks for all three models); but these are scores of training texts without a control, and in the lab such scores rise on a coin toss as well.
# - More in larger models, in the lab: **{glue:text}`size_lab`** for the paper's score (which says little: a difference of that size between models could be missed, too); other scores for which it held by the same rule: {glue:text}`size_lab_others`. In pretrained models: **open**, since two models cannot tell.
#
# Supported by {numref}`fig-after-rise`. The models of the figure have at most {glue:text}`largest:,` parameters, the pretrained ones 135 and 268 million; models with billions of parameters could not be tested here.
# :::

# %% tags=["remove-cell"]
glue("largest", int(cells["n_parameters"].max()), display=False)

# %% [markdown]
# ## Does the score rise where accuracy rises?
#
# A rise of the score can explain a gain only if both occur in the same cells. We compute the rank correlation of the change with the gain within each model, and average it over the models of a set. Both belong to the same weights: in the lab, scores after LoRA are those after the last training step, and so is the gain here; on real texts, both are those of the checkpoint with the lowest validation loss.

# %%
together, kept = {}, {}
for name in sets.split():
    part = cells[cells["set"] == name]
    part = part.assign(same=(part["last"] - part["frozen"]).fillna(part["gain"]))
    gains = {
        column: part.pivot(index="model", columns="dataset", values=column)
        for column in ("same", "gain")
    }
    for score, (label, _) in KINDS.items():
        change = part.pivot(index="model", columns="dataset", values=f"rise_{score}")
        together[name, label], kept[name, label] = (
            pooled_rank_correlation(
                change.to_numpy(),
                gain.to_numpy(),
                seed=seed,
                n_resamples=n_resamples,
            )
            for gain in gains.values()
        )

# %% tags=["hide-input"] mystnb={"image": {"alt": "Rank correlations of the change of each score with the LoRA gain, with intervals, for the lab and for real texts."}, "figure": {"caption": "Change of the score against gain, from test texts in the lab and training texts for the three small models on real texts. Spearman's coefficient within models, averaged, with 95% intervals from resampling tasks.", "name": "fig-after-gain"}}
names = sets.split()
figure, axes = panels(len(names), height=2.2)
for ax, name in zip(axes, names, strict=True):
    labels = [label for label, _ in KINDS.values()]
    found = [together[name, label] for label in labels]
    shades = [COLORS[shade] for _, shade in KINDS.values()]
    interval_dots(ax, labels, [(r.rho, r.low, r.high) for r in found], shades)
    ax.set(title={"lab": "lab", "real": "real texts"}[name], xlim=(-1, 1))
    if ax is not axes[0]:
        ax.set_yticklabels([])
_ = figure.supxlabel("Spearman's coefficient with the gain", fontsize=11)

# %% tags=["remove-cell"]
for name in ("lab", "real"):
    for label, key in (("Euclidean", "e"), ("metric-matched", "m")):
        for start, found in {"with": together, "kept": kept}.items():
            r = found.get((name, label))
            for part in ("rho", "low", "high"):
                value = getattr(r, part) if r else float("nan")
                glue(f"{start}_{name}_{key}_{part}", float(value), display=False)
start_kept = cells.query("set == 'lab' and lora_steps == 0")
glue("start_kept", len(start_kept), display=False)
glue("start_of", len(cells.query("set == 'lab'")), display=False)

# %% [markdown]
# For the change of the Euclidean score no relation with the gain was found. The change of the metric-matched score correlates with the gain in the lab. Both come from the same test texts there, so that they may share some chance. On real texts its interval contains zero; these are changes on training texts, on eleven datasets, and say little. So a rise of the overlap can accompany a gain, if the overlap is measured in the metric of the loss.
# In the lab the change of the Euclidean score has a coefficient of {glue:text}`with_lab_e_rho:.2f` ({glue:text}`with_lab_e_low:.2f` to {glue:text}`with_lab_e_high:.2f`) with the gain, that of the metric-matched score
# {glue:text}`with_lab_m_rho:.2f` ({glue:text}`with_lab_m_low:.2f` to {glue:text}`with_lab_m_high:.2f`). On real texts the two are {glue:text}`with_real_e_rho:.2f`
# ({glue:text}`with_real_e_low:.2f` to {glue:text}`with_real_e_high:.2f`) and {glue:text}`with_real_m_rho:.2f` ({glue:text}`with_real_m_low:.2f` to {glue:text}`with_real_m_high:.2f`).
#
# :::{note}
# Until 29 November 2026 the gain in the lab was that of the checkpoint with the lowest validation loss, as in the other chapters. In {glue:text}`start_kept` of {glue:text}`start_of` cells this is the start, where LoRA has changed nothing. With that gain the two coefficients in the lab were {glue:text}`kept_lab_e_rho:.2f` and {glue:text}`kept_lab_m_rho:.2f`.
# :::
#
# ## How many texts does it take to see a rise?
#
# Could these test texts have shown a rise of the paper's score at all? In a simulation the features stay as they are, and the labels are changed so that the label directions lie to a larger part in V: NTPS of a large sample rises by {glue:text}`planted:.2f`, the *planted* rise. We measure the same change in smaller samples. This asks only whether so few texts can show a rise; LoRA itself changes the features (recorded: `python -m book.tools.visible_rise`).

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels, for 2 and for 20 classes: the measured share of a planted rise against the number of texts for each feature. The Euclidean score shows nearly nothing up to ten texts for each feature; the curves of the other two scores lie nearer to one."}, "figure": {"caption": "What part of a planted rise shows. Mean change of a score in samples of n texts, divided by its change in a large sample; 96 features; bars: standard deviation over random draws of features and labels. With two classes and covariances, the metric-matched and the task-weighted score are equal.", "name": "fig-visible-rise"}}
simulated = pd.DataFrame(load_record("visible_rise")["rows"])
curve = simulated[simulated["d"] == 96]
figure, axes = panels(2, height=2.8, sharey=True)
for ax, (n_classes, part) in zip(axes, curve.groupby("n_classes"), strict=True):
    for i, (score, (label, shade)) in enumerate(KINDS.items()):
        one = part[part["score"] == score]
        ax.errorbar(
            one["n"] / one["d"] * 1.06**i,
            one["measured"] / one["planted"],
            one["sd"] / one["planted"],
            fmt="o-",
            ms=4,
            lw=1,
            color=COLORS[shade],
            label=label,
        )
    ax.axhline(1, color=COLORS["exact"], lw=0.8, ls="--")
    ax.axhline(0, color=COLORS["other"], lw=0.8)
    ax.set(title=f"{n_classes} classes", xscale="log", ylim=(-1.5, 3))
    ax.set_xticks(
        [1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"]
    )
    ax.minorticks_off()
axes[0].set_ylabel("share of the planted rise")
axes[0].legend(fontsize=8)
_ = figure.supxlabel("texts for each feature", fontsize=11)

# %% tags=["remove-cell"]
euclid = simulated[simulated["score"] == "ntps"]
at_ten, at_fifty = (
    euclid[(euclid["d"] == 96) & (euclid["n"] == 96 * ratio)] for ratio in (10, 50)
)
glue("planted", float(euclid["planted"].mean()), display=False)
for key, part in {"ten": at_ten, "fifty": at_fifty}.items():
    glue(f"visible_{key}_low", float(part["measured"].min()), display=False)
    glue(f"visible_{key}_high", float(part["measured"].max()), display=False)
    glue(f"visible_{key}_sd", float(part["sd"].max()), display=False)
declared = euclid[euclid["d"] > 96]
glue("visible_real_least", float(declared["measured"].min()), display=False)
glue("visible_real_most", float(declared["measured"].max()), display=False)
ratios = declared["n"] / declared["d"]
glue("visible_real_low", float(ratios.min()), display=False)
glue("visible_real_high", float(ratios.max()), display=False)
tested = load_recorded("lab").groupby("model")[["n_test", "n_features"]].first()
tested = tested["n_test"] / tested["n_features"]
glue("visible_lab_low", float(tested.min()), display=False)
glue("visible_lab_high", float(tested.max()), display=False)

# %% [markdown]
# With ten texts for each feature the Euclidean score changes by {glue:text}`visible_ten_low:+.3f` to {glue:text}`visible_ten_high:+.3f`, where it changes by {glue:text}`planted:.2f` in a large sample, for 2 to 20 classes, with a standard deviation over draws of up to {glue:text}`visible_ten_sd:.3f`; with fifty it changes by {glue:text}`visible_fifty_low:+.3f` to {glue:text}`visible_fifty_high:+.3f`. With few texts, chance turns most of U towards directions of small variance, whatever the task is (below {numref}`fig-coverage`). The metric-matched and the task-weighted score take $S^{1/2} U$ in place of $U$, in which the parts along directions of small variance are shorter. From about ten texts for each feature on both show a larger part of the rise; with fewer they, too, can miss most of it.
#
# The lab's models have {glue:text}`visible_lab_low:.0f` to {glue:text}`visible_lab_high:.0f` test texts for each feature. So the verdict above says of the paper's score only that no rise was measured; a rise of 0.1 of the paper's score could be hidden in it. The test texts of the first five datasets of the {doc}`declared experiment </book/declared>` are fewer still, {glue:text}`visible_real_low:.1f` to {glue:text}`visible_real_high:.1f` for each feature, and in a simulation of that size the planted rise of {glue:text}`planted:.2f` changes the measured score by {glue:text}`visible_real_least:+.3f` to {glue:text}`visible_real_most:+.3f`.
#
# ## Two pretrained models: the declared experiment
#
# The {doc}`declared experiment </book/declared>` asks whether NTPS rises on test texts by more than under shuffled labels, in gemma-3-270m and in smollm2-135m-instruct, on the first five datasets of its order. The table has the changes of two scores on the test texts: after LoRA with true labels, with shuffled labels, and the difference. Training labels are shuffled; the test texts have their true labels in all scores, so that both runs start from the same score. An asterisk marks datasets whose runs were all made before the experiment was closed.

# %%
runs, labels = recorded_runs(), {"ntps": "NTPS", "ntps_metric": "metric-matched"}


def with_differences(runs, score):
    """Changes of a score in each run, by model and dataset."""
    table = rises_of(runs, score)
    table["difference"] = table["rise"] - table["shuffled"]
    return table.set_index(["model", "dataset"])


changed = {label: with_differences(runs, score) for score, label in labels.items()}
in_time = with_differences(analyzed_runs(runs), "ntps").index
shown = pd.concat(changed, names=["score"]).sort_index().round(3)
shown.index = shown.index.map(
    lambda row: (row[0], row[1].split("-")[0], row[2] + "*" * (row[1:] in in_time))
)
shown.rename_axis(["score", "model", "dataset"]).rename(
    columns={"rise": "true labels", "shuffled": "shuffled labels"}
)

# %% tags=["remove-cell"]
found = load_record("results")
claim = next(one for one in found["claims"] if one["name"] == "(iv)")
glue("declared_verdict", claim["verdict"], display=False)
gains = {
    (one.run.model, one.run.dataset): one.result.finetuning.last_accuracy
    - one.result.finetuning.frozen_accuracy
    for one in runs
    if one.run.kind == "lora" and one.run.seed == 0
}
for key, t in {"e": changed["NTPS"], "m": changed["metric-matched"]}.items():
    for part in ("rise", "shuffled"):
        glue(f"declared_{key}_{part}_low", float(t[part].min()), display=False)
        glue(f"declared_{key}_{part}_high", float(t[part].max()), display=False)
    above = 0
    for model, one in t.groupby("model"):
        name, change = model.split("-")[0], one["difference"]
        interval = stats.ttest_1samp(change, 0.0).confidence_interval(0.95)
        rho = stats.spearmanr(change, [gains[case] for case in one.index])[0]
        ends = {"low": interval.low, "high": interval.high}
        for part, value in {"mean": change.mean(), "rho": rho, **ends}.items():
            glue(f"later_{key}_{name}_{part}", float(value), display=False)
        above += int(interval.low > 0)
    glue(f"later_{key}_positive", int((t["difference"] > 0).sum()), display=False)
    glue(f"later_{key}_falls", int((t["rise"] < 0).sum()), display=False)
    if key == "e":  # "held" would need a corrected p-value, too
        words = ("neither model", "one model", "both models")[above]
        glue("later_e_above", words, display=False)
        rule = "partly held" if above else "open"
        glue("later_verdict", rule, display=False)
glue("declared_both", len(in_time) // 2, display=False)
glue("later_n", len(changed["NTPS"]), display=False)
glue("later_datasets", len(changed["NTPS"]) // 2, display=False)

# %% [markdown]
# **Changes.** With true labels NTPS falls in {glue:text}`later_e_falls` of {glue:text}`later_n` runs: it changes by {glue:text}`declared_e_rise_low:+.3f` to {glue:text}`declared_e_rise_high:+.3f`, with shuffled labels by {glue:text}`declared_e_shuffled_low:+.3f` to {glue:text}`declared_e_shuffled_high:+.3f`; the metric-matched score by {glue:text}`declared_m_rise_low:+.3f` to {glue:text}`declared_m_rise_high:+.3f` and {glue:text}`declared_m_shuffled_low:+.3f` to {glue:text}`declared_m_shuffled_high:+.3f`.
#
# **The verdict.** The declared rule differs from that of the lab: *held* asks for intervals above zero in both models, *partly held* in one, and *not held* was ruled out beforehand, because so few test texts can hide a rise. It asks for all five datasets. When the experiment was closed, runs with shuffled labels existed for {glue:text}`declared_both` of them, so that the claim is **{glue:text}`declared_verdict`**. The other runs were made afterwards, with the same settings. They change no verdict.
#
# **With the later runs**, on {glue:text}`later_datasets` datasets, the change of NTPS beyond shuffled labels is {glue:text}`later_e_gemma_mean:+.3f` ({glue:text}`later_e_gemma_low:+.3f` to {glue:text}`later_e_gemma_high:+.3f`) in the mean of gemma and {glue:text}`later_e_smollm2_mean:+.3f` ({glue:text}`later_e_smollm2_low:+.3f` to {glue:text}`later_e_smollm2_high:+.3f`) in that of smollm2, with Student's intervals as declared. The interval lies above zero in {glue:text}`later_e_above`, so that these runs, too, would give *{glue:text}`later_verdict`*.
#
# **The metric-matched score** changes by {glue:text}`later_m_gemma_mean:+.3f` ({glue:text}`later_m_gemma_low:+.3f` to {glue:text}`later_m_gemma_high:+.3f`) and {glue:text}`later_m_smollm2_mean:+.3f` ({glue:text}`later_m_smollm2_low:+.3f` to {glue:text}`later_m_smollm2_high:+.3f`) beyond shuffled labels. This difference is positive in {glue:text}`later_m_positive` of {glue:text}`later_n` runs, which are {glue:text}`later_datasets` datasets in two models; that of NTPS is in {glue:text}`later_e_positive`, mostly because NTPS falls less than with shuffled labels.
#
# **Rise and gain.** Datasets where the difference of the metric-matched score is larger also gain more at the last step: the rank correlation over the {glue:text}`later_datasets` datasets is {glue:text}`later_m_gemma_rho:.1f` in gemma and {glue:text}`later_m_smollm2_rho:.1f` in smollm2 (NTPS: {glue:text}`later_e_gemma_rho:.1f` and {glue:text}`later_e_smollm2_rho:.1f`). We give no intervals for rank correlations of five points.
#
# All of this is from fewer than two test texts for each feature, in part from fewer than one. The section above says what so few texts hide of NTPS; they are few for the metric-matched score, too.
#
# ## How much a change depends on the setting
#
# The next figure shows the mean changes on training texts at all settings of chapter 7: two layers and two widths, with and without centering. On training texts the changes include what LoRA does without a task, so that the figure is no evidence for a rise.

# %%
scores = pd.concat(
    [load_recorded(name, "scores").assign(set=name) for name in sets.split()]
)
scores = scores[scores["dataset"] != "lab/random"]
at = ["set", "model", "dataset", "place", "centered", "rule"]
wide = scores.pivot(index=at, columns="when", values=list(KINDS))
changes = pd.DataFrame(
    {score: wide[score]["after"] - wide[score]["before"] for score in KINDS}
)
by_setting = changes.groupby(
    level=["set", "model", "place", "centered", "rule"]
).mean()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Strips of mean changes, one dot for each model and setting, for each score, in the lab and on real texts."}, "figure": {"caption": "Every setting. Mean change over tasks; a dot for each model and each of eight settings.", "name": "fig-after-sweep"}}
figure, axes = panels(len(names), height=2.6, sharey=True)
jitter = np.random.default_rng(seed)
for ax, name in zip(axes, names, strict=True):
    part = by_setting.loc[name]
    for i, (score, (_, shade)) in enumerate(KINDS.items()):
        x = i + jitter.uniform(-0.25, 0.25, len(part))
        ax.plot(x, part[score], "o", ms=3.5, alpha=0.7, color=COLORS[shade])
    ax.axhline(0, color=COLORS["other"], lw=0.8, zorder=0)
    ax.set(title={"lab": "lab", "real": "real texts"}[name], xticks=range(3))
    ax.set_xticklabels([label for label, _ in KINDS.values()], fontsize=9)
_ = axes[0].set_ylabel("mean change of the score")

# %% tags=["remove-cell"]
share = (by_setting > 0).groupby(level="set").mean()
for name in ("lab", "real"):
    for score in KINDS:
        value = share.loc[name, score] if name in share.index else float("nan")
        glue(f"share_{name}_{score}", float(value), display=False)

# %% [markdown]
# On training texts the metric-matched score rises at every setting and in every model, and the Euclidean score falls about as often as it rises.
# The mean change is positive in {glue:text}`share_lab_ntps:.0%` of the settings and models of the lab for the Euclidean score, {glue:text}`share_lab_ntps_metric:.0%` for the metric-matched and
# {glue:text}`share_lab_ntps_task:.0%` for the task-weighted one; on real texts in {glue:text}`share_real_ntps:.0%`, {glue:text}`share_real_ntps_metric:.0%` and
# {glue:text}`share_real_ntps_task:.0%`.
#
# ## Summary
#
# - A score after LoRA is the score of the merged model; both U and V change with the features.
# - The rule was written first, with the same threshold for every score. Two parts of it, which texts count and the moments of two scores, were changed, and the word *open* was added, after results had been seen. The comparison with the gain had no rule.
# - No rise of the paper's score was measured in the lab, and with so few texts for each feature a rise of 0.1 would hardly show. The metric-matched one rises in the lab, on test texts too, and more where accuracy gains more.
# - On training texts the metric-matched and the task-weighted score rise even on a coin toss: compute scores on test texts, and beside a control.
# - A control on which nothing can be learned shows what finetuning does by itself.
# - In two pretrained models the question is open by the declared rule. With the runs that came later NTPS falls in {glue:text}`later_e_falls` of {glue:text}`later_n` runs, and the change of the metric-matched score is above that under shuffled labels in {glue:text}`later_m_positive`; the test texts are few.
#
# ## Quiz
#
# **1.** After LoRA a score rises on the training texts. Which control tells whether this has to do with the task?
#
# - (a) A larger model
# - (b) The same with shuffled labels
# - (c) More steps
#
# :::{admonition} Answer
# :class: dropdown
# (b). With shuffled labels there is nothing to learn but the texts themselves, so what rises there, too, is due to finetuning as such. (a) is wrong because a larger model learns the same task. (c) is wrong because more steps change both, what is learned and what finetuning does by itself.
# :::
#
# **2.** Why should scores after LoRA be computed on test texts?
#
# - (a) On training texts the features have been fitted to the labels
# - (b) There are fewer of them
# - (c) The test labels are more reliable
#
# :::{admonition} Answer
# :class: dropdown
# (a). Training makes the features explain the labels of exactly these texts, so that U and the scores change even if nothing general was learned. (b) is wrong because the number of texts is no reason; fewer texts make a score less accurate. (c) is wrong because both splits are labeled in the same way.
# :::
#
# **3.** The Euclidean score falls after LoRA although accuracy rises. Is that possible?
#
# - (a) No, a higher accuracy means a higher score
# - (b) Only by an error
# - (c) Yes, for instance if columns of U along the label's direction become shorter
#
# :::{admonition} Answer
# :class: dropdown
# (c). With several columns the score weighs them by squared length. A column becomes shorter when the variance along it increases, as it does along the label's direction, so that the others, such as the constant, count more. If they lie less in V than the label's column, the score falls. (a) is wrong because the Euclidean score does not measure how much of the labels V explains. (b) is wrong because (c) happens in exact arithmetic. (How much of the falls that this chapter measures is noise of few texts is not known.)
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Which columns are long?
# :label: ex-8-1
#
# *Difficulty 3 of 5, importance 4 of 5, about 15 minutes.*
#
# After finetuning, the features of the training texts separate the classes, so that the variance along the label's direction is large. How long is an S-orthonormal column of U along a direction of variance `v`? Write it as a function. What does that do to the Euclidean score?
#
# ```python
# def length(v):
#     ...
#
# check("8.1", length)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The column $u$ is its length times a unit vector $e$ with $e^\top S e = v$, and $u^\top S u = 1$.
# :::
#
# ````{solution} ex-8-1
# :class: dropdown
# The square of the length times $v$ is 1, so the length is $1 / \sqrt v$. U consists of directions $S^{-1} C$: the larger the variance along the label's direction, the shorter its column. The Euclidean score weighs columns by squared length, so beside other columns, such as the constant, the directions that became useful count *less* in it. (A single column has no other to compete with: its length cancels.) The metric-matched score
# measures in the norm of S, and counts each direction alike.
# ````
#
# ````{exercise} Resample tasks, not texts
# :label: ex-8-2
#
# *Difficulty 2 of 5, importance 5 of 5, about 15 minutes.*
#
# Scores of several tasks are known before and after LoRA. Write a function that returns the 95% percentile interval of the mean change, from resampled tasks: each row of `rows` has the indices of one resample. Why are tasks resampled rather than texts?
#
# ```python
# def interval(before, after, rows):
#     ...
#
# check("8.2", interval)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The comparison is paired: take the difference of each task first.
# :::
#
# ````{solution} ex-8-2
# :class: dropdown
# The claim is about tasks that one has not seen. Texts of one task share its causes; resampling them measures how well *this* task's score is known, which is less uncertain than how the next task will behave.
#
# ```python
# def interval(before, after, rows):
#     change = after - before
#     return np.quantile(change[rows].mean(1), [0.025, 0.975])
# ```
# ````
#
# ````{exercise} A control for finetuning
# :label: ex-8-3
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Finetuning on shuffled labels changes scores, too. Write a function that returns the rise of a score beyond that control.
#
# ```python
# def net_rise(before, after, shuffled_before, shuffled_after):
#     ...
#
# check("8.3", net_rise)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# How much of the rise would there be if nothing could be learned?
# :::
#
# ````{solution} ex-8-3
# :class: dropdown
# $(\text{after} - \text{before}) - (\text{after} - \text{before})_{\text{shuffled}}$. Late steps memorize training texts, so that scores on them move although nothing was learned; the control shows by how much. Scores on test texts are free of memorized texts, though not of chance. (In the declared experiment both runs start from the same score, and the difference is that of the two scores after LoRA. In other designs, such as a coin toss beside tasks, they do not.)
# ````

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile,
        seed=seed,
        resamples=n_resamples,
        cells=len(cells) + len(control),
        recorded=recorded_on(sets.split()),
    )
)

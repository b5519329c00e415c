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
# # Prescreen your own
#
# ```{index} ! will LoRA pay
# ```
#
# :::{admonition} After this chapter you can
# :class: tip
# - ask, for a model and a dataset of your own, what LoRA would gain, and read the answer with its uncertainty;
# - say what the answer stands on, and when not to trust it;
# - calibrate it on finetuning runs of your own.
#
# You need no other chapter to use it; chapter 9 says how good it is. It runs in half a minute.
# :::
#
# **The paper suggests** {cite}`cheng2025ntps` NTPS as a light prescreening tool for LoRA. **The code does** what such a tool should: it measures scores and rivals on the frozen model,
# predicts the gain from recorded finetuning runs on *other* datasets, and says how far that prediction can be trusted. **We find**, in {doc}`chapter 9 <09_predicting_the_gain>`, how often it is right; the tool carries
# these figures with it and repeats them in each answer.
#
# ## One cell to change
#
# `model` is a Hub id, a registered name (`ntps models list`), a local folder, or a model of the lab; `dataset` is a Hub id, a registered name, a folder with `train.csv`, a CSV, Parquet or JSONL file, or a task of
# the lab. The same from the shell: `ntps prescreen MODEL DATASET --html report.html --json report.json`.

# %% tags=["parameters"]
profile = "default"
seed = 0
model = "lab/M"
dataset = "lab/agreement"
calibration = "auto"
max_texts = 1000

# %% tags=["hide-input"]
import json

import pandas as pd
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.evidence.cost import duration
from ntps_utils.evidence.prescreen import (
    HEADLINES,
    LABELS,
    PREDICTORS,
    load_calibration,
    prescreen,
)
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, panels

house_style()

# %%
p = prescreen(
    model, dataset, calibration=calibration, max_texts=max_texts, seed=seed
)
Markdown(f"**{HEADLINES[p.verdict]}** " + " ".join(p.reasons))

# %% tags=["hide-input"] mystnb={"image": {"alt": "The predicted gain with its 80 percent interval on a line from below zero to what the probe leaves."}, "figure": {"caption": "What LoRA is expected to gain. Dot: prediction; bar: 80% interval; dashed: all that the probe leaves.", "name": "fig-prescreen"}}
figure, (ax,) = panels(1, height=1.3)
ax.plot(
    [100 * p.gain_low, 100 * p.gain_high],
    [0, 0],
    color=COLORS["metric"],
    lw=7,
    alpha=0.4,
    solid_capstyle="butt",
)
ax.plot(100 * p.gain, 0, "o", color=COLORS["metric"])
ax.axvline(0, color=COLORS["exact"], lw=1)
ax.axvline(100 * p.predictors["transfer_headroom"], color=COLORS["other"], ls="--")
_ = ax.set(
    yticks=[], xlabel="gain over a probe on frozen features (points of accuracy)"
)

# %% [markdown]
# ## What was measured
#
# Each number, and where the case stands among the cells of the calibration: 0% is below all of them, 100% above.

# %%
pd.DataFrame(
    {
        "here": {LABELS[c]: p.predictors[c] for c in PREDICTORS},
        "percentile": {LABELS[c]: f"{p.percentiles[c]:.0%}" for c in PREDICTORS},
    }
).round(3)

# %% tags=["remove-cell"]
facts = p.calibration
glue("pre_cells", facts.n_cells, display=False)
glue("pre_datasets", facts.n_datasets, display=False)
glue("pre_left", ", ".join(facts.left_out) or "none", display=False)
glue("pre_skill", facts.performance.skill, display=False)
glue("pre_skill_low", facts.performance.skill_low, display=False)
glue("pre_skill_high", facts.performance.skill_high, display=False)
glue("pre_coverage", facts.performance.coverage, display=False)
glue("pre_distance", p.distance, display=False)
same = load_calibration(facts.name)
same = same[(same["dataset"] == p.dataset) & (same["model"] == p.model)]
known = f"{100 * same['gain'].iloc[0]:+.1f} points" if len(same) else "not known"
glue("pre_known", known, display=False)

# %% [markdown]
# ## What the answer stands on
#
# The calibration holds {glue:text}`pre_cells` finetuning runs on {glue:text}`pre_datasets` datasets; rows of the dataset at hand are left out, here: {glue:text}`pre_left`. On datasets left out one at a time, the
# predictors save {glue:text}`pre_skill:.0%` of the mean predictor's error (95% interval {glue:text}`pre_skill_low:.0%` to {glue:text}`pre_skill_high:.0%`), and the 80% intervals held in
# {glue:text}`pre_coverage:.0%` of the cells. Of the calibration's cells {glue:text}`pre_distance:.0%` lie nearer to its middle than this case.
#
# For this very case the finetuning run was made as well: its gain was {glue:text}`pre_known`. The prediction did not see it.
#
# ## When not to trust it
#
# - **When it says that nothing predicts.** If the interval of the skill contains zero, the tool says so and gives the spread of gains, not a forecast. Then the only safe answers are at the ends: a probe
#   that leaves next to nothing leaves nothing to gain.
# - **When the model is much larger** than those of the calibration (below: how to record yours). The recorded cells are of small models.
# - **When the texts were seen in pretraining**, or when train and test rows are related: no number here can know.
#
# ## Calibrate it on your own runs
#
# ```bash
# ntps benchmark --models mine=path/to/model --datasets a=data/a,b=data/b,c=data/c,d=data/d,e=data/e --record runs/mine
# ntps prescreen path/to/model data/new --calibration runs/mine_cells.csv
# ```
#
# At least six datasets are needed, so that intervals can come from leaving one out; a dozen are better.
#
# ## The cost
#
# This answer, against a LoRA run with the settings of the calibration on the same machine (estimated; more with more learning rates, seeds or steps):

# %%
print(
    f"this answer {duration(p.seconds)}, the LoRA run about {duration(p.lora_seconds)}"
)

# %% [markdown]
# ## Summary
#
# - A verdict is worth what its calibration is worth; the tool shows both.
# - The case's own dataset never enters its calibration.
# - The report has the same content as JSON and as a page that needs no network.

# %% tags=["hide-input"]
kept = ("verdict", "gain", "gain_low", "gain_high", "probe_accuracy", "distance")
full = json.loads(p.to_json())
print(json.dumps({name: full[name] for name in kept}, indent=1))

# %% [markdown]
# ## Quiz
#
# **1.** The report says that the calibration does not predict the gain. What should you do?
#
# - (a) Skip LoRA
# - (b) Read the headroom, and run a short trial if much is left
# - (c) Lower the threshold until the answer is yes
#
# :::{admonition} Answer
# :class: dropdown
# (b). The tool has no evidence for this case. A trial run measures your own case, at a small part of the cost.
# :::
#
# **2.** The probe is right on 98% of the texts, and the threshold is three points. What is the answer?
#
# - (a) No: at most about two points are left
# - (b) Yes
# - (c) It depends on the calibration
#
# :::{admonition} Answer
# :class: dropdown
# (a). This conclusion needs no calibration, only the headroom.
# :::
#
# **3.** Your model is ten times as large as those of the calibration. How do you read the interval?
#
# - (a) As usual
# - (b) It must be divided by ten
# - (c) With doubt: the case lies outside the calibration
#
# :::{admonition} Answer
# :class: dropdown
# (c). Intervals hold for cases that are exchangeable with those of the calibration. The report says how far away a case lies.
# :::
#
# ## Exercises
#
# ```{exercise}
# :label: ex-11-1
# Run the chapter with `dataset = "lab/topic"` and with `dataset = "lab/random"`. In which of the two is the tool more certain, and why does it not know that a coin toss cannot be learned?
# ```
#
# ```{solution} ex-11-1
# :class: dropdown
# The probe leaves little of *topic*, so the interval is cut at the headroom. On the coin toss the probe is at chance, as it is on *agreement* or *order*, which LoRA learns perfectly: from frozen features alone, "hidden" and "absent" look the same. Only finetuning, or a predictor that looks beyond the features, can tell them apart.
# ```
#
# ```{exercise}
# :label: ex-11-2
# You may spend ten finetuning runs on calibration. Would you rather have ten datasets with one model, or five datasets with two models?
# ```
#
# ```{solution} ex-11-2
# :class: dropdown
# Ten datasets, if you will ask about new datasets for that model: gains differ more between datasets than between similar models, and intervals come from whole datasets left out. Two models help only if you will ask about a third.
# ```
#
# ```{exercise}
# :label: ex-11-3
# The threshold from which LoRA is worth while is one point by default. Your alternative to LoRA is to label 2,000 more texts for the probe. How would you set the threshold?
# ```
#
# ```{solution} ex-11-3
# :class: dropdown
# Fit the probe on half and on all of the texts you have; the difference, continued to 2,000 more, estimates what labeling would bring. LoRA should promise more than that to be worth its cost: set the threshold there.
# ```

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile, seed=seed, texts=p.n_texts, model=p.model, dataset=p.dataset
    )
)

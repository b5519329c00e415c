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
# - ask, for a model and a dataset of your own, whether LoRA will pay, and read the answer with its uncertainty and its cost;
# - say what the answer is based on, and when not to trust it;
# - let a trial run decide where the frozen model cannot;
# - calibrate the tool on finetuning runs of your own.
#
# You need no other chapter. The page runs in a minute or two on a model of the lab; real cases took the minutes that stand below the table of real cases.
# :::
#
# **The paper suggests** {cite}`cheng2025ntps` NTPS as a light prescreening tool for LoRA. **Our tool** fits the classifiers that need no finetuning, and compares LoRA with the best of them. Without a trial run
# it answers *no* or *open*, from the errors of the best classifier and from what it has over a probe of the last layer. If you allow a trial run of a quarter of the LoRA run (`--trial 25%`), it predicts the gain from recorded finetuning runs on *other* datasets, and *yes* is possible. **We find** that in two pretrained models LoRA is better than this classifier by a point or more in only {glue:text}`pre_real_pays` of {glue:text}`pre_real_n` runs. Without a trial run, the tool answers {glue:text}`pre_real_frozen_decided:.0%` of all these runs with *no*, and the others with *open*; {glue:text}`pre_real_frozen_right:.0%` of its *no* are right. (In the answered runs the rule "always *no*" gives the same answers.) With a trial run of at most a quarter it decides {glue:text}`pre_real_trial_decided:.0%`, {glue:text}`pre_real_trial_right:.0%` of these rightly, and answers *yes* to {glue:text}`pre_real_said_yes` and *no* to {glue:text}`pre_real_missed` of the {glue:text}`pre_real_pays` runs in which LoRA is better. Never running LoRA has the smallest regret on these runs; in the lab, LoRA pays more often.
#
# For a model larger than those of the recorded runs, or for texts longer than 64 tokens, believe a *no* only where its reason is that the best classifier gets too few texts wrong. Otherwise take the answer for *open*. (Only such a *no* reads "LoRA does not pay"; every other one reads "LoRA probably does not pay".) If one LoRA run is cheap for you, make it in place of prescreening ({doc}`the front page </book/intro>` has the commands).
#
# ## How the tool decides
#
# **The best classifier.** First come the classifiers that need no finetuning: probes of up to four layers, a probe of these layers at once, and a bag of words. They are compared by cross-validation. All answers are about the gain of LoRA over the best of them.
#
# **Four attempts to decide.** They are made in this order, and the first that decides ends the prescreening. Without a trial run only the first and the last can answer, and only by *no*.
#
# 1. **Headroom.** A gain can hardly be larger than what the best classifier gets wrong. If the 95% limit of that share is below the threshold, the answer is *no*.
# 2. **The frozen model.** Predictors such as NTPS, k-NN, or what a probe of the last layer gets wrong, and at a higher cost attention over all tokens or gradients, give an expected gain with an interval. They are used only if they have a *skill*: on left-out datasets their error must be smaller than that of the median gain, by more than the uncertainty of this difference.
#    If the whole interval lies on one side of the threshold, the answer is *yes* or *no*. In the calibrations that ship with the library no predictors of the frozen model have a skill.
# 3. **A trial run.** `--trial 25%` or `--trial 5min` allows the beginning of the LoRA run, up to a quarter of its training steps. What the validation loss and accuracy have done by then can predict the gain of the whole run. A trial run is made only if one of its length has a skill on the recorded runs. The lengths that have one are, in the calibration `lab`: {glue:text}`pre_trials`; in `real`: {glue:text}`pre_real_trials`. Where none of them is within the limit, no trial run is made, and the report says why. (In `real` the skill of a trial run of 25% is {glue:text}`pre_real_t25`: its interval begins just above zero. {doc}`Chapter 9 <09_predicting_the_gain>` shows that on the recorded runs such a trial run cost more than it saved.) A trial run whose loss is not lower at its end than at its start never gives a *yes*. It is not continued: a later LoRA run starts again.
# 4. **The recorded runs.** If neither 2 nor 3 predicts a gain, only the lead of the best classifier over the probe of the last layer is left. The answer is *no* where the lead is above zero, and in at least 85% of the recorded runs LoRA was better than a probe of the last layer by less than the lead and the threshold together. The interval is then the spread of the recorded gains minus the lead, and can be wrong by many points for a single case. Otherwise the answer is *open*: the report then gives the spread of the recorded gains, and names it so.
#
# In an open case the report recommends what would have cost least on the recorded runs: never to run LoRA, to run it wherever the best classifier leaves enough to gain, or to follow a prediction of 2 or 3. Where the best classifier gets fewer texts wrong than the threshold, it never recommends a run.
#
# **The calibration** is the set of recorded LoRA runs that predictions come from. By default (`auto`) it is `lab` for models of the lab, and `real` for all others. `lab` holds runs of the lab's models, `real` those of the {doc}`declared experiment </book/declared>`, whose settings and rules were fixed before its numbers were seen: two pretrained models of 135 and 268 million parameters on {glue:text}`pre_real_datasets` real datasets. (Fifteen of them decide the claims of the paper, and are also a calibration of their own, `declared`. The profile `declared` of `ntps benchmark` has the same settings of LoRA.) A step of the prescreener is a group of predictors that are measured together, such as "frozen model" or "trial run of 25%"; it is not a training step of LoRA. The steps that have a skill are trial runs. Their predictors are, in `lab`, {glue:text}`pre_columns`; in `real`, together, {glue:text}`pre_real_columns`. NTPS is {glue:text}`pre_ntps`.
#
# **Which texts are read.** The first 2,000 rows of a dataset are read (`--max-texts`; shuffle a file whose rows are sorted before you use it: `ntps datasets split` keeps their order), and of each text as many tokens as the model allows: leave it so to decide about your texts as they are. A note says where they are longer than the recorded ones. (`--max-length 64` cuts them as those were cut. The answer is then comparable, and about cut texts.) The bag of words reads as much of a text as the model.
#
# :::{admonition} What is predicted
# :class: dropdown
# The *lead* is what the best classifier has over the probe of the last layer in cross-validation. A step predicts the *target*, which is about what LoRA has over a probe of the last layer. The tool then subtracts the lead: a predicted target of five points and a lead of three give an expected gain of two points over the best classifier.
#
# Why "about"? The tool subtracts a lead that is measured by cross-validation and has an error, and its intervals must be wide enough for this error. Therefore the target of a recorded run contains such an error, too: it is the gain over the best classifier on test texts, plus the lead of this run by cross-validation. (Without such an error, the target would be what LoRA has over the probe on test texts.) The front page and {doc}`chapter 9 <09_predicting_the_gain>` also have the gain over a trained head. It is larger, because this head is less accurate than a probe. The tool does not use it.
# :::
#
# ## One cell to change
#
# `model` is a Hub id, a registered name (`ntps models list`), a local folder, or a model of the lab, in each case a causal language model (encoders such as BERT are refused); `dataset` is a Hub id, a registered name, a folder with `train.csv`, a CSV, Parquet or JSONL file, or a task of
# the lab. The same from the shell: `ntps prescreen MODEL DATASET --html report.html --json report.json`.

# %% tags=["parameters"]
profile = "default"
seed = 0
model = "lab/M"
dataset = "lab/order"
calibration = "auto"
max_texts = 1000
threshold = 0.03
trial = "25%"

# %% tags=["hide-input"]
import json

import numpy as np
import pandas as pd
from IPython.display import Markdown
from myst_nb import glue
from rich.text import Text

from ntps_utils.cli.console import out
from ntps_utils.cli.prescreen import print_prescreen
from ntps_utils.evidence.advice import (
    Advisor,
    advise_left_out,
    left_out_advisors,
    regret,
)
from ntps_utils.evidence.calibration import LABELS, load_calibration
from ntps_utils.evidence.cost import duration
from ntps_utils.evidence.declared import lora_settings
from ntps_utils.evidence.prescreen import prescreen
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.runs import chosen_rates, recorded_runs
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, panels

house_style()
pd.set_option("display.max_colwidth", None)


def words(report):
    """Verdict, expected gain, reason and recommendations of a report."""
    text = f"**{report['headline']}** {report['summary']} {report['reason']}\n\n"
    text += "".join(f"- {line}\n" for line in report["recommendations"])
    return text + f"\nNext: `{report['command']}`"


def with_notes(report):
    """The same, and the notes of the report."""
    notes = "".join(f"\n\n*Note: {note}*" for note in report["notes"])
    return words(report) + notes


def held(answers):
    """Share of the intervals that contain the true gain."""
    return answers["true_gain"].between(answers["low"], answers["high"]).mean()


def fields(report):
    """Fields of a report, and its summary."""
    return {**json.loads(report.to_json()), "summary": report.summary}


# %% [markdown]
# We chose a case of the lab in which the trial run decides; cases in which the tool is wrong follow below. On a model of your own *yes* is rare. *A real model*, below, shows what you will see. First without a trial run, which takes a pass over the texts:

# %%
frozen = prescreen(
    model,
    dataset,
    calibration=calibration,
    max_texts=max_texts,
    threshold=threshold,
    seed=seed,
)
Markdown(with_notes(fields(frozen)))

# %% [markdown]
# {doc}`/book/score_your_own` explains these lines one by one. Then with a trial run:

# %%
p = prescreen(
    model,
    dataset,
    calibration=calibration,
    max_texts=max_texts,
    threshold=threshold,
    trial=trial,
    seed=seed,
)
Markdown(with_notes(fields(p)))

# %% tags=["hide-input"] mystnb={"image": {"alt": "The expected gain with its interval, before and after the trial run, on a line with the threshold and all errors of the best classifier."}, "figure": {"caption": "What LoRA is expected to gain over the best classifier without finetuning, before and after the trial run. Dot: expected gain, filled if a step predicts it; bar: interval; dotted: threshold; dashed: all that this classifier gets wrong. Expected gain and lower end are cut there, the upper end at its 95% limit.", "name": "fig-prescreen"}}
figure, (ax,) = panels(1, height=1.8)
for y, report in ((1, frozen), (0, p)):
    ends = [100 * report.gain_low, 100 * report.gain_high]
    ax.plot(
        ends, [y, y], color=COLORS["metric"], lw=7, alpha=0.4, solid_capstyle="butt"
    )
    filled = report.interval == "calibrated"
    ax.plot(
        100 * report.gain,
        y,
        "o",
        color=COLORS["metric"],
        mfc=COLORS["metric"] if filled else "white",
    )
ax.axvline(100 * threshold, color=COLORS["exact"], ls=":")
ax.axvline(100 * (1 - p.alternatives[p.alternative]), color=COLORS["other"], ls="--")
_ = ax.set(
    yticks=[1, 0],
    yticklabels=["frozen model", "with trial run"],
    ylim=(-0.6, 1.6),
    xlabel="gain over the best classifier without finetuning (points)",
)

# %% tags=["remove-cell"]
declared = lora_settings(chosen_rates()["smollm2-135m-instruct"])
glue("set_steps", declared.max_steps, display=False)
glue("set_batch", declared.batch_size, display=False)
glue("set_rate", f"{declared.learning_rates[0]:g}", display=False)
shipped = {name: load_calibration(name) for name in ("lab", "real")}
fitted = {
    name: Advisor(one.cells, one.steps(), seed=seed).steps
    for name, one in shipped.items()
}
with_skill = {
    name: [one for one in steps if one.has_skill] for name, steps in fitted.items()
}
used = {
    name: {column for one in steps for column in one.columns}
    for name, steps in with_skill.items()
}
for key, name in {"pre_columns": "lab", "pre_real_columns": "real"}.items():
    labels = ", ".join(sorted(LABELS[c] for c in used[name]))
    glue(key, labels or "none", display=False)
shares = {
    name: sorted(one.step.share for one in steps if one.step.share)
    for name, steps in with_skill.items()
}
for key, name in {"pre_trials": "lab", "pre_real_trials": "real"}.items():
    listed = ", ".join(f"{share:.0%}" for share in shares[name])
    glue(key, listed or "none", display=False)
among = any("ntps" in columns for columns in used.values())
glue("pre_ntps", "among them" if among else "not among them", display=False)
t25 = next(one.skill for one in fitted["real"] if one.step.share == 0.25)
glue(
    "pre_real_t25",
    f"{t25.value:.2f} ({t25.low:.2f} to {t25.high:.2f})",
    display=False,
)
glue(
    "pre_real_datasets",
    int(shipped["real"].cells["dataset"].nunique()),
    display=False,
)
facts = p.calibration
recorded = load_calibration(facts.name)
own = recorded.cells.query("dataset == @p.dataset and model == @p.model")
known = f"{100 * own['advantage'].iloc[0]:.1f} points" if len(own) else "not known"
inside = len(own) and p.gain_low <= own["advantage"].iloc[0] <= p.gain_high
for name, value in {
    "known": known,
    "inside": ("inside" if inside else "outside")
    if len(own)
    else "not compared with",
    "frozen_verdict": frozen.verdict,
    "verdict": p.verdict,
    "points": f"{100 * threshold:g}",
    "step": p.step,
    "runs": facts.n_runs,
    "datasets": facts.n_datasets,
    "left": ", ".join(facts.left_out) or "none",
}.items():
    glue(f"pre_{name}", value, display=False)

# %% [markdown]
# The frozen model answers *{glue:text}`pre_frozen_verdict`* at a threshold of {glue:text}`pre_points` points, and the {glue:text}`pre_step` answers *{glue:text}`pre_verdict`*.
# For this very case the whole LoRA run was made as well. Its gain over the best classifier, on test texts, was {glue:text}`pre_known`, {glue:text}`pre_inside` the last interval. The prediction did not use it. (A gain on test texts can be larger than what the probe gets wrong in cross-validation, since the probe can be worse on the test texts.) The two reports differ in the duration of the LoRA run: the first estimates it from a forward pass, the second from the steps of the trial run. The reports below, all with a trial run, do the latter.
#
# The shell prints a report as text:

# %% tags=["hide-input"]
out.is_jupyter, out.width = False, 88  # text, and no HTML
with out.capture() as printed:
    print_prescreen(p)
print(Text.from_ansi(printed.get()).plain)  # without bold and italic letters

# %% [markdown]
# ## What was measured
#
# First what is had without finetuning. The best is {glue:text}`pre_best_name` with {glue:text}`pre_best:.3f`; a probe of the last layer has {glue:text}`pre_last:.3f`. The best of several is chosen by the accuracy that is shown, so that this accuracy is slightly optimistic.

# %%
pd.Series(
    {p.named(name): accuracy for name, accuracy in p.alternatives.items()},
    name="cross-validated accuracy",
).to_frame()

# %% [markdown]
# Then the predictors, and where the case stands among the recorded runs: 0% is below all of them, 100% above ({doc}`/book/score_your_own` explains the names; from the shell, `--verbose` prints them). *Headroom of the probe* is what a probe of the last layer gets wrong, and not the best classifier.

# %% tags=["hide-output"]
pd.DataFrame(
    {
        "here": {LABELS[c]: v for c, v in p.predictors.items()},
        "percentile": {LABELS[c]: f"{v:.0%}" for c, v in p.percentiles.items()},
    }
).fillna("not recorded")

# %% tags=["remove-cell"]
glue("pre_best_name", p.best, display=False)
glue("pre_best", float(p.alternatives[p.alternative]), display=False)
glue("pre_last", float(p.probe_accuracy), display=False)

# %% [markdown]
# ## What the answer is based on
#
# The calibration holds {glue:text}`pre_runs` finetuning runs on {glue:text}`pre_datasets` datasets, without the dataset at hand ({glue:text}`pre_left`). (So the skills differ from those of chapter 9, which leaves out the coin toss instead. With so few datasets, one more or less moves a skill, and other predictors may be chosen.) Each step is judged on datasets
# that were left out of its regression. Skill is the share of the median's error that the step saves, with its 95% interval; a step is used only if the interval lies above zero. Cost is
# that of the step alone, as a share of the LoRA run; the pass over the texts, which is the cost of the frozen model, comes on top.

# %%
pd.DataFrame(
    {
        step.name: {
            "predictors": ", ".join(LABELS[c] for c in step.columns),
            "skill": f"{step.skill:.2f} ({step.low:.2f} to {step.high:.2f})",
            "cost": f"{step.cost:.0%}",
            "here": step.use,
        }
        for step in facts.steps
    }
).T

# %% [markdown]
# Costs count forward passes. The cross-validated probes come on top, and are not small beside short runs: with them, prescreening took {glue:text}`cases_time_low:.0%` to {glue:text}`cases_time_high:.0%` of the estimated time of the LoRA run in the three real cases below, their trial runs included. Where a LoRA run is cheap for you, make it in place of prescreening ({doc}`the front page </book/intro>` has the commands). The cost of a trial run contains its evaluations on the validation texts, which the whole run makes too. A step without skill is not made. Where no step has a skill, answers come from what the best classifier gets wrong, or from its lead; neither needs a skill.
#
# ## How often it is right
#
# The same code decides for every recorded run except those on the coin toss, with its dataset left out ({func}`ntps_utils.evidence.advice.advise_left_out`), at a threshold of one point over the best classifier without finetuning. An answer is right if LoRA beat that classifier by the threshold, or did not, on the test texts. The table has the numbers of answers, the share of those decided that is right, the mean cost of deciding as a share of a LoRA run (in forward passes), and the regret in points.

# %% tags=["hide-input"]
BUDGETS = {
    "without a trial run": 0.0,
    "trial run of at most 10%": 0.1,
    "trial run of at most 25%": 0.25,
}
SHORT = dict(zip(BUDGETS, ("frozen", "tenth", "trial"), strict=True)) | {
    "the recommendation": "advice",
    "always yes": "yes",
    "always no": "never",
}
TITLES = {"lab": "lab", "real": "two pretrained models"}
LEAST = 0.01  # smallest gain over the best classifier that is worth a run
tested, decided, tables = {}, {}, {}
for name, one in shipped.items():
    tested[name] = one.without(one.cells["dataset"] == "lab/random")
    cells = tested[name].cells
    gains = cells["advantage"].to_numpy()
    advisors = left_out_advisors(cells, tested[name].steps())
    decided[name] = {
        label: advise_left_out(cells, advisors, threshold=LEAST, trial=budget)
        for label, budget in BUDGETS.items()
    }
    rules = {
        label: (answers["answer"], answers["run"], answers["cost"])
        for label, answers in decided[name].items()
    }
    longest = decided[name]["trial run of at most 25%"]
    rules["the recommendation"] = (
        longest["recommended"].map({True: "yes", False: "no"}),
        longest["recommended"],
        longest["recommended_cost"],
    )
    for label, run in {"always yes": True, "always no": False}.items():
        answer = pd.Series("yes" if run else "no", index=longest.index)
        rules[label] = (answer, answer == "yes", 0.0 * longest["cost"])
    rows = {}
    for label, (answer, run, cost) in rules.items():
        run, cost = run.to_numpy(bool), cost.to_numpy()
        given = (answer != "open").to_numpy()
        right = np.mean((run == (gains >= LEAST))[given]) if given.any() else np.nan
        rows[label] = {
            **{word: int((answer == word).sum()) for word in ("yes", "no", "open")},
            "right": f"{right:.0%}" if given.any() else "none",
            "cost": f"{cost.mean():.0%}",
            "regret": round(100 * float(regret(gains, run, cost, LEAST).mean()), 2),
        }
        key = f"pre_{name}_{SHORT[label]}"
        if label in BUDGETS:
            share = held(decided[name][label])
            glue(f"{key}_held", float(share), display=False)
        glue(f"{key}_decided", float(given.mean()), display=False)
        glue(f"{key}_right", float(right), display=False)
        glue(f"{key}_regret", float(rows[label]["regret"]), display=False)
    pays = gains >= LEAST
    glue(f"pre_{name}_pays", int(pays.sum()), display=False)
    glue(f"pre_{name}_n", len(gains), display=False)
    missed = int((pays & (longest["answer"] == "no").to_numpy()).sum())
    glue(f"pre_{name}_missed", missed, display=False)
    said_yes = int((pays & (longest["answer"] == "yes").to_numpy()).sum())
    glue(f"pre_{name}_said_yes", said_yes, display=False)
    is_open = (longest["answer"] == "open").to_numpy()
    glue(f"pre_{name}_open", int(is_open.sum()), display=False)
    glue(f"pre_{name}_open_pays", int((pays & is_open).sum()), display=False)
    tables[TITLES[name]] = pd.DataFrame(rows).T
    told = advise_left_out(cells, advisors, threshold=0.03, trial=0.25)
    nothing = np.zeros(len(gains))
    for word, run, cost in (
        ("advice", told["recommended"], told["recommended_cost"]),
        ("yes", nothing == 0.0, nothing),
        ("never", nothing != 0.0, nothing),
    ):
        lost = 100 * float(regret(gains, run, cost, 0.03).mean())
        glue(f"pre_{name}_{word}_3", lost, display=False)
SHOWN = {
    "without a trial run": "no trial run",
    "trial run of at most 10%": "trial up to 10%",
    "trial run of at most 25%": "trial up to 25%",
    "two pretrained models": "pretrained",
}
pd.concat(tables).rename(index=SHOWN)

# %% [markdown]
# These are the decided cases in which it was wrong, worst first:

# %%
wrong = {}
for name, found in decided.items():
    answers = found["trial run of at most 25%"]
    cells = tested[name].cells
    part = answers[answers["right"].eq(False)].join(cells[["model", "dataset"]])
    part["miss"] = (part["true_gain"] - LEAST).abs()
    wrong[TITLES[name]] = part.sort_values("miss", ascending=False)
    glue(f"pre_{name}_wrong", len(part), display=False)
columns = {"gain": "expected", "low": "from", "high": "to", "true_gain": "true gain"}
worst = pd.concat({name: part.head(5) for name, part in wrong.items()})
worst[list(columns)] = (100 * worst[list(columns)]).round(1)
medical = shipped["real"].cells.set_index(["model", "dataset"]).loc["gemma-3-270m"]
medical = medical.loc["medical"]
best = medical["lora"] - medical["advantage"]
glue("pre_medical_lead", 100 * float(medical["lead"]), display=False)
glue("pre_medical_test", 100 * float(best - medical["probe_last"]), display=False)
worst.droplevel(1)[["model", "dataset", "answer", *columns]].rename(columns=columns)

# %% [markdown]
# In *medical*, most questions occur twice, once with each label. Cross-validation puts one copy into the training folds of the other, which misleads a classifier: accuracies come out too low, and that of the last layer more than that of the best classifier, so that the lead comes out too large: {glue:text}`pre_medical_lead:.1f` points for gemma-3-270m, and {glue:text}`pre_medical_test:.1f` on test texts. If your file has pairs of nearly equal texts, the lead is not to be trusted: the tool does not know which texts belong together.
#
# In the lab the tool decides {glue:text}`pre_lab_frozen_decided:.0%` of the cases without a trial run. With one of at most a quarter it decides {glue:text}`pre_lab_trial_decided:.0%` and is right in {glue:text}`pre_lab_trial_right:.0%` of these; {glue:text}`pre_lab_wrong` answers are wrong. *Regret* is what is lost against knowing all gains: missed gains, runs that bring less than the threshold, and what was spent on the decision ({doc}`chapter 9 <09_predicting_the_gain>` has the exact rule). The regret of the first three rows needs a rule for open cases, which is not what the tool recommends: an open case is run if its expected gain reaches the threshold; where no step predicts, the *mean* of the recorded gains over the last layer, minus the lead, stands for it (reports show the median). *The recommendation* is what the report says to do in an open case: the rule that loses least on the other recorded datasets. Where that is never to run LoRA, no trial run is made for it either, so that it costs only the pass over the texts, and a *yes* that a trial run would have given is missed.
#
# In the two pretrained models the tool decides {glue:text}`pre_real_frozen_decided:.0%` of the runs without a trial run and {glue:text}`pre_real_trial_decided:.0%` with one of at most a quarter, of which {glue:text}`pre_real_trial_right:.0%` are right ({glue:text}`pre_real_wrong` wrong answers; always *no* is right in {glue:text}`pre_real_never_right:.0%` of all runs). LoRA is better by a point in {glue:text}`pre_real_pays` of the {glue:text}`pre_real_n` runs, and the tool answers *no* to {glue:text}`pre_real_missed` of these. The regret is {glue:text}`pre_real_trial_regret:.2f` points, that of the recommendation {glue:text}`pre_real_advice_regret:.2f`, of always running LoRA {glue:text}`pre_real_yes_regret:.2f`, of never running it {glue:text}`pre_real_never_regret:.2f`. Here, never running LoRA costs least; where the recommendation makes the same decisions, its regret is larger by the cost of measuring the frozen model.
#
# In the lab never running LoRA costs {glue:text}`pre_lab_never_regret:.2f`, always running it {glue:text}`pre_lab_yes_regret:.2f`, the recommendation {glue:text}`pre_lab_advice_regret:.2f`, and deciding without a trial run {glue:text}`pre_lab_frozen_regret:.2f`: at a threshold of one point a trial run costs more than it brings there. The recommendation is best in neither set, and its regret is well below that of the worst rule in both. It follows from the other recorded runs of the same set.
#
# :::{admonition} More about these numbers
# :class: dropdown
# Running open cases by the mean of the recorded gains, as in the first three rows, is not among the rules that the recommendation chooses from. When we let it choose this one too, its regret in the lab became smaller at a threshold of one point, and larger at three and five points. At three points the regrets of the recommendation, of always and of never running LoRA are {glue:text}`pre_real_advice_3:.2f`, {glue:text}`pre_real_yes_3:.2f` and {glue:text}`pre_real_never_3:.2f` on the pretrained models, and {glue:text}`pre_lab_advice_3:.2f`, {glue:text}`pre_lab_yes_3:.2f` and {glue:text}`pre_lab_never_3:.2f` in the lab ({doc}`chapter 9 <09_predicting_the_gain>` has those at five). The regrets in a report differ from these, because the calibration of a report lacks the runs on its dataset. The time of the probes is not in these figures.
# :::
#
# The intervals held in {glue:text}`pre_real_trial_held:.0%` of the pretrained models' runs and in {glue:text}`pre_lab_trial_held:.0%` of the lab's, with a trial run of at most a quarter (the share of all runs whose interval contains the true gain over the best classifier); 70% was asked for.
#
# ## A real model
#
# Here the tool is asked about {glue:text}`case_model` and {glue:text}`case_texts` texts of the dataset *{glue:text}`case_dataset`*. The calibration is `real` without this dataset, the threshold {glue:text}`case_threshold:.0f` point, and a trial run of at most 25% is allowed (recorded: `python -m book.tools.real_cases`; the sentences are those of the present version):

# %% tags=["remove-input"]
cases = load_record("prescreened")["cases"]
case = cases[0]
Markdown(with_notes(case))

# %% tags=["remove-cell"]
truth = shipped["real"].cells.set_index(["model", "dataset"])
cell = truth.loc[case["model"], case["dataset"]]
gained = float(cell["advantage"])
for name, value in {
    "model": case["model"],
    "texts": case["n_texts"],
    "dataset": case["dataset"],
    "threshold": 100 * case["threshold"],
    "lora": float(cell["lora"]),
    "frozen": float(cell["frozen"]),
    "best": float(cell["lora"] - gained),
    "gain": 100 * gained,
    "minutes": case["seconds"] / 60,
    "side": "at least" if gained >= case["threshold"] else "below",
}.items():
    glue(f"case_{name}", value, display=False)

# %% [markdown]
# The prescreening took {glue:text}`case_minutes:.1f` minutes. The truth, from the {doc}`declared experiment </book/declared>`: on test texts LoRA reaches an accuracy of {glue:text}`case_lora:.3f`, a head on the last layer {glue:text}`case_frozen:.3f`, and the best classifier without finetuning {glue:text}`case_best:.3f`. The gain over the latter is {glue:text}`case_gain:.1f` points, {glue:text}`case_side` the threshold of {glue:text}`case_threshold:.0f`.
#
# These are all datasets of which the same was asked. *Expected* and the interval are in points; *best without* is the accuracy of the best classifier without finetuning on the test texts.

# %% tags=["hide-input"]
pd.DataFrame(
    {
        one["dataset"]: {
            "answer": one["verdict"],
            "based on": one["step"],
            "expected": round(100 * one["gain"], 1),
            "from": round(100 * one["gain_low"], 1),
            "to": round(100 * one["gain_high"], 1),
            "true gain": round(100 * cell["advantage"], 1),
            "best without": round(cell["lora"] - cell["advantage"], 3),
        }
        for one in cases
        for cell in [truth.loc[one["model"], one["dataset"]]]
    }
).T

# %% tags=["remove-cell"]
gains = {
    one["dataset"]: truth.loc[one["model"], one["dataset"]]["advantage"]
    for one in cases
}
glue("cases_n", len(cases), display=False)
decided_cases = [c for c in cases if c["verdict"] != "open"]
right_cases = [
    c
    for c in decided_cases
    if (c["verdict"] == "yes") == (gains[c["dataset"]] >= c["threshold"])
]
inside_cases = [
    c for c in cases if c["gain_low"] <= gains[c["dataset"]] <= c["gain_high"]
]
times = [c["seconds"] / c["lora_seconds"] for c in cases]
with_trial = [c for c in cases if c["trial"]]
for key, value in {
    "decided": len(decided_cases),
    "right": len(right_cases),
    "inside": len(inside_cases),
    "trial": len(with_trial),
    "time_low": min(times),
    "time_high": max(times),
}.items():
    glue(f"cases_{key}", value, display=False)

# %% [markdown]
# The LoRA runs of these cases were made in the experiment, each on one of two cores, in {glue:text}`cases_took_list` minutes.[^stood] (A whole run of the experiment, which has the head, probes and scores of `ntps benchmark` too, took {glue:text}`cases_whole:.0f` minutes in the median of {glue:text}`cases_whole_n` datasets.) The prescreening was made later, on one core, too, but beside other work that slowed it. Its reports estimate the duration of the runs from the steps of the trial runs, which were slowed in the same way: {glue:text}`cases_said_list` minutes, up to {glue:text}`cases_off:.0f` times as long as they took. Prescreening took {glue:text}`cases_time_low:.0%` to {glue:text}`cases_time_high:.0%` of these estimated durations. An estimate, and the threshold that `--worth` sets, holds for the machine as busy as it is. On a GPU, which was not tried, a run can take less time than the probes.
#
# {glue:text}`cases_decided` of the {glue:text}`cases_n` cases are decided, {glue:text}`cases_right` of these rightly, and the true gain lies inside the interval in {glue:text}`cases_inside` of {glue:text}`cases_n`. A trial run was allowed, and made in {glue:text}`cases_trial` of them: the tool makes one only if trial runs of its length have a skill on the other recorded datasets.
#
# [^stood]: Without {glue:text}`cases_stood:.0f` minutes in which the run on {glue:text}`cases_stood_name` stood still.
#
# ## When not to trust it
#
# - **When your case is unlike the recorded runs.** All real ones are of two models of 135 and 268 million parameters, on up to 2,000 texts that were cut after 64 tokens, with one setting of LoRA: rank 8 on query, key and value projections, {glue:text}`set_steps` training steps of {glue:text}`set_batch` texts, the learning rate {glue:text}`set_rate`, chosen on two other datasets. Their weights came in 4 to 8 bits and were converted to float32; whether LoRA gains more from weights that never were rounded was not measured. In some of these runs the validation loss still fell at the end ({doc}`chapter 9 <09_predicting_the_gain>` counts them), so that more steps may bring more.
# - **When a note says that the case lies outside the recorded runs**, such as a larger model: "This case has … parameters of the model, the recorded runs …. Whether they predict it is not known." The verdict is printed all the same, from runs of small models. Believe it only where its reason is that the best classifier gets too few texts wrong; otherwise take it for *open*.
# - **When the texts were seen in pretraining**, or when training and test texts are related: no number here can know.
# - **When the loss falls late.** A trial run that ends on a plateau sees nothing of what follows. In the lab this is frequent, and one reason why a tenth of the steps is not enough there.
#
# ## What a gain is worth to you
#
# The threshold decides what counts as *paying*. Choose the smallest gain for which you would run LoRA; without `--threshold` it is one point. With a few hundred texts a gain of one point cannot be told from chance: choose a threshold of about two standard errors then (next section), such as `--threshold 4` for 400 texts. (How often the answers are right, above, is for one point.) You need at least 100 texts; more make the accuracies more certain. A trial run needs at least 250 texts, and predictors of the frozen model, where a calibration has one with a skill, more texts than the model has features. In Python `threshold` is a share of the texts (0.03), in the shell `--threshold` is in points (3); `worth` (0.2 in Python, `--worth 20` in the shell) is the accuracy that an hour of computing must bring, and the tool converts it with the duration of the LoRA run on this machine:
#
# ```bash
# ntps prescreen smollm2-135m-instruct reviews.csv --threshold 3            # at least three points
# ntps prescreen smollm2-135m-instruct reviews.csv --worth 20               # at least twenty points an hour
# ntps prescreen smollm2-135m-instruct reviews.csv --compare-model gemma-3-270m
# ```
#
# The last command ranks two models in one table. `--resume FILE` keeps what is measured, so that an interrupted prescreening goes on where it was.
#
# ## Calibrate it on your own runs
#
# For one dataset this is not worth it: a calibration needs at least five LoRA runs, and one run on your dataset measures the gain itself, with the error of its test texts. (If the two classifiers differ on 15% of $n$ test texts, the standard error of the gain is $\sqrt{0.15 / n}$: 1.2 points for 1,000 texts, 1.9 for 400. Take a difference below two standard errors for undecided; another random seed changes the gain, too. And the accuracy of the better of two is slightly optimistic on the texts on which it was chosen.) `ntps datasets split FILE FOLDER` and `ntps benchmark --profile declared --models MODEL --datasets FOLDER` make that run with the LoRA settings of our real runs, and train a head on the frozen last layer and the classifiers without finetuning beside it: the columns `lora` and `advantage` of its table are the accuracy of LoRA and its gain over the best of them, chosen by cross-validation. These settings are at most 2,000 training texts, 64 tokens of a text and one learning rate; `--n-train N` and `--max-length N` change the first two. Calibrate if you decide about many datasets, and check the calibration on runs that it does not contain.
#
# The shipped calibration `real` holds one setting of LoRA, two small models, and texts of at most 64 tokens. Predictions for your models and your kind of texts come from runs of your own, made with the settings of the declared ones. The declared runs read 64 tokens of a text. For longer texts give `--max-length N` to all three commands, and read as many tokens in the lines of code below; the other settings stay:
#
# ```bash
# ntps benchmark --profile declared --models mine=path/to/model --datasets a=data/a,b=data/b,c=data/c,d=data/d,e=data/e,f=data/f --record runs/mine
# ntps prescreen path/to/model data/new --calibration runs/mine_cells.csv --trial 25%
# ntps prescreen path/to/model data/new --calibration real,runs/mine_cells.csv
# ```
#
# The first command records LoRA runs with their evaluations, and the classifiers without finetuning beside them; the second is calibrated on them alone, the third on them and on the runs that ship with the library. (Other profiles than *declared*, that of the lab among them, leave the classifiers out, and the better of two probes, of the middle and of the last layer, stands for the best of them: it is easier to beat.) The tool refuses fewer than five datasets besides the new one.
#
# Here is the same for a real model. Suppose that {glue:text}`own_model` is yours, and that you have made LoRA runs on {glue:text}`own_n` datasets: {glue:text}`own_datasets`. (They are the first of our recorded runs. Each took {glue:text}`own_minutes_low:.0f` to {glue:text}`own_minutes_high:.0f` minutes on one of two cores.) Then a new dataset comes, *{glue:text}`case_dataset`*, and the second command answers:
#

# %% tags=["remove-input"]
own = case["own"]
Markdown(with_notes(own))

# %% tags=["hide-input"]
pd.DataFrame(
    {
        one["dataset"]: {
            "answer": one["own"]["verdict"],
            "based on": one["own"]["step"],
            "expected": round(100 * one["own"]["gain"], 1),
            "from": round(100 * one["own"]["gain_low"], 1),
            "to": round(100 * one["own"]["gain_high"], 1),
            "with real": one["verdict"],
            "true gain": round(100 * gains[one["dataset"]], 1),
        }
        for one in cases
    }
).T

# %% tags=["remove-cell"]
MODEL, N_OWN, N_DRAWS = case["model"], own["calibration"]["n_datasets"], 40
mine = shipped["real"].without(shipped["real"].cells["model"] != MODEL)
made = {
    one.run.dataset: one.result
    for one in recorded_runs()
    if (one.run.kind, one.run.model, one.run.seed) == ("lora", MODEL, 0)
}
runs = {dataset: one.finetuning for dataset, one in made.items()}
whole = np.median([one.seconds for one in made.values()]) / 60


def stood(run):
    """Minutes by which the slowest part of a run was slower than its other parts."""
    at = np.array([(point.step, point.seconds) for point in run.lora_curve])
    steps, seconds = np.diff(at, axis=0).T
    slowest = np.argmax(seconds / steps)
    usual = np.median(seconds / steps) * steps[slowest]
    return float(seconds[slowest] - usual) / 60


def moving(run):
    """Minutes of a run, without those in which it stood still."""
    return run.lora_seconds / 60 - (stood(run) if stood(run) > 10 else 0.0)


minutes = [moving(runs[dataset]) for dataset in mine.cells["dataset"]]
of_cases = {one["dataset"]: runs[one["dataset"]] for one in cases}
longest = max(of_cases, key=lambda name: stood(of_cases[name]))
took = np.array([moving(run) for run in of_cases.values()])
said = [one["lora_seconds"] / 60 for one in cases]
for name, value in {
    "took_list": ", ".join(f"{one:.0f}" for one in took),
    "said_list": ", ".join(f"{one:.0f}" for one in said),
    "stood": stood(of_cases[longest]),
    "stood_name": longest,
    "off": float((np.array(said) / took).max()),
    "whole": float(whole),
    "whole_n": len(made),
}.items():
    glue(f"cases_{name}", value, display=False)
small = []
rng = np.random.default_rng(seed)
for _ in range(N_DRAWS):
    groups = rng.permutation(mine.cells["group"].unique())
    few = mine.without(~mine.cells["group"].isin(groups[:N_OWN]))
    rest = mine.without(mine.cells["group"].isin(groups[:N_OWN]))
    advisors = dict.fromkeys(groups, Advisor(few.cells, few.steps(), seed=seed))
    small.append(advise_left_out(rest.cells, advisors, threshold=LEAST, trial=0.25))
small = pd.concat(small, ignore_index=True)
small["decided"] = small["answer"] != "open"
for name, value in {
    "model": MODEL,
    "n": N_OWN,
    "datasets": own["own_datasets"],
    "minutes_low": min(minutes),
    "minutes_high": max(minutes),
    "draws": N_DRAWS,
    "decided": float(small["decided"].mean()),
    "right": float(small.loc[small["decided"], "right"].astype(bool).mean()),
    "held": float(held(small)),
    "predicted": float(small["has_skill"].mean()),
    "never": float((small.loc[small["decided"], "true_gain"] < LEAST).mean()),
}.items():
    glue(f"own_{name}", value, display=False)

# %% [markdown]
# The table has the same for all three cases, each without its own dataset; *with real* is the answer with the shipped calibration `real`. How good is so small a calibration? We drew {glue:text}`own_n` of the recorded datasets of this model {glue:text}`own_draws` times, and asked about the others, with trial runs of at most a quarter. The tool decided {glue:text}`own_decided:.0%` of the cases, and {glue:text}`own_right:.0%` of these rightly (always *no* would be right in {glue:text}`own_never:.0%` of the same cases); {glue:text}`own_held:.0%` of the 70% intervals held; a step had a skill in {glue:text}`own_predicted:.0%` of the cases. So with six datasets of one real model the calibration was not better than always *no*; from how many datasets on it pays is not known. (With few datasets a step can pass the check of its skill by chance.) {numref}`fig-gain-size` shows what more datasets bring in the lab, with four models each.
#
# ## The best classifier without finetuning
#
# The answer *no* means: train the classifier that the report names, and stop. The lines below measure it on test texts. (If the report was made from the whole file, it chose among the classifiers on these texts, too, and the accuracy can be slightly too high.) To use it for new texts, leave out `.head(2000)`, and keep what was fitted. To compare it with a LoRA run, give both the same texts: the lines below read 2,000 training texts, and 256 tokens of a text, as the command on the front page does (`ntps benchmark --profile declared --max-length 256`; without `--max-length` it reads 64). Divide a single file with `ntps datasets split reviews.csv data/reviews` first. If the classifier is a bag of words, these lines train it:
#
# ```python
# from ntps_utils.evidence.classifiers import texts_read
# from ntps_utils.models.datasets import load_texts
# from ntps_utils.models.extraction import tokenize
# from ntps_utils.models.loading import load_model
# from ntps_utils.models.richer_probes import bag_of_words
#
# model = load_model("path/to/model")
# train, test = load_texts("data/reviews", "train").head(2000), load_texts("data/reviews", "test")
# read, read_test = (texts_read(model, part, tokenize(model, part, 256)) for part in (train, test))
# words = bag_of_words().fit(read, train.labels)
# print(words.score(read_test, test.labels))
# ```
#
# If it is a probe, these lines train it on mean tokens, with the penalty chosen as in the tool. `layers` are the numbers in the report, and `(model.n_layers - 1,)` for "a probe of the last layer"; the features of several layers are put side by side:
#
# ```python
# import pickle
# from pathlib import Path
#
# import numpy as np
#
# from ntps_utils.models.datasets import load_texts
# from ntps_utils.models.extraction import extract
# from ntps_utils.models.loading import load_model
# from ntps_utils.models.probes import logistic_probe
#
# model = load_model("path/to/model")
# layers = (8,)  # or (8, 15, 22, 30)
# train, test = load_texts("data/reviews", "train").head(2000), load_texts("data/reviews", "test")
# features = [extract(model, part, layers=layers, features=layers, max_length=256).features for part in (train, test)]
# x, x_test = (np.hstack([one[layer] for layer in layers]) for one in features)
# probe = logistic_probe(x, train.labels, x_test, test.labels)
# print(probe.test_accuracy)
# Path("probe.pickle").write_bytes(pickle.dumps(probe))
# ```
#
# `probe.predict(x_new)` returns the class numbers of new texts. They need no labels: any number stands for them.
#
# ```python
# from ntps_utils.models.datasets import as_dataset
#
# texts = ["where is my parcel?", "thank you, it works"]
# new = as_dataset((texts, [0] * len(texts)))  # one number for all: only the features are used
# features = extract(model, new, layers=layers, features=layers, max_length=256).features
# x_new = np.hstack([features[layer] for layer in layers])
# print([train.label_names[i] for i in probe.predict(x_new)])
# ```
#
# A bag of words reads such texts in the same way: `words.predict(texts_read(model, new, tokenize(model, new, 256)))`.
#
# ## After "open"
#
# 1. Train the classifier that the report names (above): you have it in any case.
# 2. If you can afford one LoRA run, make it, even where the report recommends against it: for the recommendation, a run that brings nothing is a loss as large as the threshold, whatever a run costs you. The two commands below make it; a folder that has texts for testing needs the second only. (Unless it recommends a trial run first, an open report has them after *Next*, with the number of tokens that it read itself. Without `--max-length` the second command reads 64.) Read the advantage over the best classifier in its table (`advantage`); its standard error is about $\sqrt{0.15 / n}$ for $n$ test texts; `alternative` names this classifier.
#
#    ```bash
#    ntps datasets split reviews.csv data/reviews
#    ntps benchmark --profile declared --models path/to/model --datasets data/reviews --max-length 256
#    ```
#
# 3. Otherwise do what the report recommends. (For a model larger than 268 million parameters, or texts longer than 64 tokens, do not rely on it: the tool has told you the best classifier and about how much is left to gain.) On the pretrained models that was never to run LoRA: of the {glue:text}`pre_real_open` runs that the tool left open, LoRA was better by a point or more in {glue:text}`pre_real_open_pays`.
# 4. If it says *Label more texts* (fewer than 100), first get more: accuracies of so few texts do not tell gains of a few points apart.
#
# ## After a "yes"
#
# `ntps benchmark` measures the gain (with `--profile lab`, for models of the lab, over the better of two probes only); the next lines train an adapter on `data/reviews` (divided as above) and keep it. They try three learning rates (3e-4 was chosen for two small models) and keep the best by the loss on validation texts. (`max_steps=600, eval_steps=75` among the arguments of `replace` trains twice as long.) They read 256 tokens of a text, as above; without `max_length`, whole texts are read:
#
# ```python
# from dataclasses import replace
#
# import torch
#
# from ntps_utils.evidence.declared import lora_settings
# from ntps_utils.models.datasets import load_texts
# from ntps_utils.models.finetuning import finetune
# from ntps_utils.models.loading import load_model
#
# train, test = load_texts("data/reviews", "train").head(2000), load_texts("data/reviews", "test")
# config = replace(lora_settings(3e-4), learning_rates=(1e-3, 3e-4, 1e-4))
# result = finetune(load_model("path/to/model"), train, test, config, max_length=256, keep_adapter=True)
# print(result.learning_rate, result.accuracy)
# result.adapter.save_pretrained("adapter")
# torch.save(result.head.state_dict(), "adapter/head.pt")
# ```
#
# Later, adapter and head classify texts (new ones without labels as above, by `as_dataset`):
#
# ```python
# import torch
#
# from ntps_utils.models.datasets import load_texts
# from ntps_utils.models.extraction import extract
# from ntps_utils.models.loading import load_model
#
# model, test = load_model("adapter", base_model="path/to/model"), load_texts("data/reviews", "test")
# weights = torch.load("adapter/head.pt")
# features = extract(model, test, layers="last", features="last", max_length=256).features[model.n_layers - 1]  # layer 0: embeddings
# logits = torch.from_numpy(features).double() @ weights["weight"].T + weights["bias"]
# print([test.label_names[i] for i in logits.argmax(1)])
# ```
#
# ## The cost

# %%
print(
    f"frozen model {duration(frozen.seconds)}, with trial run {duration(p.seconds)}, "
    f"the LoRA run about {duration(p.lora_seconds)}"
)

# %% [markdown]
# ## Summary
#
# - First fit what needs no finetuning: a bag of words, probes of several layers. If the best of them makes too few errors for a worthwhile gain, stop. On the recorded pretrained models, never running LoRA cost least. Where a run is cheap, make it, and keep the better classifier.
# - The tool says *no* where the 95% limit of what the best classifier gets wrong is below the threshold. Beyond that it says *yes* or *no* from a step that has predicted the gains of other datasets. Without one it says *no* where at least 85% of the recorded gains would not make up for the lead of the best classifier and the threshold, and otherwise *open*.
# - A trial run sees what the frozen model does not show, if the loss begins to fall early enough.
# - The case's own dataset never enters its calibration.

# %% tags=["hide-input"]
kept = ("verdict", "gain", "gain_low", "gain_high", "interval", "step", "command")
full = json.loads(p.to_json())
print(json.dumps({name: full[name] for name in kept}, indent=1))

# %% [markdown]
# ## Quiz
#
# **1.** The answer is *open*, and the interval is named a spread. What should you do?
#
# - (a) Take it for a *no*
# - (b) Do what the report recommends, or make the run if it is cheap for you
# - (c) Lower the threshold until the answer is yes
#
# :::{admonition} Answer
# :class: dropdown
# (b). *Open* means that the gain is not known. The recommendation is the rule that cost least on the recorded runs, and a run measures your own case. Not (a): the recommendation may be to skip LoRA, as it is for the pretrained models, but LoRA can still pay in a single case. Not (c): the threshold says what a gain is worth to you, and does not depend on what is known.
# :::
#
# **2.** The probe is right on 98% of 2,000 texts, and the threshold is three points. What is the answer?
#
# - (a) No: at most about two points are left
# - (b) Yes
# - (c) It depends on the calibration
#
# :::{admonition} Answer
# :class: dropdown
# (a). This conclusion needs only the errors of the probe. Not (b): three points cannot be gained where two are left. Not (c): no recorded run enters it.
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
# (c). Intervals hold for cases like the recorded ones; the report notes sizes outside their range. Not (a), for that reason. Not (b): no rule is known by which gains change with size.
# :::
#
# ## Exercises
#
# A check takes your function and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Yes, no or open?
# :label: ex-11-1
#
# *Difficulty 1 of 5, importance 5 of 5, about 5 minutes.*
#
# Write the rule by which the tool turns the ends of an interval and a threshold into "yes", "no" or "open". Why does the expected gain not occur in it?
#
# ```python
# def decide(low, high, threshold):
#     ...
#
# check("11.1", decide)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# "Yes" needs the whole interval at or above the threshold.
# :::
#
# ````{solution} ex-11-1
# :class: dropdown
# An expected gain above the threshold can be right by little more than chance. The ends say how sure the answer is; with an interval of 70%, each side should err in about 15% of all cases (measured above, somewhat fewer than 70% held). The answers that are given can err more often than that (see the table of wrong answers), because they are not all cases, but those whose interval lies on one side of the threshold.
#
# ```python
# def decide(low, high, threshold):
#     return "yes" if low >= threshold else "no" if high < threshold else "open"
# ```
# ````
#
# ````{exercise} How much headroom can there be?
# :label: ex-11-2
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# A probe gets the share `headroom` of `n` texts wrong. Write the upper 95% limit (on one side, by the normal approximation) of the share on new texts. Would you answer "no" at a threshold of three points after two errors among 100 texts?
#
# ```python
# def limit(headroom, n):
#     ...
#
# check("11.2", limit)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The number of errors is binomial. 95% of a normal distribution lie below 1.645 standard deviations.
# :::
#
# ````{solution} ex-11-2
# :class: dropdown
# $h + 1.645 \sqrt{h(1-h)/n}$. For $h = 0.02$ and $n = 100$ this is 0.043, so the answer is not "no" yet. Without any error this limit is zero, for any number of texts; the tool takes the exact limit of a binomial share, which is about $3/n$ then.
#
# ```python
# def limit(headroom, n):
#     return headroom + 1.645 * np.sqrt(headroom * (1 - headroom) / n)
# ```
# ````
#
# ````{exercise} An exchange rate
# :label: ex-11-3
#
# *Difficulty 1 of 5, importance 4 of 5, about 5 minutes.*
#
# An hour of computing must bring `rate` points of accuracy, and the LoRA run takes `minutes`. Which gain must it reach? Your alternative to LoRA is to label 2,000 more texts for the probe: how would you set the rate?
#
# ```python
# def threshold_of(rate, minutes):
#     ...
#
# check("11.3", threshold_of)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Convert the minutes into hours.
# :::
#
# ````{solution} ex-11-3
# :class: dropdown
# Fit the probe on half and on all of the texts you have; the difference, continued to 2,000 more, estimates what labeling would bring. That gain, divided by the hours that labeling takes, is the rate that LoRA should exceed.
#
# ```python
# def threshold_of(rate, minutes):
#     return rate * minutes / 60
# ```
# ````

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile, seed=seed, texts=p.n_texts, model=p.model, dataset=p.dataset
    )
)

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
# # Subspaces you can see
#
# :::{admonition} After this chapter you can
# :class: tip
# - draw texts and words in perception and in autoregressive coordinates, for any layer;
# - read from a picture which words lie together, and say where it misleads about what may follow them;
# - say how much of a label a two-dimensional picture shows, and compare layers by that number.
#
# You need chapter 3 for the two subspaces. It runs in about a minute on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` in its Figure 1 that features look different in the two subspaces: texts that are far apart in the directions of next-token prediction can be close in those of a
# task. **The code does** project features on the leading directions of each subspace ({mod}`ntps_utils.models.projection`). **We find** that in the lab, where the
# causes are known, words of one part of speech lie together, which mostly means that the same words may follow them, and that two autoregressive directions show almost nothing of any label.

# %% tags=["parameters"]
profile = "default"
seed = 0
model_name = "lab/M"
dataset_name = "lab/topic"
n_texts = 1000

# %% tags=["hide-input"]
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.evidence.records import load_record
from ntps_utils.lab import TASKS, WORLD
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.loading import load_model
from ntps_utils.models.projection import (
    autoregressive_coordinates,
    explained_variance,
    perception_coordinates,
    word_features,
)
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import house_style, panels
from ntps_utils.theory.score import NumericalWarning, subspaces

house_style()
warnings.simplefilter("ignore", NumericalWarning)
model, data = load_model(model_name), load_texts(dataset_name).head(n_texts)
fresh = load_texts(dataset_name, "test").head(n_texts)
everything = tuple(range(model.n_layers))
found = extract(model, data, features="all")
held_out = extract(model, fresh, features="all")
solved = {
    i: subspaces(found.moments.layer(i), layer=i, center=True) for i in everything
}
last = model.n_layers - 1

# %% [markdown]
# ## Texts
#
# Each point is the mean token of a text, projected on the first two perception directions (left) and on the first two autoregressive ones (right). Colors are
# the labels. Moments are centered here, so that the first perception direction is not the constant; the autoregressive directions are the same with and without centering. The title gives the share of the variance of the labels that a linear regression on the two coordinates explains. It is computed on test texts, because among d directions some fit the labels of any given texts by chance.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Scatter plots of a thousand texts of the lab in two rows, middle and last layer, and two columns, perception and autoregressive coordinates. In perception coordinates two of the topics lie apart from the others; in autoregressive coordinates the colors are mixed."}, "figure": {"caption": "The same texts from two points of view. Topic task, middle and last layer of the model: in perception coordinates some topics separate, in autoregressive coordinates most of the spread has other causes.", "name": "fig-texts"}}
import matplotlib.pyplot as plt

palette = sns.color_palette("colorblind", data.n_classes)
figure, grid = plt.subplots(2, 2, figsize=(7.6, 6.2))
views = {
    "perception": perception_coordinates,
    "autoregressive": autoregressive_coordinates,
}
for row, layer in zip(grid, (model.n_layers // 2, last), strict=True):
    x = found.features[layer] - found.features[layer].mean(0)
    for ax, (name, view) in zip(row, views.items(), strict=True):
        points = view(solved[layer], x)
        for c in range(data.n_classes):
            chosen = data.labels[found.row_indices] == c
            ax.scatter(
                *points[chosen].T, s=5, color=palette[c], label=data.label_names[c]
            )
        others = view(
            solved[layer], held_out.features[layer] - found.features[layer].mean(0)
        )
        share = explained_variance(
            points,
            data.labels[found.row_indices],
            others,
            fresh.labels[held_out.row_indices],
        )
        ax.set(
            title=f"{name}, layer {layer}: {round(share, 2) + 0.0:.0%} of the label",
            xticks=[],
            yticks=[],
        )
handles, names = grid[0, 0].get_legend_handles_labels()
_ = figure.legend(handles, names, loc="outside lower center", ncols=4, markerscale=2)

# %% [markdown]
# In perception coordinates some topics stand apart and the others overlap: eight topics have seven perception directions, of which the picture shows two. In autoregressive coordinates all topics are mixed, because these directions serve the next word, which depends first of all on grammar. Two texts of one topic can therefore be far apart in autoregressive coordinates and close in perception coordinates, as in the paper's figure.
#
# ## Words
#
# The next figure shows words in autoregressive coordinates. A word's point is the mean of its features over its occurrences. The prediction is linear in the prefix sum, so the coordinates of a word are what it adds to the prediction of the tokens after it. In the lab the grammar is known, so we know which words may follow which.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Words of the lab in the first two autoregressive coordinates of the last layer, colored by part of speech: function words and punctuation lie apart, nouns, adjectives, connectives, tags and forms of to be in groups of their own."}, "figure": {"caption": "Words of the lab by part of speech. Mean features of words in the first two autoregressive coordinates of the last layer, colored by part of speech. Black points: single words and punctuation, with their names.", "name": "fig-words"}}
words = word_features(model, data, last)
topic, polarity = WORLD.factors["topic"].words, WORLD.factors["polarity"].words
nouns = {w for own in topic["noun"].values() for n in own for w in (n, n + "s")}
groups = {
    "noun": nouns,
    "adjective": {w for own in polarity["word"].values() for w in own},
    "connective": {
        w for own in WORLD.factors["author"].words["word"].values() for w in own
    },
    "tag": {
        w for own in WORLD.factors["register"].words["word"].values() for w in own
    },
    "verb to be": {"is", "are", "was", "were"},
}
points = autoregressive_coordinates(
    solved[last], words.features - found.features[last].mean(0)
)
frame = pd.DataFrame(points, columns=["x", "y"], index=list(words.words))
figure, (ax,) = panels(1, height=3.8)
colors = sns.color_palette("colorblind", len(groups))
for (name, members), color in zip(groups.items(), colors, strict=True):
    part = frame[frame.index.isin(members)]
    ax.scatter(part["x"], part["y"], s=14, color=color, label=name)
readable = {".": "full stop", ",": "comma", "|": "bar"}
for word in (".", ",", "the", "not", "near", "a", "code", "|"):
    if word in frame.index:
        ax.annotate(
            readable.get(word, word),
            frame.loc[word],
            (4, -12 if word == "near" else 3),  # beside the full stop
            textcoords="offset points",
            fontsize=9,
        )
        ax.plot(*frame.loc[word], "k.", ms=3)
ax.set(
    xticks=[], yticks=[], xlabel="first autoregressive direction", ylabel="second"
)
_ = ax.legend(fontsize=8)

# %% tags=["remove-cell"]
singular = {n for own in topic["noun"].values() for n in own}
means = {
    name: frame[frame.index.isin(members)].mean()
    for name, members in {
        "singular": singular,
        "plural": nouns - singular,
        "noun": nouns,
        "adjective": groups["adjective"],
    }.items()
}
gap = float(np.linalg.norm(means["noun"] - means["adjective"]))
for key, (one, two) in {
    "number": (means["singular"], means["plural"]),
    "near": (frame.loc["near"], frame.loc["."]),
}.items():
    glue(f"apart_{key}", float(np.linalg.norm(one - two)) / gap, display=False)
followers = {"near": [], ".": []}
for text in data.texts:
    for current, following in pairwise(text.split()):
        if current in followers:
            followers[current].append(following)
for key, after in {"near": followers["near"], "stop": followers["."]}.items():
    glue(f"the_after_{key}", after.count("the") / len(after), display=False)

# %% [markdown]
# Nouns, adjectives, connectives, tags and forms of *to be* form groups of their own, although the model was not told any of them. Words of one group may mostly be followed by the same words: a connective (*then*, *yet*; it opens a sentence) by a comma, a tag (*okay*, *indeed*; it ends a sentence) by a full stop. There are exceptions. Where a form of *to be* follows, it is *is* or *was* after a noun in the singular, and *are* or *were* after one in the plural, but the mean points of the two kinds of nouns are only {glue:text}`apart_number:.0%` as far apart as those of nouns and adjectives. And *near* lies beside the full stop: the two are {glue:text}`apart_near:.0%` as far apart as the means of nouns and adjectives, although *the* follows *near* in {glue:text}`the_after_near:.0%` of the cases and the full stop in {glue:text}`the_after_stop:.0%`. So for groups of words the first autoregressive directions show the part of speech, and with it much of what may follow; for single words two directions can mislead.
#
# ## How much of a label a picture shows
#
# The share of a label's variance that a linear function of the two coordinates explains on test texts makes layers and tasks comparable. We take the lab's eleven tasks with two classes, without the coin toss. For them, one perception direction contains
# everything that linear least squares uses. We compare it with two autoregressive directions.

# %%
rows, n_random, draws = [], 100, np.random.default_rng(seed)
for task in (
    "sentiment",
    "tense",
    "register",
    "number",
    "code",
    "marker",
    "agreement",
    "order",
    "paraphrase",
    "related",
    "xor",
):
    texts, unseen = (
        load_texts(f"lab/{task}", split).head(n_texts) for split in ("train", "test")
    )
    seen, other = (extract(model, part, features="all") for part in (texts, unseen))
    for layer in everything:
        both = subspaces(seen.moments.layer(layer), layer=layer, center=True)
        mean = seen.features[layer].mean(0)
        for name, view in views.items():
            share = explained_variance(
                view(both, seen.features[layer] - mean),
                texts.labels[seen.row_indices],
                view(both, other.features[layer] - mean),
                unseen.labels[other.row_indices],
            )
            rows.append((TASKS[task].name, layer, name, share))
        from_white = both.whitening.from_white
        for _ in range(n_random):  # two directions, random in white coordinates
            pair = from_white @ draws.standard_normal((from_white.shape[1], 2))
            share = explained_variance(
                (seen.features[layer] - mean) @ pair,
                texts.labels[seen.row_indices],
                (other.features[layer] - mean) @ pair,
                unseen.labels[other.row_indices],
            )
            rows.append((TASKS[task].name, layer, "random", share))
shares = pd.DataFrame(rows, columns=["task", "layer", "view", "share"])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels of lines over layers, one line a task: share of the label explained by the perception direction on the left, by two autoregressive directions on the right; the right panel stays near zero for every task."}, "figure": {"caption": "What a picture holds of a label. Explained share of the label of test texts by layer, one line a task: the one perception direction on the left, two autoregressive ones on the right.", "name": "fig-shares"}}
figure, axes = panels(2, height=3.8, sharey=True)
for ax, name in zip(axes, views, strict=True):
    part = shares[shares["view"] == name].pivot(
        index="layer", columns="task", values="share"
    )
    for i, task in enumerate(part):
        style = "o-" if i < 10 else "s--"  # there are ten colors
        ax.plot(part.index, part[task], style, ms=3, lw=1.2, label=task)
    ax.set(title=name, xlabel="layer", xticks=everything, ylim=(None, 1))
axes[0].set_ylabel("share of the label explained")
_ = figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=4,
    fontsize=9,
)


# %% tags=["remove-cell"]
def by_rule(explained):
    """Verdict on the claim, from the shares of some labels on test texts."""
    outside = explained.loc[explained["perception"] >= 0.1, "autoregressive"]
    if outside.empty:
        return "open"
    return "held" if outside.max() < 0.1 else "not held"


here = shares[shares["layer"] == last]
at_last = here.pivot_table(index="task", columns="view", values="share")
drawn = here[here["view"] == "random"].groupby("task")["share"]
is_shown = at_last["perception"] >= 0.1
glue("n_tasks", len(at_last), display=False)
glue("n_shown", int(is_shown.sum()), display=False)
for key, part in {
    "shown": at_last.loc[is_shown, "perception"],
    "outside": at_last.loc[is_shown, "autoregressive"],
    "random": at_last.loc[is_shown, "random"],
    "unseen": at_last.loc[~is_shown, list(views)].stack(),
}.items():
    glue(f"{key}_low", float(part.min()), display=False)
    glue(f"{key}_high", float(part.max()), display=False)
glue("share_best", str(at_last["autoregressive"].idxmax()), display=False)
glue("share_best_value", float(at_last["autoregressive"].max()), display=False)
glue("n_view_texts", len(fresh), display=False)
random_edge = drawn.quantile(0.95)[is_shown]
glue("random_most", float(random_edge.max()), display=False)
as_random = at_last.loc[is_shown, "autoregressive"] <= random_edge
glue("n_as_random", int(as_random.sum()), display=False)
glue("verdict_lab", by_rule(at_last), display=False)
glue("n_random", n_random, display=False)

# %% [markdown]
# Some of the labels can be read from the perception direction. For the others even this direction, which was fitted to the labels, is at layer 0 (the embeddings) hardly better on test texts than the mean of the labels, which has the share 0, and from layer 1 on no better. Two autoregressive directions explain almost nothing of any label.
# On {glue:text}`n_view_texts` test texts, at the last layer, the perception direction explains a tenth or more of {glue:text}`n_shown` of {glue:text}`n_tasks` labels (shares of {glue:text}`shown_low:.2f` to {glue:text}`shown_high:.2f`). Of these labels, two autoregressive directions explain at most
# {glue:text}`outside_high:.2f`; of the other labels, neither kind explains anything (largest share {glue:text}`unseen_high:.2f`). The label that the autoregressive directions explain best is that of *{glue:text}`share_best`* ({glue:text}`share_best_value:.2f`). Two directions are
# a small part of what next-token prediction keeps. For each of the {glue:text}`n_shown` labels, two directions that are random in white coordinates explain at most {glue:text}`random_high:.2f` of its variance on test texts in the mean over {glue:text}`n_random` draws, and at most {glue:text}`random_most:.2f` in 95% of the draws. (By exercise 3.3 the mean is near $2/d$ of what all features explain.) For {glue:text}`n_as_random` of the {glue:text}`n_shown` labels the share of the two autoregressive directions is within its own 95% of the draws: two random directions show as little. Chapter 6 looks at all widths.
#
# The paper claims that autoregressive directions *may* lie outside the perception subspace. Our rule asks for no more: take the labels of which the perception direction explains a tenth or more on test texts. The claim is *held* if two autoregressive directions explain less than a tenth of each of them, *not held* if they explain a tenth or more of at least one, and *open* if there is no such label. So *held* means that two such directions can miss a label. It does not mean that they miss more than other directions do: two random ones pass the rule as well. We apply it at the last layer. In the lab the perception direction explains a tenth or more of {glue:text}`n_shown` labels, and two autoregressive directions explain at most {glue:text}`outside_high:.2f` of each of these, so that the claim is *{glue:text}`verdict_lab`*.
#
# ## Real models
#
# The next figure shows words of two real language models that read movie reviews (recorded, see {doc}`chapter 4 <04_extraction>`). Here the grammar is not given by us. The groups are parts of speech, and words of praise and of blame.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Words in the first two autoregressive coordinates of the last layer of smollm2 on the left and gemma on the right, colored by group: in gemma determiners, prepositions and conjunctions lie apart from nouns, and words of praise and of blame are mixed; in smollm2 words of praise lie more to the left than words of blame."}, "figure": {"caption": "Words of two real models, colored by group. Mean features of words in the first two autoregressive coordinates of the last layer, colored by group.", "name": "fig-real-words"}}
real = load_record("real_models")["models"]
shown = ("smollm2-135m-instruct", "gemma-3-270m")
figure, axes = panels(2, height=3.8)
for ax, name in zip(axes, shown, strict=True):
    words = pd.DataFrame(real[name]["words"])
    words[["x", "y"]] = words["point"].tolist()
    groups = words["group"].unique()
    colors = sns.color_palette("colorblind", len(groups))
    for group, color in zip(groups, colors, strict=True):
        part = words[words["group"] == group]
        ax.scatter(part["x"], part["y"], s=14, color=color, label=group)
    for word in ("the", "of", "is", ".", "film", "good", "bad"):
        for place in words[words["word"] == word][["x", "y"]].to_numpy():
            ax.annotate(word, place, fontsize=9)
    ax.set(title=name, xticks=[], yticks=[])
_ = figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=5,
    markerscale=1.5,
)

# %% [markdown]
# In gemma, determiners, prepositions and conjunctions lie on one side, and nouns and words of praise and of blame on the other. In smollm2 the groups overlap more. In each panel there are only {glue:text}`n_judged` words of praise and as many of blame. In gemma they are mixed, as may be expected if a judgment changes little about which words may follow. In smollm2 words of praise lie more to the left, but so few words do not decide. So in gemma, too, the first autoregressive directions show grammar, and these few words give no sign of sentiment; in smollm2 the picture shows neither clearly.
#
# How much of the sentiment of a review do the two kinds of directions explain?

# %%
rows = {
    (name, view, texts): value
    for name, facts in real.items()
    for view, shares in facts["shares"].items()
    for texts, value in shares.items()
}
pd.Series(rows).unstack([1, 2]).loc[list(real)].round(2)

# %% tags=["remove-cell"]
for key, name in zip(("smol", "gemma"), shown, strict=True):
    for view, shares in real[name]["shares"].items():
        glue(f"real_{view}_{key}", float(shares["held out"]), display=False)
        glue(f"real_in_{view}_{key}", float(shares["these texts"]), display=False)
glue("n_real", real[shown[0]]["n_texts"], display=False)
glue("n_real_test", real[shown[0]]["n_test"], display=False)
real_shares = [
    {view: both["held out"] for view, both in real[name]["shares"].items()}
    for name in shown
]
n_judged = {
    sum(word["group"] == group for word in real[name]["words"])
    for name in shown
    for group in ("praise", "blame")
}
glue("n_judged", max(n_judged), display=False)
glue("verdict_real", by_rule(pd.DataFrame(real_shares)), display=False)
glue("d_real", real[shown[0]]["dimension"], display=False)

# %% [markdown]
# The columns are the share of the variance of the labels that the perception direction and two autoregressive directions explain, on the {glue:text}`n_real` texts that they were computed from and on {glue:text}`n_real_test` texts held out. With
# {glue:text}`d_real` or more features, nearly as many as texts, the perception direction fits its own texts (shares of {glue:text}`real_in_perception_smol:.2f` in smollm2, {glue:text}`real_in_perception_gemma:.2f` in gemma)
# and not others: the share is {glue:text}`real_perception_smol:.2f` and {glue:text}`real_perception_gemma:.2f` on texts held out, where the mean of the labels has 0. A picture of such a direction shows two separate clouds, which say nothing about other texts. The remedy is more texts, or
# shrinkage (chapter 2). Two autoregressive directions, which were chosen without labels, explain {glue:text}`real_autoregressive_smol:.2f` and {glue:text}`real_autoregressive_gemma:.2f` of the variance of held-out labels. At this layer, the last one, the perception direction explains less than a tenth of the label on texts held out in smollm2 and gemma, the two models that decide here (in stories260K, too), so that by the rule above the claim is *{glue:text}`verdict_real`* for real models.
#
# %% [markdown]
# ## Summary
#
# - Features can be drawn in perception coordinates and in autoregressive coordinates; the two pictures show different properties of a text.
# - In the lab, the first autoregressive directions sort words by part of speech, and so mostly by what may follow them.
# - Report the share of the label that a picture shows, on texts that were not used for it.
#
# ## Quiz
#
# **1.** Perception coordinates of two classes form two separate clouds on the texts that they were computed from. What do you know?
#
# - (a) A probe works on new texts
# - (b) Little, if there are nearly as many features as texts
# - (c) The classes are balanced
#
# :::{admonition} Answer
# :class: dropdown
# (b). With as many features as texts, there is a direction that separates any labeling of them. (a) is wrong because the same picture appears for labels that are noise. (c) is wrong because separate clouds can have any sizes.
# :::
#
# **2.** Why do words of one part of speech lie together in autoregressive coordinates?
#
# - (a) They have the same meaning
# - (b) They have the same length
# - (c) Mostly, similar words may follow them
#
# :::{admonition} Answer
# :class: dropdown
# (c). The directions are those that predict the next token best, so words with similar successors tend to lie together. (It is a tendency: the text above has exceptions.) (a) is wrong because nouns of all topics lie together; meaning counts only as far as it changes what follows. (b) is wrong because the model reads tokens, and does not see the letters of a word.
# :::
#
# **3.** The share of a label that a picture shows on held-out texts is −0.2. What does that mean?
#
# - (a) The prediction is worse than the mean of the labels
# - (b) A computation went wrong
# - (c) The label is negatively related
#
# :::{admonition} Answer
# :class: dropdown
# (a). The share is one minus the ratio of squared errors, and is negative if the error is larger than that of the mean. (b) is wrong because overfitted directions give such values without any error in the computation. (c) is wrong because a regression uses a negative relation as well as a positive one.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Coordinates without correlation
# :label: ex-5-1
#
# *Difficulty 3 of 5, importance 4 of 5, about 20 minutes.*
#
# Write a function of features `x` (n, d) and classes that returns the coordinates of the texts on the perception directions, for centered moments. Show that they are uncorrelated and have unit variance. Why are autoregressive coordinates not?
#
# ```python
# def coordinates(x, labels):
#     ...
#
# check("5.1", coordinates)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Directions satisfy $U^\top S U = I$, and $S$ is the covariance of these features.
# :::
#
# ````{solution} ex-5-1
# :class: dropdown
# The covariance of $U^\top x$ is $U^\top S U = I$. For $V$ the condition is $V^\top A_0 V = I$, and $A_0$ is the second moment of prefix sums, not of mean tokens.
#
# ```python
# def coordinates(x, labels):
#     x = x - x.mean(0)
#     y = np.eye(labels.max() + 1)[labels]
#     C = x.T @ (y - y.mean(0)) / len(x)
#     values, vectors = np.linalg.eigh(x.T @ x / len(x))
#     white = vectors / np.sqrt(values) @ vectors.T
#     left, sizes, _ = np.linalg.svd(white @ C, full_matrices=False)
#     return x @ white @ left[:, sizes > 1e-9 * sizes[0]]
# ```
# ````
#
# ````{exercise} The constant
# :label: ex-5-2
#
# *Difficulty 2 of 5, importance 4 of 5, about 15 minutes.*
#
# Without centering, one direction in the span of U is the same for every task on the same texts (with classes of equal size and features with a large mean it is nearly the first one). Write a function of the features `x` (n, d) that returns it, up to its length.
#
# ```python
# def constant(x):
#     ...
#
# check("5.2", constant)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Which linear function of the features is as close as possible to 1 on all texts?
# :::
#
# ````{solution} ex-5-2
# :class: dropdown
# Least squares of the constant 1 gives $S^{-1} \E\,\xbar$ with second moments $S$. With one-hot targets the columns of $C$ add up to $\E\,\xbar$, so this direction is in the span of $U$. If the mean of the features is large, its coordinate is nearly the same for all texts, and does not separate the classes.
#
# ```python
# def constant(x):
#     return np.linalg.solve(x.T @ x / len(x), x.mean(0))
# ```
# ````
#
# ````{exercise} How much of the label?
# :label: ex-5-3
#
# *Difficulty 2 of 5, importance 5 of 5, about 15 minutes.*
#
# Write a function that returns the share of the variance of numeric test labels that a linear function of the coordinates explains, fitted with an intercept on training texts.
#
# ```python
# def share(z, y, z_test, y_test):
#     ...
#
# check("5.3", share)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Compare the squared error on the test texts with that of the mean of the test labels. The result may be negative.
# :::
#
# ````{solution} ex-5-3
# :class: dropdown
# One minus the ratio of the two squared errors. On training texts the share is never negative, and with many coordinates it is large for any labels; so it has to be computed on other texts.
#
# ```python
# def share(z, y, z_test, y_test):
#     weights = np.linalg.lstsq(np.c_[z, np.ones(len(z))], y, rcond=None)[0]
#     error = y_test - np.c_[z_test, np.ones(len(z_test))] @ weights
#     return 1 - error @ error / ((y_test - y_test.mean()) ** 2).sum()
# ```
# ````

# %% tags=["remove-input"]
Markdown(
    provenance_note(
        profile=profile,
        seed=seed,
        model=model.name,
        dataset=data.name,
        texts=len(data),
    )
)

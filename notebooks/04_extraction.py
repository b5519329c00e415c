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
# # From tokens to moments
#
# :::{admonition} After this chapter you can
# :class: tip
# - compute the moments of one text, and explain why one pass over a dataset is enough;
# - say what padding, a beginning-of-sequence token and centering change in a score, in numbers;
# - distinguish the rank of a matrix from rounding, and say what single precision does to a score, and why;
# - describe the features of a real language model: massive activations, first tokens, spectra;
# - estimate the cost of extraction from a model's sizes, and compare it with a measurement.
#
# You need the definitions of chapter 3, and {doc}`Meet the lab </book/lab>`: four small models of an artificial language and sixteen tasks (lab/M is one of these models). It runs in a minute on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that the score needs second moments only. **The code does** collect them for every layer in one pass
# ({func}`ntps_utils.models.extraction.extract`), whatever the number of texts. **We find** that this pass takes {glue:text}`bench_forward:.2f` times as long as the forward passes alone. Counting pads as tokens, or leaving out
# the beginning-of-sequence token, moves the paper's score by about as much as
# tasks differ from each other, and a cut-off for eigenvalues that is usual in single precision changes scores by up to 0.2 (lab/M and smollm2-135m-instruct) and 0.3 (gemma-3-270m). The last two are pretrained models, which are introduced below.

# %% tags=["parameters"]
profile = "default"
seed = 0
model_name = "lab/M"
dataset_name = "lab/sentiment"
n_texts = 1000

# %% tags=["hide-input"]
import warnings

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.evidence.cost import model_size
from ntps_utils.evidence.records import load_record
from ntps_utils.lab import TASKS
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract
from ntps_utils.models.features import layer_facts
from ntps_utils.models.fetch import fetched_file
from ntps_utils.models.loading import load_model, paragraph_loss
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import COLORS, house_style, panels
from ntps_utils.theory.moments import Moments
from ntps_utils.theory.score import NumericalWarning, subspaces

house_style()
warnings.simplefilter("ignore", NumericalWarning)  # this chapter shows what they say
model = load_model(model_name)
data = load_texts(dataset_name).head(n_texts)
last = model.n_layers - 1

# %% [markdown]
# ## The moments of one text
#
# A text of $T$ tokens has hidden states $x_1, \dots, x_T$ at each layer, which are its features. Next-token prediction uses the prefix sums $p_t = x_1 + \dots + x_t$, a task uses the mean token
# $\xbar = p_T / T$. All scores follow from
#
# ```{math}
# A_0 = \E \sum_{t<T} p_t p_t^\top, \qquad A_1 = \E \sum_{t<T} p_t x_{t+1}^\top, \qquad S = \E\, \xbar \xbar^\top, \qquad C = \E\, \xbar y^\top .
# ```

# %%
ids = model.tokenizer(data.texts[0], return_tensors="pt")["input_ids"]
with torch.inference_mode():
    states = model.model.base_model(ids, output_hidden_states=True).hidden_states
x = states[last][0].numpy()
p = x.cumsum(axis=0)
by_hand = {
    "A0": p[:-1].T @ p[:-1],
    "A1": p[:-1].T @ x[1:],
    "S": np.outer(p[-1], p[-1]) / len(x) ** 2,
}
one = extract(model, data.head(1)).moments.layer(last)
gap = max(
    np.abs(value - getattr(one, name)).max() / np.abs(value).max()
    for name, value in by_hand.items()
)
print(f"{len(x)} tokens, d = {x.shape[1]}, largest relative difference {gap:.1e}")

# %% [markdown]
# Over a dataset these are means over texts, so their sums can be added up batch by batch, or in parts on several machines that are merged at the end.

# %%
whole = extract(model, data)
halves = extract(model, data, groups=np.arange(len(data)) % 2, batch_size=64)
merged = halves.parts[0].merge(halves.parts[1])
apart = max(
    float((getattr(merged, n) - getattr(whole.moments, n)).abs().max())
    / float(getattr(whole.moments, n).abs().max())
    for n in ("A0", "A1", "S", "C")
)
glue("merge_gap", f"{apart:.0e}", display=False)
glue("n_texts", len(data), display=False)
glue("n_tokens", whole.moments.n_tokens, display=False)

# %% [markdown]
# We read {glue:text}`n_texts` texts with {glue:text}`n_tokens` tokens once as a whole and once in two halves with other batches. The merged moments agree to {glue:text}`merge_gap`, which is rounding. A run can
# also be killed and continued (`checkpoint=`), keep all layers in memory (`stream=False`), or be shared by several processes. The tests check that each of
# these ways gives the same moments.
#
# ## What habits change
#
# Three variations of the same measurement, on the tasks of the lab:
#
# - **pads counted**: the texts of a batch are padded to equal length, and the padding tokens count as tokens;
# - **no BOS**: the tokenizer's beginning-of-sequence token is left out;
# - **centered**: covariances instead of second moments, so that a constant direction explains nothing. (For the metric-matched and the task-weighted score this is no mistake, but what chapter 2 recommends. The reference of the figure has second moments for all three.)
#
# A fourth habit is to cut texts at a number of tokens. The score is then one of the beginnings of the texts. A note says so if more than 5% of them are cut.


# %% tags=["hide-input"]
def score(moments, center=False):
    """The three scores of the last layer at k = d/2."""
    solved = subspaces(moments.layer(last), layer=last, center=center)
    row = solved.row(solved.width(solved.d // 2))
    return [row.ntps, row.ntps_metric, row.ntps_task]


def with_pads(model, data, batch_size=16):
    """Moments as if every position of a padded batch were a token."""
    rows = model.tokenizer(list(data.texts), padding=False)["input_ids"]
    total = Moments.zeros([last], model.dimension, data.n_classes)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        longest = max(map(len, batch))
        pad = model.tokenizer.pad_token_id
        full = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
        with torch.inference_mode():
            hidden = model.model.base_model(full, output_hidden_states=True)
        targets = torch.tensor(data.one_hot[start : start + batch_size])
        lengths = torch.full((len(batch),), longest)
        total.update([hidden.hidden_states[last]], lengths, targets)
    return total


variations = []
for name in [f"lab/{task}" for task in list(TASKS)[:8]]:
    texts = load_texts(name).head(n_texts)
    plain = extract(model, texts, layers=(last,)).moments
    ways = {
        "as it should be": score(plain),
        "pads counted": score(with_pads(model, texts)),
        "no BOS": score(extract(model, texts, layers=(last,), bos=False).moments),
        "centered": score(plain, center=True),
    }
    variations += [(name, way, *scores) for way, scores in ways.items()]
table = pd.DataFrame(
    variations,
    columns=["task", "way", "Euclidean", "metric-matched", "task-weighted"],
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels of dots: the change of the Euclidean, metric-matched and task-weighted score of eight tasks when pads count, BOS is left out, or moments are centered."}, "figure": {"caption": "Padding, BOS and centering change scores. Change of each score of eight tasks of the lab against the plain measurement, last layer, k = d/2.", "name": "fig-habits"}}
figure, axes = panels(3, height=3.0, sharey=True)
ways = ["pads counted", "no BOS", "centered"]
reference = table[table["way"] == "as it should be"].set_index("task")
shades = {
    "Euclidean": "euclidean",
    "metric-matched": "metric",
    "task-weighted": "task",
}
changes = {}
for ax, (label, shade) in zip(axes, shades.items(), strict=True):
    for i, way in enumerate(ways):
        rows = table[table["way"] == way].set_index("task")
        change = rows[label] - reference[label]
        changes[label, way] = float(change.abs().median())
        ax.plot(change, [i] * len(change), "o", ms=4, alpha=0.7, color=COLORS[shade])
    ax.axvline(0, color=COLORS["other"], lw=0.8)
    ax.set(title=label, yticks=range(3), yticklabels=ways)
axes[0].invert_yaxis()
_ = figure.supxlabel("change of the score", fontsize=11)

# %% tags=["remove-cell"]
for key, way in {
    "pads": ways[0],
    "bos": ways[1],
    "centered": ways[2],
}.items():
    glue(f"{key}_change", changes["Euclidean", way], display=False)
    glue(f"{key}_change_metric", changes["metric-matched", way], display=False)
    glue(f"{key}_change_task", changes["task-weighted", way], display=False)
glue("spread", float(reference["Euclidean"].std()), display=False)

# %% [markdown]
# Counting pads and leaving out BOS raise the Euclidean score of some tasks and lower that of others. Centering hardly moves the Euclidean score, but lowers the other two on most tasks, because the nearly constant direction, which V contains, no longer explains anything (chapter 2).
# The median absolute changes of the Euclidean, the metric-matched and the task-weighted score are: pads counted {glue:text}`pads_change:.3f`, {glue:text}`pads_change_metric:.3f` and {glue:text}`pads_change_task:.3f`, no BOS
# {glue:text}`bos_change:.3f`, {glue:text}`bos_change_metric:.3f` and {glue:text}`bos_change_task:.3f`, centered {glue:text}`centered_change:.3f`, {glue:text}`centered_change_metric:.3f` and {glue:text}`centered_change_task:.3f`. (The axes of the panels differ.) For comparison,
# the standard deviation of the Euclidean score over the eight tasks is {glue:text}`spread:.3f`. So compare two scores only if both were computed in the same way.
# Right padding under a causal mask is harmless as long as the padding tokens are left out of the sums, because a token's features do not depend on what comes after it.
#
# ## Real models
#
# The lab's models are a hundred and more times smaller than the smallest language models in common use. Two of the latter can be installed from the Python package index: smollm2-135m-instruct, and gemma-3-270m, which has the
# size of the paper's smallest model. Their weights come from files of 4 to 8 bits and are dequantized to float32; smollm2 is instruction-tuned. The weights are not part of this book. What
# follows was recorded on {glue:text}`real_texts` movie reviews of at most 64 tokens (`python -m book.tools.real_models`), together with stories260K, a Llama of 260 thousand parameters.

# %%
real = load_record("real_models")
rows = {}
for name, facts in real["models"].items():
    fetchable = "GGUF" in facts["origin"]
    here = fetchable and fetched_file(name).is_file()
    rows[name] = {
        "parameters": f"{facts['n_parameters']:,}",
        "d": facts["dimension"],
        "types of weights": facts["origin"].partition(" weights")[0] or "F32",
        "loss": f"{facts['paragraph_loss']:.3f}",
    }
    if here:
        now = paragraph_loss(load_model(name, dtype="float32"))
        rows[name]["loss now"] = f"{now:.3f}"
pd.DataFrame(rows).T.fillna("")

# %% [markdown]
# The loss in nats per token on a paragraph of plain English checks that the weights were read correctly. A model that gives every token the same probability has a loss of the logarithm of the size of its vocabulary, 10.8 nats for smollm2.
# Where weights have been fetched (`ntps models fetch`), a further column has the loss computed again.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels over relative depth for four models. Left: first tokens of smollm2 and gemma are many times longer than other tokens below the last layer. Middle: one feature holds most of the sum of squares there. Right: effective rank as a share of the number of features is a fraction of a percent in most layers of smollm2 and gemma, about a tenth in the lab's model, and more in stories260K."}, "figure": {"caption": "A few directions hold most of the size of the features of smollm2 and gemma. By relative depth: length of first tokens relative to other tokens (left), share of all squared features that is in the largest feature (middle), and effective rank of the centered S as a share of d (right).", "name": "fig-real-features"}}
lab_facts = layer_facts(model, data, batch_size=64)
frames = {model_name: lab_facts} | {
    name: pd.DataFrame(facts["layers"]) for name, facts in real["models"].items()
}
dimensions = {model_name: model.dimension} | {
    name: facts["dimension"] for name, facts in real["models"].items()
}
styles = dict(zip(frames, ("-", ":", "--", "-."), strict=True))
figure, axes = panels(3, height=3.2)
for name, frame in frames.items():
    depth = frame["layer"] / frame["layer"].max()
    line = {"ls": styles[name], "label": name}
    axes[0].semilogy(depth, frame["first_token"], **line)
    axes[1].plot(depth, frame["largest"], **line)
    axes[2].semilogy(depth, frame["effective_rank"] / dimensions[name], **line)
titles = (
    "first token / others",
    "share of the largest feature",
    "effective rank / d",
)
for ax, title in zip(axes, titles, strict=True):
    ax.set(title=title, xlabel="layer / last layer")
_ = figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2
)

# %% tags=["remove-cell"]
large = frames["smollm2-135m-instruct"], frames["gemma-3-270m"]
glue("real_texts", max(f["n_texts"] for f in real["models"].values()), display=False)
glue("first_smol", float(large[0]["first_token"].max()), display=False)
glue("first_gemma", float(large[1]["first_token"].max()), display=False)
glue("largest_smol", float(large[0]["largest"].max()), display=False)
glue("largest_gemma", float(large[1]["largest"].max()), display=False)
glue("condition_lab", float(lab_facts["condition"].max()), display=False)
glue("condition_smol", float(large[0]["condition"].max()), display=False)
glue("condition_gemma", float(large[1]["condition"].max()), display=False)
for key, frame in zip(("lab", "smol", "gemma"), (lab_facts, *large), strict=True):
    for way in ("shifted", "plain", "cut"):
        glue(f"{way}_{key}", f"{frame[way].max():.0e}", display=False)
    glue(f"rank_{key}", int(frame["cut_rank"].min()), display=False)

# %% [markdown]
# Below the last layer of the real models the first token of a text is up to {glue:text}`first_smol:.0f` (smollm2) and {glue:text}`first_gemma:.0f` (gemma) times as long as other tokens, and a
# single feature holds up to {glue:text}`largest_smol:.0%` and {glue:text}`largest_gemma:.0%` of all squares: *massive activations* {cite}`sun2024massive`. They carry no information about the text, because they are
# nearly the same in every text, but they enter every prefix sum. The right panel shows the effective rank $(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2$ of the eigenvalues $\lambda_i$ of the centered $S$: it is $d$ if all are equal, and 1 if one direction holds all of the variance. It is not the numerical rank, which counts
# directions. The effective rank is small in these layers, although centering removes what is the same in every text. The reason is that a mean token divides the massive activation by the number of tokens, which differs from text to text, and even this variation is larger than the variance of all other directions together. The condition number of $A_0$, scaled so that its diagonal is one, is up to {glue:text}`condition_lab:.0e` in the lab's model,
# {glue:text}`condition_smol:.0e` in smollm2 and {glue:text}`condition_gemma:.0e` in gemma. The next section asks whether single precision is enough for such features.
#
# ## Precision and rank
#
# A score depends on which directions have any variance. In exact arithmetic their number is the rank; in floating point a cut-off decides which small eigenvalues count. Ours is applied to the matrix scaled to a diagonal of ones,
# so that massive activations do not hide other directions, and it is relative: an eigenvalue counts if it exceeds the largest one times a factor, the cut-off. Let $\epsilon$ be the rounding unit of the type of numbers, the distance from 1 to the next larger number. For sums in float64 the factor is the usual $d\,\epsilon$. For sums of float32 products the usual factor, with the larger $\epsilon$ of float32, drops many directions: the largest eigenvalue is at most $d$, and close to it if the mean is large, so that all eigenvalues below nearly $d^2 \epsilon$ would go. We chose $8\,\epsilon / d$ there, so that eigenvalues below at most $8\,\epsilon$ go. The eight is a choice, and no estimate of an error. It is justified by {numref}`fig-precision`, which shows how little such scores (*shifted*) differ from those of float64 products.
# An *absolute* cut-off, such as $10^{-8}$, gives another rank when the features are rescaled. Features that are so large that a sum of products is infinite in its type are refused.
#
# A product of matrices in float32 takes half the time of one in float64; it is a small part of a pass ({doc}`chapter 12 <12_the_full_grid>` has whole passes). How do such products change the scores? We compare three ways with float64 products of the same features:
#
# - **cut**: sums of float32 products for $A_0$ and $A_1$, and a cut-off of $d$ times the rounding unit of float32, as is usual for float32 matrices;
# - **plain**: the same sums, with the cut-off of float64;
# - **shifted**: our default for large models. The mean is subtracted from the features, and from first tokens their own mean; products are formed in float32, and the shift is undone exactly in float64; the cut-off is $8/d$ units
#   ({class}`ntps_utils.theory.moments.Accumulator`).

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels, lab, smollm2 and gemma, with the largest change of a score by layer on a logarithmic axis: cut changes scores by tenths, plain by small amounts that grow in some layers, shifted by at most about one part in ten thousand in every layer."}, "figure": {"caption": "The cut-off changes scores much, and rounding little. Largest change of the three scores at k = d/2 by layer, for three ways to use float32, against float64 products.", "name": "fig-precision"}}
figure, axes = panels(3, height=3.0, sharey=True)
shown = (model_name, "smollm2-135m-instruct", "gemma-3-270m")
for ax, name in zip(axes, shown, strict=True):
    for way, style in (("cut", ":"), ("plain", "--"), ("shifted", "-")):
        ax.semilogy(
            frames[name]["layer"],
            frames[name][way].clip(lower=1e-9),
            style,
            marker=".",
            label=way,
        )
    ax.set(title=name, xlabel="layer")
axes[0].set_ylabel("largest change of a score")
_ = axes[0].legend(fontsize=8)

# %% [markdown]
# | largest change over layers | cut | plain | shifted |
# | --- | --- | --- | --- |
# | the lab's model | {glue:text}`cut_lab` | {glue:text}`plain_lab` | {glue:text}`shifted_lab` |
# | smollm2-135m-instruct | {glue:text}`cut_smol` | {glue:text}`plain_smol` | {glue:text}`shifted_smol` |
# | gemma-3-270m | {glue:text}`cut_gemma` | {glue:text}`plain_gemma` | {glue:text}`shifted_gemma` |
#
# Most of the effect of single precision is the effect of the cut-off. It leaves as few as {glue:text}`rank_lab` directions of $A_0$ in the lab's model, {glue:text}`rank_smol` in smollm2 and {glue:text}`rank_gemma` in gemma, although the others matter, since with many texts they are larger than the rounding errors: without them (*cut*) a score moves by up to what the first column says, and with them (*plain*) float32 differs from float64 by what the middle column says. Products of shifted features in float32 change them by about what the last column says, so they can replace products in float64. Chapters 6 and 13 look at the released script, which changes the precision together with an *absolute* cut-off. That one keeps too many directions instead of too few, and changes the scores of a small model little.
#
# With few texts the rank appears as a gap in the spectrum:

# %%
few = extract(model, data.head(40), layers=(last,)).moments.layer(last)
thin = np.linalg.eigvalsh(few.S)[::-1]
thin32 = np.linalg.eigvalsh(few.S.astype(np.float32))[::-1]
unit = 1 / np.sqrt(np.diag(few.S))  # scales S to a diagonal of ones
scaled = np.linalg.eigvalsh(few.S * np.outer(unit, unit))[::-1]
glue("thin_true", 40, display=False)
glue("thin_relative", int((scaled > few.rcond * scaled[0]).sum()), display=False)
glue("thin_absolute", int((thin32 > 1e-8).sum()), display=False)

# %% tags=["hide-input"] mystnb={"image": {"alt": "The spectrum of S from 40 texts on a logarithmic axis, which falls by many orders of magnitude after the 40th eigenvalue in float64 and flattens at rounding level in float32, partly above a dotted line at 1e-8."}, "figure": {"caption": "The numerical rank is where the spectrum drops. Absolute values of the eigenvalues, so that the curve rises again where they are negative; S from 40 texts has rank 40; float64 shows it, float32 leaves rounding errors that an absolute cut-off of $10^{-8}$ (dotted) partly keeps.", "name": "fig-spectra"}}
figure, (ax,) = panels(1, height=3.0)
floor = 1e-22
ax.semilogy(np.maximum(np.abs(thin), floor), label="float64")
ax.semilogy(np.maximum(np.abs(thin32), floor), "--", label="float32")
ax.axhline(1e-8, color=COLORS["other"], ls=":")
ax.set(xlabel="index", ylabel="eigenvalue of S", title="40 texts")
_ = ax.legend()

# %% [markdown]
# With {glue:text}`thin_true` texts the rank is {glue:text}`thin_true`. In float64 the eigenvalues drop by many orders of magnitude after it, and the relative cut-off finds
# {glue:text}`thin_relative` directions. In float32 the eigenvalues that should be zero are at the rounding error of the largest one, and an absolute cut-off of $10^{-8}$ counts {glue:text}`thin_absolute` directions. The surplus ones are rounding errors, because the true eigenvalues are zero there, and a score that uses them contains rounding errors.
#
# ## What it costs
#
# Per token, a forward pass takes about two operations for each weight of its blocks. The moments of one layer add $3 d^2$ operations, whatever the
# text's length: $2 d^2$ for $A_1$, and $d^2$ for $A_0$, which is symmetric. They occupy $3 d^2$ numbers of eight bytes, whatever the number of texts. The table has both for all layers of three models.

# %%
costs = []
for name in ("Qwen2-0.5B", "Qwen2-1.5B", "Qwen2-7B"):
    size = model_size(name)
    d, n_layers, forward = size.dimension, size.n_layers, 2 * size.n_body
    moments = 3 * (n_layers + 1) * d**2
    memory = 3 * (n_layers + 1) * d**2 * 8
    costs.append((name, d, forward / 1e9, moments / forward, memory / 2**30))
columns = ["shape", "d", "forward GFLOP / token", "moments / forward", "memory GiB"]
pd.DataFrame(costs, columns=columns).set_index("shape").round(3)

# %% [markdown]
# Measured by `make bench`, recorded with its provenance: total extraction time against the bare forward pass of the same batches in the same precision, and against the
# textbook loop (a text at a time, a position at a time), with random weights. The extraction was measured with an earlier version of the code; {doc}`chapter 12 <12_the_full_grid>` has measurements of this one. *To forward* is the time of extraction in units of that of the forward pass, and *loop* that of the loop in units of that of extraction.

# %%
bench = load_record("bench_cpu")
measured = pd.DataFrame(bench["extraction"]).T
shown = {
    "d": "d",
    "n_layers": "layers",
    "dtype": "type",
    "n_tokens": "tokens",
    "tokens_per_second": "tokens/s",
    "ratio_to_forward": "to forward",
    "textbook_ratio": "loop",
}
measured[list(shown)].rename(columns=shown).infer_objects().round(2)

# %% tags=["remove-cell"]
row = bench["extraction"]["Qwen2-0.5B"]
glue("bench_forward", float(row["ratio_to_forward"]), display=False)
glue("bench_textbook", float(row["textbook_ratio"]), display=False)
glue("bench_scores", float(bench["scores"]["ratio_to_released"]), display=False)
glue("bench_where", bench["provenance"]["device"], display=False)
glue("bench_arithmetic", float(1 + costs[0][3]), display=False)

# %% [markdown]
# On {glue:text}`bench_where`, with the sizes of Qwen2-0.5B, extraction takes {glue:text}`bench_forward:.2f` times the forward pass (the number of operations alone would give
# {glue:text}`bench_arithmetic:.2f`) and is {glue:text}`bench_textbook:.0f` times faster than the loop. All scores of a layer at every width, with both eigenproblems, are
# {glue:text}`bench_scores:.1f` times faster than the score of the released script at its 19 widths, which uses pseudo-inverses in float32. No GPU was available for this edition; `python -m book.tools.bench --device cuda` measures on one.
#
# ## Summary
#
# - Moments are sums: one pass, any batches, any number of machines.
# - Pads must not count. Report whether a BOS token counts, and whether moments are centered.
# - A numerical rank depends on a cut-off. Scale the matrix to a diagonal of ones first, and set it relative to the largest eigenvalue. For float64 products $d$ rounding units are right. For float32 products they are far too many: check a smaller cut-off against float64 products.
# - Real models have massive activations on first tokens. Subtract them before you multiply in float32.
# - Extraction adds a fraction of a forward pass to the forward pass itself; the cost of the scores does not grow with the number of texts.
#
# ## Quiz
#
# **1.** Which of these changes the scores of a decoder-only model?
#
# - (a) Adding a token at the beginning of each text
# - (b) Reading the texts in other batches
# - (c) Padding on the right that is masked
#
# :::{admonition} Answer
# :class: dropdown
# (a). The new token is in every prefix sum and in the mean token. (b) is wrong because moments are sums over texts, in whatever batches. (c) is wrong because such padding comes after all tokens, which cannot depend on it, and is left out of the sums.
# :::
#
# **2.** Why is an absolute cut-off for eigenvalues a bad idea?
#
# - (a) It is slow
# - (b) It keeps too few directions
# - (c) It depends on the units of the features
#
# :::{admonition} Answer
# :class: dropdown
# (c). Multiply all features by 1,000, and other directions exceed it. (a) is wrong because it takes no more time than a relative one. (b) is wrong because it keeps too many or too few, depending on the units.
# :::
#
# **3.** The library subtracts the mean from features before it forms products in float32. Why?
#
# - (a) The products would be too large for float32
# - (b) The common part would use up the digits that small differences need
# - (c) Scores need centered moments
#
# :::{admonition} Answer
# :class: dropdown
# (b). With massive activations nearly all of a product is the same in every text, and the rounding error is relative to it. (a) is wrong because float32 holds numbers up to about $10^{38}$. (c) is wrong because the shift is undone exactly afterwards, so that second moments stay second moments.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} Moments of one text
# :label: ex-4-1
#
# *Difficulty 2 of 5, importance 5 of 5, about 15 minutes.*
#
# Write a function of the features `x` (T, d) of one text that returns $\sum_{t<T} p_t p_t^\top$ and $\sum_{t<T} p_t x_{t+1}^\top$ without a loop over positions. A released script multiplies with a $T \times T$ lower triangular
# matrix instead of adding up. How does its cost grow with $T$, and how does yours?
#
# ```python
# def moments(x):
#     ...
#
# check("4.1", moments)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# `x.cumsum(axis=0)` gives all prefix sums. The last one has no next token.
# :::
#
# ````{solution} ex-4-1
# :class: dropdown
# Multiplying a triangular $T \times T$ matrix with $T \times d$ features costs $T^2 d$, a cumulative sum $T d$. Both then need $T d^2$ for each of the two products, so the triangle needs more operations for every $T > 1$, and more than the products themselves once $T$ exceeds $2d$. The triangle adds a share of $T / (2d)$ to the two products: half of them if $T = d$, less for shorter texts.
#
# ```python
# def moments(x):
#     p = x.cumsum(axis=0)[:-1]
#     return p.T @ p, p.T @ x[1:]
# ```
# ````
#
# ````{exercise} Which texts dominate?
# :label: ex-4-2
#
# *Difficulty 3 of 5, importance 4 of 5, about 10 minutes.*
#
# Features have a common mean. The trace of $\sum_{t<T} p_t p_t^\top$ of one text grows like a power of its length $T$. Which one? What does this mean for $A_0$, a mean over texts of different lengths?
#
# ```python
# power = ...
#
# check("4.2", power)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# With a mean, $p_t$ grows like $t$. Square it, and sum over $t$.
# :::
#
# ````{solution} ex-4-2
# :class: dropdown
# $p_t$ grows like $t$, $p_t p_t^\top$ like $t^2$, and the sum like $T^3$. A text of twice the length counts eightfold, so long texts dominate $A_0$. Dividing each text's sum by its number of positions would leave $T^2$; dividing in addition each prefix sum by its number of tokens removes
# the growth. The power is 3.
# ````
#
# ````{exercise} Two machines
# :label: ex-4-3
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# Two machines have read $n_1$ and $n_2$ texts and hold the means of a moment over their texts. Write a function that merges them.
#
# ```python
# def merged(n1, one, n2, two):
#     ...
#
# check("4.3", merged)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# What is the sum over the texts of each machine?
# :::
#
# ````{solution} ex-4-3
# :class: dropdown
# The sums are $n_1$ times one mean and $n_2$ times the other. Add them, and divide by $n_1 + n_2$. For the same reason a run can be continued after an interruption.
# ````
#
# ````{exercise} A rank that does not depend on units
# :label: ex-4-4
#
# *Difficulty 3 of 5, importance 4 of 5, about 20 minutes.*
#
# Write a function that returns the numerical rank of a second-moment matrix, and that gives the same answer after features are rescaled, $S \to D S D$ with $D$ diagonal. Use a relative cut-off.
#
# ```python
# def rank(S):
#     ...
#
# check("4.4", rank)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Divide rows and columns by the root of the diagonal before you look at eigenvalues.
# :::
#
# ````{solution} ex-4-4
# :class: dropdown
# Scaled to unit diagonal the matrix does not change with $D$, and neither do its eigenvalues. An eigenvalue counts if it exceeds the largest one times $d$ times the rounding unit.
#
# ```python
# def rank(S):
#     scale = 1 / np.sqrt(np.diag(S))
#     values = np.linalg.eigvalsh(scale[:, None] * S * scale)
#     return int((values > len(S) * np.finfo(float).eps * values[-1]).sum())
# ```
# ````
#
# ````{exercise} Padding
# :label: ex-4-5
#
# *Difficulty 1 of 5, importance 5 of 5, about 5 minutes.*
#
# A batch has hidden states `hidden` (texts, T, d) and a mask (texts, T) with 1 for a token and 0 for padding. Write a function that returns the mean token of each text.
#
# ```python
# def mean_tokens(hidden, mask):
#     ...
#
# check("4.5", mean_tokens)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Padding must count neither in the sum nor in the number of tokens.
# :::
#
# ````{solution} ex-4-5
# :class: dropdown
# Multiply by the mask, sum, and divide by the number of tokens of each text. Under a causal mask right padding changes no token before it, so this is the mean of the text alone.
#
# ```python
# def mean_tokens(hidden, mask):
#     return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
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

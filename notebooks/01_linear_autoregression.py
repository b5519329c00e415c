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
# # Linear autoregression: what next-token prediction keeps
#
# :::{admonition} After this chapter you can
# :class: tip
# - write next-token prediction in feature space as a linear problem, and solve it in closed form;
# - explain why the solution is a *nested* family of subspaces, one for every width $k$;
# - say which part of next-token prediction depends on the order of the feature vectors, and prove it;
# - check a closed form against least squares and against gradient descent.
#
# It takes linear algebra only, and runs in half a minute on two cores.
# :::
#
# **The paper says** {cite}`cheng2025ntps` that linear next-token prediction from given features has a best subspace of
# every width, and that this subspace can be computed from second moments alone.
# **The code does** just that in {mod}`ntps_utils.theory.linear` and {mod}`ntps_utils.theory.score`.
# **We find** that the closed form is exact in every random problem that we try, and that the symmetric part of the moment that links past and next token
# does not depend on the order of the feature vectors. This chapter does not test what pretraining does to the features.

# %% tags=["parameters"]
profile = "default"
seed = 0
n_problems = 2000
n_steps = 3000

# %% tags=["hide-input"]
import warnings

import numpy as np
import pandas as pd
from IPython.display import Markdown
from myst_nb import glue

from ntps_utils.evidence.records import load_record
from ntps_utils.notebook import provenance_note
from ntps_utils.plotting import (
    COLORS,
    closed_form_figure,
    descent_figure,
    house_style,
    panels,
)
from ntps_utils.theory.score import NumericalWarning, subspaces
from ntps_utils.theory.synthetic import Problem, circle_problem, random_problem
from ntps_utils.theory.verification import (
    check_autoregression,
    descend,
    prefix_pairs,
)

house_style()
warnings.simplefilter(
    "ignore", NumericalWarning
)  # small and singular problems are wanted here

# %% [markdown]
# ## Three tokens by hand
#
# Take one text of three tokens with two features each: $x_1 = (1, 0)$, $x_2 = (0, 1)$, $x_3 = (1, 1)$. Linear means here without an intercept: a number times a vector. The past of a token is the sum of the features before it. So there are two things to predict:
#
# | past | next token |
# | --- | --- |
# | $x_1 = (1, 0)$ | $x_2 = (0, 1)$ |
# | $x_1 + x_2 = (1, 1)$ | $x_3 = (1, 1)$ |
#
# From both features of the past the prediction is perfect. Now keep only *one* number of the past. The first feature is 1 both times, so the prediction is the same both times. The best one is the mean $(0.5, 1)$, with a squared error of $0.25 + 0.25 = 0.5$. The
# second feature is first 0 and then 1. From 0 the only linear prediction is 0, which costs $|x_2|^2 = 1$; from 1 the next token is predicted without error. Is there a better number? Write $p$ for the past, and take the number $p \cdot (1, a)$; it is $1$ and $1 + a$. The next tokens are $(0, 1)$ and $(1, 1)$, with a sum of squares of 3. Predict each next token by its number times one vector $w$. By least squares, $w$ is the sum of numbers times next tokens, $1 \cdot (0, 1) + (1 + a) \cdot (1, 1)$, divided by the sum of squared numbers, $1 + (1 + a)^2$, and the squared length of the first sum divided by the second is what the prediction removes. It leaves the error $3 - \frac{(1 + a)^2 + (2 + a)^2}{1 + (1 + a)^2}$, which is smallest at $a = 0.618$, where it is $0.382$. This
# chapter finds such directions for texts of any length, any number of features and any number of kept directions; the cell below does it for these three tokens.

# %%
hand = Problem((np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),), np.ones((1, 1)))
by_hand = subspaces(hand.moments())
direction = by_hand.V[:, 0] / by_hand.V[0, 0]
{"direction": direction.round(3), "error": by_hand.autoregressive_loss[0].round(3)}

# %% [markdown]
# ## The problem
#
# A text is a sequence of $T$ tokens. One layer of a language model turns it into feature vectors $x_1, \dots, x_T \in \R^d$, one for each token; their $d$ entries are the features. We ask how well the *past* predicts the *next* feature vector when
# everything is linear. When token $t + 1$ is to be predicted, the past is $x_1, \dots, x_t$. It is summed up by the prefix sum
#
# $$
# p_t = x_1 + x_2 + \dots + x_t .
# $$
#
# An **encoder** $V \in \R^{d\times k}$ keeps $k$ linear combinations of the past, $V^\top p_t \in \R^k$; a **decoder**
# $W \in \R^{k\times d}$ predicts the next feature vector from them, $W^\top V^\top p_t$. With $\E$ the mean over texts, the
# loss is
#
# $$
# \ell(V, W) = \E \sum_{t<T} \big\| x_{t+1} - W^\top V^\top p_t \big\|^2 .
# $$ (eq-ar-loss)
#
# If $k = d$, nothing of $p_t$ is lost. The interesting case is $k < d$. Which $k$ directions predict best?
# Statisticians know the problem as *reduced-rank regression* {cite}`izenman1975`.
#
# ## The solution, step by step
#
# **Step 1: expand the square.** Write $\|a - b\|^2 = \|a\|^2 - 2\, a^\top b + \|b\|^2$ and use $a^\top b = \tr(b a^\top)$.
# Three second moments appear:
#
# $$
# A_0 = \E \sum_{t<T} p_t p_t^\top, \qquad
# A_1 = \E \sum_{t<T} p_t\, x_{t+1}^\top, \qquad
# G' = \E \sum_{t \ge 2} x_t x_t^\top ,
# $$ (eq-ar-moments)
#
# all of them $d \times d$ matrices, and
#
# $$
# \ell(V, W) = \tr G' - 2 \tr\big(W^\top V^\top A_1\big) + \tr\big(W^\top V^\top A_0 V W\big) .
# $$ (eq-ar-expanded)
#
# The loss depends on the texts through these moments alone. They are means over texts, so they can be
# collected in one pass, in any order, on many machines.
#
# **Step 2: the best decoder for a given encoder.** Let $A_0$ be invertible for now, and let $V$ have $k$ independent columns. {eq}`eq-ar-expanded` is a quadratic in $W$. Its gradient
# $-2 V^\top A_1 + 2 V^\top A_0 V W$ vanishes at
#
# $$
# W = (V^\top A_0 V)^{-1} V^\top A_1 ,
# $$
#
# the least-squares solution. Put it back:
#
# $$
# \ell(V) = \tr G' - \tr\Big[(V^\top A_0 V)^{-1}\, V^\top A_1 A_1^\top V\Big] .
# $$ (eq-ar-profile)
#
# **Step 3: only the span counts.** Replace $V$ by $VR$ with $R$ an invertible $k\times k$ matrix: $R$ cancels in
# {eq}`eq-ar-profile`. We may therefore choose a convenient basis of the span, one with $V^\top A_0 V = I$. Let
# $A_0^{1/2}$ be the symmetric square root of $A_0$. In *white* coordinates $Z = A_0^{1/2} V$ the
# condition reads $Z^\top Z = I$, and
#
# $$
# \ell(V) = \tr G' - \tr\big(Z^\top \Gamma Z\big), \qquad \Gamma = A_0^{-1/2} A_1 A_1^\top A_0^{-1/2} .
# $$
#
# **Step 4: a trace is largest on leading eigenvectors** (Ky Fan). Let $\Gamma = \sum_i \gamma_i w_i w_i^\top$ with
# $\gamma_1 \ge \gamma_2 \ge \dots \ge 0$ and orthonormal $w_i$. Then
#
# $$
# \tr(Z^\top \Gamma Z) = \sum_i \gamma_i \, c_i, \qquad c_i = \| Z^\top w_i \|^2 .
# $$
#
# The weights obey $0 \le c_i \le 1$, because $Z Z^\top$ is an orthogonal projector, and $\sum_i c_i = \tr(Z^\top Z) = k$.
# A weighted sum with weights of at most one that add up to $k$ is largest when the $k$ largest $\gamma_i$ get weight one
# and all others weight zero. So $Z = (w_1, \dots, w_k)$ is a best choice.
#
# **Step 5: back to feature space.** $V = A_0^{-1/2} (w_1, \dots, w_k)$. Multiply $\Gamma w = \gamma w$ by $A_0^{1/2}$ from the
# left to see what its columns are:
#
# $$
# A_1 A_1^\top v_i = \gamma_i\, A_0\, v_i .
# $$ (eq-ar-eig)
#
# :::{prf:theorem} Best encoder for the next token
# :label: thm-autoregression
#
# A best encoder of width $k$ spans the $k$ **leading generalized eigenvectors of $(A_1 A_1^\top, A_0)$**, and its loss is
# $\ell_k = \tr G' - \gamma_1 - \dots - \gamma_k$.
# Its span is the only best one if $\gamma_k > \gamma_{k+1}$; directions with $\gamma = 0$ are arbitrary.
# These encoders are nested: the one of width $k+1$ adds one direction to the one of width $k$.
# :::
#
# **In practice** the $w_i$ are the left singular vectors of $A_0^{-1/2} A_1$ and $\gamma_i$ its squared singular values.
# Taking the singular value decomposition of that matrix, instead of eigenvectors of the product $\Gamma$, avoids squaring its
# condition number.
#
# **If $A_0$ is singular**, some combination of features is zero on every prefix. Such a direction predicts nothing and is
# not determined by the data. Solve on the range of $A_0$: use the pseudo-inverse of $A_0^{1/2}$ in place of $A_0^{-1/2}$, and report the
# numerical rank, the number of directions that are kept. That is what {func}`ntps_utils.theory.linear.whiten` does, with a relative cut-off, in coordinates scaled to unit
# diagonal.
#
# ## Does it hold?
#
# We draw random problems: 2 to 16 features, from half as many texts as features (at least four) to ten times as many, full-rank or not,
# well-conditioned or badly. For each we pick a width, compute the loss from moments by the result
# above, and *measure* it by least squares on the tokens through the same directions. Then we let random encoders of the same
# width, and encoders that are changed by one to four thousandths of their size, try to reach a smaller loss. The table shows the smallest, the median and the largest value of each column: `rank` and
# `condition` are the rank and the condition number of $A_0$, `k` is the width, and `closed` and `measured` are the two losses, as shares of the loss of predicting zero.

# %%
problems = [random_problem(seed + i) for i in range(n_problems)]
checks = pd.DataFrame(
    [check_autoregression(p, seed=seed + i) for i, p in enumerate(problems)]
)
worst = (checks["closed"] - checks["measured"]).abs().max()
others = checks[["random", "nearby"]].min(axis=1)
beaten = (others < checks["measured"] - 1e-9).sum()
shown = ["d", "n_texts", "rank", "k", "condition", "closed", "measured"]
checks[shown].describe().loc[["min", "50%", "max"]].map("{:.3g}".format)

# %% tags=["remove-cell"]
glue("n_problems", n_problems, display=False)
glue("worst", float(worst), display=False)
glue("beaten", int(beaten), display=False)
glue("max_condition", float(checks["condition"].max()), display=False)

# %% [markdown]
# Over {glue:text}`n_problems` problems, with condition numbers up to {glue:text}`max_condition:.0e`, the closed form differs
# from the measured loss by at most {glue:text}`worst:.1e` of the loss of predicting zero. In {glue:text}`beaten` problems
# another encoder had a loss that is smaller by more than $10^{-9}$; what is less is rounding.

# %% mystnb={"image": {"alt": "Left: closed-form loss against measured loss, all points on the diagonal. Right: histograms of how much worse random and nearby encoders are; nothing lies left of zero."}, "figure": {"caption": "The closed form is the loss, and nothing beats it. Left: each point is a random problem. Right: excess of other encoders of the same width over the closed form, as a share of the loss of predicting zero; values below $10^{-12}$ are drawn there (the bar at the left: problems whose width equals the rank, where every encoder is best).", "name": "fig-ar-check"}}
_ = closed_form_figure(checks, COLORS["autoregressive"])

# %% [markdown]
# In the left panel all points lie on the diagonal, so the loss by the theorem is the loss by least squares on the tokens. In the right panel no encoder has a smaller loss than that of the theorem. Encoders nearby
# lose little, because the loss is flat at its minimum; random ones lose more. The two moments $A_0$ and $A_1$ are therefore enough to find the best encoder, without going through the tokens again.
#
# ## Gradient descent reaches the same loss
#
# Language models are trained by gradient descent, not by eigenvectors. Does gradient descent find the same loss? The loss
# {eq}`eq-ar-loss` is not convex in $(V, W)$ together, yet all its local minima are global {cite}`baldi1989`. We run gradient descent with
# momentum from small random weights.

# %%
problem = random_problem(
    seed + 3, d=8, n_texts=200, condition=3.0, rank=8, offset=0.0
)
past, following = prefix_pairs(problem)
solved = subspaces(problem.moments())
per_text = len(past) / len(problem.texts)
gaps = {}
for k in (1, 2, 4, 8):
    reached = per_text * descend(past, following, k, n_steps, seed)
    gaps[k] = (reached - solved.autoregressive_loss[k - 1]) / solved.tr_G  # tr G'
final_gap = max(abs(gap[-1]) for gap in gaps.values())

# %% mystnb={"image": {"alt": "Gap between the loss of gradient descent and the closed form against steps, for four widths; each falls to rounding error."}, "figure": {"caption": "Gradient descent converges to the closed form at every width. Gap between its loss and the closed-form optimum, as a share of the loss of predicting zero.", "name": "fig-ar-descent"}}
_ = descent_figure(gaps, COLORS["autoregressive"])

# %% tags=["remove-cell"]
glue("n_steps", n_steps, display=False)
glue("final_gap", float(final_gap), display=False)

# %% [markdown]
# At every width the loss falls to that of the closed form. After {glue:text}`n_steps` steps the largest gap among the four widths is {glue:text}`final_gap:.0e` of the loss of predicting
# zero, which is rounding. So on this problem gradient descent reaches the loss of the theorem at all four widths.
#
# ## What the order of the feature vectors contributes
#
# One half of $A_1$ does not depend on the order of the tokens. To see this, add the next token to the prefix sum:
#
# $$
# p_{t+1} p_{t+1}^\top = (p_t + x_{t+1})(p_t + x_{t+1})^\top
#   = p_t p_t^\top + p_t x_{t+1}^\top + x_{t+1} p_t^\top + x_{t+1} x_{t+1}^\top .
# $$
#
# Sum over $t = 1, \dots, T-1$. The left side and the first term on the right telescope, and what is left is
# $p_T p_T^\top - p_1 p_1^\top$. With $p_1 = x_1$ and $G = \E\sum_{t=1}^{T} x_t x_t^\top$:
#
# $$
# A_1 + A_1^\top = \E\big[p_T p_T^\top\big] - G .
# $$ (eq-telescope)
#
# The right side depends on each text only as a *bag of feature vectors*. It stays the same when the feature vectors of each text are shuffled. So the
# symmetric part of $A_1$ does not depend on their order. Whatever in $A_1$ depends on their order is in
# the antisymmetric part $\tfrac12 (A_1 - A_1^\top)$. ($A_0$ depends on order, through the prefixes, and V depends on both $A_0$ and $A_1 A_1^\top$.)
#
# We check this on the random problems, and show it on texts whose tokens follow one another round a circle.


# %%
def shuffled(problem, seed):
    rng = np.random.default_rng(seed)
    return Problem(
        tuple(rng.permutation(text) for text in problem.texts), problem.targets
    )


def symmetric_change(problem, seed):
    before, after = problem.moments().A1, shuffled(problem, seed).moments().A1
    return (
        np.abs((before + before.T) - (after + after.T)).max() / np.abs(before).max()
    )


order_blind = max(symmetric_change(p, seed) for p in problems[: n_problems // 2])

# %%
circle = circle_problem(seed)
matrices = {
    "in order": circle.moments().A1,
    "shuffled": shuffled(circle, seed).moments().A1,
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four heat maps: the symmetric part of A1 is the same for ordered and shuffled texts, the antisymmetric part is strong for ordered texts and vanishes for shuffled ones."}, "figure": {"caption": "Of the two parts of A1, only the antisymmetric one shows the order of the feature vectors. Texts walk round a circle of twelve tokens (left two), then the same texts with their tokens shuffled (right two). Each token of the circle has a feature of its own, so entry (i, j) links token i of the past with next token j. One color scale for all four.", "name": "fig-ar-order"}}
figure, axes = panels(4, height=2.4)
limit = max(np.abs(A1 + A1.T).max() / 2 for A1 in matrices.values())
for i, (name, A1) in enumerate(matrices.items()):
    for j, (part, matrix) in enumerate(
        (("symmetric", (A1 + A1.T) / 2), ("antisymmetric", (A1 - A1.T) / 2))
    ):
        image = axes[2 * i + j].imshow(
            matrix, cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        axes[2 * i + j].set_title(f"{name}:\n{part}", fontsize=10)
        axes[2 * i + j].set(xticks=[], yticks=[])
_ = figure.colorbar(image, ax=axes, shrink=0.8, label="entry")

# %% tags=["remove-cell"]
glue("order_blind", float(order_blind), display=False)
glue("n_half", n_problems // 2, display=False)

# %% [markdown]
# The two symmetric parts are equal. The antisymmetric part is large when tokens follow one another round the circle, because each token is then followed by the next one on the circle. It nearly vanishes when every order is equally likely. Over
# {glue:text}`n_half` random problems, shuffling changes the symmetric part by at most {glue:text}`order_blind:.0e` of the largest entry of $A_1$, which is rounding. So half of the moment $A_1$ is known without knowing the order of the feature vectors.
#
# ### Order of features, order of words
#
# The features of a language model are *contextual*: $x_t$ depends on all words up to $t$. Shuffling the feature vectors of a text is therefore not the same as shuffling its words, after which the model computes other features. For three pretrained
# language models that read movie reviews (the dataset sst2, last layer; {doc}`chapter 4 <04_extraction>` introduces the models), the numbers were computed once and are read from a file. The relative change of each half of $A_1$ in the Frobenius norm:

# %%
real = load_record("real_models")["models"]
changes = pd.DataFrame(
    {
        (
            model,
            "features shuffled" if kind == "features" else "words shuffled",
        ): halves
        for model, facts in real.items()
        for kind, halves in facts["word_order"].items()
    }
).T
changes.map("{:.2g}".format)

# %% tags=["remove-cell"]
words = changes.xs("words shuffled", level=1)
glue(
    "features_symmetric",
    float(changes.xs("features shuffled", level=1)["symmetric"].max()),
    display=False,
)
glue("words_symmetric_low", float(words["symmetric"].min()), display=False)
glue("words_symmetric_high", float(words["symmetric"].max()), display=False)

# %% [markdown]
# Shuffling features leaves the symmetric half as it is (up to {glue:text}`features_symmetric:.0e`). Shuffling words changes it by {glue:text}`words_symmetric_low:.0%` to {glue:text}`words_symmetric_high:.0%`. The identity {eq}`eq-telescope` is therefore a statement about feature vectors. With contextual features, every moment may depend on the order of the words.
#
# ## Summary
#
# - For linear next-token prediction from prefix sums the best encoder needs two moments, $A_0$ and $A_1$; its loss needs the trace of a third, $G'$.
# - The leading generalized eigenvectors of $(A_1 A_1^\top, A_0)$ are a best encoder for every width, and these encoders are nested.
# - Least squares on the tokens agrees up to rounding, and gradient descent reaches the same loss.
# - The symmetric part of $A_1$ is the same for any order of the feature vectors. Features of a language model depend on the order of words themselves.
#
# ## Quiz
#
# **1.** A text has 20 tokens so far, with $d = 64$ features each. How many numbers does an encoder of width $k = 8$ keep of them to predict the next token?
#
# - (a) 160: eight for each token
# - (b) 8
# - (c) 64
#
# :::{admonition} Answer
# :class: dropdown
# (b). The encoder acts on the prefix sum $p_t$, one vector of $d$ numbers, and keeps $k$ combinations of it. (a) is wrong because the tokens are added up before the encoder is applied. (c) is the length of the prefix sum itself, which is kept only if $k = d$.
# :::
#
# **2.** A best encoder of width 3 is known. Its columns are the generalized eigenvectors in order, with three different eigenvalues. What is the best one of width 2?
#
# - (a) A subspace that has to be computed anew
# - (b) The span of any two of the three columns
# - (c) The span of the first two columns
#
# :::{admonition} Answer
# :class: dropdown
# (c). The encoders of all widths are nested. (a) is wrong because the eigenvalue problem {eq}`eq-ar-eig` does not depend on the width. (b) is wrong because the columns have different eigenvalues, and the best pair has the two largest. (In another basis of the same span the first two columns are in general not the best pair, so the order of the columns must be known.)
# :::
#
# **3.** Words are shuffled before a language model reads a text; features come from its last layer. What happens to the symmetric part of $A_1$?
#
# - (a) It changes, because the features change
# - (b) It becomes zero
# - (c) It stays the same, by the telescoping identity
#
# :::{admonition} Answer
# :class: dropdown
# (a). A language model computes other feature vectors for shuffled words, so every moment changes. (b) is wrong because the symmetric part is $\tfrac12(\E[p_T p_T^\top] - G)$, which in general is not zero; the antisymmetric part vanishes when every order of the feature vectors is equally likely. (c) is wrong because the identity is about a fixed bag of feature vectors; it would hold if the *features* were shuffled.
# :::
#
# ## Exercises
#
# A check takes your function or number and says what is wrong with it.

# %%
import scipy.linalg

from ntps_utils.exercises import check

# %% [markdown]
# ````{exercise} The loss of knowing everything
# :label: ex-1-1
#
# *Difficulty 2 of 5, importance 4 of 5, about 10 minutes.*
#
# What does the closed form say for $k = d$, when $A_0$ is invertible? Show that the loss is then
# $\tr G' - \tr(A_1^\top A_0^{-1} A_1)$, and that it is zero if each next token is a fixed linear function of the prefix sum. Write a function of $A_0$, $A_1$ and $G'$ (`G_next`) that returns this loss.
#
# ```python
# def full_loss(A0, A1, G_next):
#     ...
#
# check("1.1", full_loss)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# With $k = d$ every invertible $V$ has the same loss. Choose the one that makes the inverse in {eq}`eq-ar-profile` the identity.
# :::
#
# ```{solution} ex-1-1
# :class: dropdown
# For $k=d$ take $V = A_0^{-1/2}$ in {eq}`eq-ar-profile`: the trace becomes $\tr(A_0^{-1/2} A_1 A_1^\top A_0^{-1/2}) = \tr(A_1^\top
# A_0^{-1} A_1)$. If $x_{t+1} = W^\top p_t$ then $A_1 = A_0 W$ and $G' = W^\top A_0 W$, so the trace is
# $\tr(W^\top A_0 A_0^{-1} A_0 W) = \tr G'$.
#
# So the loss is $\tr G' - \tr(A_1^\top A_0^{-1} A_1)$, and 0 in this case. In code: `np.trace(G_next) - np.trace(A1.T @ np.linalg.solve(A0, A1))`.
# ```
#
# ````{exercise} Units matter
# :label: ex-1-2
#
# *Difficulty 3 of 5, importance 4 of 5, about 20 minutes.*
#
# Rescale the features, $x \to D x$ with $D$ diagonal and invertible. Show that $A_0 \to D A_0 D$ and $A_1 A_1^\top \to D A_1 D^2
# A_1^\top D$. Is the new subspace $V$ the old one expressed in new coordinates? (That is $D^{-1} V$, because $(D^{-1} v)^\top D p = v^\top p$.) Now measure the error in the metric of the predicted tokens: put
# $\|G'^{-1/2}(x_{t+1} - W^\top V^\top p_t)\|^2$ in place of the square in {eq}`eq-ar-loss`. Is it so then? Write a function that returns the directions of this loss as columns of a matrix, the leading one first; `G_next` is $G'$.
#
# ```python
# def directions(A0, A1, G_next):
#     ...
#
# check("1.2", directions)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# The new loss is the old one with $G'^{-1/2} x_{t+1}$ in place of $x_{t+1}$. Which matrix takes the place of $A_1 A_1^\top$?
# :::
#
# ```{solution} ex-1-2
# :class: dropdown
# Both moments have a factor $x$ on each side, which gives the formulas. Put $v' = D^{-1} v$ into the new eigenproblem and multiply
# by $D^{-1}$ from the left: $A_1 D^2 A_1^\top v = \gamma A_0 v$. Only if $D^2$ is a multiple of the identity is this the old problem {eq}`eq-ar-eig` for all moments.
# So in general the answer to the first question is no. The reason is that the loss measures the *error* in feature units: features with large units count more.
# In the metric of the predicted tokens, $A_1 G'^{-1} A_1^\top$ takes the place of $A_1 A_1^\top$: this is a canonical correlation analysis of past and next token. Since
# $G' \to D G' D$, $A_1 G'^{-1} A_1^\top \to D A_1 G'^{-1} A_1^\top D$, and the subspace moves along with the coordinates. (So it does in every metric that changes in the same way, such as that of $G$ or of $A_0$.)
# Chapter 3 comes back to this.
#
# The directions of the new loss are `scipy.linalg.eigh(A1 @ np.linalg.solve(G_next, A1.T), A0)[1][:, ::-1]`.
# ```
#
# ````{exercise} A bag-of-tokens predictor
# :label: ex-1-3
#
# *Difficulty 3 of 5, importance 3 of 5, about 15 minutes.*
#
# Suppose that the tokens of each text are exchangeable: every order is equally likely. Show that $A_1$ is symmetric. What is
# $A_1$ in terms of $\E[p_T p_T^\top]$ and $G$? Write a function that returns it from $\E[p_T p_T^\top]$ (`PP`) and $G$.
#
# ```python
# def exchangeable(PP, G):
#     ...
#
# check("1.3", exchangeable)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# Compare $\E\, x_s x_{t+1}^\top$ with its transpose when the two positions may be swapped, then use {eq}`eq-telescope`.
# :::
#
# ```{solution} ex-1-3
# :class: dropdown
# For exchangeable tokens $\E x_s x_{t+1}^\top = \E x_{t+1} x_s^\top$ for each pair $s \le t$, given $T$; summing over pairs gives $A_1 =
# A_1^\top$. By {eq}`eq-telescope`, $A_1 = \tfrac12\big(\E[p_T p_T^\top] - G\big)$.
# ```
#
# ````{exercise} Try it: texts that come back
# :label: ex-1-4
#
# *Difficulty 2 of 5, importance 3 of 5, about 10 minutes.*
#
# In the circle above, let each text run forward or backward with probability one half. Predict the antisymmetric part of $A_1$
# before you compute it. Give the Frobenius norm of the antisymmetric part in the limit of many texts.
#
# ```python
# norm = ...
#
# check("1.4", norm)
# ```
# ````
#
# :::{admonition} Hint
# :class: dropdown
# What becomes of the product of two tokens when the text is read backward?
# :::
#
# ```{solution} ex-1-4
# :class: dropdown
# It vanishes up to sampling noise: reversing a text swaps the roles of $x_s$ and $x_{t+1}$ in each product, so the two halves
# contribute opposite antisymmetric parts. In code, reverse every second text of `circle`:
# `Problem(tuple(t[::-1] if i % 2 else t for i, t in enumerate(circle.texts)), circle.targets).moments().A1`. The norm in the limit is 0.
# ```

# %% tags=["remove-input"]
Markdown(provenance_note(profile=profile, seed=seed, problems=n_problems))

"""Rivals of the score: what else, computed before any finetuning, may tell how a task will go.

Each takes a :class:`FrozenFeatures` and returns one number. None of them but
:func:`linearized_gain` looks at the model behind the features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import cross_entropy

from ntps_utils.models.finetuning import attention_projections
from ntps_utils.models.loading import CausalModel
from ntps_utils.models.probes import LogisticProbe, logistic_probe

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """Frozen features of labeled texts, and where they came from.

    Attributes
    ----------
    features : (n, d) float64
        Mean over the tokens of each text, last layer.
    labels : (n,) int64
        Classes 0 ... c - 1; at least two occur.
    model : CausalModel, optional
        That the features came from; only :func:`linearized_gain` needs it.
    ids : sequence of n lists of int, optional
        Tokens of each text, likewise.
    seed : int
        Of folds and of random projections.
    """

    features: Array
    labels: NDArray[np.int64]
    model: CausalModel | None = None
    ids: Sequence[Sequence[int]] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != (len(self.features),):
            raise ValueError(
                "A case needs features of shape (n, d) and labels of shape (n,), got "
                f"{self.features.shape} and {self.labels.shape}."
            )
        if not np.isfinite(self.features).all():
            raise ValueError("A case needs finite features; NaN or infinity was given.")
        if len(np.unique(self.labels)) < 2:
            raise ValueError("A case needs texts of at least two classes.")
        if self.ids is not None and len(self.ids) != len(self.labels):
            raise ValueError(f"{len(self.ids)} lists of tokens were given for {len(self.labels)} texts.")


def headroom(case: FrozenFeatures) -> float:
    """What a probe leaves undone: 1 minus its cross-validated accuracy.

    Texts that are alone in their class are left out. Features may be scaled one by one
    without any effect; a rotation has a small one, by way of the probe's standardization.
    """
    kept = np.bincount(case.labels)[case.labels] > 1
    x, y = case.features[kept], case.labels[kept]
    if len(np.unique(y)) < 2:
        raise ValueError("Headroom needs two classes of at least two texts each.")
    probe = logistic_probe(x, y, x, y, seed=case.seed)
    return 1.0 - probe.cv_accuracy


def h_score(case: FrozenFeatures) -> float:
    """Variance between classes relative to all variance, 0 to 1.

    ``tr(T^-1 B) / (c - 1)`` with the covariance T of the features, shrunk as by Ledoit and
    Wolf (2004), and the covariance B of the class means, multiplied by one minus the same
    shrinkage (Bao et al. 2019; Ibrahim et al. 2021). Without shrinkage it is 1 on pure
    noise as soon as texts are no more than features. Invariant to rotation and common scale.
    """
    x, y = case.features - case.features.mean(0), case.labels
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    _, classes = np.unique(y, return_inverse=True)
    one_hot = np.eye(classes.max() + 1)[classes]
    counts = one_hot.sum(0)
    means = (one_hot.T @ x) / counts[:, None]
    between = (means * (counts / len(y))[:, None]).T @ means
    value = (1.0 - shrinkage) * np.trace(np.linalg.lstsq(covariance, between, rcond=None)[0])
    return float(value / classes.max())


def logme(case: FrozenFeatures) -> float:
    """Log evidence of a Bayesian linear model of each one-hot target, in nats per text, mean over classes.

    ``y = F w + b + noise`` with Gaussian weights and noise, flat b, and both variances at
    their maximum (You et al. 2021). All d weights count when texts are fewer than features:
    there the evidence is that of the (n - 1)-dimensional Gaussian of the centered targets.
    Invariant to rotation and common scale.
    """
    x, y = case.features - case.features.mean(0), case.labels
    n = len(x)
    left, sigma, _ = np.linalg.svd(x, full_matrices=False)
    sigma, left = sigma[: n - 1], left[:, : n - 1]  # the last direction of centered rows is the constant
    squares = sigma**2 / max(float((sigma**2).max(initial=0.0)), np.finfo(float).tiny)
    values = []
    for label in np.unique(y):
        target = (y == label) - np.mean(y == label)
        inside = (left.T @ target) ** 2
        outside = max(float(target @ target - inside.sum()), 0.0)
        values.append(_best_evidence(squares, inside, outside, n - 1) / n)
    return float(np.mean(values))


def _best_evidence(squares: Array, inside: Array, outside: float, m: int) -> float:
    """Log evidence at the best variances of weights and noise; m is the dimension of the targets."""

    def minus(log_ratio: float) -> float:
        growth = 1.0 + squares * np.exp(-log_ratio)
        residual = float((inside / growth).sum() + outside)
        residual = max(residual, 1e-12 * float(inside.sum() + outside))  # a target that fits exactly
        return 0.5 * m * (1.0 + np.log(2.0 * np.pi * residual / m)) + 0.5 * float(np.log(growth).sum())

    found = minimize_scalar(minus, bounds=(-30.0, 30.0), method="bounded", options={"xatol": 1e-6})
    return -float(found.fun)


def knn_accuracy(case: FrozenFeatures, *, n_neighbors: int = 5) -> float:
    """Accuracy of the vote of a text's nearest neighbors among the others (leave-one-out).

    Euclidean distance; ties go to the nearer neighbors' class. Invariant to rotation and
    common scale.
    """
    k = min(n_neighbors, len(case.labels) - 1)
    index = NearestNeighbors(n_neighbors=k).fit(case.features)
    neighbors = index.kneighbors(return_distance=False)  # without the point itself
    _, classes = np.unique(case.labels, return_inverse=True)
    one_hot = np.eye(classes.max() + 1)[classes]
    nearer_first = 1.0 + 1e-3 * 0.5 ** np.arange(k)
    votes = (one_hot[neighbors] * nearer_first[:, None]).sum(1)
    return float(np.mean(votes.argmax(1) == classes))


def linearized_gain(
    case: FrozenFeatures,
    *,
    rank: int = 8,
    sketch: int = 16,
    n_directions: int = 3,
    max_texts: int = 600,
    penalties: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    batch_size: int = 32,
) -> float:
    """Gain in accuracy that LoRA would bring if it moved the class scores only to first order.

    With adapters ``B A`` on the query, key and value projections, A random and B zero, the
    class scores are linear in B near the start. Their gradients, taken from one backward
    pass for each of the leading directions of a probe's weights, are the features of a
    logistic model whose offset is the probe; the value is its accuracy on a third of the
    texts less that of the probe alone (Malladi et al. 2023 on this view of finetuning).

    Parameters
    ----------
    case : FrozenFeatures
        With ``model`` and ``ids``.
    rank : int
        Of the adapters.
    sketch : int
        Random projections of the gradient of each projection's output.
    n_directions : int
        Directions of the probe's class weights, at most.
    max_texts : int
        Texts used, the first ones.
    penalties : sequence of float
        Ridge penalties to choose from, by cross-validation within the fitting texts.

    Raises
    ------
    ValueError
        If the case has no model, or fewer than 12 texts.
    """
    if case.model is None or case.ids is None:
        raise ValueError(
            "linearized_gain needs the model and the tokens: FrozenFeatures(features, labels, model, ids)."
        )
    n = min(len(case.labels), max_texts)
    if n < 12:
        raise ValueError(f"linearized_gain needs at least 12 texts, got {n}.")
    x, y, ids = case.features[:n], case.labels[:n], case.ids[:n]
    many_enough = np.bincount(y)[np.unique(y)].min() >= 2 and round(n / 3) >= len(np.unique(y))
    fit, held = train_test_split(
        np.arange(n), test_size=round(n / 3), random_state=case.seed, stratify=y if many_enough else None
    )
    if len(np.unique(y[fit])) < 2:
        raise ValueError("The texts to fit on are of one class; give more texts.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are rare in the held-out third
        probe = logistic_probe(x[fit], y[fit], x[held], y[held], seed=case.seed)
    mean, deviation = x[fit].mean(0), np.maximum(x[fit].std(0), 1e-12)
    offset = torch.as_tensor((x - mean) / deviation @ probe.weights.T + probe.biases)
    mixing, directions = _leading(probe, n_directions)
    gradients = _adapter_gradients(case.model, ids, directions / deviation, rank, sketch, batch_size, case.seed)
    # Standardized like the probe's features: a large common mean would hide what differs.
    gradients -= gradients[fit].mean(0)
    gradients /= (gradients[fit].square().mean((0, 1)) * gradients.shape[2]).sqrt().clamp_min(1e-30)
    mix = torch.as_tensor(mixing)
    position = {label: i for i, label in enumerate(probe.classes.tolist())}
    classes = np.array([position.get(int(label), -1) for label in y])

    def accuracy(rows: NDArray[np.intp], theta: torch.Tensor | None) -> float:
        scores = offset[rows] if theta is None else offset[rows] + (gradients[rows] @ theta) @ mix.T
        return float(np.mean(scores.argmax(1).numpy() == classes[rows]))

    folds = min(3, int(np.bincount(classes[fit]).min()))
    penalty = sorted(penalties)[len(penalties) // 2]
    if folds >= 2:
        inner = list(StratifiedKFold(folds, shuffle=True, random_state=case.seed).split(fit, classes[fit]))
        found = {
            p: np.mean([accuracy(fit[b], _fit(gradients, offset, mix, classes, fit[a], p)) for a, b in inner])
            for p in sorted(penalties, reverse=True)
        }
        penalty = max(found, key=lambda p: found[p])
    theta = _fit(gradients, offset, mix, classes, fit, penalty)
    return accuracy(held, theta) - accuracy(held, None)


def _leading(probe: LogisticProbe, n_directions: int) -> tuple[Array, Array]:
    """Class weights as mixtures of a few directions: (classes, q) and (q, d)."""
    weights = probe.weights - probe.weights.mean(0)
    left, sizes, directions = np.linalg.svd(weights, full_matrices=False)
    q = max(1, min(n_directions, int(np.sum(sizes > 1e-9 * sizes.max(initial=0.0)))))
    mixing = left[:, :q] * sizes[:q]
    return mixing / max(float(np.linalg.norm(mixing)), 1e-30), directions[:q]


def _adapter_gradients(
    model: CausalModel,
    ids: Sequence[Sequence[int]],
    directions: Array,
    rank: int,
    sketch: int,
    batch_size: int,
    seed: int,
) -> torch.Tensor:
    """Gradient of each direction of the mean last hidden state with respect to B, (n, q, p)."""
    lm, device = model.model, model.model.device
    names = attention_projections(lm)
    generator = torch.Generator().manual_seed(seed)
    seen: list[list[torch.Tensor]] = []
    handles = []

    def watch(module: torch.nn.Module) -> None:
        slot: list[torch.Tensor] = []
        seen.append(slot)

        def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            slot[:] = [inputs[0].detach(), output]

        handles.append(module.register_forward_hook(keep))

    maps: dict[tuple[int, int], torch.Tensor] = {}

    def gaussian(index: int, side: int, n_out: int, n_in: int) -> torch.Tensor:
        if (index, side) not in maps:
            maps[index, side] = (torch.randn(n_out, n_in, generator=generator) / n_in**0.5).to(device)
        return maps[index, side]

    for name, module in lm.named_modules():
        if name.rpartition(".")[2] in names:
            watch(module)
    # The weights need no gradient; the graph starts at the embedded tokens.
    handles.append(
        lm.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_())
    )
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    wanted = torch.as_tensor(directions, dtype=torch.float32, device=device)
    result: torch.Tensor | None = None
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(list(ids[i])) for i in rows], batch_first=True, padding_value=-1
            ).to(device)
            mask = (tokens >= 0).long()
            with torch.enable_grad():
                hidden = lm.base_model(
                    input_ids=tokens.clamp_min(0), attention_mask=mask, use_cache=False
                ).last_hidden_state
                weights = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
                pooled = torch.einsum("btd,bt->bd", hidden, weights).float()
                outputs = [slot[1] for slot in seen]
                parts = []
                for j, direction in enumerate(wanted):
                    grads = torch.autograd.grad((pooled @ direction).sum(), outputs, retain_graph=j + 1 < len(wanted))
                    blocks = []
                    for i, (slot, grad) in enumerate(zip(seen, grads, strict=True)):
                        low = slot[0].float() @ gaussian(i, 0, rank, slot[0].shape[-1]).T
                        grad = grad.float()
                        if grad.shape[-1] > sketch:
                            grad = grad @ gaussian(i, 1, sketch, grad.shape[-1]).T
                        blocks.append(torch.einsum("bts,btr->bsr", grad, low).flatten(1))
                    parts.append(torch.cat(blocks, 1))
            stacked = torch.stack(parts, 1).double().cpu()
            if result is None:
                result = torch.empty(len(ids), *stacked.shape[1:], dtype=torch.float64)
            result[rows] = stacked
    finally:
        for handle in handles:
            handle.remove()
    assert result is not None
    return result


def _fit(
    gradients: torch.Tensor,
    offset: torch.Tensor,
    mix: torch.Tensor,
    classes: NDArray[np.intp],
    rows: NDArray[np.intp],
    penalty: float,
) -> torch.Tensor:
    """Weights of the gradient features by penalized logistic regression with an offset (convex)."""
    theta = torch.zeros(gradients.shape[2], dtype=torch.float64, requires_grad=True)
    x, base, y = gradients[rows], offset[rows], torch.as_tensor(classes[rows])
    solver = torch.optim.LBFGS([theta], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = cross_entropy(base + (x @ theta) @ mix.T, y) + 0.5 * penalty * theta.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return theta.detach()


# One signature: FrozenFeatures -> float.
TRANSFERABILITY_SCORES: Mapping[str, Callable[[FrozenFeatures], float]] = MappingProxyType(
    {
        "headroom": headroom,
        "h_score": h_score,
        "logme": logme,
        "knn": knn_accuracy,
        "linearized": linearized_gain,
    }
)

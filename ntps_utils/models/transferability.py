"""Transferability scores computed before any finetuning: baselines for the next-token perception score.

Each function takes a :class:`FrozenFeatures` and returns one number. Only
:func:`linearized_gain` uses the model; the others use the features and labels alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import cross_entropy

from ntps_utils._utils.validation import check_integer
from ntps_utils.models.extraction import batch_overhead, length_batches, mean_pool, pad_batch
from ntps_utils.models.finetuning import projection_modules
from ntps_utils.models.loading import CausalModel, evaluation_mode
from ntps_utils.models.probes import LogisticProbe, logistic_probe
from ntps_utils.theory.layer_moments import one_hot
from ntps_utils.theory.linear import Array

Labels = NDArray[np.int64]
Rows = NDArray[np.intp]

MIN_TEXTS = 12
MAX_TEXTS = 600
"""Number of texts that :func:`linearized_gain` uses at most, unless told otherwise."""
N_DIRECTIONS = 3
"""Number of directions of the class weights, one backward pass each, unless told otherwise."""


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """Features of labeled texts under a model that is not finetuned.

    Attributes
    ----------
    features : (n, d) float64
        Features of the texts: the mean over tokens of the last layer.
    labels : (n,) int64
        Class numbers; at least two classes occur.
    model : CausalModel, optional
        The model that computed the features. Only :func:`linearized_gain` needs it.
    ids : sequence of n sequences of int, optional
        Token ids of each text, at least one. Only :func:`linearized_gain` needs them.
    seed : int
        Random seed for folds and random projections.
    target_modules : tuple of str, optional
        Modules that LoRA adapts, see :class:`ntps_utils.models.finetuning.FinetuneConfig`. Only
        :func:`linearized_gain` needs them.

    Raises
    ------
    ValueError
        If shapes differ, a feature is not finite, labels are not integers, fewer than two
        classes occur, or a text has no token.

    Examples
    --------
    >>> data = FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1])
    >>> data.features.shape
    (4, 1)
    """

    features: Array
    labels: Labels
    model: CausalModel | None = None
    ids: Sequence[Sequence[int]] | None = None
    seed: int = 0
    target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        features, labels = np.asarray(self.features, dtype=np.float64), np.asarray(self.labels)
        if features.ndim != 2 or labels.shape != (len(features),) or not len(labels):
            raise ValueError(
                f"features must have shape (n, d) and labels shape (n,), got {features.shape} and {labels.shape}."
            )
        if not np.isfinite(features).all():
            raise ValueError("features must be finite numbers; they contain NaN or infinity.")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(f"labels must be class numbers 0, 1, ..., got {labels[:5].tolist()} ({labels.dtype}).")
        if len(np.unique(labels)) < 2:
            raise ValueError(f"All {len(labels)} texts have the label {labels[0]}; at least two classes are needed.")
        if self.ids is not None:
            if len(self.ids) != len(labels):
                raise ValueError(
                    f"ids must have one list of tokens for each of {len(labels)} texts, got {len(self.ids)}."
                )
            if any(len(row) == 0 for row in self.ids):
                raise ValueError("A text has no token; select the texts that Extraction.row_indices lists.")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)


def headroom(data: FrozenFeatures) -> float:
    """Compute the error that a linear probe leaves: 1 minus its cross-validated accuracy.

    Texts that are alone in their class are excluded.

    Parameters
    ----------
    data : FrozenFeatures

    Returns
    -------
    float
        Error rate, 0 to 1. Unchanged by a rescaling of each feature; a rotation changes it
        slightly, because the probe standardizes the features one by one.

    Raises
    ------
    ValueError
        If fewer than two classes have at least two texts.

    Examples
    --------
    >>> headroom(FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1]))
    0.0
    """
    in_common_class = np.bincount(data.labels)[data.labels] > 1
    x, y = data.features[in_common_class], data.labels[in_common_class]
    if len(np.unique(y)) < 2:
        raise ValueError("headroom needs two classes of at least two texts each; give more texts.")
    probe = logistic_probe(x, y, x, y, seed=data.seed)
    return 1.0 - probe.cv_accuracy


def h_score(data: FrozenFeatures) -> float:
    """Compute the variance between classes relative to the total variance, with shrinkage.

    Parameters
    ----------
    data : FrozenFeatures

    Returns
    -------
    float
        0 to 1; unchanged by a rotation or a common rescaling of the features.

    Notes
    -----
    The score is ``(1 - a) tr(T^-1 B) / (c - 1)``: T is the covariance of the features
    after Ledoit-Wolf shrinkage by the intensity a, B the covariance of the class means.
    Without shrinkage it would be 1 on pure noise once there are no more texts than features.

    References
    ----------
    Bao et al. (2019), "An information-theoretic approach to transferability in task transfer
    learning". Ibrahim et al. (2021), "Newer is not always better: rethinking transferability
    metrics". Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional
    covariance matrices".

    Examples
    --------
    >>> round(h_score(FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1])), 2)
    1.0
    """
    x, y = data.features - data.features.mean(0), data.labels
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    targets = _one_hot(y)
    counts = targets.sum(0)
    means = (targets.T @ x) / counts[:, None]
    between = (means * (counts / len(y))[:, None]).T @ means
    score = (1.0 - shrinkage) * np.trace(np.linalg.lstsq(covariance, between, rcond=None)[0])
    return float(score / (len(counts) - 1))


def logme(data: FrozenFeatures) -> float:
    """Compute the log evidence of a Bayesian linear model of the one-hot targets.

    Parameters
    ----------
    data : FrozenFeatures

    Returns
    -------
    float
        Nats per text, mean over classes; unchanged by a rotation or a common rescaling of
        the features.

    Notes
    -----
    The model of each target is ``y = F w + b + noise`` with Gaussian weights and noise and
    a flat prior on b; both variances maximize the evidence. With fewer texts than features
    the evidence is that of the (n - 1)-dimensional Gaussian of the centered targets.

    References
    ----------
    You et al. (2021), "LogME: practical assessment of pre-trained models for transfer learning".

    Examples
    --------
    >>> separable = FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1])
    >>> mixed = FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 1, 0, 1])
    >>> logme(separable) > logme(mixed)
    True
    """
    x, y = data.features - data.features.mean(0), data.labels
    n = len(x)
    left, sigma, _ = np.linalg.svd(x, full_matrices=False)
    sigma, left = sigma[: n - 1], left[:, : n - 1]  # the last direction of centered rows is the constant
    squares = sigma**2 / max(float((sigma**2).max(initial=0.0)), np.finfo(float).tiny)
    evidence = []
    for label in np.unique(y):
        target = (y == label) - np.mean(y == label)
        inside = (left.T @ target) ** 2
        outside = max(float(target @ target - inside.sum()), 0.0)
        evidence.append(_best_evidence(squares, inside, outside, n - 1) / n)
    return float(np.mean(evidence))


def _best_evidence(squares: Array, inside: Array, outside: float, dimension: int) -> float:
    """Log evidence of a centered target at the best variances of weights and noise.

    ``squares`` are squared singular values, ``inside`` the target's energy in each
    direction, ``outside`` its energy in the other directions.
    """

    def negative_evidence(log_ratio: float) -> float:
        growth = 1.0 + squares * np.exp(-log_ratio)
        residual = float((inside / growth).sum() + outside)
        residual = max(residual, 1e-12 * float(inside.sum() + outside))  # a target that fits exactly
        log_determinant = float(np.log(growth).sum())
        return 0.5 * dimension * (1.0 + np.log(2.0 * np.pi * residual / dimension)) + 0.5 * log_determinant

    minimum = minimize_scalar(negative_evidence, bounds=(-30.0, 30.0), method="bounded", options={"xatol": 1e-6})
    return -float(minimum.fun)


def knn_accuracy(data: FrozenFeatures, *, n_neighbors: int = 5) -> float:
    """Compute the leave-one-out accuracy of a nearest-neighbor vote.

    Parameters
    ----------
    data : FrozenFeatures
    n_neighbors : int
        Neighbors that vote, by Euclidean distance; a tie goes to the nearer ones.

    Returns
    -------
    float
        0 to 1; unchanged by a rotation or a common rescaling of the features.

    Raises
    ------
    ValueError
        If ``n_neighbors`` is less than 1.

    Examples
    --------
    >>> knn_accuracy(FrozenFeatures([[0.0], [0.1], [2.0], [2.1]], [0, 0, 1, 1]), n_neighbors=1)
    1.0
    """
    check_integer("n_neighbors", n_neighbors, 1)
    k = min(n_neighbors, len(data) - 1)
    neighbors = NearestNeighbors(n_neighbors=k).fit(data.features).kneighbors(return_distance=False)
    targets = _one_hot(data.labels)
    weights = 1.0 + 1e-3 * 0.5 ** np.arange(k)  # breaks ties in favor of the nearer neighbors
    votes = (targets[neighbors] * weights[:, None]).sum(1)
    return float(np.mean(votes.argmax(1) == targets.argmax(1)))


def _one_hot(labels: Labels) -> Array:
    """One-hot targets of the classes that occur, (n, classes)."""
    _, classes = np.unique(labels, return_inverse=True)
    return one_hot(classes, int(classes.max()) + 1)


def linearized_gain(data: FrozenFeatures) -> float:
    """Estimate the gain in accuracy from LoRA by a first-order expansion around the frozen model.

    It is the accuracy in the result of :func:`linearize`, with its default options.

    Parameters
    ----------
    data : FrozenFeatures
        With ``model`` and ``ids``. The model is in evaluation mode (no dropout) meanwhile.

    Returns
    -------
    float
        Accuracy of the linearized model on a third of the texts, minus that of the probe alone.

    Raises
    ------
    ValueError
        See :func:`linearize`.

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.extraction import extract, tokenize
    >>> from ntps_utils.models.loading import load_model
    >>> model, texts = load_model("lab/XS"), load_texts("lab/topic").head(40)
    >>> features = extract(model, texts, layers="last", features="last").features[3]
    >>> gain = linearized_gain(FrozenFeatures(features, texts.labels, model, tokenize(model, texts).ids))
    >>> -1 <= gain <= 1
    True
    """
    return linearize(data).accuracy


@dataclass(frozen=True)
class Linearization:
    """What the first-order expansion of LoRA gains on texts that it was not fitted to.

    Attributes
    ----------
    accuracy : float
        Accuracy of the linearized model minus that of the probe.
    cross_entropy : float
        Cross-entropy of the probe minus that of the linearized model, in nats.
    alignment : float
        Squared gradient of the loss with respect to the adapters, as a multiple of its mean over
        permutations of the residuals among texts. Near 1, the residuals of the probe have nothing
        to do with the directions that the adapters can move: a first step of LoRA gains nothing.
    """

    accuracy: float
    cross_entropy: float
    alignment: float


def linearize(
    data: FrozenFeatures,
    *,
    rank: int = 8,
    sketch: int = 16,
    n_directions: int = N_DIRECTIONS,
    max_texts: int = MAX_TEXTS,
    penalties: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    batch_size: int = 32,
) -> Linearization:
    r"""Fit the first-order expansion of LoRA around the frozen model, and test it on a third of the texts.

    Parameters
    ----------
    data : FrozenFeatures
        With ``model`` and ``ids``. The model is in evaluation mode (no dropout) meanwhile.
    rank : int
        Rank of the adapters.
    sketch : int
        Number of random projections of the gradient of each module's output.
    n_directions : int
        Largest number of directions of the probe's class weights, one backward pass each.
    max_texts : int
        Number of texts to use, the first ones.
    penalties : sequence of float
        Ridge penalties to choose from, by cross-validation on the texts to fit.
    batch_size : int
        Texts in a forward pass.

    Returns
    -------
    Linearization

    Raises
    ------
    ValueError
        If there is no model or no token ids, there are fewer than 12 texts, or the texts to
        fit have one class.

    Notes
    -----
    With adapters ``B A`` on the query, key and value projections, A random and B zero, the
    class scores are linear in B near the start. Their gradients J with respect to B, along
    the leading directions of a probe's class weights, are the features of a logistic model
    whose offset is the probe. With residuals r (probabilities minus labels) and the tangent
    kernel :math:`K = J J^\top`, the squared gradient of the mean loss is :math:`r^\top K r / n^2`.

    References
    ----------
    Malladi et al. (2023), "A kernel-based view of language model fine-tuning".

    Examples
    --------
    >>> from ntps_utils.models.datasets import load_texts
    >>> from ntps_utils.models.extraction import extract, tokenize
    >>> from ntps_utils.models.loading import load_model
    >>> model, texts = load_model("lab/XS"), load_texts("lab/topic").head(40)
    >>> features = extract(model, texts, layers="last", features="last").features[3]
    >>> linearize(FrozenFeatures(features, texts.labels, model, tokenize(model, texts).ids)).alignment > 0
    True
    """
    if data.model is None or data.ids is None:
        raise ValueError(
            "The linearization needs the model and the token ids: FrozenFeatures(features, labels, model, ids)."
        )
    n = min(len(data), max_texts)
    if n < MIN_TEXTS:
        raise ValueError(f"The linearization needs at least {MIN_TEXTS} texts, got {n}.")
    x, y, ids = data.features[:n], data.labels[:n], data.ids[:n]
    training_rows, test_rows = _split(y, data.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test third may lack a class, which is harmless here
        probe = logistic_probe(x[training_rows], y[training_rows], x[test_rows], y[test_rows], seed=data.seed)
    mean, deviation = x[training_rows].mean(0), np.maximum(x[training_rows].std(0), 1e-12)
    offset = (x - mean) / deviation @ probe.weights.T + probe.biases
    mixing, directions = _leading_directions(probe, n_directions)
    gradients = _adapter_gradients(data, ids, directions / deviation, rank, sketch, batch_size)
    # Standardized like the probe's features: a large common mean would hide the differences.
    gradients -= gradients[training_rows].mean(0)
    scale = (gradients[training_rows].square().mean((0, 1)) * gradients.shape[2]).sqrt()
    gradients /= scale.clamp_min(1e-30)
    number_of_class = {label: i for i, label in enumerate(probe.classes.tolist())}
    classes = np.array([number_of_class.get(label, -1) for label in y.tolist()])
    model = _GradientModel(gradients, torch.as_tensor(offset), torch.as_tensor(mixing), classes)
    by_accuracy, by_loss = (
        model.fit(training_rows, model.choose_penalty(training_rows, penalties, data.seed, measure))
        for measure in (model.accuracy, lambda rows, weights: -model.cross_entropy(rows, weights))
    )
    return Linearization(
        accuracy=model.accuracy(test_rows, by_accuracy) - model.accuracy(test_rows),
        cross_entropy=model.cross_entropy(test_rows) - model.cross_entropy(test_rows, by_loss),
        alignment=model.alignment(test_rows, data.seed),
    )


def _split(labels: Labels, seed: int) -> tuple[Rows, Rows]:
    """Rows to fit and a third of the rows to test, stratified by class where that is possible."""
    n_test, counts = round(len(labels) / 3), np.unique(labels, return_counts=True)[1]
    stratify = labels if counts.min() >= 2 and n_test >= len(counts) else None
    training_rows, test_rows = train_test_split(
        np.arange(len(labels)), test_size=n_test, random_state=seed, stratify=stratify
    )
    if len(np.unique(labels[training_rows])) < 2:
        raise ValueError(f"All {len(training_rows)} texts to fit have one class; give more texts.")
    return training_rows, test_rows


def _leading_directions(probe: LogisticProbe, n_directions: int) -> tuple[Array, Array]:
    """Class weights as mixtures of their q leading directions: mixing (classes, q) and directions (q, d)."""
    weights = probe.weights - probe.weights.mean(0)
    left, sizes, directions = np.linalg.svd(weights, full_matrices=False)
    q = max(1, min(n_directions, int(np.sum(sizes > 1e-9 * sizes.max(initial=0.0)))))
    mixing = left[:, :q] * sizes[:q]
    return mixing / max(float(np.linalg.norm(mixing)), 1e-30), directions[:q]


@dataclass(frozen=True, eq=False)
class _GradientModel:
    """Logistic model whose class scores are those of a probe plus a linear function of gradients.

    Attributes
    ----------
    gradients : (n, q, p) tensor
        Gradient of each of q directions with respect to the adapters, for each text.
    offset : (n, m) tensor
        Class scores of the probe.
    mixing : (m, q) tensor
        Class weights as mixtures of the q directions.
    classes : (n,) int
        Column of each text's class; -1 for a class that the probe does not know.
    """

    gradients: torch.Tensor
    offset: torch.Tensor
    mixing: torch.Tensor
    classes: Rows

    def scores(self, rows: Rows, weights: torch.Tensor) -> torch.Tensor:
        return self.offset[rows] + (self.gradients[rows] @ weights) @ self.mixing.T

    def accuracy(self, rows: Rows, weights: torch.Tensor | None = None) -> float:
        """Accuracy on some rows; without weights, that of the probe."""
        scores = self.offset[rows] if weights is None else self.scores(rows, weights)
        return float(np.mean(scores.argmax(1).numpy() == self.classes[rows]))

    def fit(self, rows: Rows, penalty: float) -> torch.Tensor:
        """Weights of the gradients by ridge-penalized logistic regression, a convex problem."""
        weights = torch.zeros(self.gradients.shape[2], dtype=torch.float64, requires_grad=True)
        x, offset, y = self.gradients[rows], self.offset[rows], torch.as_tensor(self.classes[rows])
        solver = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            scores = offset + (x @ weights) @ self.mixing.T
            value = cross_entropy(scores, y) + 0.5 * penalty * weights.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            solver.step(loss)  # type: ignore[no-untyped-call]
        return weights.detach()

    def cross_entropy(self, rows: Rows, weights: torch.Tensor | None = None) -> float:
        """Cross-entropy on the rows whose class the probe knows; without weights, that of the probe."""
        rows = rows[self.classes[rows] >= 0]
        scores = self.offset[rows] if weights is None else self.scores(rows, weights)
        return float(cross_entropy(scores, torch.as_tensor(self.classes[rows])))

    def alignment(self, rows: Rows, seed: int, n_permutations: int = 50) -> float:
        """Squared gradient of the probe's loss, relative to its mean over permutations of the residuals."""
        rows = rows[self.classes[rows] >= 0]
        classes = torch.as_tensor(self.classes[rows])
        residuals = torch.softmax(self.offset[rows], 1) - torch.nn.functional.one_hot(classes, self.offset.shape[1])
        weights = residuals @ self.mixing  # (rows, q)
        gradients, rng = self.gradients[rows], np.random.default_rng(seed)
        orders = [np.arange(len(rows)), *(rng.permutation(len(rows)) for _ in range(n_permutations))]
        squares = [float(torch.einsum("nq,nqp->p", weights[order], gradients).square().sum()) for order in orders]
        return squares[0] / max(float(np.mean(squares[1:])), 1e-300)

    def choose_penalty(
        self,
        rows: Rows,
        penalties: Sequence[float],
        seed: int,
        measure: Callable[[Rows, torch.Tensor], float],
    ) -> float:
        """The penalty with the best cross-validated measure; the largest one in a tie."""
        classes = self.classes[rows]
        n_folds = min(3, int(np.bincount(classes).min()))
        if n_folds < 2:
            return sorted(penalties)[len(penalties) // 2]
        folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(rows, classes))

        def validated(penalty: float) -> float:
            return float(np.mean([measure(rows[b], self.fit(rows[a], penalty)) for a, b in folds]))

        return max(sorted(penalties, reverse=True), key=validated)


@contextmanager
def _recorded_projections(
    network: Any, target_modules: Sequence[str] | None
) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Record the input and the output of each attention projection in the last forward pass, by module name.

    Weights need no gradient: the graph of a pass starts at the embedded tokens.
    """
    modules = {name: network.get_submodule(name) for name in projection_modules(network, target_modules)}
    records = dict.fromkeys(modules, (torch.empty(0), torch.empty(0)))

    def hook(name: str) -> Callable[..., None]:
        def record(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            records[name] = inputs[0].detach(), output

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    embedding = network.get_input_embeddings()
    handles.append(embedding.register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_()))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _adapter_gradients(
    data: FrozenFeatures,
    ids: Sequence[Sequence[int]],
    directions: Array,
    rank: int,
    sketch: int,
    batch_size: int,
) -> torch.Tensor:
    """Gradient of each direction of the mean last hidden state with respect to the matrices B, (n, q, p).

    The gradient with respect to the B of a module is the sum over tokens of the outer product
    of the gradient of its output and its input times A. The first is projected to ``sketch``
    random directions if it has more.
    """
    model = data.model
    assert model is not None
    generator = torch.Generator().manual_seed(data.seed)
    matrices: dict[str, torch.Tensor] = {}

    def project(x: torch.Tensor, name: str, n_out: int) -> torch.Tensor:
        """Multiply by the Gaussian matrix of that name, drawn at its first use."""
        if name not in matrices:
            n_in = x.shape[-1]
            matrices[name] = (torch.randn(n_out, n_in, generator=generator) / n_in**0.5).to(x.device)
        return x @ matrices[name].T

    def module_gradient(name: str, inputs: torch.Tensor, output_gradient: torch.Tensor) -> torch.Tensor:
        adapter_inputs = project(inputs.float(), f"{name} A", rank)
        output_gradient = output_gradient.float()
        if output_gradient.shape[-1] > sketch:
            output_gradient = project(output_gradient, f"{name} sketch", sketch)
        return torch.einsum("bts,btr->bsr", output_gradient, adapter_inputs).flatten(1)

    device = model.model.device
    rows = length_batches(ids, range(len(ids)), batch_size, overhead=batch_overhead(model))
    batches: list[torch.Tensor] = []
    projections = _recorded_projections(model.model, data.target_modules)
    with evaluation_mode(model.model), projections as records, torch.enable_grad():
        for batch in rows:
            tokens, mask = pad_batch([ids[i] for i in batch], device)
            hidden = model.backbone(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            values = mean_pool(hidden, mask).float() @ torch.as_tensor(directions.T, dtype=torch.float32, device=device)
            outputs = [output for _, output in records.values()]
            gradients = []
            for j in range(len(directions)):
                is_last = j + 1 == len(directions)
                output_gradients = torch.autograd.grad(values[:, j].sum(), outputs, retain_graph=not is_last)
                blocks = [
                    module_gradient(name, inputs, gradient)
                    for (name, (inputs, _)), gradient in zip(records.items(), output_gradients, strict=True)
                ]
                gradients.append(torch.cat(blocks, 1))
            batches.append(torch.stack(gradients, 1).cpu().double())
    ordered = torch.cat(batches)
    result = torch.empty_like(ordered)
    result[[i for batch in rows for i in batch]] = ordered
    return result


TRANSFERABILITY_SCORES: Mapping[str, Callable[[FrozenFeatures], float]] = MappingProxyType(
    {
        "headroom": headroom,
        "h_score": h_score,
        "logme": logme,
        "knn": knn_accuracy,
        "linearized": linearized_gain,
    }
)
"""The transferability scores by name."""

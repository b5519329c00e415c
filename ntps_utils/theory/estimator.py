"""Scores of arrays and of hidden states: a function for arrays in memory, a metric for batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ntps_utils._utils.diagnostics import diagnostic_in
from ntps_utils._utils.layers import Layers, resolve_layers
from ntps_utils._utils.provenance import provenance
from ntps_utils._utils.validation import check_choice, check_classes, check_flag, check_integer, check_number
from ntps_utils.theory.layer_moments import as_targets
from ntps_utils.theory.linear import Order
from ntps_utils.theory.moments import Moments, check_features, check_targets, device_of_sums
from ntps_utils.theory.report import ScoreGrid, ScoreReport, score_layer
from ntps_utils.theory.score import NumericalWarning, ScoreRow, Shrinkage, Width, resolve_width

BATCH = 64  # texts that score() adds at a time
CLASSES, TARGETS = "class numbers", "real-valued targets"


def score(
    X: Any,
    y: ArrayLike | Sequence[Any],
    *,
    lengths: ArrayLike | None = None,
    k_v: Width | Sequence[Width] = 0.5,
    center: bool = False,
    ridge: float = 0.0,
    shrinkage: Shrinkage = 0.0,
    order: Order = "descending",
    jackknife: int = 0,
    controls: bool = True,
    seed: int = 0,
) -> ScoreReport:
    """Score token features against the labels of their texts.

    Parameters
    ----------
    X : sequence of (T_i, d) arrays, or (n, T, d) array
        Token features of each text: numpy arrays or torch tensors. A padded array needs
        ``lengths`` unless every text has T tokens; padding stands at the end.
    y : (n,) sequence of class labels, (n, 1) array_like of int, or (n, c) array_like
        Class labels (integers or strings), or real-valued targets.
    lengths : (n,) array_like of int, optional
        Number of tokens of each text in a padded array.
    k_v : int, float, or sequence of them
        Autoregressive directions to keep: an integer counts directions, a float is a
        fraction of their number.
    center : bool
        Use covariances instead of second moments. The paper's score does not.
    ridge, shrinkage, order
        See :func:`ntps_utils.theory.score.subspaces`.
    jackknife : int
        Number of random groups of texts for standard errors, at least 3; 0 for none.
    controls : bool
        Score control subspaces too (:mod:`ntps_utils.theory.controls`); with hundreds of features this takes
        about three times as long as the scores.
    seed : int
        Random seed for the jackknife groups.

    Returns
    -------
    ScoreReport
        One row for each width; ``report.rows[0].ntps`` is the paper's score, and
        ``report.rows[0].net()`` what exceeds random next tokens.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a setting is out of range.

    See Also
    --------
    NTPS : The same from batches of hidden states, for several layers.
    ntps_utils.models.scoring.score_model : Score a language model on a dataset.

    References
    ----------
    Cheng, Hu, Huang and Balestriero (2025), arXiv:2505.17169.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> X = [rng.normal(size=(rng.integers(3, 9), 6)) + label for label in y]
    >>> report = score(X, y, k_v=0.5)
    >>> bool(0.0 <= report.rows[0].ntps <= 1.0), report.rows[0].k_v
    (True, 3)
    """
    states, valid = _single_layer(X, lengths)
    targets = as_targets(_without_column(y))
    n = len(valid)
    if len(targets) != n:
        raise ValueError(f"{n} texts need as many labels; got {len(targets)}.")
    metric = NTPS(
        k_v=k_v,
        center=center,
        ridge=ridge,
        shrinkage=shrinkage,
        order=order,
        jackknife=jackknife,
        controls=controls,
        seed=seed,
    )
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        names = [f"text {i}" for i in range(n)[rows]]
        metric._add([_padded(states, rows)], valid[rows], torch.as_tensor(targets[rows]), (0,), names)
    return metric.compute()


class NTPS:
    """Next Token Perception Score from batches of hidden states.

    The metric accumulates sums over texts, so that no feature has to be kept; batches may
    come in any order and from any device. It has the methods of a torchmetrics metric:
    :meth:`update`, :meth:`compute`, :meth:`reset` and :meth:`merge_state`.

    Parameters
    ----------
    layers : {"all", "last"}, str, int or sequence of int
        Which of the hidden states to score; 0 is the embeddings, negative numbers count
        from the last layer.
    n_classes : int, optional
        Number of classes; by default one more than the largest label.
    k_v, center, ridge, shrinkage, order, jackknife, controls, seed
        See :func:`score`.
    precision : {"float64", "float32"}, optional
        Type in which the products of a batch are formed; by default float64 on the CPU
        and float32 elsewhere. Batches are added in float64.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> metric = NTPS(layers=[0, -1], k_v=2)
    >>> for _ in range(3):
    ...     hidden_states = [torch.randn(16, 7, 4, generator=generator) for _ in range(3)]
    ...     attention_mask = torch.ones(16, 7, dtype=torch.long)
    ...     metric.update(hidden_states, attention_mask, torch.arange(16) % 2)
    >>> report = metric.compute()
    >>> [row.layer for row in report], metric.n_texts
    ([0, 2], 48)
    """

    def __init__(
        self,
        layers: Layers = "all",
        *,
        n_classes: int | None = None,
        k_v: Width | Sequence[Width] = 0.5,
        center: bool = False,
        ridge: float = 0.0,
        shrinkage: Shrinkage = 0.0,
        order: Order = "descending",
        jackknife: int = 0,
        controls: bool = True,
        precision: str | None = None,
        seed: int = 0,
    ) -> None:
        check_integer("n_classes", n_classes, 1, optional=True)
        check_choice("precision", precision, (None, "float64", "float32"))
        check_score_settings(center, ridge, shrinkage, order, jackknife, controls, seed)
        self.layers = layers
        self.n_classes = n_classes
        self.k_v = as_widths(k_v)
        self.center = center
        self.ridge = ridge
        self.shrinkage = shrinkage
        self.order = order
        self.jackknife = jackknife
        self.controls = controls
        self.precision = precision
        self.seed = seed
        self._parts: list[Moments] = []
        self._n_layers = 0  # number of hidden states of the first batch
        self._kind = ""  # of the labels of the first batch
        self._n_added = 0

    @property
    def n_texts(self) -> int:
        """Number of texts added."""
        return sum(part.n_texts for part in self._parts)

    @property
    def moments(self) -> Moments:
        """Moments of all texts added.

        Raises
        ------
        ValueError
            If no text was added.
        """
        whole = self._groups()[0]
        for part in self._groups()[1:]:
            whole = whole.merge(part)
        return whole

    def update(self, hidden_states: Any, attention_mask: Any = None, labels: Any = None) -> None:
        """Add a batch of texts.

        Parameters
        ----------
        hidden_states : sequence of (n, T, d) arrays, (n, T, d) array, or sequence of (T_i, d) arrays
            The ``hidden_states`` of a transformers model (all layers), the features of one
            layer, or the features of one layer text by text. numpy arrays or torch tensors.
        attention_mask : (n, T) array_like of 0 and 1, optional
            1 for a token, 0 for padding, on either side; by default every position is a
            token.
        labels : (n,) or (n, 1) array_like of int, or (n, c) array_like of float
            Class numbers 0, 1, ..., or real-valued targets; the same kind in every batch.

        Raises
        ------
        ValueError
            If shapes or the kind of labels do not fit each other or the earlier batches, a value
            is not finite, or the mask has other values than 0 and 1; nothing has been added then.

        Warns
        -----
        NumericalWarning
            If a text has no token; it is excluded.
        """
        if labels is None:
            raise ValueError("update needs labels: class numbers (n,) or targets (n, c).")
        states, n_layers = _all_layers(hidden_states, attention_mask)
        if self._parts and n_layers != self._n_layers:
            raise ValueError(f"Earlier batches had {self._n_layers} hidden states, this one has {n_layers}.")
        if n_layers == 1 and isinstance(self.layers, int):
            layers: tuple[int, ...] = (self.layers,)
            chosen = states  # the features of that layer alone
        else:
            layers = resolve_layers(self.layers, n_layers)
            chosen = [states[i] for i in layers]
        n = len(chosen[0])
        batch = [_padded(one, slice(0, n)) for one in chosen]
        n_steps = batch[0].shape[1]
        if attention_mask is None:
            lengths = torch.tensor([len(text) for text in chosen[0]])
        else:
            mask = _mask(attention_mask, (n, n_steps)).to(batch[0].device)
            lengths = mask.sum(1)
            if not bool((mask == (torch.arange(n_steps, device=mask.device) < lengths[:, None])).all()):
                # Padding on the left or inside: move the tokens to the front, in their order.
                front = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, :, None]
                batch = [one.gather(1, front.to(one.device).expand(-1, -1, one.shape[2])) for one in batch]
        kind, targets = self._targets(labels, n)
        names = [f"text {i} of the batch" for i in range(n)]
        nonempty = lengths.cpu() > 0
        if not bool(nonempty.all()):
            n_empty = int((~nonempty).sum())
            warnings.warn(f"{n_empty} texts have no token and were excluded.", NumericalWarning, stacklevel=2)
            batch = [one[nonempty.to(one.device)] for one in batch]
            lengths, targets = lengths[nonempty.to(lengths.device)], targets[nonempty]
            names = [name for name, kept in zip(names, nonempty.tolist(), strict=True) if kept]
        if len(targets):
            self._add(batch, lengths, targets, layers, names)
            self._n_layers, self._kind = n_layers, kind

    def compute(self, progress: Callable[[str, int, int], None] | None = None) -> ScoreReport:
        """Score the texts added so far; more can be added afterwards.

        Parameters
        ----------
        progress : callable, optional
            Called with a description, the number of layers scored, and their total.

        Returns
        -------
        ScoreReport
            One row for each (layer, k_v).

        Raises
        ------
        ValueError
            If no text was added, or the texts carry no information (one class, constant features).
        """
        parts = self._groups()
        rows, grids = score_layers(
            parts,
            self.k_v,
            center=self.center,
            ridge=self.ridge,
            shrinkage=self.shrinkage,
            order=self.order,
            controls=self.controls,
            progress=progress,
        )
        first = parts[0]
        facts = provenance(
            n_texts=self.n_texts,
            n_tokens=sum(part.n_tokens for part in parts),
            n_classes=first.C.shape[-1],
            n_features=first.C.shape[-2],
            layers=list(first.layers),
            k_v=list(self.k_v),
            center=self.center,
            ridge=self.ridge,
            shrinkage=self.shrinkage,
            order=self.order,
            jackknife=self.jackknife,
            controls=self.controls,
            seed=self.seed,
            precision=first.precision,
        )
        return ScoreReport(tuple(rows), facts, tuple(grids))

    def reset(self) -> None:
        """Forget all texts; the settings stay."""
        self._parts, self._n_layers, self._kind, self._n_added = [], 0, "", 0

    def merge_state(self, metrics: NTPS | Sequence[NTPS]) -> None:
        """Add the texts of other metrics, for example those of other processes.

        Parameters
        ----------
        metrics : NTPS or sequence of NTPS
            With the same layers, precision and number of jackknife groups; they do not change.

        Raises
        ------
        ValueError
            If a metric does not fit this one.
        """
        for other in [metrics] if isinstance(metrics, NTPS) else metrics:
            if not other._parts:
                continue
            if other.jackknife != self.jackknife:
                raise ValueError(f"Metrics with {self.jackknife} and {other.jackknife} jackknife groups do not merge.")
            if not self._parts:
                self._parts = [_copied(part) for part in other._parts]
                self._n_layers, self._kind, self._n_added = other._n_layers, other._kind, other._n_added
                continue
            self._check_kind(other._kind, other._parts[0].C.shape[-1])
            c = max(self._parts[0].C.shape[-1], other._parts[0].C.shape[-1])
            pairs = zip(self._parts, other._parts, strict=True)
            self._parts = [_widened(a, c).merge(_widened(b, c)) for a, b in pairs]
            self._n_added += other._n_added

    def __repr__(self) -> str:
        return f"NTPS(layers={self.layers!r}, k_v={list(self.k_v)}, n_texts={self.n_texts})"

    # -- private -----------------------------------------------------------------

    def _groups(self) -> list[Moments]:
        """Moments of each group that has a text."""
        parts = [part for part in self._parts if part.n_texts]
        if not parts:
            raise ValueError("No text was added; call update(hidden_states, attention_mask, labels) first.")
        return parts

    def _check_kind(self, kind: str, c: int) -> None:
        """Raise unless labels of a kind, with c columns, fit those of the earlier batches."""
        if self._kind and kind != self._kind:
            raise ValueError(
                f"The labels of the earlier batches are {self._kind}, and those of this one are {kind}. Give the same "
                "kind in every batch; shape (n,) is for class numbers, (n, c) for real-valued targets."
            )
        expected = self._parts[0].C.shape[-1] if self._parts else self.n_classes
        if kind == TARGETS and expected not in (None, c):
            earlier = "the earlier batches have" if self._parts else "n_classes is"
            raise ValueError(f"The targets have {c} columns, but {earlier} {expected}.")

    def _targets(self, labels: Any, n: int) -> tuple[str, Tensor]:
        """Kind of the labels, and one-hot or real-valued targets, (n, c) float64."""
        try:
            given = torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels).detach().cpu()
        except (TypeError, ValueError):
            raise ValueError(
                "labels must be class numbers (n,) or real-valued targets (n, c); encode class names as numbers first."
            ) from None
        if given.ndim not in (1, 2) or len(given) != n:
            raise ValueError(f"{n} texts need labels of shape ({n},) or ({n}, c); got shape {tuple(given.shape)}.")
        given = _without_column(given)
        if given.ndim == 2:
            self._check_kind(TARGETS, given.shape[1])
            return TARGETS, given.double()
        if given.is_floating_point() and not bool((given == given.round()).all()):
            raise ValueError("labels of shape (n,) must be class numbers; give real-valued targets as (n, 1).")
        given = given.long()
        if len(given) and int(given.min()) < 0:
            raise ValueError(f"labels must be class numbers 0, 1, ...; got {int(given.min())}.")
        largest = int(given.max()) + 1 if len(given) else 1
        if self.n_classes is not None and largest > self.n_classes:
            raise ValueError(f"labels go up to {largest - 1}, but n_classes is {self.n_classes}.")
        present = self._parts[0].C.shape[-1] if self._parts else 1
        c = self.n_classes or max(largest, present)
        self._check_kind(CLASSES, c)
        check_classes(c, max(1, self.jackknife), c, c)
        return CLASSES, torch.nn.functional.one_hot(given, c).double()

    def _add(
        self, batch: list[Tensor], lengths: Tensor, targets: Tensor, layers: tuple[int, ...], names: Sequence[str]
    ) -> None:
        """Add right-padded texts to the moments of their jackknife groups."""
        device, d, c = batch[0].device, batch[0].shape[-1], targets.shape[1]
        parts = self._parts
        if not parts:
            precision = self.precision or ("float64" if device.type == "cpu" else "float32")
            n_parts = max(1, self.jackknife)
            options: dict[str, Any] = {"precision": precision, "device": device_of_sums(device)}
            parts = [Moments.zeros(layers, d, c, **options) for _ in range(n_parts)]
        elif c > parts[0].C.shape[-1]:
            parts = [_widened(part, c) for part in parts]
        if len(parts) > 1:  # else a group might be added before the error in another
            for layer, one in zip(layers, batch, strict=True):
                check_features(one, lengths, parts[0].precision, names, layer)
            check_targets(targets, names)
        group_of = self._next_groups(len(targets))
        for g, part in enumerate(parts):
            _add_rows(part, batch, lengths, targets, np.flatnonzero(group_of == g), names)
        self._parts = parts
        self._n_added += len(targets)

    def _next_groups(self, n: int) -> NDArray[np.intp]:
        """Jackknife groups of the next n texts: each block of consecutive texts is spread over all groups."""
        G = self.jackknife
        if not G:
            return np.zeros(n, dtype=np.intp)
        first, last = self._n_added // G, (self._n_added + n - 1) // G
        blocks = [np.random.default_rng([self.seed, block]).permutation(G) for block in range(first, last + 1)]
        start = self._n_added - first * G
        return np.concatenate(blocks)[start : start + n]


def check_score_settings(
    center: bool, ridge: float, shrinkage: Shrinkage, order: str, jackknife: int, controls: bool, seed: int
) -> None:
    """Raise ValueError unless the settings that all scores share are valid."""
    check_flag("center", center)
    check_flag("controls", controls)
    check_number("ridge", ridge, 0.0)
    if shrinkage != "ledoit-wolf":
        check_number("shrinkage (a number in [0, 1] or 'ledoit-wolf')", shrinkage, 0.0, 1.0)
    check_choice("order", order, ("descending", "ascending"))
    check_integer("jackknife", jackknife, 0)
    if jackknife in (1, 2):
        raise ValueError(f"jackknife must be 0 (no standard errors) or at least 3 groups, got {jackknife}.")
    check_integer("seed", seed, 0)


def as_widths(k_v: Width | Sequence[Width]) -> tuple[Width, ...]:
    """One width or several as a tuple.

    Raises
    ------
    ValueError
        If there is none, or one is not a positive integer or a fraction in (0, 1].

    Examples
    --------
    >>> as_widths(0.5), as_widths([4, 8])
    ((0.5,), (4, 8))
    """
    widths = (k_v,) if isinstance(k_v, (int, float, np.integer, np.floating, str)) else tuple(k_v)
    if not widths:
        raise ValueError("k_v must be an integer, a fraction in (0, 1], or a sequence of them; got an empty sequence.")
    for width in widths:
        resolve_width(width, 2**31, 2**31)
    return widths


def score_layers(
    parts: Sequence[Moments],
    k_v: Sequence[Width],
    *,
    controls: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> tuple[list[ScoreRow], list[ScoreGrid]]:
    """Score every layer of moments; a warning that several layers share is issued once.

    Parameters
    ----------
    parts : sequence of Moments
        Moments of disjoint groups of texts, see :func:`ntps_utils.theory.report.score_layer`.
    k_v : sequence of int or float
    controls : bool
        Score the control subspaces too, see :mod:`ntps_utils.theory.controls`.
    progress : callable, optional
        Called with a description, the number of layers scored, and their total.
    **options
        See :func:`ntps_utils.theory.score.subspaces`.

    Returns
    -------
    rows : list of ScoreRow
        One for each (layer, k_v).
    grids : list of ScoreGrid
        One for each layer.

    Raises
    ------
    ValueError
        If all texts have the same class or target.
    """
    _check_targets_vary(parts)
    rows: list[ScoreRow] = []
    grids: list[ScoreGrid] = []
    layers = parts[0].layers
    with _merged_warnings():
        for i, layer in enumerate(layers):
            if progress is not None:
                progress("scoring layers", i, len(layers))
            new_rows, grid = score_layer(parts, layer, k_v, controls=controls, **options)
            rows += new_rows
            grids.append(grid)
    if progress is not None:
        progress("scoring layers", len(layers), len(layers))
    return rows, grids


def _check_targets_vary(parts: Sequence[Moments]) -> None:
    """Raise if all texts have the same target."""
    n = sum(part.n_texts for part in parts)
    squares = n * torch.stack([part.Y.diagonal() for part in parts]).sum(0)
    spread = squares - torch.stack([part.q for part in parts]).sum(0) ** 2
    if not bool((spread > 1e-12 * squares).any()):
        raise ValueError(
            f"All {n} texts have the same class or target; a score needs at least two classes, or targets that vary."
        )


@contextmanager
def _merged_warnings() -> Iterator[None]:
    """Issue a numerical warning that several layers share once, with their number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NumericalWarning)
        yield
    kinds: dict[str, list[warnings.WarningMessage]] = {}
    for one in caught:
        kinds.setdefault(diagnostic_in(str(one.message)) or str(one.message), []).append(one)
    for first, *others in kinds.values():
        also = f" (The same in {len(others)} other layers.)" if others else ""
        warnings.warn(f"{first.message}{also}", first.category, stacklevel=5)


def _copied(moments: Moments) -> Moments:
    """A copy whose sums can be changed without changing those of the original."""
    return moments.merge(_zeros_like(moments, moments.C.shape[-1]))


def _zeros_like(moments: Moments, c: int) -> Moments:
    return Moments.zeros(
        moments.layers,
        moments.C.shape[-2],
        c,
        precision=moments.precision,
        source=moments.source,
        device=moments.C.device,
    )


def _widened(moments: Moments, c: int) -> Moments:
    """The same moments with room for c targets; new classes have no text yet."""
    more = c - moments.C.shape[-1]
    if more <= 0:
        return moments
    pad = torch.nn.functional.pad
    return replace(
        moments, C=pad(moments.C, (0, more)), Y=pad(moments.Y, (0, more, 0, more)), q=pad(moments.q, (0, more))
    )


def _add_rows(
    moments: Moments,
    batch: list[Tensor],
    lengths: Tensor,
    targets: Tensor,
    rows: NDArray[np.intp],
    names: Sequence[str],
) -> None:
    """Add the given rows of a batch."""
    if not len(rows):
        return
    y = torch.nn.functional.pad(targets, (0, moments.C.shape[-1] - targets.shape[1]))
    if len(rows) < len(targets):
        index = torch.as_tensor(rows)
        batch = [one[index.to(one.device)] for one in batch]
        lengths, y = lengths[index.to(lengths.device)], y[index]
    moments.update(batch, lengths, y, names=[names[row] for row in rows])


def _single_layer(X: Any, lengths: ArrayLike | None) -> tuple[Any, Tensor]:
    """Features of one layer, and the number of tokens of each text."""
    if _ndim(X) == 3:
        n, n_steps = X.shape[:2]
        valid = torch.full((n,), n_steps) if lengths is None else torch.as_tensor(np.asarray(lengths))
        if valid.shape != (n,) or valid.is_floating_point():
            raise ValueError(
                f"lengths must hold one integer for each of the {n} texts; got shape {tuple(valid.shape)}."
            )
        return X, valid.long()
    if lengths is not None:
        raise ValueError("lengths belong to a padded (n, T, d) array; a sequence of arrays has its own lengths.")
    texts = list(X) if _ndim(X) is None else None
    if not texts or any(_ndim(text) != 2 for text in texts):
        raise ValueError(
            f"X must be a sequence of (T_i, d) arrays or an (n, T, d) array; got {_description(X)}. "
            "Each text needs the features of its tokens."
        )
    return texts, torch.tensor([len(text) for text in texts])


def _all_layers(hidden_states: Any, attention_mask: Any) -> tuple[list[Any], int]:
    """Features by layer, each an (n, T, d) array or a list of (T_i, d) arrays; and the number of layers."""
    n_dimensions = _ndim(hidden_states)
    if n_dimensions == 3:
        return [hidden_states], 1
    if n_dimensions == 4:
        return list(hidden_states), len(hidden_states)
    layers = list(hidden_states) if n_dimensions is None and isinstance(hidden_states, Sequence) else []
    inner = {_ndim(one) for one in layers}
    if inner == {3}:
        if len({tuple(one.shape[:2]) for one in layers}) > 1:
            raise ValueError(f"Layers differ in shape: {sorted({tuple(one.shape) for one in layers})}.")
        return layers, len(layers)
    if inner == {2}:
        if attention_mask is not None:
            raise ValueError("An attention mask belongs to padded (n, T, d) features; these are given text by text.")
        return [layers], 1
    raise ValueError(
        "hidden_states must be a sequence of (n, T, d) arrays, one (n, T, d) array, or a sequence of (T_i, d) arrays; "
        f"got {_description(hidden_states)}."
    )


def _without_column(labels: Any) -> Any:
    """Class numbers that form a column, (n, 1), as (n,); other labels unchanged."""
    columns = isinstance(labels, (list, tuple)) and all(
        isinstance(row, (list, tuple)) and len(row) == 1 for row in labels
    )
    if columns or hasattr(labels, "to_numpy"):  # pandas
        labels = np.asarray(labels)
    if _ndim(labels) != 2 or labels.shape[1] != 1:
        return labels
    is_real = labels.is_floating_point() if isinstance(labels, Tensor) else labels.dtype.kind not in "biu"
    return labels if is_real else labels[:, 0]


def _mask(attention_mask: Any, shape: tuple[int, int]) -> Tensor:
    """Whether each position is a token."""
    given = torch.as_tensor(attention_mask)
    if given.shape != shape:
        raise ValueError(f"attention_mask has shape {tuple(given.shape)}; the batch needs {shape}.")
    hint = "An additive mask (0 for a token, a large negative number for padding) is converted by (mask == 0)."
    others = given[(given != 0) & (given != 1)]
    if len(others):
        raise ValueError(
            f"attention_mask must hold 1 for a token and 0 for padding; got the value {others[0].item()}. {hint}"
        )
    if given.is_floating_point() and not bool(given.any()):
        raise ValueError(f"attention_mask is 0.0 everywhere, so that no text has a token. {hint}")
    return given != 0


def _padded(features: Any, rows: slice) -> Tensor:
    """Rows of a layer as one right-padded tensor; a list of texts is padded here."""
    if _ndim(features) == 3:
        return torch.as_tensor(features[rows]).detach()
    texts = [torch.as_tensor(text).detach() for text in features[rows]]
    if len({text.shape[1] for text in texts}) > 1:
        raise ValueError(f"Texts differ in their number of features: {sorted({text.shape[1] for text in texts})}.")
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)


def _ndim(x: Any) -> int | None:
    return int(x.ndim) if hasattr(x, "ndim") and hasattr(x, "shape") else None


def _description(x: Any) -> str:
    if _ndim(x) is not None:
        return f"an array of shape {tuple(x.shape)}"
    items = list(x) if isinstance(x, Sequence) else []
    shapes = sorted({str(tuple(one.shape)) for one in items if _ndim(one) is not None})
    return f"a sequence with shapes {', '.join(shapes[:4])}" if shapes else type(x).__name__

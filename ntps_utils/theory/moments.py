"""Streaming second moments of token features, for several layers at once.

The moments (defined in :mod:`ntps_utils.theory.layer_moments`) are sums over texts. They can
be accumulated batch by batch and merged across processes, without storing any features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils._utils.files import atomic_path
from ntps_utils._utils.validation import check_classes
from ntps_utils.theory.layer_moments import SINGLE_TOKENS, LayerMoments, check_texts
from ntps_utils.theory.linear import Array

FORMAT = "ntps-moments-2"  # since 2, float32 products are those of shifted features

FLUSH_TOKENS = 8192  # products in float32 are summed over about so many tokens before they are added in float64
SHORT = 64  # tokens up to which prefix sums are a product with triangular matrices, which is faster than cumsum
N_MEANS = 256  # texts whose means are kept before their products are added
BLOCK = 192  # columns of a symmetric product that are computed together


def device_of_sums(device: torch.device) -> torch.device:
    """Choose the device of sums in float64 of features that are on a device.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    torch.device
        The CPU for Apple's MPS, which has no float64; otherwise the same device.

    Examples
    --------
    >>> device_of_sums(torch.device("mps"))
    device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over texts for several layers at once.

    The tensors are *sums* over texts; :meth:`layer` returns the means of one layer.
    :meth:`update` adds a batch in place.

    Attributes
    ----------
    A0, A1, S : (layers, d, d) float64
        Second moments, see :class:`ntps_utils.theory.layer_moments.LayerMoments`.
    C : (layers, d, c) float64
        Cross moment of means and targets.
    Y : (c, c) float64
        Second moment of the targets.
    s, cubic : (layers, d) float64
        Sums of ``xbar`` and of ``|xbar|^2 xbar``.
    q : (c,) float64
        Sum of the targets.
    tr_G, quartic : (layers,) float64
        Sums of ``|x_t|^2`` over t >= 2, and of ``|xbar|^4``.
    counts : (2,) int64
        Number of texts and number of tokens.
    layers : tuple of int
        Index of each layer into ``hidden_states`` (0 = embeddings).
    precision : {"float64", "float32"}
        Type in which the products of a batch are computed. Batches are added in float64.
    source : str
        Description of the features and targets. Only moments of the same source can be merged.

    Examples
    --------
    Two batches of right-padded hidden states of layers 0 and 6, with class labels 0 and 1:

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> moments = Moments.zeros([0, 6], d=4, c=2)
    >>> for _ in range(2):
    ...     hidden_states = [torch.randn(3, 5, 4, generator=generator) for _ in moments.layers]
    ...     moments.update(hidden_states, torch.tensor([5, 3, 4]), torch.eye(2)[[0, 1, 0]])
    >>> moments.n_texts, moments.n_tokens
    (6, 24)
    >>> moments.layer(6).C.shape
    (4, 2)
    """

    A0: Tensor
    A1: Tensor
    S: Tensor
    C: Tensor
    Y: Tensor
    s: Tensor
    q: Tensor
    tr_G: Tensor
    cubic: Tensor
    quartic: Tensor
    counts: Tensor
    layers: tuple[int, ...]
    precision: str = "float64"
    source: str = ""

    @classmethod
    def zeros(
        cls,
        layers: Sequence[int],
        d: int,
        c: int,
        *,
        precision: str = "float64",
        source: str = "",
        device: str | torch.device = "cpu",
    ) -> Moments:
        """Create the moments of zero texts: the neutral element of :meth:`merge`.

        Parameters
        ----------
        layers : sequence of int
            Index of each layer into ``hidden_states``.
        d : int
            Number of features.
        c : int
            Number of targets.
        precision : {"float64", "float32"}
            Type in which the products of a batch are computed.
        source : str
            Description of the features and targets.
        device : str or torch.device
            Device of the tensors.

        Returns
        -------
        Moments
            Moments whose tensors are zero.

        Raises
        ------
        ValueError
            If ``precision`` is not valid, there is no layer, feature or target, or the products of
            targets would take too much memory.
        """
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be 'float32' or 'float64', got {precision!r}.")
        if not layers or d < 1 or c < 1:
            raise ValueError(
                f"Moments need at least one layer, feature and target; got {len(layers)} layers, d = {d}, c = {c}."
            )
        check_classes(c, c, c)

        def zero(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        n = len(layers)
        return cls(
            A0=zero(n, d, d),
            A1=zero(n, d, d),
            S=zero(n, d, d),
            C=zero(n, d, c),
            Y=zero(c, c),
            s=zero(n, d),
            q=zero(c),
            tr_G=zero(n),
            cubic=zero(n, d),
            quartic=zero(n),
            counts=torch.zeros(2, dtype=torch.int64, device=device),
            layers=tuple(int(layer) for layer in layers),
            precision=precision,
            source=source,
        )

    @classmethod
    def from_texts(cls, texts: Sequence[ArrayLike], targets: ArrayLike | Sequence[Any]) -> Moments:
        """Compute the moments of token features that are given text by text, as layer 0.

        Parameters
        ----------
        texts : sequence of n arrays (T_i, d)
            Token features of each text, without padding.
        targets : (n,) class labels or (n, c) numbers
            See :func:`ntps_utils.theory.layer_moments.as_targets`.

        Returns
        -------
        Moments
            Sums in float64.

        Raises
        ------
        ValueError
            If texts and targets differ in number, or a text has the wrong shape, no tokens,
            or features that are NaN, infinite or too large to square. The error names the text.

        See Also
        --------
        ntps_utils.theory.layer_moments.LayerMoments.from_texts : The same without torch.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> texts = [rng.normal(size=(length, 4)) for length in (3, 5, 2)]
        >>> moments = Moments.from_texts(texts, ["spam", "mail", "spam"])
        >>> moments.n_texts, moments.n_tokens
        (3, 10)
        """
        arrays, y = check_texts(texts, targets)
        lengths = torch.tensor([len(x) for x in arrays])
        padded = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(x) for x in arrays], batch_first=True)
        moments = cls.zeros([0], padded.shape[-1], y.shape[-1])
        moments.update([padded], lengths, torch.as_tensor(y), names=[f"text {i}" for i in range(len(arrays))])
        return moments

    @property
    def n_texts(self) -> int:
        """Number of texts added."""
        return int(self.counts[0])

    @property
    def n_tokens(self) -> int:
        """Number of tokens added, without padding."""
        return int(self.counts[1])

    def update(
        self,
        hidden_states: Sequence[Tensor],
        lengths: Tensor,
        targets: Tensor,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add a batch of right-padded texts.

        Parameters
        ----------
        hidden_states : sequence of (batch, T, d) tensors
            Token features of each layer, in the order of ``layers``.
        lengths : (batch,) int tensor
            Number of tokens of each text, at least 1. Values in the padding are ignored.
        targets : (batch, c) tensor
            One-hot classes or real-valued targets.
        names : sequence of str, optional
            Name of each text in error messages. By default its index in the batch.

        Raises
        ------
        ValueError
            If shapes do not match, a text has no tokens, a target is not finite, or a
            feature is NaN, infinite, or so large that its square overflows. The error names
            the layer and the text. The moments do not change.
        """
        if len(hidden_states) != len(self.layers):
            raise ValueError(f"Expected hidden states of {len(self.layers)} layers, got {len(hidden_states)}.")
        if len(lengths) == 0:
            raise ValueError("The batch contains no texts.")
        device = self.A0.device
        names = batch_names(len(lengths)) if names is None else names
        lengths = lengths.to(device)
        if int(lengths.min()) < 1:
            raise ValueError(f"There are no tokens in {names[int(lengths.argmin())]}. Remove empty texts.")

        n_texts, n_steps, d = hidden_states[0].shape
        y = targets.to(device=device, dtype=torch.float64)
        if any(h.shape != hidden_states[0].shape for h in hidden_states):
            shapes = sorted({tuple(h.shape) for h in hidden_states})
            raise ValueError(f"Layers differ in shape: {shapes}. All hidden states need the same shape.")
        if d != self.A0.shape[-1] or y.shape != (n_texts, self.Y.shape[0]) or lengths.shape != (n_texts,):
            raise ValueError(
                f"The shapes of the batch do not match: hidden states {(n_texts, n_steps, d)}, lengths "
                f"{tuple(lengths.shape)}, targets {tuple(y.shape)}. Expected {self.A0.shape[-1]} features, "
                f"{self.Y.shape[0]} targets, and the same number of texts in all three."
            )
        if int(lengths.max()) > n_steps:
            raise ValueError(
                f"The length of {names[int(lengths.argmax())]} is {int(lengths.max())} tokens, but the hidden states "
                f"have {n_steps} positions."
            )
        check_targets(y, names)
        for layer, hidden in zip(self.layers, hidden_states, strict=True):
            check_features(hidden, lengths, self.precision, names, layer)
        accumulator = Accumulator(self)
        accumulator.add(hidden_states, lengths, y)
        accumulator.flush()

    def merge(self, other: Moments) -> Moments:
        """Add the moments of other texts. The operation is associative and commutative.

        Parameters
        ----------
        other : Moments
            Moments of other texts, with the same source, layers, precision and shape.

        Returns
        -------
        Moments
            Moments of both sets of texts, in new tensors.

        Raises
        ------
        ValueError
            If the two differ in source, layers, precision or shape.

        Examples
        --------
        >>> import numpy as np
        >>> texts, y = [np.eye(3)] * 6, np.eye(2)[[0, 1, 0, 1, 0, 1]]
        >>> halves = [Moments.from_texts(texts[:3], y[:3]), Moments.from_texts(texts[3:], y[3:])]
        >>> halves[0].merge(halves[1]).n_texts
        6
        """
        for attribute in ("source", "layers", "precision"):
            own, others = getattr(self, attribute), getattr(other, attribute)
            if own != others:
                raise ValueError(f"Cannot merge moments of different {attribute}: {own!r} and {others!r}.")
        if self.C.shape != other.C.shape:
            raise ValueError(
                "Cannot merge moments of different shape: (layers, features, targets) = "
                f"{tuple(self.C.shape)} and {tuple(other.C.shape)}."
            )
        return replace(
            self, **{name: getattr(self, name) + getattr(other, name).to(self.A0.device) for name in TENSORS}
        )

    def concat_layers(self, other: Moments) -> Moments:
        """Concatenate the moments of the same texts at other layers.

        Parameters
        ----------
        other : Moments
            Moments of the same texts and targets, at layers that this object does not contain.

        Returns
        -------
        Moments
            Moments at the layers of both, those of ``self`` first.

        Raises
        ------
        ValueError
            If a layer occurs in both, or the numbers of texts or tokens differ.
        """
        repeated = sorted(set(self.layers) & set(other.layers))
        if repeated:
            raise ValueError(f"Cannot concatenate layers: both moments contain layers {repeated}.")
        if not torch.equal(self.counts, other.counts):
            raise ValueError(
                "Cannot concatenate layers of different texts: "
                f"{self.n_texts} texts ({self.n_tokens} tokens) and {other.n_texts} texts ({other.n_tokens} tokens)."
            )
        joined = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in LAYER_TENSORS}
        return replace(self, layers=(*self.layers, *other.layers), **joined)  # type: ignore[arg-type]

    def select_layer(self, layer: int) -> Moments:
        """Select one layer, without copying the tensors.

        Parameters
        ----------
        layer : int
            Index into ``hidden_states``, one of ``layers``.

        Returns
        -------
        Moments
            Moments of that layer alone; the tensors are views.

        Raises
        ------
        ValueError
            If the moments do not contain that layer.
        """
        if layer not in self.layers:
            raise ValueError(f"There are no moments of layer {layer}; choose from layers {list(self.layers)}.")
        i = self.layers.index(layer)
        return replace(self, layers=(layer,), **{name: getattr(self, name)[i : i + 1] for name in LAYER_TENSORS})

    def layer(self, layer: int) -> LayerMoments:
        """Compute the means over texts for one layer.

        Parameters
        ----------
        layer : int
            Index into ``hidden_states``, one of ``layers``.

        Returns
        -------
        LayerMoments
            Means over texts as numpy arrays.

        Raises
        ------
        ValueError
            If the moments do not contain that layer, no text was added, or every text has a
            single token.
        """
        one = self.select_layer(layer)
        if self.n_texts == 0:
            raise ValueError("These moments contain no texts. Add a batch with update first.")
        if self.n_tokens == self.n_texts:
            raise ValueError(SINGLE_TOKENS)
        n = self.n_texts

        def mean(x: Tensor) -> Array:
            return (x.cpu() / n).numpy()

        return LayerMoments(
            A0=mean(one.A0[0]),
            A1=mean(one.A1[0]),
            S=mean(one.S[0]),
            C=mean(one.C[0]),
            Y=mean(self.Y),
            s=mean(one.s[0]),
            q=mean(self.q),
            tr_G=float(one.tr_G[0]) / n,
            cubic=mean(one.cubic[0]),
            quartic=float(one.quartic[0]) / n,
            n_texts=n,
            n_tokens=self.n_tokens,
            precision=self.precision,
        )

    def save(self, path: str | Path) -> None:
        """Write the moments to a safetensors file.

        The file is replaced atomically: an interrupted call leaves no partial file.

        Parameters
        ----------
        path : str or Path
            File to write.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "layers": json.dumps(self.layers),
            "precision": self.precision,
            "source": self.source,
        }
        with atomic_path(path) as temporary:
            save_file({name: getattr(self, name).cpu().contiguous() for name in TENSORS}, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read moments that :meth:`save` wrote.

        Parameters
        ----------
        path : str or Path
            File to read.

        Returns
        -------
        Moments
            Moments on the CPU.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If the file is incomplete or not a moments file of this format.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no moments file at {path}.")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(
                        f"{path} is not a moments file of format {FORMAT}: its format is {metadata.get('format')!r}. "
                        "Extract the moments again."
                    )
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged or not a safetensors file ({error}). Extract the moments again."
            ) from None
        layers = tuple(json.loads(metadata["layers"]))
        return cls(**tensors, layers=layers, precision=metadata["precision"], source=metadata["source"])


TENSORS = tuple(f.name for f in fields(Moments) if f.name not in ("layers", "precision", "source"))
LAYER_TENSORS = tuple(name for name in TENSORS if name not in ("Y", "q", "counts"))


class Accumulator:
    """Adds batches of right-padded texts to moments, one layer at a time.

    Products are computed in the precision of the moments. In float32, features are first shifted
    by a mean, the first token of a text by its own: language models give the first token, and some
    features of every token, a large constant that would take most of the digits. The products of
    several batches are summed in float32; :meth:`flush` undoes the shift and adds them in float64.
    Of a symmetric product, the upper triangle is computed, and :meth:`flush` copies it. Means of texts are
    collected, because the product of many costs less than many products.

    Parameters
    ----------
    moments : Moments
        Changed in place, and complete after :meth:`flush`.

    Notes
    -----
    With x_1 = x_1' + m + f and x_t = x_t' + m for t > 1, and with p_t' the prefix sums of the x_t',
    p_t = p_t' + t m + f. So A0 and A1 follow from the products of p' and x', from the sums of
    P', t P', x' and t x', and from m and f.

    Examples
    --------
    >>> moments = Moments.zeros([0], d=2, c=1, precision="float32")
    >>> accumulator = Accumulator(moments)
    >>> accumulator.add([torch.ones(1, 3, 2)], torch.tensor([3]), torch.ones(1, 1))
    >>> accumulator.flush()
    >>> moments.A0[0]
    tensor([[5., 5.],
            [5., 5.]], dtype=torch.float64)
    """

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self._products: dict[int, _Products] = {}
        self._batch: _Batch | None = None
        # Products and means are reserved at once. Small blocks that stay between those of a forward pass
        # fragment the heap, and the pass then asks the system for memory again and again.
        self._memory: tuple[Tensor, Tensor] | None = None
        self._rows = torch.empty(2, 0, 0)  # shifted features and prefix sums of a layer

    def add(self, hidden_states: Sequence[Tensor], lengths: Tensor, targets: Tensor) -> None:
        """Add a batch at all layers.

        Parameters
        ----------
        hidden_states : sequence of (batch, T, d) tensors
            Token features of each layer, in the order of the moments' layers.
        lengths : (batch,) int tensor
        targets : (batch, c) float64 tensor
        """
        self.start(lengths, targets)
        for place, hidden in enumerate(hidden_states):
            self.add_layer(place, hidden)
        self.finish()

    @torch.inference_mode(False)
    def start(self, lengths: Tensor, targets: Tensor, names: Sequence[str] | None = None) -> None:
        """Begin a batch; then call :meth:`add_layer` once for each layer, and :meth:`finish`.

        Parameters
        ----------
        lengths : (batch,) int tensor
        targets : (batch, c) float64 tensor
        names : sequence of str, optional
            Name of each text in error messages. By default its index in the batch.
        """
        device = self.moments.A0.device
        names = batch_names(len(lengths)) if names is None else names
        self._batch = _Batch(lengths.to(device), targets.to(device, torch.float64), names)
        if self._memory is None:
            n_layers, d, _ = self.moments.A0.shape
            n_products = 0 if self.moments.precision == "float64" else 2
            self._memory = (
                torch.empty(n_layers, n_products, d, d, dtype=torch.float32, device=device),
                torch.empty(n_layers, N_MEANS, d, dtype=torch.float64, device=device),
            )

    @torch.inference_mode(False)
    @torch.no_grad()
    def add_layer(self, place: int, hidden: Tensor) -> Tensor:
        """Add the features of one layer of the batch.

        Parameters
        ----------
        place : int
            Index into the moments' layers.
        hidden : (batch, T, d) tensor
            Its values in the padding are ignored.

        Returns
        -------
        (batch, d) float64 tensor
            Means of the texts. Later batches use its memory again; copy what you keep.

        Raises
        ------
        ValueError
            If a feature is NaN, infinite, or so large that a moment could overflow. The error names
            the layer and the text.
        """
        batch, moments = self._batch, self.moments
        assert batch is not None
        hidden = hidden.to(moments.A0.device)
        products = self._products.get(place)
        if products is None:
            products = self._products[place] = self._start(place, hidden, batch)
        if batch.x.shape != hidden.shape:
            n_texts, n_steps, d = hidden.shape
            if self._rows.shape[1] < n_texts * n_steps:
                dtype = products.mean.dtype
                self._rows = torch.empty(2, 2 * n_texts * n_steps, d, dtype=dtype, device=hidden.device)
            batch.prepare(n_steps, self._rows[:, : n_texts * n_steps])
        largest = products.shift(hidden, batch)
        if not largest <= feature_limit(hidden.shape, moments.precision):  # may be NaN
            check_features(hidden, batch.lengths, moments.precision, batch.names, moments.layers[place])
        xbar = products.add(batch)
        moments.C[place].addmm_(xbar.mT, batch.targets)
        if products.n_tokens >= FLUSH_TOKENS:
            products.drain()
        return xbar

    def finish(self) -> None:
        """End a batch: add its targets and its numbers of texts and tokens."""
        batch, moments = self._batch, self.moments
        assert batch is not None
        moments.Y.addmm_(batch.targets.mT, batch.targets)
        moments.q.add_(batch.targets.sum(0))
        moments.counts.add_(torch.stack([torch.full_like(batch.lengths[0], len(batch.lengths)), batch.lengths.sum()]))
        self._batch = None

    def flush(self) -> None:
        """Complete the moments."""
        for products in self._products.values():
            products.flush()

    def _start(self, place: int, hidden: Tensor, batch: _Batch) -> _Products:
        """Begin the products of a layer. The first batch determines the shift; float64 needs none."""
        moments = self.moments
        assert self._memory is not None
        memory = self._memory[0][place], self._memory[1][place]
        sums = moments.select_layer(moments.layers[place])
        if moments.precision == "float64":
            zero = torch.zeros_like(moments.s[place])
            return _Products(sums, *memory, zero, zero)
        first = hidden[:, 0].double().mean(0)
        steps = torch.arange(hidden.shape[1], device=hidden.device)
        inner = (steps > 0) & (steps < batch.lengths[:, None])
        mean = hidden[inner].double().mean(0) if bool(inner.any()) else first
        return _Products(sums, *memory, mean.float(), first.float())


class _Batch:
    """Lengths and targets of a batch, and what follows from them for every layer."""

    def __init__(self, lengths: Tensor, targets: Tensor, names: Sequence[str]) -> None:
        self.lengths, self.targets, self.names = lengths, targets, names
        self.n_tokens = lengths.double()[:, None]
        n = self.n_tokens
        # Sums over the pairs (text, t < T) of 1, t and t^2.
        self.pairs = torch.stack([n - 1, n * (n - 1) / 2, (n - 1) * n * (2 * n - 1) / 6]).sum((1, 2))
        self.x = self.P = self.weights = torch.empty(0)
        self.prefix: Tensor | None = None

    def prepare(self, n_steps: int, rows: Tensor) -> None:
        """Compute weights and rows; all layers have the same shape.

        ``x`` and ``P``, (texts, T, d), hold shifted features and prefix sums. ``weights``, (texts, 5, T), are
        those of the features in the sums of x_t over all t, of P_t and t P_t over t < T, and of x_t and
        (t - 1) x_t over t > 1. ``prefix`` are those in P_t for t < T, and zero for other t; for long texts, a
        cumulative sum is faster. ``padding`` and ``no_next`` are the rows of the padding, and those without a
        next token, in a (texts * T, d) matrix.
        """
        n, device = self.lengths, self.lengths.device
        self.x, self.P = rows.view(2, len(n), n_steps, -1)
        before = torch.arange(n_steps, device=device).expand(len(n), -1)  # t - 1
        after = n[:, None] - 1 - before
        inside, inner = (after >= 0).long(), (before > 0).long()
        weights = torch.stack([inside, after, after * (n[:, None] + before) // 2, inner, before], 1)
        self.weights = (weights * inside[:, None]).to(rows.dtype)
        self.padding = (after < 0).flatten().nonzero()[:, 0]
        self.no_next = (after < 1).flatten().nonzero()[:, 0]
        if n_steps <= SHORT:
            self.prefix = ((after > 0)[:, :, None] & (before[:, :, None] >= before[:, None])).to(rows.dtype)


class _Products:
    """Products of the features of one layer, summed over batches.

    The matrices of the moments are changed only by :meth:`drain` and :meth:`drain_means`, because reading and
    writing them takes longer than the products of a small batch. Of A0 and S, only the upper triangle is
    complete before :meth:`flush`.
    """

    def __init__(self, sums: Moments, products: Tensor, means: Tensor, mean: Tensor, first: Tensor) -> None:
        d, device = len(mean), mean.device
        self.A0, self.A1, self.sums = sums.A0[0], sums.A1[0], sums
        self.means, self.n_means = means, 0  # of texts that are not in the sums yet
        # The first token is shifted in one subtraction: of nearly equal numbers, it is exact.
        self.mean, self.first = mean, first
        self.origin, self.offset = mean.double(), first.double() - mean.double()
        self.norms = torch.empty(0)  # of the shifted features of the batch
        self.largest = float(torch.stack([mean, first]).abs().max())
        self.shifted = mean.dtype == torch.float32
        self.sum_A0, self.sum_A1 = (products[0], products[1]) if self.shifted else (self.A0, self.A1)
        self.weighted = torch.zeros(4, d, dtype=torch.float64, device=device)
        self.pairs = torch.zeros(3, dtype=torch.float64, device=device)
        self.n_tokens = 0

    def shift(self, hidden: Tensor, batch: _Batch) -> float:
        """Write the shifted features of a batch to ``batch.x``, and bound the magnitude of its features."""
        hidden = hidden.to(self.mean.dtype)
        torch.sub(hidden, self.mean, out=batch.x)
        torch.sub(hidden[:, 0], self.first, out=batch.x[:, 0])
        batch.x.view(-1, hidden.shape[-1])[batch.padding] = 0.0
        self.norms = torch.linalg.vector_norm(batch.x, dim=-1)
        return float(self.norms.max()) + self.largest

    def add(self, batch: _Batch) -> Tensor:
        """Add the features that :meth:`shift` has written, and return the means of the texts, (texts, d) float64."""
        x, P = batch.x, batch.P
        n_texts, n_steps, d = x.shape
        rows, prefixes = x.view(-1, d), P.view(-1, d)
        if batch.prefix is not None:
            torch.bmm(batch.prefix, x, out=P)
        else:
            torch.cumsum(x, 1, out=P)
            prefixes[batch.no_next] = 0.0  # also separates the texts in the product below
        beta = float(not self.shifted or self.n_tokens > 0)  # the sums in float32 begin with this batch
        _add_square(self.sum_A0, prefixes, beta)
        self.sum_A1.addmm_(prefixes[:-1].mT, rows[1:], beta=beta)
        weighted = torch.bmm(batch.weights, x)
        if self.shifted:
            self.weighted.add_(weighted[:, 1:].sum(0))
            self.pairs += batch.pairs
        self.sums.tr_G.add_(self.norms[:, 1:].double().square().sum())
        self.n_tokens += n_texts * n_steps
        if self.n_means + n_texts > len(self.means):
            self.drain_means()
            if n_texts > len(self.means):
                self.means = torch.empty(n_texts, d, dtype=torch.float64, device=x.device)
        means = self.means[self.n_means : self.n_means + n_texts]
        self.n_means += n_texts
        return torch.addcdiv(self.origin, weighted[:, 0] + self.offset, batch.n_tokens, out=means)

    def drain(self) -> None:
        """Add the float32 products in float64, and start them again."""
        if self.shifted and self.n_tokens:
            self.A0.add_(self.sum_A0)
            self.A1.add_(self.sum_A1)
        self.n_tokens = 0

    def drain_means(self) -> None:
        """Add the products of the means."""
        means = self.means[: self.n_means]
        square = means.square().sum(-1)
        _add_square(self.sums.S[0], means)
        self.sums.s.add_(means.sum(0))
        self.sums.cubic.add_(square @ means)
        self.sums.quartic.add_(square.square().sum())
        self.n_means = 0

    def flush(self) -> None:
        """Undo the shift, and complete A0 and S."""
        self.drain()
        self.drain_means()
        if self.shifted:
            m, f = self.origin, self.offset
            sum_P, sum_tP, sum_x, sum_tx = self.weighted
            n, n_t, n_tt = self.pairs
            left = torch.stack([sum_tP + n_tt / 2 * m + n_t * f, sum_P + n / 2 * f, m, f])
            self.A0.addmm_(left.mT, left[[2, 3, 0, 1]])
            left = torch.stack([sum_P + n_t * m + n * f, m, f])
            self.A1.addmm_(left.mT, torch.stack([m, sum_tx, sum_x]))
            self.sums.tr_G.add_(2 * m @ sum_x + n * m @ m)
            self.weighted.zero_()
            self.pairs.zero_()
        _complete(self.A0)
        _complete(self.sums.S[0])


def _add_square(total: Tensor, x: Tensor, beta: float = 1.0) -> None:
    """Add ``x^T x`` to the upper triangle of ``beta`` times the total; other entries may not be complete."""
    for start in range(0, len(total), BLOCK):
        block = slice(start, start + BLOCK)
        total[block, start:].addmm_(x[:, block].mT, x[:, start:], beta=beta)


def _complete(total: Tensor) -> None:
    """Copy the upper triangle of a symmetric matrix to the lower one."""
    for start in range(0, len(total), BLOCK):
        end = start + BLOCK
        upper = total[start:end, start:end].triu()
        total[start:end, start:end] = upper + upper.triu(1).mT
        total[end:, start:end] = total[start:end, end:].mT


def batch_names(n: int) -> list[str]:
    """Return the names of the texts of a batch in error messages, if none are given.

    Parameters
    ----------
    n : int
        Number of texts.

    Returns
    -------
    list of str

    Examples
    --------
    >>> batch_names(2)
    ['text 0 of the batch', 'text 1 of the batch']
    """
    return [f"text {i} of the batch" for i in range(n)]


def feature_limit(shape: Sequence[int], precision: str) -> float:
    """Return the largest magnitude of a feature with which no moment of a batch can overflow.

    Parameters
    ----------
    shape : (batch, T, d)
        Shape of the features.
    precision : {"float64", "float32"}
        Type in which the products are computed.

    Returns
    -------
    float

    Examples
    --------
    >>> f"{feature_limit((16, 64, 576), 'float32'):.0e}"
    '9e+15'
    """
    n_texts, n_steps, d = shape
    largest = torch.finfo(torch.float64 if precision == "float64" else torch.float32).max
    # |p_t| <= T max|x| bounds A0, and |xbar|^2 <= d max|x|^2 the quartic moment, which is a sum in float64.
    return min((largest / (n_texts * n_steps)) ** 0.5 / n_steps, (torch.finfo(torch.float64).max / n_texts) ** 0.25 / d)


def check_targets(targets: Tensor, names: Sequence[str]) -> None:
    """Raise if a target is NaN or infinite.

    Parameters
    ----------
    targets : (batch, c) tensor
    names : sequence of str
        Name of each text in the message.

    Raises
    ------
    ValueError
        Naming the text.
    """
    invalid = (~torch.isfinite(targets)).any(1).nonzero()
    if len(invalid):
        raise ValueError(f"The target of {names[int(invalid[0])]} is NaN or infinite.")


def check_features(hidden: Tensor, lengths: Tensor, precision: str, names: Sequence[str], layer: int) -> None:
    """Raise if a feature is NaN, infinite, or so large that a moment could overflow.

    Parameters
    ----------
    hidden : (batch, T, d) tensor
        Features of a right-padded batch; values in the padding are ignored.
    lengths : (batch,) int tensor
    precision : {"float64", "float32"}
        Type in which the products are computed.
    names : sequence of str
        Name of each text in the message.
    layer : int
        Index of the layer in the message.

    Raises
    ------
    ValueError
        Naming the layer and the text.
    """
    limit = feature_limit(hidden.shape, precision)
    low, high = hidden.aminmax()
    if float(low) >= -limit and float(high) <= limit:  # as numbers: in float16, the limit would become infinite
        return
    steps = torch.arange(hidden.shape[1], device=hidden.device)
    inside = (steps < lengths.to(hidden.device)[:, None])[:, :, None]
    largest = torch.where(inside, hidden.abs(), 0.0).amax((1, 2))
    row = int(largest.nan_to_num(nan=torch.inf, posinf=torch.inf).argmax())
    size = float(largest[row])
    if not size <= limit:
        what = f"too large to square in {precision} (largest magnitude {size:.3g})"
        if not math.isfinite(size):
            what = f"not finite ({'NaN' if math.isnan(size) else 'infinite'})"
        message = (
            f"Layer {layer} has features on {names[row]} that are {what}. Use a wider dtype, or check the weights."
        )
        raise ValueError(with_reference("overflow", message))

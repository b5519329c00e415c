"""Streaming second moments of token features, for several layers at once.

The moments (defined in :mod:`ntps_utils.theory.layer_moments`) are sums over texts. They can
be accumulated batch by batch and merged across processes, without storing any features.
"""

from __future__ import annotations

import json
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
from ntps_utils.theory.layer_moments import SINGLE_TOKENS, LayerMoments, check_texts
from ntps_utils.theory.linear import Array

FORMAT = "ntps-moments-1"

WORKSPACE_CPU = 32 * 2**20  # bytes of features that update processes at once
WORKSPACE_GPU = 2 * 2**30


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
            If ``precision`` is not valid, or there is no layer, feature or target.
        """
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be 'float32' or 'float64', got {precision!r}.")
        if not layers or d < 1 or c < 1:
            raise ValueError(
                f"Moments need at least one layer, feature and target; got {len(layers)} layers, d = {d}, c = {c}."
            )

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
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        names = names if names is not None else [f"text {i} of the batch" for i in range(len(lengths))]
        lengths = lengths.to(device)
        if int(lengths.min()) < 1:
            raise ValueError(f"There are no tokens in {names[int(lengths.argmin())]}. Remove empty texts.")

        n_texts, n_steps, d = hidden_states[0].shape
        y = targets.to(device=device, dtype=dtype)
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
        if not torch.isfinite(y).all():
            row = int((~torch.isfinite(y)).any(1).nonzero()[0])
            raise ValueError(f"The target of {names[row]} is NaN or infinite.")

        # Process as many layers at once as the workspace allows: all of them on a GPU, a few in the cache of a CPU.
        budget = WORKSPACE_CPU if device.type == "cpu" else WORKSPACE_GPU
        chunk = max(1, budget // (n_texts * n_steps * d * dtype.itemsize))
        chunks = []
        for first in range(0, len(hidden_states), chunk):
            X = torch.stack([h.to(device=device, dtype=dtype) for h in hidden_states[first : first + chunk]])
            sums = _sums(X, lengths, y)
            # NaN and infinity persist in every sum, and no entry of a product exceeds what its diagonal allows
            # (Cauchy-Schwarz), so checking these small totals suffices. Search for the text only after a failure.
            totals = (sums["A0"].diagonal(dim1=1, dim2=2), sums["tr_G"], sums["quartic"])
            if not all(torch.isfinite(total).all() for total in totals):
                largest = X.abs().amax((2, 3)).nan_to_num(nan=torch.inf, posinf=torch.inf)
                layer, row = divmod(int(largest.argmax()), n_texts)
                message = (
                    f"Layer {self.layers[first + layer]} has features on {names[row]} that are NaN, infinite, or too "
                    f"large to square in {self.precision} (largest magnitude {float(largest[layer, row]):.3g}). Use a "
                    "wider dtype, or check the weights."
                )
                raise ValueError(with_reference("overflow", message))
            chunks.append((first, sums))
        for first, sums in chunks:
            for name, value in sums.items():
                getattr(self, name)[first : first + len(value)].add_(value)
        self.Y.add_(y.mT @ y)
        self.q.add_(y.sum(0))
        self.counts.add_(torch.stack([torch.tensor(n_texts, device=device), lengths.sum()]))

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


def _sums(X: Tensor, lengths: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Sum over a right-padded batch, for several layers in batched matrix products.

    X has shape (layers, texts, T, d), and its padding is overwritten with zeros; y has shape (texts, c).
    """
    steps = torch.arange(X.shape[2], device=X.device)
    X.masked_fill_(~(steps < lengths[:, None])[None, :, :, None], 0.0)
    P = X.cumsum(2)
    xbar = P[:, :, -1] / lengths[None, :, None]
    # Gather the pairs (text, t) that have a next token, so that no products are computed on padding.
    text, t = (steps < lengths[:, None] - 1).nonzero(as_tuple=True)
    rows = text * X.shape[2] + t
    past = P.flatten(1, 2).index_select(1, rows)
    following = X.flatten(1, 2).index_select(1, rows + 1)
    square = xbar.square().sum(-1)
    return {
        "A0": past.mT @ past,
        "A1": past.mT @ following,
        "S": xbar.mT @ xbar,
        "C": xbar.mT @ y,
        "s": xbar.sum(1),
        "tr_G": torch.einsum("lnd,lnd->l", following, following),
        "cubic": (square[..., None] * xbar).sum(1),
        "quartic": square.square().sum(1),
    }

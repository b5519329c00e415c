"""Second moments of token features: everything that the score needs of a dataset.

For a text with token features x_1 ... x_T (rows, R^d), prefix sums
P_t = x_1 + ... + x_t, mean xbar = P_T / T and target y in R^c, and with E the mean
over texts (theory: notation):

    A0 = E sum_{t<T} P_t P_t^T      A1 = E sum_{t<T} P_t x_{t+1}^T
    S  = E xbar xbar^T              C  = E xbar y^T              Y = E y y^T

All are sums over texts. They stream, merge across shards and machines, and no
feature has to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ntps_utils._utils.diagnostics import with_reference
from ntps_utils._utils.files import atomic_path
from ntps_utils.theory.layer_moments import LayerMoments
from ntps_utils.theory.linear import Array

FORMAT = "ntps-moments-1"


WORKSPACE_CPU = 32 * 2**20  # bytes of features that update works on at once
WORKSPACE_GPU = 2 * 2**30


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over texts for all layers at once; add batches, merge, save, load.

    The tensors hold *sums*; :meth:`layer` gives the means of one layer. They are
    updated in place by :meth:`update`.

    Attributes
    ----------
    A0, A1, S : (layers, d, d) float64
    C : (layers, d, c) float64
    Y : (c, c) float64
    s, cubic : (layers, d) float64
    q : (c,) float64
    tr_G, quartic : (layers,) float64
    counts : (2,) int64
        Texts and tokens.
    layers : tuple of int
        Index of each layer into ``hidden_states`` (0 = embeddings).
    precision : {"float64", "float32"}
        Type in which the products of a batch are formed; batches add up in float64.
    source : str
        What the features and targets are, in words. Only moments of one source merge.
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
        """Moments of no text: the neutral element of :meth:`merge`."""
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be 'float32' or 'float64', got {precision!r}.")
        if not layers or d < 1 or c < 1:
            raise ValueError(f"Moments need at least one layer, feature and target; got {len(layers)}, {d}, {c}.")

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
    def from_texts(cls, texts: Sequence[Array], targets: Array) -> Moments:
        """Moments of token features given text by text, as a single layer 0.

        Parameters
        ----------
        texts : sequence of (T_i, d) arrays
        targets : (n, c) array
        """
        if len(texts) == 0 or len(texts) != len(targets):
            raise ValueError(f"Give one row of targets for each text; got {len(texts)} texts, {len(targets)} targets.")
        lengths = torch.tensor([len(text) for text in texts])
        padded = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(np.asarray(t)) for t in texts], batch_first=True)
        y = torch.as_tensor(np.asarray(targets, dtype=np.float64))
        moments = cls.zeros([0], padded.shape[-1], y.shape[-1])
        moments.update([padded], lengths, y)
        return moments

    @property
    def n_texts(self) -> int:
        """Number of texts seen."""
        return int(self.counts[0])

    @property
    def n_tokens(self) -> int:
        """Number of valid tokens seen."""
        return int(self.counts[1])

    def update(
        self,
        hidden_states: Sequence[Tensor],
        lengths: Tensor,
        targets: Tensor,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add a batch of right-padded texts, all layers in batched matrix products.

        Parameters
        ----------
        hidden_states : sequence of (batch, T, d) tensors
            One for each of ``self.layers``, in that order.
        lengths : (batch,) int
            Valid tokens of each text, at least 1; what stands after them is ignored.
        targets : (batch, c)
        names : sequence of str, optional
            What to call each text in an error; by default its place in the batch.

        Raises
        ------
        ValueError
            On wrong shapes, an empty text, or a feature that is NaN, infinite, or so
            large that its square overflows; the layer and the text are named. Nothing
            has been added then.
        """
        if len(hidden_states) != len(self.layers):
            raise ValueError(f"Expected {len(self.layers)} layers of hidden states, got {len(hidden_states)}.")
        device = self.A0.device
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        names = names if names is not None else [f"text {i} of the batch" for i in range(len(lengths))]
        lengths = lengths.to(device)
        if int(lengths.min()) < 1:
            raise ValueError(f"{names[int(lengths.argmin())]} has no token; leave empty texts out.")

        n_texts, n_steps, d = hidden_states[0].shape
        y = targets.to(device=device, dtype=dtype)
        if any(h.shape != hidden_states[0].shape for h in hidden_states):
            raise ValueError(f"Layers differ in shape: {sorted({tuple(h.shape) for h in hidden_states})}.")
        if d != self.A0.shape[-1] or y.shape != (n_texts, self.Y.shape[0]) or lengths.shape != (n_texts,):
            raise ValueError(
                f"Batch does not fit: features {(n_texts, n_steps, d)}, lengths {tuple(lengths.shape)}, targets "
                f"{tuple(y.shape)}; expected {self.A0.shape[-1]} features and {self.Y.shape[0]} targets."
            )
        if int(lengths.max()) > n_steps:
            raise ValueError(f"A text of {int(lengths.max())} tokens does not fit {n_steps} positions.")
        if not torch.isfinite(y).all():
            bad = int((~torch.isfinite(y)).any(1).nonzero()[0])
            raise ValueError(f"The target of {names[bad]} is NaN or infinite.")

        # As many layers at once as the workspace holds: all of them on a GPU, a few in a CPU's cache.
        budget = WORKSPACE_CPU if device.type == "cpu" else WORKSPACE_GPU
        chunk = max(1, budget // (n_texts * n_steps * d * dtype.itemsize))
        gathered = []
        for first in range(0, len(hidden_states), chunk):
            X = torch.stack([h.to(device=device, dtype=dtype) for h in hidden_states[first : first + chunk]])
            sums = _sums(X, lengths, y)
            # NaN and infinity survive every sum, and no entry of a product exceeds what its diagonals allow (Cauchy
            # and Schwarz), so these small totals tell; only then look for the culprit.
            telling = (sums["A0"].diagonal(dim1=1, dim2=2), sums["tr_G"], sums["quartic"])
            if not all(torch.isfinite(total).all() for total in telling):
                worst = X.abs().amax((2, 3)).nan_to_num(nan=torch.inf, posinf=torch.inf)
                layer, row = divmod(int(worst.argmax()), n_texts)
                said = (
                    f"Layer {self.layers[first + layer]} has features on {names[row]} that are NaN, infinite, or too "
                    f"large to square in {self.precision} (largest magnitude {float(worst[layer, row]):.3g}). Use a "
                    "wider dtype, or check the weights."
                )
                raise ValueError(with_reference("overflow", said))
            gathered.append((first, sums))
        for first, sums in gathered:
            for name, value in sums.items():
                getattr(self, name)[first : first + len(value)].add_(value)
        self.Y.add_(y.mT @ y)
        self.q.add_(y.sum(0))
        self.counts.add_(torch.stack([torch.tensor(n_texts, device=device), lengths.sum()]))

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of texts together. Associative and commutative.

        The tensors of the result are new.

        Raises
        ------
        ValueError
            If the two are not of the same source, layers, shape and precision.
        """
        for what in ("source", "layers", "precision"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise ValueError(f"Moments of different {what} do not merge: {mine!r} and {theirs!r}.")
        if self.C.shape != other.C.shape:
            raise ValueError(
                "Moments of different shape do not merge: (layers, features, targets) = "
                f"{tuple(self.C.shape)} and {tuple(other.C.shape)}."
            )
        return replace(
            self, **{name: getattr(self, name) + getattr(other, name).to(self.A0.device) for name in TENSORS}
        )

    def concat_layers(self, other: Moments) -> Moments:
        """Moments of the same texts at these layers and at other ones.

        Raises
        ------
        ValueError
            If the two share a layer or do not hold the same number of texts and tokens.
        """
        if set(self.layers) & set(other.layers) or not torch.equal(self.counts, other.counts):
            raise ValueError("Only moments of the same texts at different layers stand beside each other.")
        joined = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in LAYER_TENSORS}
        return replace(self, layers=(*self.layers, *other.layers), **joined)  # type: ignore[arg-type]

    def select_layer(self, layer: int) -> Moments:
        """The moments of one layer, as views of these."""
        if layer not in self.layers:
            raise ValueError(f"Layer {layer} was not extracted; there are layers {list(self.layers)}.")
        i = self.layers.index(layer)
        return replace(self, layers=(layer,), **{name: getattr(self, name)[i : i + 1] for name in LAYER_TENSORS})

    def layer(self, layer: int) -> LayerMoments:
        """Means over texts for one layer (by its index into ``hidden_states``)."""
        one = self.select_layer(layer)
        if self.n_texts == 0:
            raise ValueError("These moments hold no text yet.")
        if self.n_tokens == self.n_texts:
            raise ValueError("Every text has a single token, so there is no next token to predict.")
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
        """Write as safetensors; the file appears whole or not at all."""
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
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a whole moments file of this format.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no moments file at {path}.")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(
                        f"{path} is not a moments file of format {FORMAT} (found {metadata.get('format')!r}); "
                        "extract the moments again."
                    )
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or not a safetensors file ({error}); extract again.") from None
        layers = tuple(json.loads(metadata["layers"]))
        return cls(**tensors, layers=layers, precision=metadata["precision"], source=metadata["source"])


TENSORS = tuple(f.name for f in fields(Moments) if f.name not in ("layers", "precision", "source"))
LAYER_TENSORS = tuple(name for name in TENSORS if name not in ("Y", "q", "counts"))


def _sums(X: Tensor, lengths: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Sums over a right-padded batch for some layers, in batched matrix products.

    X is (layers, texts, T, d) and is overwritten where it is padding; y is (texts, c).
    """
    steps = torch.arange(X.shape[2], device=X.device)
    X.masked_fill_(~(steps < lengths[:, None])[None, :, :, None], 0.0)
    P = X.cumsum(2)
    xbar = P[:, :, -1] / lengths[None, :, None]
    # Ragged rows (text, t) with a next token, packed: no product is spent on padding.
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

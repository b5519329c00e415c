"""Choice of layers: the one place where layer indices are normalized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Layers = str | int | Sequence[int]


def resolve_layers(layers: Layers, n_layers: int) -> tuple[int, ...]:
    """Indices into ``hidden_states`` that a choice of layers stands for.

    Parameters
    ----------
    layers : {"all", "last"}, str, int or sequence of int
        "all", "last", numbers separated by commas such as "0,2,-1", an integer, or
        integers. 0 is the embeddings; negative numbers count from the last layer.
    n_layers : int
        Number of hidden states: the embeddings and the output of every block.

    Returns
    -------
    tuple of int
        Non-negative, without repetitions, in the order given.

    Raises
    ------
    ValueError
        If a layer does not exist, or none is given.

    Examples
    --------
    >>> resolve_layers("0,-1", 5)
    (0, 4)
    >>> resolve_layers([-1, 4], 5)
    (4,)
    """
    if isinstance(layers, str):
        if layers == "all":
            return tuple(range(n_layers))
        if layers == "last":
            return (n_layers - 1,)
        try:
            indices = [int(part) for part in layers.split(",")]
        except ValueError:
            raise ValueError(f"Layers must be 'all', 'last' or numbers such as '0,2,-1'; got {layers!r}.") from None
    else:
        given = layers if isinstance(layers, Iterable) else [layers]
        if any(isinstance(i, (bool, str)) or not hasattr(i, "__index__") for i in given):
            raise ValueError(
                f"Layers must be 'all', 'last', an integer or integers such as [0, 2, -1]; got {layers!r}."
            )
        indices = [int(i) for i in given]
    if not indices:
        raise ValueError("No layer is given; choose 'all', 'last' or indices such as [0, 2, -1].")
    for i in indices:
        if not -n_layers <= i < n_layers:
            raise ValueError(
                f"There is no layer {i}: this model has layers 0 (embeddings) to {n_layers - 1}, or -{n_layers} to -1."
            )
    return tuple(dict.fromkeys(i % n_layers for i in indices))

"""Checks of settings. Each error names the setting, its value, and the valid values."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise unless a setting is one of a few values.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : object
    choices : collection
        Valid values.

    Raises
    ------
    ValueError
        If ``value`` is not among ``choices``.

    Examples
    --------
    >>> check_choice("method", "LoRA", ("lora", "full"))
    Traceback (most recent call last):
    ...
    ValueError: method must be 'lora' or 'full', got 'LoRA'.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *others, last = [repr(choice) for choice in choices]
        valid = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} must be {valid}, got {value!r}.")


MEMORY = 4e9  # bytes of the largest array of class indicators, or of products of them


def check_classes(n_classes: int, *shape: int) -> None:
    """Raise if an array that a number of classes needs would take more memory than ``MEMORY``.

    Parameters
    ----------
    n_classes : int
    *shape : int
        Shape of the array of float64.

    Raises
    ------
    ValueError
        The message names the memory.

    Examples
    --------
    >>> check_classes(40_000, 40_000, 40_000)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: 40,000 classes need an array of shape (40000, 40000), which takes 12.8 GB of memory; ...
    """
    n_bytes = 8.0 * math.prod(shape)
    if n_bytes > MEMORY:
        raise ValueError(
            f"{n_classes:,} classes need an array of shape {shape}, which takes {n_bytes / 1e9:.1f} GB of memory; at "
            f"most {MEMORY / 1e9:.0f} GB are used. Check that the labels are classes and not identifiers, join rare "
            "classes, or use fewer texts."
        )


def check_integer(name: str, value: Any, minimum: int, *, optional: bool = False) -> None:
    """Raise unless a setting is an integer of at least ``minimum``.

    Parameters
    ----------
    name : str
    value : object
    minimum : int
    optional : bool
        Accept None, for "no limit" or "the default".

    Raises
    ------
    ValueError
        If ``value`` is not an integer, or too small.

    Examples
    --------
    >>> check_integer("r", 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: r must be an integer of at least 1, got 0.
    """
    if optional and value is None:
        return
    if not _is_integer(value) or value < minimum:
        none = ", or None" if optional else ""
        raise ValueError(f"{name} must be an integer of at least {minimum}{none}, got {value!r}.")


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


LARGEST_SEED = 2**32 - 1
"""Largest seed that NumPy and scikit-learn take."""


def check_seed(name: str, value: Any) -> None:
    """Raise unless a setting is an integer that NumPy and scikit-learn take as a seed.

    Raises
    ------
    ValueError
        If ``value`` is not an integer from 0 to :data:`LARGEST_SEED`.

    Examples
    --------
    >>> check_seed("seed", -1)
    Traceback (most recent call last):
    ...
    ValueError: seed must be an integer from 0 to 4294967295, got -1.
    """
    if not _is_integer(value) or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"{name} must be an integer from 0 to {LARGEST_SEED}, got {value!r}.")


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise unless a setting is a finite number in an interval.

    Parameters
    ----------
    name : str
    value : object
    low, high : float
        Ends of the interval.
    open_low, open_high : bool
        Whether that end is excluded.

    Raises
    ------
    ValueError
        If ``value`` is not a number, not finite, or outside the interval.

    Examples
    --------
    >>> check_number("lora_dropout", 3, 0.0, 1.0, open_high=True)
    Traceback (most recent call last):
    ...
    ValueError: lora_dropout must be a number in [0, 1), got 3.
    """
    try:
        number = float(value) if not isinstance(value, (bool, str)) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    above = number > low if open_low else number >= low
    below = number < high if open_high else number <= high
    if not (math.isfinite(number) and above and below):
        if math.isinf(high):
            interval = f"{'greater than' if open_low else 'of at least'} {low:g}"
        else:
            interval = f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name} must be a number {interval}, got {value!r}.")


def check_flag(name: str, value: Any) -> None:
    """Raise unless a setting is True or False.

    Raises
    ------
    ValueError
        If ``value`` is anything else, such as the string "no".
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def check_name(name: str, value: Any) -> None:
    """Raise unless a setting is a string with at least one character.

    Raises
    ------
    ValueError
        If ``value`` is anything else.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a name, got {value!r}.")

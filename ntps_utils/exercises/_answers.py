"""Comparison of answers with what is expected, for the checks of all chapters."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntps_utils.theory.linear import Array

Check = Callable[[Any], str]

CHECKS: dict[str, Check] = {}
"""Checks by number of the exercise: they raise :class:`MistakeError`, or return a remark."""


class MistakeError(Exception):
    """An answer is wrong; the message says why.

    Parameters
    ----------
    message : str
    for_number : str, optional
        Message for an answer that is a number, where the expected value would be the solution; by default the same.

    Attributes
    ----------
    for_number : str
    """

    def __init__(self, message: str, for_number: str | None = None) -> None:
        super().__init__(message)
        self.for_number = message if for_number is None else for_number


def exercise(number: str) -> Callable[[Check], Check]:
    """Register a check under the number of its exercise."""

    def add(function: Check) -> Check:
        CHECKS[number] = function
        return function

    return add


def call(answer: object, *arguments: Any, of: str) -> Any:
    """Call the reader's function on copies of the arguments.

    Parameters
    ----------
    answer : object
    *arguments
        Arrays or numbers.
    of : str
        Parameters that the exercise asks for, such as "(U, M)".

    Raises
    ------
    MistakeError
        If the answer is not a function of so many parameters, raises an error, or returns nothing.
    """
    if not callable(answer):
        raise MistakeError(f"The answer must be a function of {of}, got {type(answer).__name__}.")
    copies = [np.copy(x) if isinstance(x, np.ndarray) else x for x in arguments]
    try:
        inspect.signature(answer).bind(*copies)
    except TypeError:
        raise MistakeError(f"The function must accept {of}.") from None
    except ValueError:  # a function without a signature, such as a ufunc
        pass
    try:
        value = answer(*copies)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = frames[1].lineno if len(frames) > 1 else frames[-1].lineno
        shapes = ", ".join(str(x.shape) if isinstance(x, np.ndarray) else repr(x) for x in arguments)
        raise MistakeError(
            f"The function raised {type(error).__name__} in its line {line}: {error} (arguments: {shapes})."
        ) from None
    if value is None:
        raise MistakeError("The function returned nothing; is `return` missing?")
    return value


def compare(
    given: object,
    expected: Any,
    what: str,
    mistakes: Mapping[str, Any] | None = None,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> None:
    """Compare an answer with what is expected, and with typical mistakes.

    Parameters
    ----------
    given : object
    expected : array_like
    what : str
        What is compared, for the message.
    mistakes : mapping of str to array_like
        Values of typical wrong answers, by the message that explains them.
    rtol, atol : float
        Tolerances.

    Raises
    ------
    MistakeError
        If the answer is not numeric, has another shape, is not finite, or differs.
    """
    target = np.asarray(expected, dtype=float)
    value = numbers(given, target.shape, what)
    for message, wrong in (mistakes or {}).items():
        is_right = np.allclose(wrong, target, rtol=rtol, atol=atol)  # by chance, for these arguments
        if not is_right and np.allclose(value, wrong, rtol=rtol, atol=atol):
            raise MistakeError(message)
    if not np.allclose(value, target, rtol=rtol, atol=atol):
        if target.ndim == 0:
            message = f"{what} is {float(value):.4g}, and should be {float(target):.4g}."
            raise MistakeError(message, f"{what} is not {float(value):g}.")
        gap = np.abs(value - target).max() / max(np.abs(target).max(), 1e-300)
        raise MistakeError(f"{what} differs by up to {gap:.2g} of its largest entry.")


def numbers(given: object, shape: tuple[int, ...], what: str) -> Array:
    """Convert an answer to finite numbers of a given shape.

    Parameters
    ----------
    given : object
    shape : tuple of int
    what : str
        What it is, for the message.

    Raises
    ------
    MistakeError
        If it is not numeric, has another shape, or is not finite.
    """
    if given is None:  # NumPy reads it as NaN
        raise MistakeError(f"{what} must be numeric, got None.")
    try:
        value = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise MistakeError(f"{what} must be numeric, got {type(given).__name__}.") from None
    if value.shape != shape:
        raise MistakeError(f"{what} must have the shape {shape}, got {value.shape}.")
    if not np.isfinite(value).all():
        raise MistakeError(f"{what} contains NaN or infinity.")
    return value


def span_gap(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Sine of the largest principal angle between the spans of the columns of two matrices."""
    q, p = (np.linalg.qr(x)[0] for x in (one, two))
    cosines = np.linalg.svd(q.T @ p, compute_uv=False)
    return float(np.sqrt(max(0.0, 1.0 - min(cosines) ** 2)))

"""Named diagnostics: warnings and errors about valid but misleading inputs, each explained in the book."""

from __future__ import annotations

DIAGNOSTICS: dict[str, tuple[int, str]] = {
    "few-texts": (2, "The ceiling is too optimistic on few texts"),
    "rank-cut": (4, "Precision and rank"),
    "overflow": (4, "Precision and rank"),
    "cut-texts": (4, "What habits change"),
    "imbalance": (7, "The settings, written down first"),
    "below-chance": (10, "One dataset"),
    "shared-texts": (10, "One dataset"),
}
"""Chapter and section of the book that explain a diagnostic, by its name."""


def with_reference(name: str, message: str) -> str:
    """Append the name of a diagnostic, and where the book explains it, to a message.

    Parameters
    ----------
    name : str
        A key of :data:`DIAGNOSTICS`.
    message : str
        Complete sentences.

    Returns
    -------
    str

    Examples
    --------
    >>> with_reference("rank-cut", "Three directions were dropped.")
    'Three directions were dropped. [rank-cut: see chapter 4, "Precision and rank"]'
    """
    chapter, section = DIAGNOSTICS[name]
    return f'{message} [{name}: see chapter {chapter}, "{section}"]'


def diagnostic_in(message: str) -> str | None:
    """Return the name of the diagnostic that a message refers to.

    Parameters
    ----------
    message : str
        Text of a warning or an error.

    Returns
    -------
    str or None
        A key of :data:`DIAGNOSTICS`, or None if the message refers to none.

    Examples
    --------
    >>> diagnostic_in(with_reference("overflow", "A feature is too large."))
    'overflow'
    >>> diagnostic_in("A feature is too large.") is None
    True
    """
    return next((name for name in DIAGNOSTICS if f"[{name}: see chapter " in message), None)

"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str], label: str = "Registered names") -> str:
    """Return a sentence that helps with an unknown name.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        Valid names.
    label : str
        Introduces the list of valid names if none of them is similar.

    Returns
    -------
    str
        Up to three similar names, compared without case, or all valid names.

    Examples
    --------
    >>> suggestion("GPT-2", ["gpt2", "pythia-70m"])
    'Did you mean gpt2?'
    >>> suggestion("llama", ["gpt2", "pythia-70m"], "Models")
    'Models: gpt2, pythia-70m.'
    """
    by_lower_case = {one.lower(): one for one in known}
    close = [by_lower_case[one] for one in difflib.get_close_matches(name.lower(), by_lower_case, n=3)]
    return f"Did you mean {' or '.join(close)}?" if close else f"{label}: {', '.join(sorted(by_lower_case.values()))}."

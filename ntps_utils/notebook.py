"""What the chapters of the book share apart from figures: progress lines and the provenance note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ntps_utils._utils.provenance import provenance


def provenance_note(**settings: Any) -> str:
    """Return a line of Markdown with settings, versions and date, for the end of a page.

    Parameters
    ----------
    **settings : object
        Settings that determine the results of the page.

    Returns
    -------
    str

    Examples
    --------
    >>> provenance_note(seed=0, texts=200)  # doctest: +ELLIPSIS
    '*Provenance:* seed 0 · texts 200 · python 3...'
    """
    record = provenance(**settings)
    parts = [f"{name} {value}" for name, value in settings.items()]
    parts += [f"{name} {version}" for name, version in record["versions"].items()]
    return f"*Provenance:* {' · '.join([*parts, record['machine'], record['date']])}"


def notebook_progress(unit: str) -> Callable[[int, int], None]:
    """Display a line in a notebook that counts completed work, such as "12 of 64 experiments".

    Parameters
    ----------
    unit : str
        What is counted, in the plural.

    Returns
    -------
    callable
        Updates the line; takes the completed number and the total.
    """
    from IPython.display import Markdown, display

    line = display(Markdown(f"0 {unit}"), display_id=True)

    def update(n_done: int, total: int) -> None:
        line.update(Markdown(f"{n_done} of {total} {unit}"))

    return update


def notebook_watch(unit: str) -> Callable[[Mapping[tuple[str, str], str]], None]:
    """Display the progress of a benchmark in a notebook.

    Parameters
    ----------
    unit : str
        What is counted, in the plural.

    Returns
    -------
    callable
        The argument ``watch`` of :func:`ntps_utils.evidence.benchmark.run_benchmark`; takes the
        state of each experiment.
    """
    update = notebook_progress(unit)
    return lambda states: update(sum(state in ("done", "failed") for state in states.values()), len(states))

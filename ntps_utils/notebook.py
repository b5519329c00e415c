"""What the chapters of the book share, apart from figures: progress lines and the provenance note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ntps_utils._utils.provenance import provenance


def provenance_note(**settings: Any) -> str:
    """The record as one line of Markdown, for the foot of a page."""
    record = provenance(**settings)
    parts = [f"{name} {value}" for name, value in settings.items()]
    parts += [f"{name} {version}" for name, version in record["versions"].items()]
    return f"*Provenance:* {' · '.join([*parts, record['machine'], record['date']])}"


def notebook_progress(what: str) -> Callable[[int, int], None]:
    """A line in a notebook that counts: "12 of 64 cells"."""
    from IPython.display import Markdown, display

    shown = display(Markdown(f"0 {what}"), display_id=True)

    def update(done: int, total: int) -> None:
        shown.update(Markdown(f"{done} of {total} {what}"))

    return update


def notebook_watch(what: str) -> Callable[[Mapping[tuple[str, str], str]], None]:
    """The same for :func:`ntps_utils.evidence.benchmark.run_benchmark`."""
    update = notebook_progress(what)
    return lambda states: update(sum(state in ("done", "failed") for state in states.values()), len(states))

"""What the commands share: where they print, how they show progress, how they fail."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(width=None if sys.stdout.isatty() else max(100, Console().width))  # a pipe has no width of its own
err = Console(stderr=True)


def fail(message: object) -> NoReturn:
    """Print one line of what went wrong, and leave with status 2."""
    err.print(f"[red]ntps:[/red] {escape(str(message))}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


@contextmanager
def guarded(interrupted: str = "interrupted; nothing was written.") -> Iterator[None]:
    """Errors of use become one line and status 2; warnings become notes; libraries keep quiet."""
    import transformers

    warnings.showwarning = _show_warning
    transformers.utils.logging.disable_progress_bar()
    for name in ("transformers", "datasets", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(interrupted)


def bar() -> Progress:
    """A progress bar on the error stream."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    err.print(f"[yellow]note:[/yellow] {escape(str(message))}", soft_wrap=True, highlight=False)

"""Console output, progress bars and error handling of the commands."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ntps_utils import EXTRAS
from ntps_utils._utils.files import check_writable, write_text

_is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None if the shell has closed it


class _ErrorStream:
    """The current error stream. If it is closed or full, its text is lost, and the command goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


out = Console(width=None if _is_terminal else max(100, Console().width))  # a pipe has no width of its own
err = Console(file=_ErrorStream(), stderr=True)  # type: ignore[arg-type]

EXPECTED = (ValueError, OSError, MemoryError)
"""Errors of a command that end in one line: their messages say what to do."""

INSTALL_MODELS = "pip install 'ntps-utils[models]'"
QUIET_LOGGERS = ("transformers", "datasets", "huggingface_hub", "httpx")
QUIET_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "true", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
"""Variables for worker processes; tokenizers would otherwise warn after a fork."""


def replace_unencodable() -> None:
    """Print characters that a stream cannot encode as question marks, such as those of a file name."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def drop_unwritten_errors() -> None:
    """Drop what the error stream does not take: Python would end with status 120 because of it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # what is left in the buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def note(message: object) -> None:
    """Print a note on the error stream."""
    err.print(f"[yellow]note:[/yellow] {escape(str(message))}", soft_wrap=True, highlight=False)


def fail(message: object) -> NoReturn:
    """Print an error message in one line and exit with status 2."""
    err.print(f"[red]ntps:[/red] {escape(str(message))}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


@contextmanager
def guarded(interrupted: str = "interrupted; nothing was written.", *, models: bool = False) -> Iterator[None]:
    """Turn errors into one line with status 2, and warnings into notes.

    The state of the process is restored at the end of the block, also after an exception.

    Parameters
    ----------
    interrupted : str
        Message after an interruption with Ctrl+C.
    models : bool
        Whether the command loads models. If so, the libraries of Hugging Face are imported, and print
        no progress bars and no log messages below errors within the block.
    """
    with _warnings_as_notes():
        try:
            with quiet_libraries() if models else nullcontext():
                yield
        except ModuleNotFoundError as error:
            if missing_model_package(error) is None:
                raise
            fail(f"This command needs the model dependencies: {INSTALL_MODELS}.")
        except EXPECTED as error:
            fail(error)
        except KeyboardInterrupt:
            fail(interrupted)


def missing_model_package(error: ModuleNotFoundError) -> str | None:
    """Name of the missing package, if it is one of the model dependencies."""
    package = (error.name or "").partition(".")[0]
    return package if package in EXTRAS or package == "huggingface_hub" else None


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        note(message)

    previous = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = previous


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turn off progress bars and log messages below errors of the libraries of Hugging Face."""
    # Imported before anything is changed: on import, these libraries set log levels and read the environment.
    import datasets
    import huggingface_hub
    import transformers

    bars = transformers.utils.logging
    hub: Any = huggingface_hub.utils  # Any: its functions are re-exported without a declaration
    transformers_bars, hub_bars = bars.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    datasets_bars = not datasets.are_progress_bars_disabled()
    levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
    variables = {name: value for name, value in QUIET_ENVIRONMENT.items() if name not in os.environ}
    try:
        with warnings.catch_warnings(action="ignore"):  # of variables that a user has set to keep the bars
            bars.disable_progress_bar()
            datasets.disable_progress_bars()
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.update(variables)
        yield
    finally:
        if transformers_bars:
            bars.enable_progress_bar()
        if datasets_bars:
            datasets.enable_progress_bars()
        (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in variables:
            os.environ.pop(name, None)


def bar() -> Progress:
    """Make a progress bar on the error stream."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


@contextmanager
def progress_callback() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar, and update it with a function of the step, the number of finished parts and their total."""
    with bar() as progress:
        task = progress.add_task("loading", total=None)

        def update(step: str, done: int, total: int) -> None:
            progress.update(task, description=step, completed=done, total=total)

        yield update


def new_table(title: str | None = None, **options: Any) -> Table:
    """Make an empty table with a rule below its headings and no frame."""
    options = {"padding": (0, 1, 0, 0)} | options
    return Table(
        title=None if title is None else escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        **options,
    )


STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""Names of files that mean the standard output."""


@contextmanager
def output_files(*paths: Path | None, state: Path | None = None, inputs: Iterable[str] = ()) -> Iterator[None]:
    """Check that files can be written later; if one is the standard output, tables go to the error stream.

    Parameters
    ----------
    *paths : Path or None
        Files that :func:`save` writes in the block; None is ignored.
    state : Path, optional
        File in which an interrupted command keeps what it has measured.
    inputs : iterable of str
        Models and datasets; those that are files may not be replaced.

    Raises
    ------
    ValueError
        If a file cannot be written, would replace another one or an input, or two of them are the standard output.
    """
    given = [path for path in paths if path is not None]
    to_standard_output = [path for path in given if str(path) in STANDARD_OUTPUT]
    if len(to_standard_output) > 1:
        raise ValueError("Only one file can be written to the standard output; give names to the others.")
    files = [path for path in given if path not in to_standard_output]
    taken = {os.path.realpath(name) for name in inputs if Path(name).is_file()}
    for path in (*files, *([] if state is None else [state])):
        if (target := os.path.realpath(path)) in taken:
            raise ValueError(f"{path} is already read or written by this command; give it another name.")
        if not path.exists() or path.is_file():  # a device may be given twice
            taken.add(target)
    for path in files:
        check_writable(path, make_folders=False)
    if state is not None:
        check_writable(state)
    if not to_standard_output:
        yield
        return
    out.file = err.file
    try:
        yield
    finally:
        out.file = None  # type: ignore[assignment]  # the current standard output


def save(path: Path, text: str) -> None:
    """Write a text file, completely or not at all, and print its path on the error stream.

    "-" and the like are the standard output.
    """
    if str(path) in STANDARD_OUTPUT:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        return
    write_text(path, text + "\n")
    err.print(f"Wrote {path}.", highlight=False, markup=False, soft_wrap=True)

"""The ``ntps`` command."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

import ntps_utils
from ntps_utils.cli import datasets, lab, models, results
from ntps_utils.cli.benchmark import benchmark_command
from ntps_utils.cli.console import drop_unwritten_errors, guarded, note, out, replace_unencodable
from ntps_utils.cli.doctor import doctor_command
from ntps_utils.cli.prescreen import prescreen_command
from ntps_utils.cli.score import score_command

P = ParamSpec("P")
R = TypeVar("R")

ORDER = ("score", "prescreen", "benchmark", "lab", "models", "datasets", "results", "doctor")
"""Order of the commands in the help text."""


class _Group(TyperGroup):
    """Lists commands in a fixed order, and names the value that an option does not accept."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        arguments = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            value = _given(arguments, error.param.opts if error.param is not None else ())
            if value is not None and repr(value) not in error.message:
                error.message = f"{error.message.rstrip('.')}; got {value!r}."
            raise


def _given(arguments: Sequence[str], options: Sequence[str]) -> str | None:
    """The value that the command line gives to an option."""
    for i, argument in enumerate(arguments):
        name, separator, value = argument.partition("=")
        if name in options:
            return value if separator else next(iter(arguments[i + 1 :]), None)
    return None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(show: bool) -> None:
    if show:
        out.print(ntps_utils.__version__, highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Next Token Perception Score: does next-token prediction learn what your task needs?"""
    replace_unencodable()
    atexit.unregister(drop_unwritten_errors)  # once, however many commands one process runs
    atexit.register(drop_unwritten_errors)


def renamed(command: Callable[P, R], old: str, new: str) -> Callable[P, R]:
    """Wrap a command for its old name: print a note with the new name, then run it."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        note(f"`ntps {old}` is now `ntps {new}`.")
        return command(*args, **kwargs)

    return wrapper


def list_names(kind: Annotated[str, typer.Argument(help="models or datasets.")]) -> None:
    """List models or datasets (old form of `ntps models list` and `ntps datasets list`)."""
    commands = {"models": models.list_models, "datasets": datasets.list_datasets}
    with guarded():
        if kind not in commands:
            raise ValueError(f"Unknown list {kind!r}. Use `ntps models list` or `ntps datasets list`.")
    renamed(commands[kind], f"list {kind}", f"{kind} list")()


app.command("score")(score_command)
app.command("prescreen")(prescreen_command)
app.command("benchmark")(benchmark_command)
app.add_typer(lab.app, name="lab")
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(results.app, name="results")
app.command("doctor")(doctor_command)
app.command("grid", hidden=True)(renamed(benchmark_command, "grid", "benchmark"))
app.command("list", hidden=True)(list_names)

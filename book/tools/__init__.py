"""Tools that build the book; they are not part of the installed library."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Root folder of the repository."""


class BookError(ValueError):
    """A source of the book, or a command, names something that does not exist. The message is one line."""

"""Silent traps, made loud: each has a name and a section of the book that explains it."""

from __future__ import annotations

DIAGNOSTICS = {
    "few-texts": ("02_linear_perception", "The ceiling flatters when texts are few"),
    "rank-cut": ("04_extraction", "Precision and rank"),
    "overflow": ("04_extraction", "Precision and rank"),
    "cut-texts": ("04_extraction", "What habits change"),
    "imbalance": ("07_scores_against_probes", "The settings, written down first"),
    "below-chance": ("10_the_papers_numbers", "One dataset"),
    "shared-texts": ("10_the_papers_numbers", "One dataset"),
}
"""Chapter (its file in ``notebooks``) and section by name of the trap."""


def with_reference(trap: str, message: str) -> str:
    """A message with the trap's name and where the book explains it."""
    chapter, section = DIAGNOSTICS[trap]
    return f"{message} [{trap}: chapter {int(chapter[:2])}, '{section}', notebooks/{chapter}.ipynb]"


def diagnostic_in(message: str) -> str | None:
    """The trap that a message names, if any."""
    return next((trap for trap in DIAGNOSTICS if f"[{trap}: chapter " in message), None)

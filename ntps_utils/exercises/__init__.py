"""Checks of the exercises: each takes a number or a function, and says what is wrong.

>>> from ntps_utils.exercises import check
>>> check("2.3", 254)
Exercise 2.3: correct. Which of these directions a solver picks says nothing about the task.
>>> check("2.3", 256)
Exercise 2.3: not correct. 256 counts all directions; two of them carry the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from ntps_utils.exercises._answers import CHECKS, MistakeError

__all__ = ["Outcome", "check"]

for _chapters in ("_theory", "_measurement", "_evidence", "_practice"):
    import_module(f"{__name__}.{_chapters}")  # registers the checks


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a check says about an answer; true in a condition if the answer is correct.

    Attributes
    ----------
    exercise : str
        Number of the exercise.
    correct : bool
    message : str
        What is wrong, or, for a correct answer, what follows from it.
    """

    exercise: str
    correct: bool
    message: str

    def __bool__(self) -> bool:
        return self.correct

    def __repr__(self) -> str:
        verdict = "correct." if self.correct else "not correct."
        return f"Exercise {self.exercise}: {verdict} {self.message}".rstrip()


def check(exercise: str, answer: object) -> Outcome:
    """Check the answer to an exercise.

    Parameters
    ----------
    exercise : str
        Number, such as "1.2".
    answer : object
        The number, the pair of numbers or the function that the exercise asks for.

    Returns
    -------
    Outcome
        Shown as a sentence. A function that raises an error is not correct, and the outcome says
        where the error arose. If the answer is a number, the outcome does not give the solution away.

    Raises
    ------
    ValueError
        If there is no check of that number.

    Examples
    --------
    >>> check("2.2", lambda U, M: M @ U)
    Exercise 2.2: not correct. This is M U, which moves texts; directions move with the inverse transpose.
    """
    if exercise not in CHECKS:
        known = ", ".join(sorted(CHECKS, key=lambda number: tuple(map(int, number.split(".")))))
        raise ValueError(f"There is no check of an exercise {exercise!r}; there are checks of {known}.")
    if answer is ...:
        return Outcome(exercise, False, "There is no answer yet: replace the three dots.")
    try:
        return Outcome(exercise, True, CHECKS[exercise](answer))
    except MistakeError as mistake:
        return Outcome(exercise, False, str(mistake) if callable(answer) else mistake.for_number)

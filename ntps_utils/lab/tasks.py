"""Classification tasks of the lab: labeled texts, and the best accuracy that they allow."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ntps_utils._utils.names import suggestion
from ntps_utils._utils.validation import check_choice, check_integer
from ntps_utils.lab.grammar import Document, World
from ntps_utils.lab.world import (
    CODES,
    WORLD,
    action,
    bell,
    code,
    full_sentence,
    passive_pair,
    request,
    state,
    story,
    topic_pair,
)

Array = NDArray[np.float64]
Kind = Literal["helps prediction", "ignorable", "surface", "agreement", "order", "counting", "relation", "control"]
SIZES = {"train": 1000, "test": 500}
"""Number of texts by split."""


@dataclass(frozen=True)
class Task:
    """A classification task on texts of a world.

    Attributes
    ----------
    name : str
    asks : str
        The question that the label answers.
    kind : str
        How the label relates to next-token prediction, one of ``Kind``.
    label_names : tuple of str
        Names of the classes, at least two.
    write : callable
        Takes a world and an empty document, writes a text into the document, and returns
        the label, 0 ... c - 1.
    posterior : callable, optional
        Takes the document and returns P(label | text), (c,). None if the text determines the
        label.

    Raises
    ------
    ValueError
        If a field is out of range. The message names the field, its value and the valid values.

    Examples
    --------
    >>> TASKS["tense"].asks
    'Is the story told in the past?'
    """

    name: str
    asks: str
    kind: Kind
    label_names: tuple[str, ...]
    write: Callable[[World, Document], int]
    posterior: Callable[[Document], Array] | None = None

    def __post_init__(self) -> None:
        for field in ("name", "asks"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{field} must be a non-empty string, got {value!r}.")
        check_choice("kind", self.kind, get_args(Kind))
        names = self.label_names
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or len(set(names)) < 2:
            raise ValueError(f"label_names must be a tuple of at least two strings, got {names!r}.")
        if len(set(names)) < len(names):
            raise ValueError(f"label_names must differ from each other, got {names!r}.")
        if not callable(self.write):
            raise ValueError(f"write must be a function of a world and a document, got {self.write!r}.")
        if self.posterior is not None and not callable(self.posterior):
            raise ValueError(f"posterior must be a function of a document, or None, got {self.posterior!r}.")


@dataclass(frozen=True, eq=False)
class Sample:
    """Labeled texts of a task.

    Attributes
    ----------
    texts : tuple of str
    labels : (n,) int64 ndarray
    posteriors : (n, c) ndarray
        P(label | text).
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    posteriors: Array

    @property
    def bayes_accuracy(self) -> float:
        """Expected accuracy of the best possible classifier on these texts."""
        return float(self.posteriors.max(axis=1).mean())


def _factor_task(name: str, asks: str, factor: str, write: Callable[[World, Document], None]) -> Task:
    """Return a task whose label is the value of a factor."""

    def labeled(world: World, doc: Document) -> int:
        write(world, doc)
        return doc.index(factor)

    values = WORLD.factors[factor].values
    return Task(name, asks, "helps prediction", values, labeled, lambda doc: doc.posterior(factor))


def _opinion(world: World, doc: Document) -> None:
    """Write a story with at least two states, in random order."""
    sentences = [state, state, *([action] * int(doc.rng.random() * 3))]
    doc.rng.shuffle(sentences)
    for sentence in sentences:
        full_sentence(doc, sentence)


def _mixed_story(doc: Document, *extra: Callable[[Document], None]) -> None:
    """Write a story of states and actions with additional sentences, in random order."""
    sentences = [*extra, *(state if doc.chance(0.5) else action for _ in range(2 + int(doc.rng.random() * 2)))]
    doc.rng.shuffle(sentences)
    for sentence in sentences:
        full_sentence(doc, sentence)


def _number(world: World, doc: Document) -> int:
    story(world, doc)
    while "number" not in doc.facts:  # a story of bells and codes only has no noun
        full_sentence(doc, action)
    return doc.facts["number"]


def _agreement(world: World, doc: Document) -> int:
    while not doc.verbs:
        full_sentence(doc, state)
        full_sentence(doc, action)
    right = int(doc.chance(0.5))
    if not right:
        position, wrong = doc.verbs[int(doc.rng.random() * len(doc.verbs))]
        doc.words[position] = wrong
    return right


def _code(world: World, doc: Document) -> int:
    index = int(doc.rng.random() * len(CODES))
    _mixed_story(doc, lambda d: code(d, CODES[index]))
    return int(index >= len(CODES) // 2)


def _perhaps(world: World, doc: Document) -> int:
    wanted = int(doc.chance(0.5))
    _mixed_story(doc)
    doc.words[:] = [word for word in doc.words if word != "perhaps"]
    if wanted:
        starts = [0, *(i + 1 for i, word in enumerate(doc.words[:-1]) if word == ".")]
        doc.words.insert(starts[int(doc.rng.random() * len(starts))], "perhaps")
    return wanted


def _order(world: World, doc: Document) -> int:
    first = int(doc.chance(0.5))
    words = iter((CODES[0], CODES[1]) if first else (CODES[1], CODES[0]))
    _mixed_story(doc, lambda d: code(d, next(words)), lambda d: code(d, next(words)))
    return first


def _count(world: World, doc: Document) -> int:
    n = 1 + int(doc.rng.random() * 3)
    _mixed_story(doc, *[bell] * n)
    return n - 1


def _paraphrase(world: World, doc: Document) -> int:
    passive_pair(world, doc, doc.chance(0.5))
    return doc.facts["paraphrase"]


def _related(world: World, doc: Document) -> int:
    topic_pair(world, doc, doc.chance(0.5))
    return doc.facts["related"]


def _related_posterior(doc: Document) -> Array:
    """Return P(label | text): the topics agree with prior 1/2; otherwise all other topics are equally probable."""
    halves = []
    for draws in (doc.draws[: doc.facts["first_draws"]], doc.draws[doc.facts["first_draws"] :]):
        half = Document(doc.factors, doc.values, doc.rng, draws=draws)
        halves.append(half.posterior("topic"))
    n = len(halves[0])
    same = float(halves[0] @ halves[1]) / n
    other = (1.0 - n * same) / (n * (n - 1))
    return np.array([other, same]) / (same + other)


def _xor(world: World, doc: Document) -> int:
    _opinion(world, doc)
    return doc.index("polarity") ^ doc.index("tense")


def _xor_posterior(doc: Document) -> Array:
    p, t = doc.posterior("polarity"), doc.posterior("tense")
    return np.array([p[0] * t[0] + p[1] * t[1], p[0] * t[1] + p[1] * t[0]])


def _random(world: World, doc: Document) -> int:
    story(world, doc)
    return int(doc.chance(0.5))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _factor_task("topic", "What is the story about?", "topic", story),
        _factor_task("sentiment", "Does the story speak well of things?", "polarity", _opinion),
        _factor_task("tense", "Is the story told in the past?", "tense", _opinion),
        _factor_task("author", "Who wrote the story?", "author", story),
        _factor_task("register", "Is the story casual?", "register", story),
        _factor_task("intent", "What does the request want?", "intent", request),
        Task("number", "Is the first noun a plural?", "agreement", ("singular", "plural"), _number),
        Task("agreement", "Do all verbs agree with their subjects?", "agreement", ("no", "yes"), _agreement),
        Task("code", "Which half of a list is the code word from?", "ignorable", ("first", "second"), _code),
        Task("marker", 'Does the word "perhaps" occur?', "surface", ("no", "yes"), _perhaps),
        Task(
            "order",
            "Is the earlier of two code words the first or the second of a list?",
            "order",
            ("second", "first"),
            _order,
        ),
        Task("count", "How many bells ring?", "counting", ("1", "2", "3"), _count),
        Task("paraphrase", "Do the two sentences say the same?", "relation", ("no", "yes"), _paraphrase),
        Task(
            "related",
            "Are the two sentences on one topic?",
            "relation",
            ("no", "yes"),
            _related,
            _related_posterior,
        ),
        Task("xor", "Is the story past or favorable, but not both?", "relation", ("no", "yes"), _xor, _xor_posterior),
        Task("random", "Heads or tails?", "control", ("heads", "tails"), _random, lambda doc: np.array([0.5, 0.5])),
    )
}


def find_task(name: str) -> Task:
    """Return a task by name.

    Parameters
    ----------
    name : str
        A key of :data:`TASKS`.

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        If there is no such task. The message suggests similar names.

    Examples
    --------
    >>> find_task("topik")
    Traceback (most recent call last):
    ...
    ValueError: The lab has no task 'topik'. Did you mean topic?
    """
    if name in TASKS:
        return TASKS[name]
    raise ValueError(f"The lab has no task {name!r}. {suggestion(name, TASKS, 'Tasks')}")


def sample(task: str | Task, n: int, *, seed: int, world: World = WORLD) -> Sample:
    """Generate labeled texts of a task.

    Parameters
    ----------
    task : str or Task
    n : int
        Number of texts, at least 1.
    seed : int
        Random seed for the texts. Different seeds give independent texts.
    world : World
        By default the lab's world.

    Returns
    -------
    Sample

    Raises
    ------
    ValueError
        If there is no such task, or ``n`` or ``seed`` is not an integer in its range.

    Examples
    --------
    >>> texts = sample("intent", 1, seed=0)
    >>> texts.texts[0], TASKS["intent"].label_names[texts.labels[0]]
    ('please clarify the astronauts and clarify the moon ?', 'explain')
    """
    task = find_task(task) if isinstance(task, str) else task
    check_integer("n", n, 1)
    check_integer("seed", seed, 0)
    rng = random.Random(f"{task.name} {seed}")
    texts, labels, posteriors = [], [], []
    certain = np.eye(len(task.label_names))
    for _ in range(n):
        doc = world.document(rng)
        label = task.write(world, doc)
        texts.append(doc.text)
        labels.append(label)
        posteriors.append(certain[label] if task.posterior is None else task.posterior(doc))
    return Sample(tuple(texts), np.array(labels, dtype=np.int64), np.array(posteriors))


def split_of(task: str, split: str, seed: int = 0) -> Sample:
    """Generate a split of a task.

    Parameters
    ----------
    task : str
        Name of a task.
    split : {"train", "test"}
        1,000 or 500 texts, independent of each other.
    seed : int
        Random seed for both splits.

    Returns
    -------
    Sample

    Raises
    ------
    ValueError
        If there is no such task or split, or the seed is not a non-negative integer.

    Examples
    --------
    >>> len(split_of("topic", "test").texts)
    500
    """
    find_task(task)
    if split not in SIZES:
        raise ValueError(f"Tasks of the lab have the splits {' and '.join(SIZES)}, not {split!r}.")
    check_integer("seed", seed, 0)
    return sample(task, SIZES[split], seed=2 * seed + list(SIZES).index(split))

"""The lab's tasks: labeled texts of the made world, and the best accuracy that they allow."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Task:
    """A question about a text of the world.

    Attributes
    ----------
    name : str
    asks : str
        The question, in words.
    kind : str
        What the answer is to a next-token predictor.
    label_names : tuple of str
    write : callable
        Writes a text into an empty document and returns its label.
    posterior : callable or None
        P(label | text), (classes,), of the best possible reader. None if the text leaves
        no doubt.
    """

    name: str
    asks: str
    kind: Kind
    label_names: tuple[str, ...]
    write: Callable[[World, Document], int]
    posterior: Callable[[Document], Array] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Texts of a task.

    Attributes
    ----------
    texts : tuple of str
    labels : (n,) int64
    posteriors : (n, classes)
        P(label | text).
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    posteriors: Array

    @property
    def bayes_accuracy(self) -> float:
        """Expected accuracy of the best possible reader on these texts."""
        return float(self.posteriors.max(axis=1).mean())


def _of_factor(name: str, asks: str, factor: str, write: Callable[[World, Document], None]) -> Task:
    def labeled(world: World, doc: Document) -> int:
        write(world, doc)
        return doc.index(factor)

    values = WORLD.factors[factor].values
    return Task(name, asks, "helps prediction", values, labeled, lambda doc: doc.posterior(factor))


def _opinion(world: World, doc: Document) -> None:
    """A story with two states at least."""
    sentences = [state, state, *([action] * int(doc.rng.random() * 3))]
    doc.rng.shuffle(sentences)
    for sentence in sentences:
        full_sentence(doc, sentence)


def _with(doc: Document, *extra: Callable[[Document], None]) -> None:
    """A story of states and actions, with other sentences in places of their own."""
    sentences = [*extra, *(state if doc.chance(0.5) else action for _ in range(2 + int(doc.rng.random() * 2)))]
    doc.rng.shuffle(sentences)
    for sentence in sentences:
        full_sentence(doc, sentence)


def _number(world: World, doc: Document) -> int:
    story(world, doc)
    while "number" not in doc.facts:  # a story of bells and codes alone has no noun
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
    _with(doc, lambda d: code(d, CODES[index]))
    return int(index >= len(CODES) // 2)


def _perhaps(world: World, doc: Document) -> int:
    wanted = int(doc.chance(0.5))
    _with(doc)
    doc.words[:] = [word for word in doc.words if word != "perhaps"]
    if wanted:
        starts = [0, *(i + 1 for i, word in enumerate(doc.words[:-1]) if word == ".")]
        doc.words.insert(starts[int(doc.rng.random() * len(starts))], "perhaps")
    return wanted


def _order(world: World, doc: Document) -> int:
    first = int(doc.chance(0.5))
    words = iter((CODES[0], CODES[1]) if first else (CODES[1], CODES[0]))
    _with(doc, lambda d: code(d, next(words)), lambda d: code(d, next(words)))
    return first


def _count(world: World, doc: Document) -> int:
    n = 1 + int(doc.rng.random() * 3)
    _with(doc, *[bell] * n)
    return n - 1


def _paraphrase(world: World, doc: Document) -> int:
    passive_pair(world, doc, doc.chance(0.5))
    return doc.facts["paraphrase"]


def _related(world: World, doc: Document) -> int:
    topic_pair(world, doc, doc.chance(0.5))
    return doc.facts["related"]


def _related_posterior(doc: Document) -> Array:
    """The two sentences share their topic with prior 1/2; if not, all other topics are alike."""
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
        _of_factor("topic", "What is the story about?", "topic", story),
        _of_factor("sentiment", "Does the story speak well of things?", "polarity", _opinion),
        _of_factor("tense", "Is the story told in the past?", "tense", _opinion),
        _of_factor("author", "Who wrote the story?", "author", story),
        _of_factor("register", "Is the story casual?", "register", story),
        _of_factor("intent", "What does the request want?", "intent", request),
        Task("number", "Is the first noun a plural?", "agreement", ("singular", "plural"), _number),
        Task("agreement", "Do all verbs agree with their subjects?", "agreement", ("no", "yes"), _agreement),
        Task("code", "Is the code word from the second half of a list?", "ignorable", ("first", "second"), _code),
        Task("marker", 'Does the word "perhaps" occur?', "surface", ("no", "yes"), _perhaps),
        Task("order", "Which of two code words comes first?", "order", ("second", "first"), _order),
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
    """A task by name.

    Raises
    ------
    ValueError
        If there is none; the message suggests names.
    """
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name, TASKS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"tasks: {', '.join(TASKS)}."
    raise ValueError(f"The lab has no task {name!r}; {hint}")


def sample(task: str | Task, n: int, *, seed: int, world: World = WORLD) -> Sample:
    """Write n labeled texts of a task.

    Parameters
    ----------
    task : str or Task
    n : int
        Number of texts, at least 1.
    seed : int
        Different seeds give independent texts.
    world : World
        By default the lab's.

    Raises
    ------
    ValueError
        If there is no such task, or n < 1.
    """
    task = find_task(task) if isinstance(task, str) else task
    if n < 1:
        raise ValueError(f"The number of texts must be at least 1, got {n}.")
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
    """The task's texts of a split, "train" (1,000) or "test" (500), independent of each other.

    Raises
    ------
    ValueError
        If there is no such task or split.
    """
    find_task(task)
    if split not in SIZES:
        raise ValueError(f"The lab's tasks have the splits {' and '.join(SIZES)}, not {split!r}.")
    return sample(task, SIZES[split], seed=2 * seed + list(SIZES).index(split))

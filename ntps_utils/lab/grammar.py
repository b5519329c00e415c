"""How a made world writes: latent factors, words that give noisy evidence of them, documents.

A document first draws one value of every factor. Its words are then drawn one by one;
each draw depends on one factor at most, so that the posterior of a factor given the
words is a product over its draws, and the best possible accuracy of a task is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class Factor:
    """A latent cause, such as the topic of a document.

    Attributes
    ----------
    name : str
    words : mapping of str to mapping of str to tuple of str
        ``words[kind][value]``: the value's own words of a kind. All kinds have the same
        values, and within a kind no word belongs to two values.
    strength : float
        Probability that a draw is from the value's own words; otherwise it is from the
        words of all values alike. 1 leaves no doubt, 0 no evidence.
    """

    name: str
    words: Mapping[str, Mapping[str, tuple[str, ...]]]
    strength: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"The strength of {self.name} must lie in [0, 1], got {self.strength}.")
        for kind, lists in self.words.items():
            if tuple(lists) != self.values:
                raise ValueError(f"{self.name}: {kind} has the values {tuple(lists)}, other kinds {self.values}.")
            every = [word for own in lists.values() for word in own]
            if len(set(every)) < len(every) or not all(lists.values()):
                raise ValueError(f"{self.name}, {kind}: each value needs words of its own, in no other list.")

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values, equally probable."""
        return tuple(next(iter(self.words.values())))

    def log_likelihood(self, kind: str, word: str) -> NDArray[np.float64]:
        """log P(word | value) of a draw, (values,); -inf where impossible."""
        lists = self.words[kind]
        n_all = sum(map(len, lists.values()))
        own = [self.strength / len(words) if word in words else 0.0 for words in lists.values()]
        with np.errstate(divide="ignore"):
            return np.log(np.array(own) + (1.0 - self.strength) / n_all)


@dataclass
class Document:
    """A text in the making, and the record of how it came about.

    Attributes
    ----------
    factors : mapping of str to Factor
    values : dict
        The value that each factor took.
    rng : random.Random
    words : list of str
    draws : list of (factor, kind, word)
        Everything that is evidence of a factor.
    facts : dict
        What tasks may ask about the text itself, such as the number of its first noun.
    verbs : list of (position, other form)
        Verbs that agree with their subject, and the form that would not.
    """

    factors: Mapping[str, Factor]
    values: dict[str, str]
    rng: random.Random
    words: list[str] = field(default_factory=list)
    draws: list[tuple[str, str, str]] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)
    verbs: list[tuple[int, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The words, one blank between them."""
        return " ".join(self.words)

    def say(self, words: str) -> None:
        """Append fixed words."""
        self.words.extend(words.split())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[str]) -> str:
        """One of several, equally probable."""
        # Not rng.choice: this one line gives the same draws in every version of Python.
        return options[int(self.rng.random() * len(options))]

    def draw(self, name: str, kind: str = "word") -> str:
        """A word of a factor, as evidence of the value that the document holds."""
        factor = self.factors[name]
        lists = factor.words[kind]
        if self.rng.random() < factor.strength:
            word = self.pick(lists[self.values[name]])
        else:
            word = self.pick([w for words in lists.values() for w in words])
        self.draws.append((name, kind, word))
        return word

    def index(self, name: str) -> int:
        """Class number of the value that a factor took."""
        return self.factors[name].values.index(self.values[name])

    def posterior(self, name: str) -> NDArray[np.float64]:
        """P(value | the text), (values,): what the best possible reader would say."""
        factor = self.factors[name]
        total = np.zeros(len(factor.values))
        for drawn, kind, word in self.draws:
            if drawn == name:
                total = total + factor.log_likelihood(kind, word)
        total = np.exp(total - total.max())
        return np.asarray(total / total.sum())


Sentence = Callable[[Document], None]


@dataclass(frozen=True)
class World:
    """Factors, and the ways of writing that use them.

    Attributes
    ----------
    factors : mapping of str to Factor
    sentences : tuple of (weight, function)
        What a story is made of; a function appends one sentence to a document.
    genres : tuple of (weight, function)
        What a corpus is made of; a function writes a whole document.
    fixed : tuple of str
        Words that no factor owns: inflected forms included.
    """

    factors: Mapping[str, Factor]
    sentences: tuple[tuple[float, Sentence], ...]
    genres: tuple[tuple[float, Callable[[World, Document], None]], ...]
    fixed: tuple[str, ...]

    def document(self, rng: random.Random, **given: str) -> Document:
        """An empty document: every factor has drawn its value, or has the one given."""
        values = {
            name: given.get(name) or factor.values[int(rng.random() * len(factor.values))]
            for name, factor in self.factors.items()
        }
        return Document(self.factors, values, rng)

    def write(self, rng: random.Random) -> Document:
        """One document of the corpus."""
        doc = self.document(rng)
        weighted(doc, self.genres)(self, doc)
        return doc

    def extended(
        self, factors: Sequence[Factor] = (), sentences: Sequence[tuple[float, Sentence]] = (), words: str = ""
    ) -> World:
        """This world with more factors, sentences and fixed words."""
        return replace(
            self,
            factors={**self.factors, **{factor.name: factor for factor in factors}},
            sentences=(*self.sentences, *sentences),
            fixed=(*self.fixed, *words.split()),
        )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that can occur, sorted."""
        owned = {
            w for f in self.factors.values() for lists in f.words.values() for words in lists.values() for w in words
        }
        return tuple(sorted(owned | set(self.fixed)))


def weighted(doc: Document, options: Sequence[tuple[float, T]]) -> T:
    """One of several, in proportion to their weights."""
    left = doc.rng.random() * math.fsum(weight for weight, _ in options)
    for weight, option in options:
        left -= weight
        if left < 0:
            return option
    return options[-1][1]

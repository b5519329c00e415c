"""Generation of synthetic texts: latent factors, words that are noisy evidence of them, documents.

A document first draws a value of every factor. Its words are then drawn one by one, and each
draw depends on at most one factor. The posterior of a factor given the words is therefore a
product over draws, and the best possible accuracy of a task is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ntps_utils._utils.validation import check_choice, check_number

T = TypeVar("T")


@dataclass(frozen=True)
class Factor:
    """A latent cause of words, such as the topic of a document.

    Attributes
    ----------
    name : str
    words : mapping of str to mapping of str to tuple of str
        ``words[kind][value]`` lists the words of a value, such as its nouns. All kinds have
        the same values, and within a kind no word belongs to two values.
    strength : float
        Probability in [0, 1] that a draw is from the words of the document's value; otherwise
        it is from the words of all values. At 1 a word identifies the value, at 0 it is no
        evidence.

    Raises
    ------
    ValueError
        If a field is out of range, or the words contradict the rules above.

    Examples
    --------
    >>> weather = Factor("weather", {"word": {"dry": ("sunny",), "wet": ("rainy",)}}, strength=0.8)
    >>> weather.values
    ('dry', 'wet')
    """

    name: str
    words: Mapping[str, Mapping[str, tuple[str, ...]]]
    strength: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"The name of a factor must be a non-empty string, got {self.name!r}.")
        check_number(f"strength of factor {self.name!r}", self.strength, 0.0, 1.0)
        kinds = self.words.values() if isinstance(self.words, Mapping) else ()
        if not kinds or not all(isinstance(lists, Mapping) and lists for lists in kinds):
            raise ValueError(f"words of factor {self.name!r} must map kinds to values to words, got {self.words!r}.")
        for kind, lists in self.words.items():
            where = f"Factor {self.name!r}, kind {kind!r}"
            if tuple(lists) != self.values:
                raise ValueError(
                    f"{where}: the values must be those of other kinds, {self.values}; got {tuple(lists)}."
                )
            words = [word for own in lists.values() for word in own]
            if len(set(words)) < len(words) or not all(lists.values()):
                raise ValueError(f"{where}: each value needs at least one word, and a word has only one value.")
            for word in words:
                if not isinstance(word, str) or word.split() != [word]:
                    raise ValueError(f"{where}: words must be strings without blanks, got {word!r}.")

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values, which are equally probable."""
        return tuple(next(iter(self.words.values())))

    def log_likelihood(self, kind: str, word: str) -> NDArray[np.float64]:
        """Return the log-likelihood of each value, given one drawn word.

        Parameters
        ----------
        kind, word : str
            Kind of the draw, and its result.

        Returns
        -------
        (values,) ndarray
            log P(word | value); -inf where the word is impossible.

        Examples
        --------
        >>> coin = Factor("coin", {"word": {"fair": ("a", "b"), "biased": ("c", "d")}}, strength=0.5)
        >>> np.exp(coin.log_likelihood("word", "a")).round(3).tolist()
        [0.375, 0.125]
        """
        lists = self.words[kind]
        n_all = sum(map(len, lists.values()))
        own = [self.strength / len(words) if word in words else 0.0 for words in lists.values()]
        with np.errstate(divide="ignore"):
            return np.log(np.array(own) + (1.0 - self.strength) / n_all)


@dataclass
class Document:
    """A text that is being written, with a record of its random draws.

    Attributes
    ----------
    factors : mapping of str to Factor
    values : dict
        Value of each factor, by its name.
    rng : random.Random
        Source of all randomness.
    words : list of str
    draws : list of (factor, kind, word)
        Draws that are evidence of a factor.
    facts : dict
        Properties of the text that tasks ask for, such as the number of its first noun.
    verbs : list of (position, word)
        Verbs that agree with their subject: position in ``words``, and the form that does
        not agree.
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
        """The words, separated by single blanks."""
        return " ".join(self.words)

    def say(self, words: str) -> None:
        """Append words that are no evidence of a factor."""
        self.words.extend(words.split())

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[str]) -> str:
        """Return one of several equally probable options."""
        # rng.choice may draw differently in another version of Python.
        return options[int(self.rng.random() * len(options))]

    def draw(self, name: str, kind: str = "word") -> str:
        """Draw a word of a factor, and record it as evidence of the document's value.

        Parameters
        ----------
        name, kind : str
            Name of the factor, and one of its kinds of words.

        Returns
        -------
        str
            The word. It is not appended; see :meth:`say`.
        """
        factor = self.factors[name]
        lists = factor.words[kind]
        if self.rng.random() < factor.strength:
            word = self.pick(lists[self.values[name]])
        else:
            word = self.pick([w for words in lists.values() for w in words])
        self.draws.append((name, kind, word))
        return word

    def index(self, name: str) -> int:
        """Return the class number of a factor's value."""
        return self.factors[name].values.index(self.values[name])

    def posterior(self, name: str) -> NDArray[np.float64]:
        """Return the posterior of a factor given the words, by Bayes' rule.

        Parameters
        ----------
        name : str
            Name of the factor.

        Returns
        -------
        (values,) ndarray
            P(value | words), which sums to 1. Its largest entry is the probability that the
            best possible classifier is right.
        """
        factor = self.factors[name]
        total = np.zeros(len(factor.values))
        for source, kind, word in self.draws:
            if source == name:
                total = total + factor.log_likelihood(kind, word)
        total = np.exp(total - total.max())
        return np.asarray(total / total.sum())


Sentence = Callable[[Document], None]


@dataclass(frozen=True)
class World:
    """Factors, sentences that use them, and genres of documents.

    Attributes
    ----------
    factors : mapping of str to Factor
    sentences : tuple of (weight, function)
        Sentences of a story; a function appends one sentence to a document.
    genres : tuple of (weight, function)
        Genres of a corpus; a function writes a whole document.
    fixed : tuple of str
        Words that belong to no factor, including inflected forms.
    """

    factors: Mapping[str, Factor]
    sentences: tuple[tuple[float, Sentence], ...]
    genres: tuple[tuple[float, Callable[[World, Document], None]], ...]
    fixed: tuple[str, ...]

    def document(self, rng: random.Random, **values: str) -> Document:
        """Return an empty document whose factors have values.

        Parameters
        ----------
        rng : random.Random
        **values : str
            Values by name of the factor; the others are drawn.

        Returns
        -------
        Document

        Raises
        ------
        ValueError
            If there is no such factor or value.
        """
        for name, value in values.items():
            check_choice("factor", name, self.factors)
            check_choice(name, value, self.factors[name].values)
        return Document(
            self.factors,
            {
                name: values.get(name) or factor.values[int(rng.random() * len(factor.values))]
                for name, factor in self.factors.items()
            },
            rng,
        )

    def write(self, rng: random.Random) -> Document:
        """Write one document of the corpus.

        Parameters
        ----------
        rng : random.Random

        Returns
        -------
        Document
        """
        doc = self.document(rng)
        weighted(doc, self.genres)(self, doc)
        return doc

    def extended(
        self, factors: Sequence[Factor] = (), sentences: Sequence[tuple[float, Sentence]] = (), words: str = ""
    ) -> World:
        """Return a world with additional factors, sentences and fixed words.

        Parameters
        ----------
        factors : sequence of Factor
        sentences : sequence of (weight, function)
        words : str
            Words that the sentences use and no factor has, separated by blanks.

        Returns
        -------
        World
        """
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
    """Draw one of several options in proportion to their weights.

    Parameters
    ----------
    doc : Document
        Provides the randomness.
    options : sequence of (weight, option)

    Returns
    -------
    object
        One of the options.
    """
    remainder = doc.rng.random() * math.fsum(weight for weight, _ in options)
    for weight, option in options:
        remainder -= weight
        if remainder < 0:
            return option
    return options[-1][1]

"""The lab's world: its factors, its words, and the genres of its corpus.

The world was fixed before any score was computed in it; chapter 7 of the book gives the
reasons. Half of the documents are stories: two to five sentences that share their factors.
15% are queries: a request and its answer. 20% are a sentence and its passive form, which is
faithful with probability 0.8 and has one noun changed otherwise. 15% are two sentences, on the
same topic with probability 0.8.
"""

from __future__ import annotations

from collections.abc import Mapping

from ntps_utils.lab.grammar import Document, Factor, Sentence, World, weighted


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _lists(words: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {value: _words(own) for value, own in words.items()}


NOUNS = {
    "kitchen": "oven pan soup pie spoon bowl chef stew",
    "sea": "boat sailor wave whale harbor sail net crab",
    "court": "judge lawyer juror verdict trial clerk appeal bailiff",
    "farm": "farmer barn cow field tractor goat fence hen",
    "music": "singer drum violin song concert piano choir flute",
    "office": "manager desk printer memo report meeting folder intern",
    "clinic": "doctor nurse patient ward pill scalpel bandage pharmacist",
    "space": "rocket planet comet astronaut orbit crater moon satellite",
}
VERBS = {
    "kitchen": "bake boil roast taste",
    "sea": "row steer moor haul",
    "court": "accuse convict question defend",
    "farm": "harvest herd plant feed",
    "music": "perform record compose conduct",
    "office": "print file schedule approve",
    "clinic": "treat examine heal inject",
    "space": "launch land explore detect",
}
COLORS = _words("red blue green gray white brown")
CODES = _words("zub kif dol pem rux vat gim lor nad sut bex fip hob jat kel mip nog pux rif sab tol vim wex yad")


FACTORS = (
    Factor("topic", {"noun": _lists(NOUNS), "verb": _lists(VERBS)}, strength=0.7),
    Factor(
        "polarity",
        {
            "word": {
                "negative": _words("bad awful dreadful nasty gloomy terrible horrid dismal"),
                "positive": _words("good lovely splendid pleasant charming excellent delightful superb"),
            }
        },
        strength=0.7,
    ),
    Factor("tense", {"word": {"present": ("is",), "past": ("was",)}}, strength=0.8),
    Factor(
        "author",
        {
            "word": {
                "ann": ("then", "afterwards", "presently"),
                "bob": ("meanwhile", "suddenly", "soon"),
                "cid": ("later", "eventually", "finally"),
                "dot": ("still", "yet", "somehow"),
            }
        },
        strength=0.7,
    ),
    Factor(
        "register",
        {
            "word": {
                "formal": ("indeed", "therefore", "hence", "moreover"),
                "casual": ("well", "anyway", "okay", "gosh"),
            }
        },
        strength=0.8,
    ),
    Factor(
        "intent",
        {
            "request": {
                "buy": ("purchase", "order", "acquire", "obtain"),
                "find": ("locate", "seek", "trace", "spot"),
                "mend": ("mend", "fix", "restore", "patch"),
                "stop": ("cancel", "halt", "abort", "end"),
                "explain": ("explain", "describe", "clarify", "define"),
                "lend": ("lend", "loan", "rent", "borrow"),
            },
            "reply": {
                "buy": ("sold", "shipped"),
                "find": ("nearby", "upstairs"),
                "mend": ("repaired", "renewed"),
                "stop": ("stopped", "closed"),
                "explain": ("simple", "known"),
                "lend": ("yours", "available"),
            },
        },
        strength=0.8,
    ),
)


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return noun + "s"


def third(verb: str) -> str:
    """Return the third person singular of a verb."""
    return verb + ("es" if verb.endswith(("ch", "sh", "s", "x")) else "s")


def past(verb: str) -> str:
    """Return the past tense of a verb, which is also its participle."""
    irregular = {"feed": "fed"}
    return irregular.get(verb, verb + ("d" if verb.endswith("e") else "ed"))


# -- sentences ---------------------------------------------------------------------


def noun_phrase(doc: Document, noun: str | None = None) -> int:
    """Append "the", at times a color, and a noun.

    Parameters
    ----------
    doc : Document
    noun : str, optional
        By default drawn as evidence of the topic.

    Returns
    -------
    int
        1 if the noun is plural, else 0; the document records the number of its first noun.
    """
    noun = noun or doc.draw("topic", "noun")
    number = int(doc.chance(0.5))
    doc.say("the")
    if doc.chance(0.2):
        doc.say(doc.pick(COLORS))
    doc.say(plural(noun) if number else noun)
    doc.facts.setdefault("number", number)
    return number


def subject(doc: Document) -> int:
    """Append a noun phrase, at times with another noun between it and its verb; return its number."""
    number = noun_phrase(doc)
    if doc.chance(0.25):
        doc.say("near")
        noun_phrase(doc)
    return number


def agreeing(doc: Document, singular_form: str, plural_form: str, number: int) -> None:
    """Append the form of a verb that agrees with its subject; the document records the other form."""
    right, wrong = (plural_form, singular_form) if number else (singular_form, plural_form)
    doc.verbs.append((len(doc.words), wrong))
    doc.say(right)


def be(doc: Document, number: int) -> None:
    """Append is, are, was or were, as evidence of the tense."""
    if doc.draw("tense") == "was":
        agreeing(doc, "was", "were", number)
    else:
        agreeing(doc, "is", "are", number)


def state(doc: Document) -> None:
    """Append a statement such as "the boat was lovely"; "not" inverts the evidence of the polarity."""
    be(doc, subject(doc))
    word = doc.draw("polarity")
    if doc.chance(0.25):  # "not bad" has the same cause as "good"
        own = doc.factors["polarity"].words["word"]
        value = next(v for v, words in own.items() if word in words)
        (opposite,) = (words for v, words in own.items() if v != value)
        doc.say("not")
        word = opposite[own[value].index(word)]
    doc.say(word)


def action(doc: Document) -> None:
    """Append an action such as "the sailors haul the net"."""
    number = subject(doc)
    verb = doc.draw("topic", "verb")
    if doc.draw("tense") == "was":
        doc.say(past(verb))
    else:
        agreeing(doc, third(verb), verb, number)
    noun_phrase(doc)


def bell(doc: Document) -> None:
    """Append "a bell rang", which is independent of all factors."""
    doc.facts["bells"] = doc.facts.get("bells", 0) + 1
    doc.say("a bell rang")


def code(doc: Document, word: str | None = None) -> None:
    """Append "code" and one of 24 code words, by default a random one, independent of all factors."""
    doc.say("code")
    doc.say(word or doc.pick(CODES))


SENTENCES: tuple[tuple[float, Sentence], ...] = ((0.45, state), (0.35, action), (0.1, bell), (0.1, code))


def full_sentence(doc: Document, sentence: Sentence) -> None:
    """Append a sentence and a full stop, at times with a connective of the author and a tag of the register."""
    if doc.chance(0.5):
        doc.say(doc.draw("author") + " ,")
    if doc.chance(0.1):
        doc.facts["perhaps"] = 1
        doc.say("perhaps")
    sentence(doc)
    if doc.chance(0.4):
        doc.say(", " + doc.draw("register"))
    doc.say(".")


# -- genres ------------------------------------------------------------------------


def story(world: World, doc: Document) -> None:
    """Write a story of two to five sentences."""
    for _ in range(2 + int(doc.rng.random() * 4)):
        full_sentence(doc, weighted(doc, world.sentences))


def request(world: World, doc: Document) -> None:
    """Write a request such as "please locate the net and trace the sail ?"."""
    doc.say("please " + doc.draw("intent", "request"))
    noun_phrase(doc)
    if doc.chance(0.7):
        doc.say("and " + doc.draw("intent", "request"))
        noun_phrase(doc)
    doc.say("?")


def query(world: World, doc: Document) -> None:
    """Write a request and its answer."""
    request(world, doc)
    doc.say("answer : it is " + doc.draw("intent", "reply") + " .")


def clause(doc: Document) -> tuple[str, str, str]:
    """Draw subject, verb and object of a sentence; the nouns differ."""
    first = doc.draw("topic", "noun")
    second = first
    while second == first:
        second = doc.draw("topic", "noun")
    return first, doc.draw("topic", "verb"), second


def passive_pair(world: World, doc: Document, faithful: bool | None = None) -> None:
    """Write a sentence and its passive form: "the crab hauled the net | the net was hauled by the crab .".

    Parameters
    ----------
    world : World
        Not used; genres have this signature.
    doc : Document
    faithful : bool, optional
        Whether the nouns are the same; otherwise one is replaced by another noun of the
        topic. By default True with probability 0.8.
    """
    faithful = doc.chance(0.8) if faithful is None else faithful
    doc.facts["paraphrase"] = int(faithful)
    one, verb, two = clause(doc)
    doc.say(f"the {one} {past(verb)} the {two} |")
    if not faithful:
        other = one
        while other in (one, two):
            other = doc.draw("topic", "noun")
        one, two = (other, two) if doc.chance(0.5) else (one, other)
    doc.say(f"the {two} was {past(verb)} by the {one} .")


def topic_pair(world: World, doc: Document, related: bool | None = None) -> None:
    """Write two sentences, on one topic or on two.

    Parameters
    ----------
    world : World
        Not used; genres have this signature.
    doc : Document
    related : bool, optional
        Whether the topic is the same. By default True with probability 0.8.
    """
    related = doc.chance(0.8) if related is None else related
    doc.facts["related"] = int(related)
    action(doc)
    doc.say("|")
    doc.facts["first_draws"] = len(doc.draws)
    doc.facts["first_topic"] = doc.index("topic")
    if not related:
        values = doc.factors["topic"].values
        doc.values["topic"] = doc.pick([v for v in values if v != doc.values["topic"]])
    action(doc)
    doc.say(".")


_INFLECTED_FORMS = [
    *(plural(n) for own in NOUNS.values() for n in own.split()),
    *(form(v) for own in VERBS.values() for v in own.split() for form in (third, past)),
]
_FUNCTION_WORDS = "the near was were is are not a bell rang code perhaps please and answer : it | by . , ?"

WORLD = World(
    factors={factor.name: factor for factor in FACTORS},
    sentences=SENTENCES,
    genres=((0.5, story), (0.15, query), (0.2, passive_pair), (0.15, topic_pair)),
    fixed=(*_INFLECTED_FORMS, *_FUNCTION_WORDS.split(), *COLORS, *CODES),
)

"""What a prescreening says in words: verdict, notes, recommendation, and the command to run next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntps_utils.evidence.advice import Advice, Advisor, Recommendation, headroom_limit
from ntps_utils.evidence.calibration import LABELS, Calibration
from ntps_utils.evidence.cost import duration
from ntps_utils.evidence.declared import MAX_LENGTH
from ntps_utils.evidence.trials import trial_name
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.finetuning import FinetuneConfig
from ntps_utils.models.loading import CausalModel

SIZES = {
    "n_parameters": "parameters of the model",
    "n_features": "features",
    "n_texts": "labeled texts",
    "n_classes": "classes",
    "texts_per_feature": "texts for each feature",
}
"""Sizes of a case that are compared with those of the recorded runs."""

MIN_TEXTS = 100
"""Labeled texts below which more texts are recommended before anything else."""

MIN_CLASS = 10
"""Texts of a class below which the class is named."""

IMBALANCED = 0.9
"""Share of the most frequent class from which on it is named."""

MIN_VALIDATION = 50
"""Validation texts that a trial run needs."""

FAR = 2.0
"""Factor by which a size may lie outside the range of the recorded runs without being named."""


def points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"  # no minus sign before a zero


def classifier(name: str, layers: Sequence[int]) -> str:
    """A classifier without finetuning in words; for names see :func:`.classifiers.best_alternative`."""
    if name == f"layer {layers[-1]}":
        return "a probe of the last layer"
    if name == "layers" and len(layers) > 1:
        return f"a probe of layers {', '.join(map(str, layers[:-1]))} and {layers[-1]} at once"
    return "a bag of words" if name == "words" else f"a probe of {name}"


def reason(
    advice: Advice, threshold: float, accuracy: float, n_texts: int, best: str, lead: float, level: float
) -> str:
    """Explain a verdict in a sentence or two; ``accuracy`` is that of the ``best`` classifier without finetuning."""
    if advice.step == "headroom":
        limit = points(headroom_limit(1.0 - accuracy, n_texts))
        return (
            f"{best.capitalize()} gets {points(1.0 - accuracy)}% of the texts wrong (at most {limit}%, by a 95% "
            f"limit), which leaves less to gain than the threshold of {points(threshold)} points."
        )
    if not advice.has_skill and advice.answer == "no":
        return (
            f"To pay, LoRA would have to be {points(lead + threshold)} points better than a probe of the last layer: "
            f"{points(lead)} are the lead of {best}, {points(threshold)} the threshold. In at least "
            f"{50 * (1.0 + level):.0f}% of the recorded runs it was better by less (its gain over the best classifier "
            "on test texts, plus the lead of that classifier)."
        )
    if not advice.has_skill:
        return (
            "Nothing that was measured has predicted the gains of left-out datasets better than their median, so that "
            "only the spread of the recorded gains is known."
        )
    predictors = " and ".join(LABELS[column] for column in advice.columns)
    interval = f"{points(advice.low)} to {points(advice.high)} points"
    place = {
        "yes": "lies above the threshold",
        "no": "lies below the threshold",
        "open": "contains the threshold",
    }[advice.answer]
    if advice.answer == "open" and advice.low >= threshold:
        place = "lies above the threshold, but the loss at the end of the trial run is not lower than at its start,"
        place += " which speaks against it; the threshold is"
        return f"The interval from the {advice.step} ({predictors}), {interval}, {place} {points(threshold)} points."
    return f"The interval from the {advice.step} ({predictors}), {interval}, {place} of {points(threshold)} points."


def outside(sizes: Mapping[str, float], cells: pd.DataFrame, predictors: Sequence[str]) -> Iterator[str]:
    """Sentences on sizes and predictors outside the recorded runs."""
    known = cells[[name for name in SIZES if name in cells]].assign(
        texts_per_feature=cells["n_texts"] / cells["n_features"]
    )
    for name, label in SIZES.items():
        if name in known:
            low, high = known[name].min(), known[name].max()
            if not low / FAR <= sizes[name] <= high * FAR:
                value, low, high = (
                    f"{number:,.3g}" if number < 100 else f"{number:,.0f}" for number in (sizes[name], low, high)
                )
                recorded = low if low == high else f"{low} to {high}"
                case = f"This case has {value} {label}, the recorded runs {recorded}."
                yield f"{case} Whether they predict it is not known."
    for name in predictors:
        yield f"The {LABELS[name]} lies outside the recorded runs, so that it was not used to predict."


def differences(used: Calibration, model: CausalModel, longest: int) -> Iterator[str]:
    """Sentences on how this case is measured differently from the recorded runs."""
    if used.max_length is not None and longest > used.max_length:
        yield (
            f"Texts have up to {longest} tokens; those of the recorded runs were cut after {used.max_length}. "
            f"--max-length {used.max_length} does the same here."
        )
    dtype = str(model.model.dtype).removeprefix("torch.")
    if dtype in ("bfloat16", "float16"):
        yield f"Features were computed in {dtype}, those of the recorded runs in float32."


def about_texts(
    data: TextDataset, counts: NDArray[np.int64], probe_accuracy: float, n_validation: int
) -> Iterator[str]:
    """Sentences on classes, and on what a few texts can show; ``n_validation`` is 0 without a trial run."""
    if small := [data.label_names[i] for i in np.flatnonzero((counts > 0) & (counts < MIN_CLASS))]:
        names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        yield f"Fewer than {MIN_CLASS} texts in {len(small)} of {np.count_nonzero(counts)} classes: {names}."
    majority = counts.max() / counts.sum()
    if probe_accuracy <= majority:
        yield "The probe is not more accurate than always answering with the most frequent class."
    if majority >= IMBALANCED:
        yield (
            f"{100 * majority:.0f}% of the texts have one class. Accuracy says little about the other classes there, "
            "and neither does a gain in accuracy."
        )
    if n_validation:
        yield (
            f"The trial run is judged on {n_validation} validation texts: one of them is "
            f"{100 / n_validation:.1f} points of accuracy."
        )


def about_gain(advice: Advice, best: str, accuracy: float) -> Iterator[str]:
    """A sentence on an expected gain that is cut; ``accuracy`` is that of the ``best`` classifier."""
    if advice.has_skill and advice.gain > 1.0 - accuracy - 1e-9:  # the same number, but for rounding
        yield (
            f"The predicted gain was larger. It is cut at {points(1.0 - accuracy)} points, the share of the texts that "
            f"{best} gets wrong; the upper end of the interval is cut at the 95% limit of this share."
        )


def headline(advice: Advice, best: str) -> str:
    """The verdict in words."""
    if advice.answer != "open":
        probably = "" if advice.step == "headroom" else "probably "
        no = f"LoRA {probably}does not pay: use {best}."
        return {"yes": f"LoRA probably pays, compared with {best}.", "no": no}[advice.answer]
    if not advice.has_skill:
        return "Open: nothing that was measured predicts the gain."
    return "Open: the expected gain is too uncertain for a decision."


def why_no_trial(advisor: Advisor, share: float, n_texts: int, lora: FinetuneConfig) -> str:
    if lora.validation * n_texts < MIN_VALIDATION:
        n_validation, least = round(lora.validation * n_texts), math.ceil(MIN_VALIDATION / lora.validation)
        return (
            f"No trial run was made: {n_validation} validation texts are too few to judge it; give at least {least} "
            "texts."
        )
    if not any(one.step.share for one in advisor.steps):
        return "No trial run was made: the calibration holds no trial runs to compare it with."
    if not share:
        return "No trial run was made: the shortest one takes longer than the given time."
    return (
        f"No trial run was made: among the recorded runs, no trial run of up to {100 * share:g}% of the steps predicts "
        "the gain."
    )


HOW = {
    "words": "ntps_utils.models.richer_probes.bag_of_words() is one, with the methods of scikit-learn",
    "layers": "concatenate the mean tokens of these layers",
}
"""How to fit classifiers without finetuning; probes of single layers are standard."""


def without_finetuning(best: str, name: str, accuracy: float, lead: float) -> str:
    """What to do without finetuning: ``name`` is the classifier, ``best`` its name in words."""
    text = f"Without finetuning, take {best}: accuracy {accuracy:.3f}, cross-validated"
    if lead > 0.0:
        text += f"; a probe of the last layer has {accuracy - lead:.3f}"
    return f"{text} ({HOW[name]})." if name in HOW else f"{text}."


def about_lora(
    recommended: Recommendation,
    seconds: float,
    n_texts: int,
    n_needed: int,
    *,
    n_more: int,
    made: float = 0.0,
) -> str:
    """What to do about LoRA, and in an open case why.

    ``n_more`` texts of the dataset were not used, and a trial run of the share ``made`` of the steps was made.
    """
    todo = recommended.action
    if todo == "label":
        verb = "Use" if n_more else "Label"
        return f"{verb} more texts: {n_texts} do not tell gains of a few points apart. At least {n_needed} are needed."
    if recommended.reason == "errors":
        return (
            "Do not run LoRA: the best classifier gets fewer texts wrong than the threshold asks for. "
            f"{n_texts:,} texts do not exclude that it gets more wrong on others."
        )
    if recommended.reason == "gain":
        side, do = ("below", "Do not run LoRA") if todo == "stop" else ("at least", "Run LoRA")
        took = "" if todo == "stop" else f" The run alone takes about {duration(seconds)} here."
        return f"{do}: the expected gain is {side} the threshold, although the interval contains it.{took}"
    why = "" if recommended.reason == "answer" else f" {_why(recommended, made)}."
    if todo == "stop":
        return f"Do not run LoRA.{why}"
    if todo == "trial":
        return f"Make a {trial_name(recommended.share)} of the steps.{why}"
    return f"Run LoRA. The run alone takes about {duration(seconds)} here.{why}"


def _why(recommended: Recommendation, made: float) -> str:
    """What rules would have lost on the recorded runs: of trial runs, the one that is recommended or was made."""
    regrets = recommended.regrets
    trial = trial_name(recommended.share or made)
    why = (
        "On the recorded runs, at this threshold, the mean regret (what a rule loses against knowing the gains) is "
        f"{points(regrets['run'])} points if LoRA is run wherever the best classifier leaves enough to gain, and "
        f"{points(regrets['stop'])} if it is never run"
    )
    if trial in regrets:
        why += f". If a {trial} decides, it is {points(regrets[trial])}, with the computing time of the trial"
    return why


SPLIT_SHARE = 0.2
"""Share of the rows of a single file to test on, in the command that is recommended."""

BENCHMARK_OPTIONS = (
    "n-train", "max-length", "seed", "text-column", "label-column", "target-modules", "trust-remote-code",
)  # fmt: skip
"""Options of ``ntps prescreen`` that ``ntps benchmark`` has too; it calls ``--max-texts`` ``--n-train``."""


def command(
    recommended: Recommendation,
    model: Any,
    dataset: Any,
    given: Mapping[str, Any],
    longest: int = 0,
    n_more: int = 0,
) -> str:
    """The command that does what is recommended, with the options of this call, or a sentence if there is none.

    Where an open case is not to be run, the command that measures its gain follows all the same. A LoRA run reads as
    many tokens of a text as this call did: ``longest`` is the length of its longest text.
    ``n_more`` texts of the dataset were not used.
    """
    todo, share = recommended.action, recommended.share
    if todo == "label" and n_more:
        return f"Run the same command with a larger --max-texts: the dataset has {n_more:,} more texts."
    if todo == "label":
        return "Label more texts, and run the same command again."
    has_names = isinstance(model, (str, Path)) and isinstance(dataset, (str, Path))
    if todo == "stop" and (recommended.reason == "answer" or not has_names):
        return "Stop here."
    if not has_names:
        return f"prescreen(..., trial={share:g})" if todo == "trial" else "finetune(model, train, test)"
    name, texts = shlex.quote(str(model)), shlex.quote(str(dataset))
    if todo == "trial":
        return f"ntps prescreen {name} {texts} --trial {100 * share:g}%{options(given, given)}"
    profile = "lab" if str(model).startswith("lab/") else "declared"
    given = {**given, "n-train": given.get("max-texts")}
    if profile == "declared" and longest > MAX_LENGTH:
        given.setdefault("max-length", longest)
    path, first = Path(str(dataset)), ""
    names: tuple[str, ...] = BENCHMARK_OPTIONS
    if path.is_file():
        names = tuple(option for option in names if not option.endswith("-column"))
        columns = options(given, ("text-column", "label-column"))
        texts = shlex.quote(str(path.with_suffix("")) + "-split")
        first = f"ntps datasets split {shlex.quote(str(path))} {texts} --test-share {SPLIT_SHARE:g}{columns} && "
    if todo == "stop":
        first = f"Stop here. To measure the gain all the same: {first}"
    return f"{first}ntps benchmark --profile {profile} --models {name} --datasets {texts}{options(given, names)}"


def options(given: Mapping[str, Any], names: Iterable[str]) -> str:
    """Those of the given options that have one of these names, for the command line."""
    text = ""
    for name in names:
        value = given.get(name)
        if value is True:
            text += f" --{name}"
        elif value is not None:
            for one in [value] if isinstance(value, (str, int, Path)) else value:
                text += f" --{name} {shlex.quote(str(one))}"
    return text

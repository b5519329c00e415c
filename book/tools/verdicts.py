"""Verdicts on the claims of the paper, for the front page and the README: computed, from one place.

The lab's verdicts are values of the executed chapters. Those on real language models follow the rules of the declared
experiment (:mod:`ntps_utils.evidence.claims`), and come from the record of ``book.tools.results``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from book.tools.declared import table
from ntps_utils.evidence.claims import PRINTED_GAIN
from ntps_utils.evidence.declared import FINETUNED_MODELS, MAX_LENGTH, N_TRAIN, PILOT_RATES, lora_settings
from ntps_utils.evidence.records import load_record

COLORS = {"held": "success", "partly held": "warning", "not held": "danger", "open": "info"}
"""Color of the badge of each verdict, by its name in sphinx-design."""

CHEAP = 1.5
"""Extraction of all layers is called cheap up to so many forward passes."""

HEADINGS = ("", "claim", "in the lab", "real models", "what we find", "chapter")

PARTS = ("verdicts", "advice")
"""Parts of the README that are written here; each stands between two lines, see :func:`marks`."""


@dataclass(frozen=True)
class Row:
    """A claim of the paper, and what we find.

    Attributes
    ----------
    number : str
        Number in the abstract's order; empty for a claim that is part of another.
    claim : str
        One sentence.
    chapters : tuple of str
        Names of the chapters that test it.
    lab, real : str
        Verdicts, keys of ``COLORS``.
    finding : str
        What was measured, in one sentence.
    """

    number: str
    claim: str
    chapters: tuple[str, ...]
    lab: str
    real: str
    finding: str


def verdicts(glued: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any] | None = None) -> tuple[Row, ...]:
    """Compute the verdicts.

    Parameters
    ----------
    glued : mapping of str to mapping
        Values of the executed chapters, by the name of the chapter.
    found : mapping, optional
        What the declared experiment shows; by default the record of ``book.tools.results``.

    Returns
    -------
    tuple of Row
    """
    bounds, cost, words = (glued[name] for name in ("03_score_and_bounds", "04_extraction", "05_subspaces_you_can_see"))
    probes, after, gain = (
        glued[name] for name in ("07_scores_against_probes", "08_after_lora", "09_predicting_the_gain")
    )
    claims = {claim["name"]: claim for claim in (load_record("results") if found is None else found)["claims"]}
    from_all = {claim["name"]: claim for claim in load_record("results_all")["claims"]}
    holds = "held" if bounds["violations"] == 0 else "not held"
    cheap = "held" if cost["bench_forward"] <= CHEAP else "partly held"
    measured = load_record("bench_models")["models"].values()
    ratios = [one["all_layers_ratio"] for one in measured if "all_layers_ratio" in one]
    return (
        Row(
            "(i)",
            "NTPS bounds the excess loss from both sides",
            ("03_score_and_bounds", "14_what_readers_asked"),
            holds,
            holds,
            f"A theorem: {bounds['violations']} violations in {bounds['n_problems']:,} random problems. On features of "
            "the lab's and of real models the bounds are far apart, and an exact identity needs none.",
        ),
        Row(
            "(ii)",
            "It has a closed form and is cheap",
            ("01_linear_autoregression", "02_linear_perception", "04_extraction", "12_the_full_grid"),
            cheap,
            cheap,
            f"On a CPU the moments of all layers take {cost['bench_forward']:.2f} times a forward pass over the texts, "
            "that pass included (the shape of Qwen2-0.5B with random weights); in two pretrained models "
            f"{min(ratios):.2f} to {max(ratios):.2f} times. The eigendecompositions come on top.",
        ),
        Row(
            "",
            "Autoregressive directions may lie outside the perception subspace",
            ("05_subspaces_you_can_see",),
            words["verdict_lab"],
            words["verdict_real"],
            f"For {words['n_shown']} of {words['n_tasks']} labels of the lab with two classes, one "
            f"perception direction explains {words['shown_low']:.0%} to {words['shown_high']:.0%} of the variance on "
            f"test texts, and two autoregressive directions explain at most {words['outside_high']:.0%} of it, as "
            f"little as two random ones (at most {words['random_most']:.0%} in 95% of the draws). On the others "
            + (
                "neither is better than the mean of the label."
                if words["unseen_high"] < 0.005
                else f"neither explains more than {words['unseen_high']:.0%}."
            ),
        ),
        Row(
            "(iii)",
            "It correlates with the accuracy of linear probes",
            ("07_scores_against_probes", "10_the_papers_numbers"),
            _plain(probes["verdict_accuracy"]),
            claims["(iii)"]["verdict"],
            f"Rank correlation in the lab {_interval(probes, 'euclid_rho', 'euclid')}; of the metric-matched score, "
            f"another form (chapter 3), {_interval(probes, 'metric_rho', 'metric')}."
            f"{_measured(claims['(iii)'], from_all['(iii)'])}",
        ),
        Row(
            "(iv)",
            "It rises after LoRA, more so in large models",
            ("08_after_lora",),
            _plain(after["rise_lab"]),
            claims["(iv)"]["verdict"],
            f"Mean change on test texts of the lab {after['tasks_test_ntps']:+.2f}; of the metric-matched score "
            f"{after['tasks_test_ntps_metric']:+.2f}, and {after['coin_test_ntps_metric']:+.2f} on a coin toss, a task "
            f"with random labels. With so few texts a rise of {after['planted']:.1f} could be missed."
            f"{_measured(claims['(iv)'])} In real models it falls in {after['later_e_falls']} of the "
            f"{after['later_n']} runs after which it was measured. Against runs on shuffled labels, a control with "
            f"nothing to learn, its change is higher in {after['later_e_positive']} of them, and that of the "
            f"metric-matched score in {after['later_m_positive']} (few test texts; some runs came after the end of the "
            "declared experiment).",
        ),
        Row(
            "",
            "LoRA gains because the overlap rises",
            ("08_after_lora",),
            "held" if after["with_lab_e_low"] > 0 else "not held",
            "open",
            f"Rank correlation of rise and LoRA gain in the lab {_interval(after, 'with_lab_e_rho', 'with_lab_e')}; "
            f"for the metric-matched score {_interval(after, 'with_lab_m_rho', 'with_lab_m')}.",
        ),
        Row(
            "(v)",
            "It predicts the gain from LoRA (a high NTPS, a small gain)",
            ("09_predicting_the_gain", "10_the_papers_numbers"),
            _plain(gain["skill_lab"]),
            claims["(v)"]["verdict"],
            f"On left-out tasks of the lab its error is {_relative(gain['lab_e_skill'])} that of always predicting the "
            "median gain. A trial run of a quarter of the steps predicts a related gain (over a probe of the last "
            f"layer) with an error {_relative(gain['trial_lab_skill'])} that of its median."
            f"{_measured(claims['(v)'], from_all['(v)'])} The paper has {PRINTED_GAIN:.2f}.",
        ),
        Row(
            "(vi)",
            "So it can prescreen LoRA",
            ("09_predicting_the_gain", "11_prescreen"),
            _plain(gain["rule_lab"]),
            claims["(vi)"]["verdict"],
            "If the half of the lab's runs with the smallest gains predicted from the three scores is skipped, the "
            f"mean accuracy is {gain['lost_lab_scores']:.1f} points lower than if all are run; with a choice that has "
            f"nothing to do with the gains, {gain['chance_lab_scores_low']:.1f} to "
            f"{gain['chance_lab_scores_high']:.1f} points in 95% of the draws."
            f"{_measured(claims['(vi)'], from_all['(vi)'])}",
        ),
    )


def _interval(values: Mapping[str, Any], name: str, start: str) -> str:
    return f"{values[name]:.2f} ({values[f'{start}_low']:.2f} to {values[f'{start}_high']:.2f})"


SHOWN = {
    "(iii)": {"correlation": "rank correlation"},
    "(iv)": {model: f"change beyond shuffled labels in {model}" for model in FINETUNED_MODELS},
    "(v)": {"correlation": "rank correlation with the gain"},
    "(vi)": {
        "share of the attainable gain, NTPS": "gain of the half that NTPS keeps, on a scale on which a random half "
        "has 0 and the best half 1:"
    },
}
"""Estimates of the declared experiment that stand in the table, and their names there."""


def _measured(claim: Mapping[str, Any], from_all: Mapping[str, Any] | None = None) -> str:
    """What the declared experiment has measured, and the same from all datasets; empty if runs are missing."""

    def shown(one: Mapping[str, Any]) -> str:
        return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"

    found = {label: claim["estimates"][name] for name, label in SHOWN[claim["name"]].items()}
    parts = [f"{label} {shown(one)}" for label, one in found.items() if one["value"] is not None]
    if not parts:
        return ""
    more = "" if from_all is None else ", ".join(shown(from_all["estimates"][name]) for name in SHOWN[claim["name"]])
    return f" Real models: {', '.join(parts)}{more and f'; from all datasets, which decide nothing, {more}'}."


def _relative(skill: float) -> str:
    return f"{abs(skill):.0%} {'below' if skill > 0 else 'above'}"


def _plain(verdict: str) -> str:
    """A chapter's verdict about the paper's score: whether another score holds is said in the chapter."""
    return "held" if verdict == "held" else "not held"


def tables(glued: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the parts of the front page: the table of verdicts, the badges that occur, and the advice on LoRA.

    Parameters
    ----------
    glued : mapping of str to mapping
        See :func:`verdicts`.

    Returns
    -------
    dict of str to str
        Markdown by name of the file.
    """
    used = {verdict for row in verdicts(glued) for verdict in (row.lab, row.real)}
    legend = " ".join(_badge(verdict) for verdict in COLORS if verdict in used)
    return {
        "verdicts": _table(glued, _badge, "{{doc}}`{} </notebooks/{}>`"),
        "legend": f"{legend}\n",
        "advice": advice(glued),
        "answers": answers(glued),
    }


def advice(glued: Mapping[str, Mapping[str, Any]]) -> str:
    """Say when LoRA pays, and what the tool answers.

    Parameters
    ----------
    glued : mapping of str to mapping
        See :func:`verdicts`.

    Returns
    -------
    str
        Markdown.
    """
    gain = glued["09_predicting_the_gain"]
    advised = f"It recommends {gain['rule_all_advised_n']:.0f} of the runs. "
    if gain["rule_all_advised_n"] == 0:
        advised = (
            "In the open cases it recommends neither a run nor a trial run: on the other datasets never running LoRA "
            "lost least. "
        )
    if gain["rule_all_trial_regret"] > gain["rule_all_frozen_regret"]:
        advised += "On these runs a trial run cost more than it saved. "
    says = (
        f"Without a trial run it decides {gain['rule_all_frozen_decided']:.0%} of the runs, all with *no*, and "
        f"{gain['rule_all_frozen_right']:.0%} of these rightly; with `--trial 25%` it decides "
        f"{gain['rule_all_trial_decided']:.0%}, and {gain['rule_all_trial_right']:.0%} rightly, where always *no* "
        f"would be right in {gain['rule_all_never_of_decided']:.0%}. With `--trial 25%`, "
        f"{gain['rule_all_yes_n']:.0f} of its answers is *yes*. {advised}"
    )
    if gain["rule_all_yes_n"] == 0 and gain["rule_all_advised_n"] == 0:
        says = (
            "It answers *no* or *open*, never *yes*, and recommends against LoRA in every run. Always *no* gives the "
            "same recommendations, is right in the same decided runs, and needs no measuring. "
        )
    lora = lora_settings(PILOT_RATES[0])
    return (
        f"- **What we found.** On {gain['rule_all_n']:.0f} runs of two pretrained models the best classifier without "
        "finetuning (a probe of one or several layers or a bag of words, chosen by cross-validation) was more accurate "
        f"on the test texts than LoRA in {gain['against_all_best_worse']:.0f}, and LoRA was better by a point or more "
        f"in {gain['rule_all_pays']:.0f}. In the mean over the datasets, LoRA minus the best was "
        f"{gain['against_all_best_mean']:.1f} points ({gain['against_all_best_low']:.1f} to "
        f"{gain['against_all_best_high']:.1f}); LoRA minus a head on the last layer, trained in the same way, was "
        f"{gain['against_all_frozen_mean']:.1f} ({gain['against_all_frozen_low']:.1f} to "
        f"{gain['against_all_frozen_high']:.1f}). In the lab, small models in an artificial language, LoRA is better "
        f"by a point or more in {gain['rule_pays']:.0f} of {gain['rule_n']:.0f} runs, because some labels there depend "
        "on the order of the words.\n"
        f"- **How certain that is.** With {gain['noise_all_n_test_low']:.0f} to "
        f"{gain['noise_all_n_test_high']:,.0f} test texts, an upper limit of the standard error of the difference is "
        f"{gain['noise_all_error']:.1f} points in the median run, and {gain['noise_all_error_most']:.1f} in the least "
        "certain one. By more than twice its limit, LoRA was worse than the best in "
        f"{gain['noise_all_clear_worse']:.0f} of the {gain['rule_all_n']:.0f} runs, and better in "
        f"{gain['noise_all_clear_better']:.0f}. With another random seed the accuracy of LoRA changes, too (standard "
        f"deviation {gain['seed_real_lora_noise']:.1f} points, {gain['seed_real_lora_low']:.1f} to "
        f"{gain['seed_real_lora_high']:.1f}, from {gain['seed_real_n']} datasets); if this counts, too, "
        f"{gain['noise_all_seeded_worse']:.0f} and {gain['noise_all_seeded_better']:.0f} of these runs remain.\n"
        "- **What the tool says of such models.** "
        f"{says}{gain['rule_all_missed']:.0f} of the {gain['rule_all_pays']:.0f} runs in which "
        "LoRA was better by a point were answered *no*. The tool is useful for two things: it names the best "
        "classifier, and says about how much is left to gain.\n"
        "- **Limits.** The two models have 135 and 268 million parameters, with weights that came in 4 to 8 bits; they "
        f"read up to {N_TRAIN:,} texts of at most {MAX_LENGTH} tokens, with one setting of LoRA (rank {lora.r}, "
        f"{lora.max_steps} steps of {lora.batch_size} texts), which was not tuned to the dataset; in "
        f"{gain['whole_all']:.0f} runs the loss still fell at the end. For a larger model or longer texts believe a "
        "*no* only where its reason is that the best classifier gets too few texts wrong, and take every other answer "
        f"for *open*. (`--max-length {MAX_LENGTH}` makes the answer comparable, and about cut texts.)\n"
    )


def answers(glued: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how good the answers of the tool are, and what simple rules have lost on the recorded runs.

    Parameters
    ----------
    glued : mapping of str to mapping
        See :func:`verdicts`.

    Returns
    -------
    str
        Markdown.
    """
    gain = glued["09_predicting_the_gain"]
    cases = load_record("prescreened")["cases"]
    shares = [case["seconds"] / case["lora_seconds"] for case in cases]
    minutes = [case["lora_seconds"] / 60 for case in cases]
    rows = [
        ("decided without a trial run", "{:.0%}", "frozen_decided"),
        ("decided with `--trial 25%`", "{:.0%}", "trial_decided"),
        ("of the answers with `--trial 25%` are right", "{:.0%}", "trial_right"),
        ("70% intervals of the gain over the best classifier that held", "{:.0%}", "trial_held"),
        ("of the same answers, always *no* would be right in", "{:.0%}", "never_of_decided"),
        ("regret of the recommendation, in points", "{:.2f}", "advice_regret"),
        ("regret of running by the expected gain, without a trial run", "{:.2f}", "frozen_regret"),
        ("regret of always running LoRA", "{:.2f}", "yes_regret"),
        ("regret of never running LoRA", "{:.2f}", "never_regret"),
    ]
    real, lab = ([show.format(gain[f"{start}_{name}"]) for _, show, name in rows] for start in ("rule_all", "rule"))
    return (
        "Each dataset is left out in turn; the threshold is one point.\n\n"
        + table(("", "two pretrained models", "lab"), zip([row[0] for row in rows], real, lab, strict=True))
        + "\n*Regret* is what a rule loses against knowing all gains. It has three parts. Where LoRA was skipped and "
        "would have paid, it is the gain minus the threshold. Where LoRA was run and did not pay, it is the threshold "
        "minus the gain, and at most the threshold, because whoever has run LoRA keeps the better classifier. "
        "Measuring costs its share of the forward passes of a LoRA run, times the threshold. In an open case "
        "the recommendation follows the rule that loses least on the other datasets; the row below it runs LoRA where "
        "the expected gain reaches the threshold (where nothing predicts it: the mean of what LoRA has over a probe of "
        "the last layer in the recorded runs, minus what the best classifier has over this probe). The time of "
        f"fitting the probes is not in it: with them, prescreening took {min(shares):.0%} to {max(shares):.0%} of the "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes that the report estimates for the LoRA run, on one core, "
        f"in {len(cases)} recorded cases of up to {N_TRAIN:,} short texts.\n"
    )


def _table(glued: Mapping[str, Mapping[str, Any]], show: Callable[[str], str], link: str) -> str:
    """The verdicts as a Markdown table; ``link`` is filled with the number and the name of a chapter."""
    rows = [
        (
            row.number,
            row.claim,
            show(row.lab),
            show(row.real),
            row.finding,
            ", ".join(link.format(int(name[:2]), name) for name in row.chapters),
        )
        for row in verdicts(glued)
    ]
    return table(HEADINGS, rows)


def _badge(verdict: str) -> str:
    return f"{{bdg-{COLORS[verdict]}}}`{verdict.capitalize()}`"


def readme(text: str, glued: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the verdicts into the text of the README.

    Parameters
    ----------
    text : str
        Contents of the README, with the lines of :func:`marks` for each of ``PARTS``.
    glued : mapping of str to mapping
        See :func:`verdicts`.

    Returns
    -------
    str
    """
    verdict_table = _table(glued, str.capitalize, "[{}](notebooks/plain/{}.ipynb)")
    written = {"verdicts": verdict_table, "advice": f"{advice(glued)}\n{answers(glued)}"}
    for part in PARTS:
        begin, end = marks(part)
        before, rest = text.split(begin)
        after = rest.split(end)[1]
        text = f"{before}{begin}\n\n{written[part]}\n{end}{after}"
    return text


def marks(part: str) -> tuple[str, str]:
    """Lines of the README between which a part stands.

    Parameters
    ----------
    part : str
        One of ``PARTS``.

    Returns
    -------
    tuple of str
    """
    return f"<!-- {part}: written by book.tools.refresh -->", f"<!-- end of {part} -->"

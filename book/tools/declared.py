"""Markdown tables of the declared experiment, for its page in the book."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from book.tools.visible_rise import DECLARED
from ntps_utils._utils.files import data_file
from ntps_utils.evidence.claims import CONTROL_COLUMNS, finetuned_table, score_rise, setting_of
from ntps_utils.evidence.declared import CLUSTERS, FINETUNED_MODELS, PILOTS, Run, planned_runs, run_order
from ntps_utils.evidence.records import load_record
from ntps_utils.evidence.results import MIN_CLUSTERS, SCORE_LABELS, TARGET_LABELS, seed_noise
from ntps_utils.evidence.runs import chosen_rates, recorded_runs


def tables() -> dict[str, str]:
    """Return the tables by name of their file.

    Returns
    -------
    dict of str to str
    """
    return {
        "datasets": datasets(),
        "sources": sources(),
        "order": order(),
        "pilots": pilots(),
        "power": power(),
        "power_of_controls": power_of_controls(),
        "power_of_rises": power_of_rises(),
        "power_of_skips": power_of_skips(),
        "few_test_texts": few_test_texts(),
        "visible_rise": visible_rise(),
        "results": results(load_record("results")),
        "results_all": results_all(load_record("results"), load_record("results_all")),
        "seeds": seeds(),
        "paper_settings": paper_settings(),
    }


def datasets() -> str:
    """Return task, size, and what a bag of words reaches, of every dataset."""
    sources = pd.read_csv(data_file("real_datasets.csv")).set_index("dataset")
    rows = [
        (
            row["dataset"],
            sources.loc[row["dataset"], "task"],
            f"{row['n_train']}/{row['n_test']}",
            row["n_classes"],
            f"{row['majority']:.2f}",
            f"{row['words']:.0f}",
            f"{row['bag_of_words']:.2f}",
        )
        for row in load_record("datasets")["datasets"]
    ]
    return table(("dataset", "task", "texts", "classes", "majority", "words", "bag of words"), rows)


def sources() -> str:
    """Return citation, source and license of every dataset."""
    rows = [
        (
            row.dataset,
            row.citation,
            f"[{row.source.removeprefix('https://github.com/')}]({row.source}/tree/{row.commit})",
            row.license,
        )
        for row in pd.read_csv(data_file("real_datasets.csv")).itertuples()
    ]
    return table(("dataset", "citation", "source", "license stated there"), rows)


def order() -> str:
    """Return the datasets in the order of the runs, with the time of each recorded run."""
    days = {one.run: one.provenance["started"][:16].replace("T", " ") for one in recorded_runs()}
    planned = planned_runs()
    rows = []
    for i, dataset in enumerate(run_order(), 1):
        others = []
        for label, kind, seed in (("seed 1", "lora", 1), ("shuffled labels", "shuffled", 0), ("paper", "paper", 0)):
            runs = [run for run in planned if (run.kind, run.dataset, run.seed) == (kind, dataset, seed)]
            if runs:
                made = {days[run][:10] for run in runs if run in days}
                others.append(label + (f" ({', '.join(sorted(made))})" if made else ""))
        started = [
            next((days[r] for r in days if (r.kind, r.model, r.dataset, r.seed) == ("lora", m, dataset, 0)), "")
            for m in FINETUNED_MODELS
        ]
        rows.append((i, dataset, CLUSTERS.get(dataset, ""), ", ".join(others), *started))
    return table(("", "dataset", "cluster", "further runs", *FINETUNED_MODELS), rows)


def seeds() -> str:
    """Return how much the gains over the head, and the accuracies of LoRA, change with the seed."""
    runs = recorded_runs()
    first, second = (finetuned_table(runs, seed=seed) for seed in (0, 1))
    labels = {"gain": "gain over the trained head", "lora": "accuracy of LoRA"}
    found = {column: seed_noise(first, second, column) for column in labels}
    rows = [
        (
            labels[column],
            "both together" if model == "all" else model,
            int(row["n"]),
            f"{100 * row['sd']:.1f}",
            _interval((100 * row).to_dict(), "noise", digits=1),
            f"{100 * row['most']:.1f}",
            f"{row['rho']:.2f}",
        )
        for column, noise in found.items()
        for model, row in noise.iterrows()
    ]
    reliable = pd.DataFrame(load_record("results")["reliability"]).set_index("model")
    noise = found["gain"].loc[list(FINETUNED_MODELS), ["noise", "high", "low"]] ** 2
    total = noise.add(reliable["error"] ** 2, axis="index").div(reliable["sd"] ** 2, axis="index")
    with_seed = (1 - total).clip(lower=0.0).rename(columns={"high": "low", "low": "high"})  # more noise, less reliable
    expected = " and ".join(f"{_interval(with_seed.loc[m].to_dict(), 'noise')} in {m}" for m in FINETUNED_MODELS)
    return (
        table(
            ("", "model", "datasets", "over datasets", "between seeds", "largest difference", "rank correlation"), rows
        )
        + "\nIf these datasets were typical, the reliability of the gains of the first fifteen datasets (last table of "
        f"*What the runs show*) would be {expected}, with the noise of the seed (in parentheses: at the ends of its "
        "interval). These are rough lower limits: what the seed changes in the errors on the test texts is counted "
        "twice.\n"
    )


def paper_settings() -> str:
    """Return what LoRA reaches with the paper's settings, beside the declared ones."""
    runs = {one.run: one for one in recorded_runs()}
    rows = []
    for run, one in runs.items():
        if run.kind != "paper":
            continue
        for label, made in (("declared", runs[Run("lora", run.model, run.dataset)]), ("the paper's", one)):
            tuned = made.result.finetuning
            assert tuned is not None
            rises = (f"{score_rise(made, score):+.3f}" for score in ("ntps", "ntps_metric"))
            rows.append(
                (run.dataset, label, *(f"{x:.3f}" for x in (tuned.frozen_accuracy, tuned.last_accuracy)), *rises)
            )
    return table(("dataset", "settings", "trained head", "LoRA", "change of NTPS", "of the metric-matched score"), rows)


def few_test_texts() -> str:
    """Say by how much NTPS on the test texts exceeds that on the training texts before finetuning."""
    shifts, texts = [], []
    for one in recorded_runs():
        if one.run.model not in FINETUNED_MODELS:
            continue
        train, test = (setting_of(one.result.scores, centered=False, split=split).ntps for split in ("train", "test"))
        shifts.append(test - train)
        texts.append(one.result.n_test / one.result.n_features)
    return (
        f"In the runs of the two finetuned models there are {min(texts):.1f} to {max(texts):.1f} test texts for each "
        f"feature. Before any finetuning, the difference of NTPS on them and on the training texts is "
        f"{min(shifts):+.2f} to {max(shifts):+.2f}.\n"
    )


def visible_rise() -> str:
    """Return what a planted rise of NTPS looks like on as few texts as the test texts are."""
    rows = [
        (row["d"], row["n"], row["n_classes"], f"{row['planted']:.2f}", f"{row['measured']:+.3f}", f"{row['sd']:.3f}")
        for row in load_record("visible_rise")["rows"]
        if row["score"] == "ntps" and row["d"] in DECLARED
    ]
    headings = ("features", "texts", "classes", "planted rise", "measured, mean", "standard deviation over populations")
    return table(headings, rows)


def pilots() -> str:
    """Return the pilots and the learning rates that they chose."""
    chosen = chosen_rates()
    rows = [
        (
            run["model"],
            run["dataset"],
            f"{run['rate']:g}{' (chosen)' if chosen.get(run['model']) == run['rate'] else ''}",
            f"{run['curve'][0]['cross_entropy']:.3f}",
            f"{run['best_cross_entropy']:.3f}",
            run["best_step"],
            run["base_dtype"],
        )
        for run in sorted(
            load_record("pilots")["runs"], key=lambda r: (r["model"], PILOTS.index(r["dataset"]), -r["rate"])
        )
    ]
    return table(
        ("model", "dataset", "learning rate", "loss at step 0", "lowest loss", "at step", "frozen weights"), rows
    )


def power() -> str:
    """Return how often simulated experiments find or exclude a correlation."""
    shown = ("above_zero", "significant", "refuted_only", "neither")
    rows = [
        (row["target"], row["n_datasets"], f"{row['rho']:g}", *(f"{100 * row[name]:.0f}%" for name in shown))
        for row in load_record("power")["rows"]
    ]
    headings = (
        "target", "datasets", "true correlation", "interval above 0", "and p after Holm's first step",
        "printed size excluded, interval not above 0", "neither",
    )  # fmt: skip
    return table(headings, rows)


def power_of_controls() -> str:
    """Return how often NTPS is told from principal components."""
    rows = [
        (row["n_datasets"], f"{row['control']:g}", f"{row['overlap']:g}", f"{100 * row['told_apart']:.0f}%")
        for row in load_record("power")["controls"]
    ]
    return table(("datasets", "correlation of the control", "its correlation with NTPS", "difference above 0"), rows)


def power_of_rises() -> str:
    """Return how often a rise of NTPS is found, and excluded."""
    rows = [
        (
            f"mean of {row['mean']:g} standard deviations"
            if row["mean"]
            else f"none, standard deviation {row['sd']:g}",
            f"{100 * row['both_above_zero']:.0f}%",
            "" if row["mean"] else f"{100 * row['refuted']:.0f}%",
        )
        for row in load_record("power")["rises"]
    ]
    return table(("true rise", "both intervals above 0", "both upper ends below 0.02"), rows)


def power_of_skips() -> str:
    """Return how often skipping by a score is told from skipping at random."""
    rows = [
        (row["n_datasets"], f"{-row['rho']:g}" if row["rho"] else "0", f"{100 * row['below_random']:.0f}%")
        for row in load_record("power")["skips"]
    ]
    return table(("datasets", "true correlation with the gain", "regret below the 2.5% point of random halves"), rows)


def results_all(first: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return the estimates from the first datasets beside those from all of them."""
    earlier = {claim["name"]: claim for claim in first["claims"]}
    rows = []
    for claim in found["claims"]:
        name = claim["name"]
        rows.append((name, "*by the rules*", f"*{earlier[name]['verdict']}*", f"*{claim['verdict']}*"))
        for estimate, values in claim["estimates"].items():
            label, value = _estimate(estimate, values)
            before = _estimate(estimate, earlier[name]["estimates"][estimate])[1]
            rows.append(("", label, before or "runs missing", value))
    headings = (f"first {len(first['datasets'])} datasets", f"all {len(found['datasets'])} datasets")
    enough = [row for row in found["selections"] if row["n"] >= MIN_CLUSTERS]
    return (
        table(("claim", "estimate", *headings), rows)
        + "\n**NTPS on other selections of all datasets**\n\n"
        + _selections(enough, "all datasets")
    )


def _selections(rows: Iterable[Mapping[str, Any]], everything: str) -> str:
    """Correlations of NTPS on selections of datasets."""
    shown = [
        (
            everything if row["datasets"] == "all" else row["datasets"],
            TARGET_LABELS[row["target"]],
            row["n"],
            _interval(row, "rho"),
        )
        for row in rows
    ]
    return table(("datasets", "target", "n", "correlation"), shown)


def results(found: Mapping[str, Any]) -> str:
    """Return what the runs show, from the record of ``book.tools.results``."""
    untested = "not tested: runs were missing at the recorded end; by the rules p is 1 then"
    verdicts = [
        (
            claim["name"],
            claim["verdict"],
            f"{claim['p']:.3f}",
            f"{claim['p_adjusted']:.3f}",
            untested if all(one["value"] is None for one in claim["estimates"].values()) else claim["remark"],
        )
        for claim in found["claims"]
    ]
    claims = [
        (claim["name"] if i == 0 else "", *_estimate(name, values))
        for claim in found["claims"]
        for i, (name, values) in enumerate(claim["estimates"].items())
    ]
    cells = {(row["score"], row["target"]): row for row in found["associations"]}
    correlations = [
        (
            SCORE_LABELS[score],
            *(
                "" if (score, target) == ("headroom", "accuracy") else _interval(cells[score, target], "rho")
                for target in TARGET_LABELS
            ),
        )
        for score in SCORE_LABELS
    ]
    slopes = [
        (
            SCORE_LABELS[score],
            TARGET_LABELS[target],
            *(_number(cells[score, target][f"rho_{model}"]) for model in FINETUNED_MODELS),
            _interval(cells[score, target], "slope", "slope_"),
        )
        for score in ("ntps", "ntps_metric", "ntps_task")
        for target in TARGET_LABELS
    ]
    rises = [
        (row["model"], row["dataset"], *(f"{value:+.3f}" for value in (row["rise"], row["shuffled"])),
         f"{row['rise'] - row['shuffled']:+.3f}")
        for row in found["rises"]
    ]  # fmt: skip
    sizes = [
        (
            LEVEL_LABELS[row["score"]],
            CONTROL_LABELS[row["control"]],
            *(_number(row[name]) for name in ("next_token", "other")),
            _interval(row, "difference", digits=3),
            f"{row['share']:.0%}",
        )
        for row in found["levels"]
    ]
    reliable = [
        (row["model"], *(f"{100 * row[name]:.1f}" for name in ("sd", "error")), _number(row["reliability"]))
        for row in found["reliability"]
    ]
    swept = [
        (TARGET_LABELS[target], row["n_settings"], row["best"], _number(row["rho"]), _number(row["edge"]))
        for target, row in found["landscape"].items()
    ]
    parts = {
        f"Verdicts, from {len(found['datasets'])} datasets (p-values of both conditions together)": table(
            ("claim", "verdict", "p", "corrected p", "remark"), verdicts
        ),
        "What the verdicts are computed from": table(("claim", "estimate", "value"), claims),
        "Every score with every target: mean rank correlation": table(("", *TARGET_LABELS.values()), correlations),
        "Single models, and the slope of the hierarchical regression": table(
            ("score", "target", *FINETUNED_MODELS, "slope (95% credible interval)"), slopes
        ),
        "Scores of next-token directions and of other directions of the same width: means": table(
            ("score", "other directions", "next-token", "other", "difference", "runs with next-token higher"), sizes
        ),
        "NTPS on other selections of datasets": _selections(found["selections"], "those of the verdicts"),
        "Rise of NTPS on test texts": table(
            ("model", "dataset", "true labels", "shuffled labels", "difference"), rises
        ),
        "Best of all recorded settings, against the best for permuted targets": table(
            ("target", "settings", "best setting", "correlation", "95% point if unrelated"), swept
        ),
        f"Noise of the gain, in points (correlation of the gains of both models: {found['agreement']:.2f})": table(
            (
                "model",
                "standard deviation over datasets",
                "error from test texts, at most",
                "reliability, without noise of the seed",
            ),
            reliable,
        ),
    }
    return "\n".join(f"**{title}**\n\n{text}" for title, text in parts.items())


LEVEL_LABELS = {
    "ntps": "NTPS",
    "ntps_metric": "metric-matched",
    "ntps_task": "task-weighted",
    "r2_subspace": "variance of the test targets that a probe on the directions explains",
}
CONTROL_LABELS = {column.removeprefix("ntps_"): label for column, label in CONTROL_COLUMNS.items()}


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _estimate(name: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Name and value of an estimate of a claim; regrets in points."""
    if "regret" in name:
        points = {key: None if value is None else 100 * value for key, value in values.items()}
        words = ", mean and 95% range" if name == "regret of random halves" else ""
        return f"{name} (points{words})", _interval(points, "value")
    digits = 3 if name in FINETUNED_MODELS else 2
    return (f"rise in {name}" if digits == 3 else name), _interval(values, "value", digits=digits)


def _interval(row: Mapping[str, Any], name: str, prefix: str = "", digits: int = 2) -> str:
    """A value with its interval, if it has one."""
    low, high = (row.get(f"{prefix}{end}") for end in ("low", "high"))
    ends = "" if low is None or high is None else f" ({_number(low, digits)} to {_number(high, digits)})"
    return f"{_number(row[name], digits)}{ends}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, ""])

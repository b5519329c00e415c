"""Prescreen real models on datasets whose LoRA runs are recorded, for chapter 11.

    python -m book.tools.real_cases --data FOLDER

Each case is calibrated twice: on the runs that ship with the library, and on a few of them as if a reader had made
them (``ntps benchmark --profile declared --record``). Predictors, probes and trial runs are made
once for both. A finished case is recorded at once, and is not repeated.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from ntps_utils._utils.files import write_json
from ntps_utils.evidence.classifiers import recorded_classifiers
from ntps_utils.evidence.declared import CLUSTERS, MAX_LENGTH, N_TRAIN, run_settings
from ntps_utils.evidence.prescreen import PrescreenReport, prescreen
from ntps_utils.evidence.runs import RecordedRun, chosen_rates, recorded_runs
from ntps_utils.evidence.tables import record

OUT = Path("ntps_utils/data/recorded/prescreened.json")
MODEL = "smollm2-135m-instruct"
THRESHOLD = 0.01
TRIAL = "25%"
N_OWN = 6
"""Number of datasets in the calibration on own runs."""


def lora_runs() -> dict[str, RecordedRun]:
    """Return the recorded LoRA runs of the model by dataset, with the first seed, in the order in which they ran."""
    found = (one for one in recorded_runs() if one.run.model == MODEL and one.run.kind == "lora" and one.run.seed == 0)
    return {one.run.dataset: one for one in found}


def own_runs(dataset: str) -> list[RecordedRun]:
    """Return the first runs on other datasets that share no texts with the dataset."""
    group = CLUSTERS.get(dataset, dataset)
    return [one for name, one in lora_runs().items() if CLUSTERS.get(name, name) != group][:N_OWN]


def record_own(dataset: str, prefix: Path) -> Path:
    """Write the table that ``ntps benchmark --record`` would have written for these runs.

    Their classifiers without finetuning were measured apart (``book.tools.alternatives``).
    """
    runs = own_runs(dataset)
    known = recorded_classifiers()
    results = [replace(one.result, classifiers=known[MODEL, one.run.dataset]) for one in runs]
    names = ",".join(one.run.dataset for one in runs)
    command = f"ntps benchmark --profile declared --models {MODEL} --datasets {names}"
    record(results, prefix, run_settings(runs[0].run, chosen_rates()), command)
    return prefix.with_name(f"{prefix.name}_cells.csv")


def shown(report: PrescreenReport, *places: tuple[str, str]) -> dict[str, Any]:
    """Return the fields of a report; where files lie on this machine is of no use to others."""
    text = json.dumps({**json.loads(report.to_json()), "summary": report.summary})
    for place, name in places:
        text = text.replace(place, name)
    return dict(json.loads(text))


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    limit: Annotated[int, typer.Option(min=1, help="Largest number of cases.")] = 1000,
    out: Annotated[Path, typer.Option(help="File to extend.")] = OUT,
) -> None:
    """Prescreen what is missing."""
    reports: list[dict[str, Any]] = []
    if out.is_file():
        reports = json.loads(out.read_text("utf-8"))["cases"]
    done = {report["dataset"] for report in reports}
    missing = [dataset for dataset in lora_runs() if dataset not in done][:limit]
    for i, dataset in enumerate(missing, 1):
        typer.echo(f"{i}/{len(missing)} {dataset}", err=True)
        with TemporaryDirectory() as folder:
            own = record_own(dataset, Path(folder) / "runs" / "mine")
            found = [
                prescreen(
                    MODEL,
                    str(data / dataset),
                    calibration=calibration,
                    threshold=THRESHOLD,
                    trial=TRIAL,
                    max_texts=N_TRAIN,
                    max_length=MAX_LENGTH,
                    dtype="float32",
                    resume=Path(folder) / "measured.json",
                )
                for calibration in ("real", str(own))
            ]
            values, with_own = (shown(one, (f"{folder}/", ""), (str(data), "data")) for one in found)
        with_own["own_datasets"] = ", ".join(one.run.dataset for one in own_runs(dataset))
        reports.append({**values, "own": with_own})
        write_json(out, {"cases": reports})


if __name__ == "__main__":
    typer.run(main)

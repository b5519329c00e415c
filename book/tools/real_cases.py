"""Prescreen real models on datasets whose LoRA runs are recorded, for chapter 11.

    python -m book.tools.real_cases --data FOLDER

A finished case is recorded at once, and is not repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ntps_utils._utils.files import write_json
from ntps_utils.evidence.declared import MAX_LENGTH, N_TRAIN
from ntps_utils.evidence.prescreen import prescreen
from ntps_utils.evidence.runs import recorded_runs

OUT = Path("ntps_utils/data/recorded/prescreened.json")
MODEL = "smollm2-135m-instruct"
THRESHOLD = 0.01
TRIAL = "25%"


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
    runs = (one.run for one in recorded_runs() if one.run.model == MODEL and one.run.kind == "lora")
    missing = [dataset for dataset in dict.fromkeys(run.dataset for run in runs) if dataset not in done][:limit]
    for i, dataset in enumerate(missing, 1):
        typer.echo(f"{i}/{len(missing)} {dataset}", err=True)
        report = prescreen(
            MODEL,
            str(data / dataset),
            calibration="real",
            threshold=THRESHOLD,
            trial=TRIAL,
            max_texts=N_TRAIN,
            max_length=MAX_LENGTH,
            dtype="float32",
        )
        values = {**json.loads(report.to_json()), "summary": report.summary}
        # Where the folder lies on this machine is of no use to others.
        values["command"] = values["command"].replace(str(data), "data")
        reports.append(values)
        write_json(out, {"cases": reports})


if __name__ == "__main__":
    typer.run(main)

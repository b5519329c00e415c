"""Choose the learning rate of each finetuned model on the pilot datasets.

    python -m book.tools.pilots --data FOLDER

One JSON file holds all runs; a run that it contains is not repeated. The rate with the lower
validation cross-entropy, as a mean over the pilots, is the rate of the declared experiment.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.declared import FINETUNED_MODELS, MAX_LENGTH, N_TRAIN, PILOT_RATES, PILOTS, lora_settings
from ntps_utils.evidence.experiment import n_cores
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.extraction import extract, tokenize
from ntps_utils.models.finetuning import finetune
from ntps_utils.models.loading import load_model

OUT = Path("ntps_utils/data/recorded/pilots.json")
N_TEST = 100  # finetuning classifies test texts; the choice does not use them


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    models: Annotated[str, typer.Option(help="Names of models, separated by commas.")] = ",".join(FINETUNED_MODELS),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "auto",
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Run the pilots that are missing."""
    torch.set_num_threads(n_cores())
    runs: list[dict[str, Any]] = json.loads(out.read_text())["runs"] if out.is_file() else []
    done = {(run["model"], run["dataset"], run["rate"]) for run in runs}
    for name in models.split(","):
        missing = [(d, rate) for d in PILOTS for rate in PILOT_RATES if (name, d, rate) not in done]
        if not missing:
            continue
        model = load_model(name, device=device, dtype="float32")
        for dataset in dict.fromkeys(d for d, _ in missing):
            train = load_texts(str(data / dataset), "train").head(N_TRAIN)
            test = load_texts(str(data / dataset), "test").head(N_TEST)
            tokens = [tokenize(model, part, MAX_LENGTH) for part in (train, test)]
            found = [
                extract(model, part, layers="last", features="last", tokens=ids)
                for part, ids in zip((train, test), tokens, strict=True)
            ]
            features = (found[0].features[model.n_layers - 1], found[1].features[model.n_layers - 1])
            for rate in [rate for d, rate in missing if d == dataset]:
                typer.echo(f"{name} on {dataset}, rate {rate:g}", err=True)
                result = finetune(
                    model,
                    train,
                    test,
                    lora_settings(rate),
                    train_tokens=tokens[0],
                    test_tokens=tokens[1],
                    features=features,
                    progress=_Steps(),
                )
                best = min(result.curve, key=lambda point: point.cross_entropy or 0.0)
                runs.append(
                    {
                        "model": name,
                        "dataset": dataset,
                        "rate": rate,
                        "best_step": best.step,
                        "best_cross_entropy": best.cross_entropy,
                        "n_tokens": sum(map(len, tokens[0].ids)),
                        "seconds": result.seconds,
                        "base_dtype": result.base_dtype,
                        "curve": [asdict(point) for point in result.curve],
                        **provenance(fingerprint=model.fingerprint, device=str(model.model.device)),
                    }
                )
                write_json(out, {"runs": runs})


class _Steps:
    """Print every 25th training step."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, n: int) -> None:
        self.n += n
        if self.n % 25 == 0:
            typer.echo(f"  step {self.n}", err=True)


if __name__ == "__main__":
    typer.run(main)

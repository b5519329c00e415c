"""Compare the test accuracy of LoRA on frozen weights in bfloat16 with that on weights in float32.

    python -m book.tools.base_types --data FOLDER

The model is one of the declared experiment, with its learning rate. Each finished run is recorded at once, and a
recorded run is not made again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import typer

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.benchmark import made_by
from ntps_utils.evidence.runs import chosen_rates
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.finetuning import FinetuneConfig, finetune
from ntps_utils.models.loading import load_model

RECORDED = Path("ntps_utils/data/recorded/base_types.json")
MODEL = "smollm2-135m-instruct"
DATASETS = ("customer_reviews", "csabstruct", "emotion")
SEEDS = (0, 1, 2)
TYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
N_TRAIN, N_TEST, MAX_LENGTH = 500, 500, 64
SETTINGS = FinetuneConfig(max_steps=80, batch_size=16, eval_steps=40, early_stopping_patience=None)


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="File to extend.")] = RECORDED,
) -> None:
    """Make what is missing. Both types of a dataset and seed follow each other."""
    rows = json.loads(out.read_text("utf-8"))["runs"] if out.is_file() else []
    done = {(row["dataset"], row["seed"], row["base_dtype"]) for row in rows}
    model = load_model(MODEL, device=device, dtype="float32")
    for seed, dataset, dtype in product(SEEDS, DATASETS, TYPES):
        if (dataset, seed, dtype) in done:
            continue
        train, test = (load_texts(data / dataset, split).head(n) for split, n in (("train", N_TRAIN), ("test", N_TEST)))
        config = replace(SETTINGS, learning_rates=(chosen_rates()[MODEL],), base_dtype=dtype, seed=seed)
        found = finetune(model, train, test, config, max_length=MAX_LENGTH, test_last_step=True)
        assert found.last_step is not None
        rows.append(
            {
                "model": MODEL,
                "dataset": dataset,
                "seed": seed,
                "base_dtype": found.base_dtype,
                "accuracy": found.last_step.accuracy,
                "validation_loss": [point.cross_entropy for point in found.curve],
                "n_train": len(train),
                "n_test": len(test),
                "provenance": provenance(device=str(model.model.device), code=made_by()["code"]),
            }
        )
        write_json(out, {"runs": rows})
        typer.echo(f"{dataset}, seed {seed}, {dtype}: accuracy {rows[-1]['accuracy']:.3f}", err=True)


if __name__ == "__main__":
    typer.run(main)

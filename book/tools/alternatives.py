"""Measure what is had without finetuning: classifiers of frozen features and of words, on the texts of recorded runs.

    python -m book.tools.alternatives --data FOLDER
    python -m book.tools.alternatives

The first command takes the models and datasets of the declared experiment, the second those of the lab. Each finished
case is recorded at once; cases that are recorded are not computed again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from book.tools.predictors import load_cases
from ntps_utils._utils.files import write_text
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.benchmark import made_by
from ntps_utils.evidence.classifiers import compare_classifiers, probed_layers, texts_read
from ntps_utils.evidence.declared import FINETUNED_MODELS, MAX_LENGTH, Run, order, run_settings
from ntps_utils.evidence.experiment import ExperimentConfig, limited_threads
from ntps_utils.evidence.runs import chosen_rates
from ntps_utils.models.datasets import TextDataset
from ntps_utils.models.extraction import (
    Tokens,
    batch_overhead,
    hidden_states,
    length_batches,
    mean_pool,
    pad_batch,
    tokenize,
)
from ntps_utils.models.loading import CausalModel, evaluation_mode
from ntps_utils.theory.linear import Array

RECORDED = Path("ntps_utils/data/recorded/alternatives.jsonl")
BATCH = 64


def main(
    data: Annotated[
        Path | None, typer.Option(help="Folder with a folder for each dataset.", show_default="the tasks of the lab")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of cases.")] = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "auto",
    out: Annotated[Path, typer.Option(help="File of JSON lines to extend.")] = RECORDED,
) -> None:
    """Measure what is missing."""
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.is_file() else []
    done = {(row["model"], row["dataset"]) for row in rows}
    cases, loaded = load_cases(None if data is None else order(), FINETUNED_MODELS, device)
    for name, dataset in [case for case in cases if case not in done][:limit]:
        started, model = time.perf_counter(), loaded[name]
        settings = ExperimentConfig() if data is None else run_settings(Run("lora", name, dataset), chosen_rates())
        train, test = settings.texts(dataset if data is None else str(data / dataset))
        max_length = None if data is None else min(MAX_LENGTH, model.max_length or MAX_LENGTH)
        with limited_threads(model.model.num_parameters()):
            accuracy = measure(model, train, test, max_length)
        rows.append(
            {
                "model": name,
                "dataset": dataset,
                "weights": model.fingerprint,
                "texts": train.fingerprint,
                "n_texts": len(train),
                "n_test": len(test),
                "accuracy": accuracy,
                "seconds": time.perf_counter() - started,
                "provenance": provenance(device=str(model.model.device), code=made_by()["code"]),
            }
        )
        write_text(out, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
        typer.echo(f"{name} on {dataset}: {rows[-1]['seconds']:.0f} s", err=True)


def measure(
    model: CausalModel, train: TextDataset, test: TextDataset, max_length: int | None
) -> dict[str, dict[str, float]]:
    """Accuracy of each classifier: cross-validated on the training texts ("cv"), and on the test texts ("test")."""
    layers = probed_layers(model.n_layers)
    tokens, test_tokens = (tokenize(model, part, max_length) for part in (train, test))
    found = compare_classifiers(
        text_features(model, tokens, layers),
        text_features(model, test_tokens, layers),
        (texts_read(model, train, tokens), texts_read(model, test, test_tokens)),
        (train.labels, test.labels),
    )
    return {name: {"cv": one.cross_validated, "test": one.test} for name, one in found.items()}


def text_features(model: CausalModel, tokens: Tokens, layers: tuple[int, ...]) -> dict[int, Array]:
    """Mean token of every text in each layer, (n, d); 0 for a text without tokens."""
    ids = tokens.ids
    found = {layer: np.zeros((len(ids), model.dimension)) for layer in layers}
    rows = [row for row in range(len(ids)) if ids[row]]
    with evaluation_mode(model.model), torch.inference_mode():
        for batch in length_batches(ids, rows, BATCH, overhead=batch_overhead(model)):
            part = [ids[row] for row in batch]
            hidden, mask = hidden_states(model, part), pad_batch(part, model.model.device)[1]
            for layer in layers:
                found[layer][batch] = mean_pool(hidden[layer].float(), mask).double().cpu().numpy()
    return found


if __name__ == "__main__":
    typer.run(main)

"""Measure the real datasets of the declared experiment: sizes, classes, and what a bag of words reaches.

python -m book.tools.datasets --data FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ntps_utils._utils.files import write_json
from ntps_utils._utils.provenance import provenance
from ntps_utils.evidence.declared import DATASETS, N_TEST, N_TRAIN, PILOTS
from ntps_utils.models.datasets import load_texts
from ntps_utils.models.probes import chance_adjusted
from ntps_utils.models.richer_probes import bag_of_words

OUT = Path("ntps_utils/data/recorded/datasets.json")


def measure(folder: Path, name: str) -> dict[str, Any]:
    """Measure the texts of a dataset that the experiment uses."""
    train = load_texts(str(folder / name), "train").head(N_TRAIN)
    test = load_texts(str(folder / name), "test").head(N_TEST)
    accuracy = float(bag_of_words().fit(train.texts, train.labels).score(test.texts, test.labels))
    return {
        "dataset": name,
        "n_train": len(train),
        "n_test": len(test),
        "n_classes": train.n_classes,
        "majority": float(np.bincount(test.labels).max() / len(test)),
        "words": float(np.mean([len(text.split()) for text in train.texts])),
        "bag_of_words": accuracy,
        "bag_of_words_adjusted": chance_adjusted(accuracy, test.labels),
        "texts": train.fingerprint,
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder for each dataset.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = OUT,
) -> None:
    """Measure all datasets."""
    rows = []
    for name in sorted((*DATASETS, *PILOTS)):
        typer.echo(name, err=True)
        rows.append(measure(data, name))
    write_json(out, {"datasets": rows, "provenance": provenance()})


if __name__ == "__main__":
    typer.run(main)

"""Small stand-ins for the paper's eight models and twelve datasets, in the format of the Hub.

The models are those of the lab, early and late in pretraining, under the ids of the paper; the
datasets are tasks of the lab in the columns and splits of the real datasets. Two datasets have no
source on the Hub and are written to a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ntps_utils.lab.tasks import sample
from ntps_utils.models.datasets import registered_datasets
from ntps_utils.models.loading import load_model, paper_models

MODELS = dict(
    zip(paper_models(), ("XS@400", "XS", "S@400", "S", "M@400", "M", "L@400", "L"), strict=True)
)  # by size, as the paper's are
DATASETS = {
    "banking77": "topic",
    "bias_identification": "code",
    "clickbait": "register",
    "climate_sentiment": "sentiment",
    "commonsense_qa": "order",
    "emotion": "author",
    "imdb": "tense",
    "intent_classification": "intent",
    "medical_questions_pairs": "paraphrase",
    "rotten_tomatoes": "number",
    "sms_spam": "marker",
    "sst2": "agreement",
}
REMOTE_CODE = """from transformers import LlamaConfig, LlamaForCausalLM


class OpenELMConfig(LlamaConfig):
    model_type = "openelm"


class OpenELMForCausalLM(LlamaForCausalLM):
    config_class = OpenELMConfig
"""


def build(folder: Path, n_train: int = 60, n_test: int = 30, models: Mapping[str, str] = MODELS) -> str:
    """Write the repositories below ``folder/hub`` and the two other datasets below ``folder/local``.

    Parameters
    ----------
    folder : Path
    n_train, n_test : int
        Number of texts of each dataset.
    models : mapping of str to str
        Model of the lab, such as "XS@400", by registered name.

    Returns
    -------
    str
        Value for ``--datasets`` of ``ntps benchmark``.
    """
    for name, entry in paper_models().items():
        _model(folder / "hub/models", name, models[name], entry)
    local = []
    for name, entry in registered_datasets().items():
        if "hub" in entry:
            _dataset(folder / "hub/datasets" / entry["hub"], name, entry, n_train, n_test)
        else:
            place = folder / "local" / name
            place.mkdir(parents=True)
            for split, frame in zip(("train", "test"), _texts(name, n_train, n_test), strict=True):
                frame.to_csv(place / f"{split}.csv", index=False)
            local.append(f"{name}={place}")
    return ",".join(["paper", *local])


def _model(hub: Path, name: str, stand_in: str, entry: dict[str, Any]) -> None:
    model = load_model(f"lab/{stand_in}", dtype="float32")
    place = hub / entry["hub"]
    model.model.save_pretrained(place)
    tokenizer = hub / entry.get("tokenizer", entry["hub"])
    model.tokenizer.save_pretrained(tokenizer)
    if entry.get("remote_code"):
        config = json.loads((place / "config.json").read_text())
        config |= {
            "model_type": "openelm",
            "architectures": ["OpenELMForCausalLM"],
            "auto_map": {
                "AutoConfig": "modeling_openelm.OpenELMConfig",
                "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM",
            },
        }
        (place / "config.json").write_text(json.dumps(config))
        (place / "modeling_openelm.py").write_text(REMOTE_CODE)


def _texts(name: str, n_train: int, n_test: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = [sample(DATASETS[name], n, seed=i) for i, n in enumerate((n_train, n_test))]
    one, two = (pd.DataFrame({"text": part.texts, "label": part.labels}) for part in parts)
    return one, two


def _dataset(place: Path, name: str, entry: dict[str, Any], n_train: int, n_test: int) -> None:
    place.mkdir(parents=True)
    train, test = _texts(name, n_train, n_test)
    splits = {entry["splits"]["train"]: train}
    if "hold_out" in entry:  # one split, of which the library holds a part out
        splits = {entry["splits"]["train"]: pd.concat([train, test])}
    else:
        splits[entry["splits"]["test"]] = test
    for split, frame in splits.items():
        if name == "commonsense_qa":
            choices = [{"text": ["one", "two", "three", "four", "five"]}] * len(frame)
            letters = [chr(ord("A") + label) for label in frame["label"]]
            rows = pd.DataFrame({"question": frame["text"], "choices": choices, "answerKey": letters})
        elif name == "medical_questions_pairs":
            halves = [text.split() for text in frame["text"]]
            rows = pd.DataFrame(
                {
                    "question_1": [" ".join(words[: len(words) // 2]) for words in halves],
                    "question_2": [" ".join(words[len(words) // 2 :]) for words in halves],
                    "label": frame["label"],
                }
            )
        else:
            rows = frame.rename(columns={"text": entry["text"].strip("{}"), "label": entry["label"]})
        rows.to_parquet(place / f"{split}.parquet", index=False)

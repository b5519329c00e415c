"""Causal language models and labelled texts, by name or from local files.

A model is a Hub id, a local folder, or one of the lab's ("lab/M"). A dataset is a name
from ``data/datasets.toml``, a Hub id, a local folder with one file for each split, a CSV,
Parquet or JSONL file, or a task of the lab ("lab/topic").
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ntps_utils import lab
from ntps_utils.files import sha256

SUFFIXES = (".csv", ".parquet", ".jsonl")
AUTO_FLOAT64_PARAMETERS = 50_000_000
LAB = "lab/"
PARQUET = "refs/convert/parquet"  # where the Hub keeps its conversion of every public dataset
LARGEST_GAP = 1000  # class numbers up to here may have no text in a split
PATIENCE = 5.0  # seconds for the Hub to answer at all


class HubError(ValueError):
    """A model or dataset could not be found, reached or read. One line says what to do."""


# -- datasets ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TextDataset:
    """Labelled texts of one split.

    Attributes
    ----------
    name, split : str
    texts : tuple of str
    labels : (n,) int64
        Class of each text, 0 ... c - 1.
    label_names : tuple of str
        Name of each class; its length is c. A class may have no text here.
    """

    name: str
    split: str
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_classes(self) -> int:
        """Number of classes c."""
        return len(self.label_names)

    @property
    def one_hot(self) -> NDArray[np.float64]:
        """Targets y, (n, c)."""
        return np.eye(self.n_classes)[self.labels]

    @property
    def fingerprint(self) -> str:
        """Hash of texts and labels, 16 hex digits."""
        digest = hashlib.sha256(json.dumps([self.texts, self.labels.tolist(), self.label_names]).encode())
        return digest.hexdigest()[:16]

    def head(self, n: int) -> TextDataset:
        """The first n rows."""
        if n < 1:
            raise ValueError(f"The number of texts must be at least 1, got {n}.")
        return replace(self, texts=self.texts[:n], labels=self.labels[:n])


def registered_datasets() -> dict[str, dict[str, Any]]:
    """The entries of ``data/datasets.toml`` by name."""
    return _registry("datasets")


def registered_models() -> dict[str, dict[str, Any]]:
    """The entries of ``data/models.toml`` by name."""
    return _registry("models")


def _registry(what: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads(resources.files("ntps_utils.data").joinpath(f"{what}.toml").read_text("utf-8"))


def _suggest(name: str, known: Iterable[str]) -> str:
    """A half sentence that helps with an unknown name."""
    lower = {one.lower(): one for one in known}
    close = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3)]
    return f"Did you mean {' or '.join(close)}?" if close else f"Registered names: {', '.join(sorted(known))}."


def load_texts(
    dataset: str | Path, split: str = "train", *, text_column: str = "text", label_column: str = "label"
) -> TextDataset:
    """Load one split of a labelled text dataset.

    Parameters
    ----------
    dataset : str or Path
        A registered name, a task of the lab ("lab/topic"), a Hub id ("owner/name"), a
        folder with ``train.csv`` or the like (and optionally ``label_names.json``), or a
        single file.
    split : str
        Which split; of a single file there is only one, whatever this says.
    text_column, label_column : str
        Column names of a file or of a Hub dataset that is not registered.

    Raises
    ------
    HubError
        If there is no such dataset, split or column, or a row cannot be read.
    """
    path = Path(dataset)
    if path.is_dir():
        return _from_folder(path, split, text_column, label_column)
    if path.is_file():
        frame = _read_file(path)
        labels, names = _encode(_column(frame, label_column, str(path)), None, str(path))
        return _dataset(path.stem, "all", _column(frame, text_column, str(path)), labels, names)
    name = str(dataset)
    if name.startswith(LAB):
        return _from_lab(name, split)
    entries = registered_datasets()
    if name in entries:
        return _from_hub(name, split, entries[name])
    if name.count("/") == 1 and not name.startswith((".", "/")) and path.suffix not in SUFFIXES:
        entry = {"hub": name, "text": f"{{{text_column}}}", "label": label_column, "splits": {split: split}}
        return _from_hub(name, split, entry)
    hint = _suggest(name, entries)
    raise HubError(f"There is no dataset {name!r}: not a file or folder, a registered name, or a Hub id. {hint}")


def _from_lab(name: str, split: str) -> TextDataset:
    task, _, seed = name.removeprefix(LAB).partition("@")
    if seed and not seed.isdecimal():
        raise HubError(f"{name}: after the @ comes the number of another draw of the task, such as {LAB}{task}@1.")
    try:
        sample = lab.split_of(task, split, int(seed or 0))
    except ValueError as error:
        raise HubError(str(error)) from None
    return _dataset(name, split, sample.texts, sample.labels, lab.TASKS[task].label_names)


def _from_folder(folder: Path, split: str, text_column: str, label_column: str) -> TextDataset:
    files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}
    if split not in files:
        there = ", ".join(p.name for p in files.values()) or "no CSV, Parquet or JSONL file"
        raise HubError(f"{folder} has no split {split!r}; found {there}.")
    frame = _read_file(files[split])
    raw = _column(frame, label_column, str(files[split]))
    names_file = folder / "label_names.json"
    names: Sequence[str] | None = None
    if names_file.is_file():
        try:
            names = json.loads(names_file.read_text("utf-8"))
        except ValueError:
            names = None
        if not isinstance(names, list):
            raise HubError(f"{names_file} must hold a JSON list of class names in label order.")
    elif not _are_integers(raw):
        # One coding for all splits: the same class must not get two numbers.
        others = [_column(_read_file(p), label_column, str(p)) for s, p in files.items() if s != split]
        names = sorted({str(label) for column in [raw, *others] for label in column})
    labels, names = _encode(raw, names, str(files[split]))
    return _dataset(folder.name, split, _column(frame, text_column, str(files[split])), labels, names)


def _from_hub(name: str, split: str, entry: Mapping[str, Any]) -> TextDataset:
    held = entry.get("hold_out")
    splits = {**entry["splits"], "test": entry["splits"]["train"]} if held else entry["splits"]
    if "hub" not in entry:
        raise HubError(
            f"{name} is one of the paper's datasets, but its source is not known to this library; give a local file "
            "or folder."
        )
    if split not in splits:
        raise HubError(f"{name} has no split {split!r}; it has {', '.join(splits)}.")
    data = _load_dataset(entry["hub"], splits[split], entry.get("revision"))
    label = entry["label"]
    columns = set(data.column_names)
    if label not in columns:
        raise HubError(f"{name} has no column {label!r}; it has {', '.join(sorted(columns))}.")
    feature = data.features[label]
    names = feature.names if hasattr(feature, "names") else None
    try:
        rows = [row for row in data if not held or _is_held_out(name, row, held) == (split == "test")]
        texts = [entry["text"].format(**row) for row in rows]
    except (KeyError, IndexError) as error:
        raise HubError(f"{name}: the text {entry['text']!r} asks for {error}; columns are {sorted(columns)}.") from None
    if names is None and not _are_integers(data[label]):
        names = sorted({str(one) for one in data[label]})  # one coding for both sides of a hold-out
    labels, names = _encode([row[label] for row in rows], names, name)
    return _dataset(name, split, texts, labels, names)


def _is_held_out(name: str, row: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether a row's group is in the held-out share: the same answer on every machine."""
    group = held["group"].format(**row).strip().lower()
    number = int.from_bytes(hashlib.sha256(f"{name} {group}".encode()).digest()[:8], "big")
    return bool(number / 2**64 < held["share"])


def _load_dataset(hub_id: str, split: str, revision: str | None) -> Any:
    """One split from the Hub or its cache; script-based datasets through their Parquet conversion."""
    import datasets  # slow to import, and needed by this path alone

    _offline_if_unreachable()
    try:
        try:
            return datasets.load_dataset(hub_id, split=split, revision=revision)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            return datasets.load_dataset(hub_id, split=split, revision=PARQUET)
    except Exception as error:  # the Hub client raises many kinds
        raise HubError(
            f"The dataset {hub_id} could not be loaded from the Hub ({_first_line(error)}). "
            "Check the name and the connection, or give a local file or folder."
        ) from None


def _offline_if_unreachable() -> None:
    """Spare the user the Hub client's minute of retries when there is no connection.

    What is cached can still be used then.
    """
    import datasets
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    try:
        urllib.request.urlopen(
            urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD"), timeout=PATIENCE
        )
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError:
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True


def _read_file(path: Path) -> pd.DataFrame:
    try:
        suffix = path.suffix.lower()
        if suffix == ".csv":
            # "NA" and "null" are texts, not missing values.
            frame = pd.read_csv(path, keep_default_na=False, dtype=str, encoding="utf-8")
            if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first field of each row for its name
                raise HubError(f"{path}: the rows have more fields than the header; quote texts that hold commas.")
            return frame
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except HubError:
        raise
    except (ValueError, pd.errors.ParserError, OSError) as error:
        raise HubError(f"{path} could not be read: {_first_line(error)}.") from None
    raise HubError(f"{path} has an unknown type {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")


def _column(frame: pd.DataFrame, name: str, where: str) -> list[Any]:
    if name not in frame.columns:
        raise HubError(f"{where} has no column {name!r}; it has {', '.join(map(str, frame.columns))}.")
    return frame[name].tolist()


def _are_integers(labels: Sequence[Any]) -> bool:
    return all(_as_integer(label) is not None for label in labels)


def _as_integer(label: Any) -> int | None:
    if isinstance(label, (bool, np.bool_)):
        return int(label)
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, str) and label.strip().lstrip("-").isdecimal():
        return int(label)
    return None


def _encode(raw: Sequence[Any], names: Sequence[str] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and class names. Integers are class numbers; anything else is a class name."""
    if not raw:
        raise HubError(f"{where} has no rows.")
    for row, label in enumerate(raw):
        if label is None or label == "" or (isinstance(label, float) and not label.is_integer()):
            raise HubError(f"{where}, row {row + 1}: the label is {label!r}; expected a class number or a class name.")
    if _are_integers(raw):
        numbers = [int(label) for label in raw]
        lowest, highest = min(numbers), max(numbers)
        if lowest < 0:
            raise HubError(
                f"{where}, row {numbers.index(lowest) + 1}: the label is {lowest}; class numbers start at 0."
            )
        if highest >= max(LARGEST_GAP, 10 * len(raw)):
            raise HubError(
                f"{where}, row {numbers.index(highest) + 1}: the label is {highest}, and there are {len(raw)} rows; "
                "class numbers count from 0. Give names instead if these are codes."
            )
        labels = np.array(numbers, dtype=np.int64)
        n_classes = int(labels.max()) + 1
        if names is None:
            names = [str(i) for i in range(n_classes)]
        if n_classes > len(names):
            raise HubError(f"{where} has the label {n_classes - 1}, but only {len(names)} class names.")
        return labels, tuple(map(str, names))
    if names is None:
        names = sorted({str(label) for label in raw})
    number = {name: i for i, name in enumerate(names)}
    unknown = sorted({str(label) for label in raw} - set(number))
    if unknown:
        raise HubError(f"{where} has labels that are not among the class names: {', '.join(unknown[:5])}.")
    return np.array([number[str(label)] for label in raw], dtype=np.int64), tuple(names)


def _dataset(
    name: str, split: str, texts: Sequence[Any], labels: NDArray[np.int64], names: Sequence[str]
) -> TextDataset:
    for row, text in enumerate(texts):
        if text is None or text != text:
            raise HubError(f"{name}, row {row + 1}: the text is missing.")
        if not isinstance(text, str):
            raise HubError(f"{name}, row {row + 1}: the text is {type(text).__name__}, not a string.")
        if "\0" in text:
            raise HubError(f"{name}, row {row + 1}: the text holds a NUL character; was the file saved as UTF-16?")
    return TextDataset(name, split, tuple(texts), labels, tuple(names))


# -- models ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A causal language model with its tokenizer, ready for extraction.

    Attributes
    ----------
    name : str
        As it was asked for.
    model : transformers.PreTrainedModel
    tokenizer : transformers.PreTrainedTokenizerBase
    fingerprint : str
        Commit of the Hub, or hash of the local weights: 16 hex digits.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str

    @property
    def n_layers(self) -> int:
        """Number of hidden states: embeddings and every block."""
        return int(self.model.config.get_text_config().num_hidden_layers) + 1

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def max_length(self) -> int | None:
        """Longest text, in tokens, that model and tokenizer can take; None if unlimited."""
        limits = [
            getattr(self.model.config.get_text_config(), "max_position_embeddings", None),
            self.tokenizer.model_max_length,
        ]
        known = [int(limit) for limit in limits if limit is not None and limit < 1e9]
        return min(known, default=None)


def load_model(
    name: str | Path, *, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False
) -> CausalModel:
    """Load a causal language model for inference. Weights are read from safetensors only.

    Parameters
    ----------
    name : str or Path
        A name from ``data/models.toml``, a Hub id, a local folder, or a model of the lab:
        "lab/M", or "lab/M@400" for its checkpoint after 400 steps ("@0" is the untrained one).
    device : str
        "auto" takes a GPU if there is one; otherwise a torch device such as "cpu".
    dtype : str
        "float64", "float32", "bfloat16", "float16", or "auto": float64 for a model of at
        most 50 million parameters on the CPU, where it costs little and makes results
        independent of the batch size; else the type that the checkpoint is stored in.
    trust_remote_code : bool
        Let the model's repository run its own Python code. Say so only for code you read.

    Raises
    ------
    HubError
        If there is no such model, it is not a causal language model, or cannot be loaded.
    """
    import transformers

    dtypes = ("auto", "float64", "float32", "bfloat16", "float16")
    if dtype not in dtypes:
        raise HubError(f"There is no dtype {dtype!r}; choose one of {', '.join(dtypes)}.")
    where = _device(device)
    place = _locate(name, trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": place.local}
    model: Any
    with place.loading():
        if place.untrained:
            model, tokenizer = lab.untrained(place.name)
            model = model if dtype == "auto" else model.to(getattr(torch, dtype))
        else:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place.tokenizer, **options)
            wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                place.name, dtype=wanted, use_safetensors=True, output_loading_info=True, **options
            )
            model, report = loaded
            _check_complete(model, report["missing_keys"])
    if dtype == "auto" and where.type == "cpu" and model.num_parameters() <= AUTO_FLOAT64_PARAMETERS:
        model = model.double()
    return CausalModel(place.asked, model.eval().requires_grad_(False).to(where), tokenizer, place.fingerprint())


def _check_complete(model: Any, missing: Iterable[str]) -> None:
    """transformers fills weights that a checkpoint lacks with random numbers; only the head is none of ours."""
    head = model.get_output_embeddings()
    ours = {id(p) for p in head.parameters()} if head is not None else set()
    lacking = sorted(name for name in missing if id(dict(model.named_parameters()).get(name)) not in ours)
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(f"the checkpoint lacks the weights {lacking[0]}{more}; it is incomplete or of another model")


def model_fingerprint(name: str | Path, *, trust_remote_code: bool = False) -> str:
    """The :attr:`CausalModel.fingerprint` of a model, without loading its weights.

    Parameters and errors are those of :func:`load_model`. Of a model on the Hub this reads
    the configuration file only.
    """
    place = _locate(name, trust_remote_code)
    with place.loading():
        return place.fingerprint()


def model_config(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a model, without loading its weights.

    Parameters and errors are those of :func:`load_model`.
    """
    import transformers

    place = _locate(name, trust_remote_code)
    with place.loading():
        if place.untrained:
            return lab.untrained(place.name)[0].config
        return transformers.AutoConfig.from_pretrained(
            place.name, trust_remote_code=trust_remote_code, local_files_only=place.local
        )


@dataclass(frozen=True)
class _Place:
    """Where a model is: ``name`` is a folder, a Hub id, or a size of the lab's ladder that is untrained."""

    asked: str
    name: str
    tokenizer: str
    local: bool
    untrained: bool = False

    def fingerprint(self) -> str:
        if self.untrained:
            return f"seed {self.asked}"[:16]
        if self.local:
            folder = Path(self.name)
            return sha256(*sorted(folder.glob("*.safetensors")), folder / "config.json")[:16]
        import huggingface_hub

        # The cache keeps each file under its commit.
        return Path(huggingface_hub.hf_hub_download(self.name, "config.json")).parent.name[:16]

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Errors of transformers and of the Hub client become a :class:`HubError` of one line."""
        if not self.local and not self.untrained:
            _offline_if_unreachable()
        try:
            yield
        except Exception as error:  # the Hub client and model code raise many kinds
            if "trust_remote_code" in str(error):
                raise _consent(self.asked) from None
            if self.local:
                raise HubError(f"The model in {self.name} could not be loaded: {_first_line(error)}.") from None
            raise HubError(
                f"The model {self.name} could not be loaded from the Hub ({_first_line(error)}). "
                "Check the name, your access to it and the connection, or give a local folder."
            ) from None


def _consent(asked: str) -> HubError:
    return HubError(
        f"{asked} runs Python code of its own repository; read it, then say --trust-remote-code "
        "(trust_remote_code=True)."
    )


def _locate(name: str | Path, trust_remote_code: bool) -> _Place:
    asked = str(name)
    if asked.startswith(LAB):
        folder, step = _lab_model(asked)
        return _Place(asked, folder, folder, local=step != 0, untrained=step == 0)
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise HubError(f"{name} is not a model folder: it has no config.json.")
        if not list(path.glob("*.safetensors")):
            raise HubError(f"{name} has no safetensors weights; pickled checkpoints are not read. Convert them first.")
        return _Place(asked, asked, asked, local=True)
    entries = {one: entry for key, entry in registered_models().items() for one in (key, entry["hub"])}
    entry = entries.get(asked, {})
    if entry.get("remote_code") and not trust_remote_code:
        raise _consent(asked)
    place = entry.get("hub", asked)
    if not _looks_like_hub_id(place):
        hint = _suggest(asked, registered_models())
        raise HubError(f"There is no model {asked!r}: not a folder, and not a Hub id of the form owner/name. {hint}")
    return _Place(asked, place, entry.get("tokenizer", place), local=False)


def _lab_model(asked: str) -> tuple[str, int | None]:
    """Folder of a model of the lab, and its step; for step 0, its name, as it has no folder."""
    name, _, step = asked.removeprefix(LAB).partition("@")
    if step and not step.isdecimal():
        raise HubError(f"{asked}: after the @ comes a number of pretraining steps, such as {LAB}{name}@0.")
    try:
        if step == "0":
            lab.steps_of(name)
            return name, 0
        return str(lab.checkpoint(name, int(step) if step else None)), None
    except ValueError as error:
        raise HubError(str(error)) from None


def _device(device: str) -> torch.device:
    if device == "auto":
        # Under a launcher each process has a GPU of its own.
        rank = os.environ.get("LOCAL_RANK", "0")
        return torch.device(f"cuda:{rank}" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except Exception as error:  # RuntimeError, AssertionError and others, by backend
        raise HubError(f"The device {device!r} cannot be used: {_first_line(error)}.") from None
    return where


def _looks_like_hub_id(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and name == name.strip() and bool(name)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")

"""Labeled texts, by name or from local files.

A dataset is a name from ``data/datasets.toml``, a Hub id, a local folder with one file for
each split, a CSV, Parquet or JSONL file, or a task of the lab ("lab/topic").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntps_utils import lab
from ntps_utils.models._hub import HubError, first_line, offline_if_unreachable, registry, suggestion

SUFFIXES = (".csv", ".parquet", ".jsonl")
LAB = "lab/"
PARQUET = "refs/convert/parquet"  # where the Hub keeps its conversion of every public dataset
LARGEST_GAP = 1000  # class numbers up to here may have no text in a split


@dataclass(frozen=True, eq=False)
class TextDataset:
    """Labeled texts of one split.

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
    return registry("datasets")


def load_texts(
    dataset: str | Path, split: str = "train", *, text_column: str = "text", label_column: str = "label"
) -> TextDataset:
    """Load one split of a labeled text dataset.

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
    hint = suggestion(name, entries)
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

    offline_if_unreachable()
    try:
        try:
            return datasets.load_dataset(hub_id, split=split, revision=revision)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            return datasets.load_dataset(hub_id, split=split, revision=PARQUET)
    except Exception as error:  # the Hub client raises many kinds
        raise HubError(
            f"The dataset {hub_id} could not be loaded from the Hub ({first_line(error)}). "
            "Check the name and the connection, or give a local file or folder."
        ) from None


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
        raise HubError(f"{path} could not be read: {first_line(error)}.") from None
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

"""Load labeled texts by name, from local files, or from objects in memory.

A dataset is a name from ``data/datasets.toml``, a Hub id, a local folder with one file for
each split (also compressed, in parts as on the Hub, or as written by ``save_to_disk``), a CSV,
TSV, Parquet, JSON or JSONL file, a task of the lab ("lab/topic"), a pair (texts, labels), a
DataFrame, or a ``datasets.Dataset``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ntps_utils import lab
from ntps_utils._utils.names import suggestion
from ntps_utils._utils.validation import check_integer, check_number
from ntps_utils.models._hub import HubError, first_line, hub_connection, registry
from ntps_utils.models._tables import (
    KINDS,
    PAIR,
    TABLES,
    column,
    column_names,
    read_tables,
    split_files,
    table_stem,
    texts_and_labels,
)
from ntps_utils.theory.layer_moments import one_hot

LAB = "lab/"
PARQUET = "refs/convert/parquet"  # branch of the Hub's conversion of every public dataset
MAX_CLASS_NUMBER = 1000  # larger class numbers need a dataset of a tenth as many rows


class DatasetWarning(UserWarning):
    """Texts or labels are likely to be misread."""


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

    Raises
    ------
    ValueError
        If texts and labels differ in number, or a label is not a class number.

    Examples
    --------
    >>> data = TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"])
    >>> len(data), data.n_classes
    (2, 2)
    """

    name: str
    split: str
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        texts, names, labels = tuple(self.texts), tuple(map(str, self.label_names)), np.asarray(self.labels)
        if isinstance(self.texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{self.name}: texts must be strings.")
        if labels.shape != (len(texts),):
            raise ValueError(
                f"{self.name}: {len(texts)} texts need as many labels; got labels of shape {labels.shape}."
            )
        if len(labels) and not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{self.name}: labels must be class numbers 0 ... {len(names) - 1}, got {labels.dtype}; "
                "convert class names with as_dataset((texts, labels))."
            )
        outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(outside):
            raise ValueError(
                f"{self.name}, row {outside[0] + 1}: the label is {labels[outside[0]]}, but there are "
                f"{len(names)} class names; labels are numbers 0 ... {len(names) - 1}."
            )
        object.__setattr__(self, "texts", tuple(map(str, texts)))  # numpy strings become Python strings
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "label_names", names)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_classes(self) -> int:
        """Number of classes c."""
        return len(self.label_names)

    @property
    def one_hot(self) -> NDArray[np.float64]:
        """One-hot targets, (n, c) float64."""
        return one_hot(self.labels, self.n_classes)

    @property
    def fingerprint(self) -> str:
        """Hash of texts and labels, 16 hex digits."""
        digest = hashlib.sha256(json.dumps([self.texts, self.labels.tolist(), self.label_names]).encode())
        return digest.hexdigest()[:16]

    def head(self, n: int) -> TextDataset:
        """Select the first rows.

        Parameters
        ----------
        n : int
            Number of rows, at least 1; all rows if there are fewer.

        Returns
        -------
        TextDataset

        Raises
        ------
        ValueError
            If ``n`` is not a positive integer.

        Examples
        --------
        >>> TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"]).head(1).texts
        ('good',)
        """
        check_integer("the number of texts", n, 1)
        return replace(self, texts=self.texts[:n], labels=self.labels[:n])

    def select(self, rows: Sequence[int]) -> TextDataset:
        """Select rows.

        Parameters
        ----------
        rows : sequence of int
            Indices of rows, from 0.

        Returns
        -------
        TextDataset

        Examples
        --------
        >>> TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"]).select([1]).texts
        ('bad',)
        """
        index = np.asarray(rows, dtype=np.intp)
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=self.labels[index])


def first_texts(data: TextDataset, n: int | None) -> TextDataset:
    """Select the first texts, and warn of classes that only the others have: the rows may be sorted.

    Parameters
    ----------
    data : TextDataset
    n : int, optional
        Number of texts; by default all.

    Returns
    -------
    TextDataset

    Warns
    -----
    DatasetWarning
        If a class is lost.

    Examples
    --------
    >>> data = TextDataset("reviews", "train", ["good", "bad", "fine"], [1, 0, 1], ["negative", "positive"])
    >>> len(first_texts(data, 2))
    2
    """
    if n is None or n >= len(data):
        return data
    first = data.head(n)
    lost = sorted(set(data.labels.tolist()) - set(first.labels.tolist()))
    if lost:
        names = repr(data.label_names[lost[0]]) + (f" and {len(lost) - 1} others" if len(lost) > 1 else "")
        warnings.warn(
            f"The first {n} texts of {data.name} have none of the class {names}. The rows may be sorted: shuffle "
            "them, or use more texts.",
            DatasetWarning,
            stacklevel=3,
        )
    return first


def split_texts(data: TextDataset, test_share: float = 0.2, seed: int = 0) -> tuple[TextDataset, TextDataset]:
    """Divide texts at random into texts to train on and texts to test on, with equal shares of each class.

    A text that occurs several times stays in one part.

    Parameters
    ----------
    data : TextDataset
    test_share : float
        Share of the distinct texts to test on, in (0, 1).
    seed : int
        Random seed.

    Returns
    -------
    train, test : TextDataset

    Raises
    ------
    ValueError
        If a class has fewer than two distinct texts, or a part would lack a class.

    Examples
    --------
    >>> train, test = split_texts(load_texts("lab/topic").head(100))
    >>> len(train), len(test)
    (80, 20)
    """
    check_number("test_share", test_share, 0.0, 1.0, open_low=True, open_high=True)
    check_integer("seed", seed, 0)
    first = dict(zip(reversed(data.texts), reversed(data.labels.tolist()), strict=True))
    texts, labels = list(first), list(first.values())
    try:
        _, test_texts = train_test_split(texts, test_size=test_share, random_state=seed, stratify=labels)
    except ValueError as error:
        smallest = min(np.bincount(labels)[np.unique(labels)])
        raise ValueError(
            f"{len(texts)} distinct texts of {data.name} cannot be divided with {test_share:g} of each class to test "
            f"on; its smallest class has {smallest}. Give more texts or another share. ({error})"
        ) from None
    tested = set(test_texts)
    parts = (
        [i for i, text in enumerate(data.texts) if text not in tested],
        [i for i, text in enumerate(data.texts) if text in tested],
    )
    train, test = (replace(data.select(rows), split=name) for rows, name in zip(parts, ("train", "test"), strict=True))
    return train, test


def warn_of_repeated_texts(data: TextDataset, share: float = 0.05) -> None:
    """Warn if many texts occur more than once.

    Parameters
    ----------
    data : TextDataset
    share : float
        Share of the texts above which to warn, in [0, 1].

    Warns
    -----
    DatasetWarning
        If the share is exceeded; the message states it.

    Examples
    --------
    >>> warn_of_repeated_texts(TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"]))
    """
    repeated = 1.0 - len(set(data.texts)) / max(len(data), 1)
    if repeated > share:
        warnings.warn(
            f"{repeated:.0%} of the texts of {data.name} repeat others. They count several times; remove duplicates.",
            DatasetWarning,
            stacklevel=3,
        )


def registered_datasets() -> dict[str, dict[str, Any]]:
    """Load the entries of ``data/datasets.toml``.

    Returns
    -------
    dict
        Hub id, columns, splits, license and source by name.

    Examples
    --------
    >>> registered_datasets()["sst2"]["hub"]
    'stanfordnlp/sst2'
    """
    return registry("datasets")


def as_dataset(
    dataset: object, split: str = "train", *, text_column: str = "text", label_column: str = "label"
) -> TextDataset:
    """Convert labeled texts in any supported form to a :class:`TextDataset`.

    Parameters
    ----------
    dataset : str, Path, TextDataset, pair (texts, labels), DataFrame, or datasets.Dataset
        Names and paths are loaded by :func:`load_texts`. Labels are class numbers or
        class names. From a ``datasets.DatasetDict`` the split is selected.
    split : str
        Name of the split.
    text_column, label_column : str
        Columns of a file, a DataFrame or a Dataset.

    Returns
    -------
    TextDataset

    Raises
    ------
    HubError
        If there is no such dataset, split or column, or a row cannot be used.
    TypeError
        If the object has another type; the message lists the valid ones.

    Examples
    --------
    >>> data = as_dataset((["good film", "bad film"], ["positive", "negative"]))
    >>> data.labels.tolist(), data.label_names
    ([1, 0], ('negative', 'positive'))
    """
    if isinstance(dataset, TextDataset):
        return dataset
    if isinstance(dataset, (str, os.PathLike)):
        return load_texts(os.fspath(dataset), split, text_column=text_column, label_column=label_column)
    coding = _Coding()
    if isinstance(dataset, Mapping) and all(hasattr(part, "column_names") for part in dataset.values()):
        if split not in dataset:
            raise HubError(f"The {type(dataset).__name__} has no split {split!r}; it has {', '.join(dataset)}.")
        parts = [part for part in dataset.values() if label_column in part.column_names]
        coding = _common_coding([list(part[label_column]) for part in parts])
        dataset = dataset[split]
    if hasattr(dataset, "column_names") and hasattr(dataset, "features"):  # datasets.Dataset
        features: Any = dataset.features
        if (names := getattr(features.get(label_column), "names", None)) is not None:
            coding = _Coding(names)
        frame = dataset.to_pandas()  # type: ignore[attr-defined]
        return _from_frame(
            frame, "dataset", str(getattr(dataset, "split", None) or split), coding, text_column, label_column
        )
    if isinstance(dataset, pd.DataFrame):
        return _from_frame(dataset, "DataFrame", split, coding, text_column, label_column)
    if isinstance(dataset, (tuple, list)) and len(dataset) == 2 and not isinstance(dataset[0], str):
        texts, labels = (list(part) for part in dataset)
        if len(texts) != len(labels):
            raise HubError(f"{len(texts)} texts need as many labels; got {len(labels)} labels.")
        numbers, label_names = _encode(labels, _Coding(), "texts")
        return _dataset("texts", split, texts, numbers, label_names)
    raise TypeError(
        "A dataset must be a name, a file or folder, a pair (texts, labels), a DataFrame, a datasets.Dataset or a "
        f"TextDataset; got {type(dataset).__name__}."
    )


def _from_frame(
    frame: pd.DataFrame, name: str, split: str, coding: _Coding, text_column: str, label_column: str
) -> TextDataset:
    raw = column(frame, label_column, f"The {name}")
    labels, label_names = _encode(raw, coding, f"The {name}")
    return _dataset(name, split, column(frame, text_column, f"The {name}"), labels, label_names)


def _plain(label: Any) -> Any:
    """A label as a Python object, from a numpy or torch scalar."""
    return label.item() if getattr(label, "ndim", None) == 0 else label


def load_texts(
    dataset: str | Path, split: str = "train", *, text_column: str = "text", label_column: str = "label"
) -> TextDataset:
    """Load one split of a labeled text dataset.

    Parameters
    ----------
    dataset : str or Path
        A registered name, a task of the lab ("lab/topic"), a Hub id ("owner/name"), a
        folder with ``train.csv`` or the like (and optionally ``label_names.json``), or a
        single file. The separator of a CSV file may be a comma, a semicolon, a tab or a bar.
    split : str
        Name of the split. Ignored for a single file.
    text_column, label_column : str
        Column names of a file or of a Hub dataset that is not registered. Several text columns,
        separated by commas, are joined by a space: "premise,hypothesis".

    Returns
    -------
    TextDataset

    Raises
    ------
    HubError
        If there is no such dataset, split or column, or a row cannot be used.

    Examples
    --------
    >>> data = load_texts("lab/topic", "test")
    >>> len(data), data.n_classes
    (500, 8)
    """
    path = Path(dataset)
    if path.is_dir():
        return _from_folder(path, split, text_column, label_column)
    if path.is_file():
        texts, raw = texts_and_labels([path], text_column, label_column)
        labels, names = _encode(raw, _Coding(), str(path))
        return _dataset(table_stem(path), "all", texts, labels, names)
    name = str(dataset)
    if name.startswith(LAB):
        return _from_lab(name, split)
    entries = registered_datasets()
    if name in entries:
        return _from_hub(name, split, entries[name])
    if name.count("/") == 1 and not name.startswith((".", "/")) and path.suffix not in KINDS:
        template = PAIR.join(f"{{{part.strip()}}}" for part in text_column.split(","))
        entry = {"hub": name, "text": template, "label": label_column, "splits": {split: split}}
        return _from_hub(name, split, entry)
    hint = suggestion(name, entries)
    raise HubError(f"There is no dataset {name!r}: not a file or folder, a registered name, or a Hub id. {hint}")


def _from_lab(name: str, split: str) -> TextDataset:
    task, _, seed = name.removeprefix(LAB).partition("@")
    if seed and not seed.isdecimal():
        raise HubError(
            f"{name}: the part after @ must be the number of another draw of the task, such as {LAB}{task}@1."
        )
    try:
        sample = lab.split_of(task, split, int(seed or 0))
    except ValueError as error:
        raise HubError(str(error)) from None
    return _dataset(name, split, sample.texts, sample.labels, lab.TASKS[task].label_names)


def _from_folder(folder: Path, split: str, text_column: str, label_column: str) -> TextDataset:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_disk(folder, split, text_column, label_column)
    files = split_files(folder)
    if split not in files:
        names_present = ", ".join(path.name for paths in files.values() for path in paths) or f"no {TABLES} file"
        raise HubError(f"{folder} has no split {split!r}; it has {names_present}.")
    where = str(files[split][0])
    texts, raw = texts_and_labels(files[split], text_column, label_column)
    names_file = folder / "label_names.json"
    if names_file.is_file():
        coding: _Coding = _Coding(_names_in(names_file))
    else:  # all splits share one numbering of the classes
        others = [read_tables(paths, [label_column]) for name, paths in files.items() if name != split]
        needed = {label_column, *column_names(text_column)}
        coding = _common_coding([raw, *(t[label_column].tolist() for t in others if needed <= set(t.columns))])
    labels, label_names = _encode(raw, coding, where)
    return _dataset(folder.name, split, texts, labels, label_names)


def _from_disk(folder: Path, split: str, text_column: str, label_column: str) -> TextDataset:
    """What ``save_to_disk`` of the package datasets wrote."""
    import datasets  # slow to import

    try:
        stored = datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged files raise many kinds
        raise HubError(f"{folder} could not be read: {first_line(error)}.") from None
    data = as_dataset(stored, split, text_column=text_column, label_column=label_column)
    return replace(data, name=folder.name, split=data.split if isinstance(stored, Mapping) else "all")


def has_splits(path: str | Path) -> bool:
    """Whether a dataset can hold texts to train on and others to test on: not a single file or stored table.

    Parameters
    ----------
    path : str or Path
        See :func:`load_texts`.

    Returns
    -------
    bool

    Examples
    --------
    >>> has_splits("lab/topic")
    True
    """
    return not (Path(path).is_file() or (Path(path) / "state.json").is_file())


def _names_in(file: Path) -> list[str]:
    try:
        names = json.loads(file.read_text("utf-8-sig"))
    except ValueError:
        names = None
    if not isinstance(names, list):
        raise HubError(f"{file} must contain a JSON list of class names in label order.")
    return names


@dataclass(frozen=True)
class _Coding:
    """How labels become numbers.

    Attributes
    ----------
    names : sequence of str, optional
        Names of the classes; by default those of the labels.
    by_name : bool
        Integers are names, too, because other splits have labels that are none.
    """

    names: Sequence[str] | None = None
    by_name: bool = False


def _common_coding(columns: Sequence[Sequence[Any]]) -> _Coding:
    """Coding of the labels of several splits; the default for labels that are refused anyway."""
    labels = [_plain(label) for part in columns for label in part]
    numbers = [_as_integer(label) for label in labels]
    whole = [number for number in numbers if number is not None]
    if len(whole) < len(labels):
        if any(_is_missing(label) or _is_list(label) for label in labels):
            return _Coding()
        return _Coding(sorted({_as_name(label) for label in labels}), by_name=True)
    if _are_codes(whole):
        return _Coding()
    return _Coding([str(i) for i in range(max(whole, default=0) + 1)])


def _as_name(label: Any) -> str:
    """Name of a class; 1.0 is 1, as tables with missing values store integers."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _from_hub(name: str, split: str, entry: Mapping[str, Any]) -> TextDataset:
    hold_out = entry.get("hold_out")
    splits = {**entry["splits"], "test": entry["splits"]["train"]} if hold_out else entry["splits"]
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
    names = getattr(data.features[label], "names", None)
    try:
        rows = [row for row in data if not hold_out or _is_held_out(name, row, hold_out) == (split == "test")]
        texts = [entry["text"].format(**row) for row in rows]
    except (KeyError, IndexError) as error:
        raise HubError(
            f"{name}: the text template {entry['text']!r} needs {error}; the columns are {sorted(columns)}."
        ) from None
    coding = _Coding(names)
    if names is None and any(_as_integer(value) is None for value in data[label]):  # all splits share one numbering
        parts = _load_dataset(entry["hub"], None, entry.get("revision")).values()
        coding = _common_coding([list(part[label]) for part in parts if label in part.column_names])
    labels, label_names = _encode([row[label] for row in rows], coding, name)
    return _dataset(name, split, texts, labels, label_names)


def _is_held_out(name: str, row: Mapping[str, Any], hold_out: Mapping[str, Any]) -> bool:
    """Whether the group of a row belongs to the held-out share; deterministic across machines."""
    group = hold_out["group"].format(**row).strip().lower()
    number = int.from_bytes(hashlib.sha256(f"{name} {group}".encode()).digest()[:8], "big")
    return bool(number / 2**64 < hold_out["share"])


def _load_dataset(hub_id: str, split: str | None, revision: str | None) -> Any:
    """One split, or all, from the Hub or its cache; script-based datasets through their Parquet conversion."""
    import datasets  # slow to import

    try:
        with hub_connection():
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


MOSTLY = 0.9
"""Share of numbers from which on decimals among labels are no class names."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
SEVERAL = re.compile(r"[\[(]?\s*-?\d+(\s*[,;|]\s*-?\d+)+\s*[\])]?|\[.*\]")


def _as_integer(label: Any) -> int | None:
    """A label as a class number: an integer, or a number or string with the value of one; truth values are names."""
    if isinstance(label, (bool, np.bool_)):
        return None
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, Decimal):
        label = float(label)
    if isinstance(label, str) and NUMBER.fullmatch(label.strip()):
        label = float(label)
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        return int(label)
    return None


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, str) and label == "") or (isinstance(label, float) and label != label)


def _is_list(label: Any) -> bool:
    return isinstance(label, (list, tuple, set, dict, np.ndarray)) or (
        isinstance(label, str) and SEVERAL.fullmatch(label.strip()) is not None
    )


def _is_decimal(label: Any) -> bool:
    is_number = isinstance(label, (float, np.floating, Decimal)) or (
        isinstance(label, str) and NUMBER.fullmatch(label.strip()) is not None
    )
    return is_number and _as_integer(label) is None


def _check_labels(raw: Sequence[Any], where: str) -> None:
    """Raise for labels that are missing, or no classes."""
    if not len(raw):
        raise HubError(f"{where} has no rows.")
    for row, label in enumerate(raw, 1):
        if _is_missing(label):
            n_missing = sum(map(_is_missing, raw))
            rows = "this row" if n_missing == 1 else f"the {n_missing} rows without a label"
            raise HubError(
                f"{where}, row {row}: the label is {label!r}; expected a class number or a class name. Remove {rows}."
            )
    several = next((row for row, label in enumerate(raw, 1) if _is_list(label)), None)
    if several is not None and all(_is_list(label) or _as_integer(label) is not None for label in raw):
        raise HubError(
            f"{where}, row {several}: the label {raw[several - 1]!r} holds several values. A text has one class here; "
            "give each label a column of 0 and 1, and score one column at a time."
        )
    n_numbers = sum(_as_integer(label) is not None or _is_decimal(label) for label in raw)
    if n_numbers >= MOSTLY * len(raw):  # the others may stand for missing ones, such as "?"
        decimal = next((row for row, label in enumerate(raw, 1) if _is_decimal(label)), None)
        if decimal is not None:
            raise HubError(
                f"{where}, row {decimal}: the label is the number {raw[decimal - 1]}, not a class. Cut the numbers "
                "into classes first, for example below and above the median."
            )


def _encode(given: Sequence[Any], coding: _Coding, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and class names. Integers are class numbers; anything else is a class name."""
    raw = [_plain(label) for label in given]
    _check_labels(raw, where)
    numbers = [number for label in raw if (number := _as_integer(label)) is not None]
    names = coding.names
    if len(numbers) == len(raw) and not coding.by_name:
        labels, names = _encode_numbers(numbers, names, where)
    else:
        own = [_as_name(label) for label in raw]
        names = sorted(set(own)) if names is None else names
        index_of = {str(name): i for i, name in enumerate(names)}
        unknown = sorted(set(own) - set(index_of))
        if unknown:
            raise HubError(
                f"{where} has labels that are not among the class names: {', '.join(unknown[:5])}; the names are "
                f"{', '.join(names)}."
            )
        labels = np.array([index_of[name] for name in own], dtype=np.int64)
        _warn_of_joined_names(set(own), where)
    counts = np.bincount(labels)
    n_present, n_single = int(np.sum(counts > 0)), int(np.sum(counts == 1))
    if n_present > 10 and n_single > n_present / 2:
        warnings.warn(
            f"{where}: {n_single} of {n_present} classes have one text each. Is the column of labels one of classes?",
            DatasetWarning,
            stacklevel=2,
        )
    return labels, tuple(map(str, names))


def _warn_of_joined_names(names: set[str], where: str) -> None:
    """Warn of labels such as "sad,angry" beside "sad" and "angry"."""
    joined = sorted(
        name
        for name in names
        if len(parts := re.split("[,;|]", name)) > 1 and {part.strip() for part in parts} <= names
    )
    if joined:
        warnings.warn(
            f"{where}: the label {joined[0]!r} looks like several labels. It is a class of its own here, because a "
            "text has one class.",
            DatasetWarning,
            stacklevel=3,
        )


def _are_codes(numbers: Sequence[int]) -> bool:
    """Whether the largest number is too large to be that of a class."""
    return max(numbers, default=0) >= max(MAX_CLASS_NUMBER, 10 * len(numbers))


def _encode_numbers(
    numbers: Sequence[int], names: Sequence[str] | None, where: str
) -> tuple[NDArray[np.int64], Sequence[str]]:
    lowest, highest = min(numbers), max(numbers)
    if lowest < 0:
        raise HubError(f"{where}, row {numbers.index(lowest) + 1}: the label is {lowest}; class numbers start at 0.")
    if _are_codes(numbers):
        raise HubError(
            f"{where}, row {numbers.index(highest) + 1}: the label is {highest}, but there are only {len(numbers)} "
            "rows; class numbers count from 0. Convert codes to strings to use them as class names."
        )
    if names is None:
        names = [str(i) for i in range(highest + 1)]
    if highest >= len(names):
        raise HubError(
            f"{where} has the label {highest}, but only {len(names)} class names; labels are numbers "
            f"0 ... {len(names) - 1}."
        )
    return np.array(numbers, dtype=np.int64), names


def _dataset(
    name: str, split: str, texts: Sequence[Any], labels: NDArray[np.int64], names: Sequence[str]
) -> TextDataset:
    for row, text in enumerate(texts):
        if text is None or text != text:
            raise HubError(f"{name}, row {row + 1}: the text is missing.")
        if not isinstance(text, str):
            raise HubError(f"{name}, row {row + 1}: the text is {type(text).__name__}, not a string.")
        if "\0" in text:
            raise HubError(
                f"{name}, row {row + 1}: the text contains a NUL character; the file may be UTF-16. Save it as UTF-8."
            )
    return TextDataset(name, split, tuple(texts), labels, tuple(names))

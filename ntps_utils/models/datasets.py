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
import tempfile
import unicodedata
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
from ntps_utils._utils.files import write_text
from ntps_utils._utils.names import suggestion
from ntps_utils._utils.validation import check_integer, check_name, check_number, check_seed
from ntps_utils.models._hub import HubError, first_line, hub_connection, registry
from ntps_utils.models._tables import (
    PAIR,
    SUFFIXES,
    TABLES,
    check_column_names,
    check_columns,
    column,
    column_names,
    labels_in,
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
        texts = tuple(_items(self.texts, f"{self.name}: texts"))
        letters = isinstance(self.label_names, str)  # one name for each letter
        names = tuple(map(str, self.label_names if letters else _items(self.label_names, f"{self.name}: label_names")))
        labels = _array(self.labels, self.name)
        wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise ValueError(f"{self.name}, row {wrong + 1}: texts must be strings, got {type(texts[wrong]).__name__}.")
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: the names of the classes must differ, got {', '.join(names)}.")
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

    def select(self, rows: Sequence[int] | Sequence[bool] | NDArray[Any]) -> TextDataset:
        """Select rows.

        Parameters
        ----------
        rows : sequence of int, or (n,) sequence of bool
            Indices of rows, from 0 (negative ones count from the end), or whether to keep each row.

        Returns
        -------
        TextDataset

        Raises
        ------
        ValueError
            If an index is out of range, there are not as many truth values as texts, or rows is something else.

        Examples
        --------
        >>> TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"]).select([1]).texts
        ('bad',)
        """
        index = self._indices(rows)
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=self.labels[index])

    def _indices(self, rows: Any) -> NDArray[np.intp]:
        """Indices of rows from indices or truth values."""
        valid = f"rows must be indices below {len(self)}, or {len(self)} truth values"
        given = np.asarray(rows.tolist() if hasattr(rows, "tolist") else _items(rows, "rows"))
        if given.ndim != 1 or (len(given) and given.dtype.kind not in "biu"):
            raise ValueError(f"{valid}; got shape {given.shape} and dtype {given.dtype}.")
        if given.dtype.kind == "b":
            if len(given) != len(self):
                raise ValueError(f"{valid}; got {len(given)} truth values.")
            return np.flatnonzero(given)
        outside = given[(given < -len(self)) | (given >= len(self))]
        if len(outside):
            raise ValueError(f"{valid}; got {outside[0]}.")
        return given.astype(np.intp)


def _items(values: Any, name: str) -> Sequence[Any]:
    """The items of a list, an array or another ordered collection."""
    if isinstance(values, (str, bytes, set, frozenset, Mapping)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list, an array or another sequence, got {type(values).__name__}.")
    return list(values)


def _array(labels: Any, name: str) -> NDArray[Any]:
    """Class numbers as an array; a tensor may need gradients or be on another device."""
    if np.ma.is_masked(labels):
        raise ValueError(f"{name}: labels must be class numbers, but some are masked; leave out these texts.")
    values = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    try:
        return np.asarray(values if isinstance(values, np.ndarray) else _items(values, f"{name}: labels"))
    except ValueError:  # rows that differ in length
        raise ValueError(f"{name}: labels must be class numbers, one for each text; got lists of several.") from None


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
        Random seed, at most 4294967295.

    Returns
    -------
    train, test : TextDataset

    Raises
    ------
    TypeError
        If ``data`` is no TextDataset.
    ValueError
        If a setting is out of range, a class has fewer than two distinct texts, or a part would lack a class.

    Examples
    --------
    >>> train, test = split_texts(load_texts("lab/topic").head(100))
    >>> len(train), len(test)
    (80, 20)
    """
    if not isinstance(data, TextDataset):
        raise TypeError(f"data must be a TextDataset, got {type(data).__name__}; as_dataset(...) makes one.")
    check_number("test_share", test_share, 0.0, 1.0, open_low=True, open_high=True)
    check_seed("seed", seed)
    first = dict(zip(reversed(data.texts), reversed(data.labels.tolist()), strict=True))
    texts, labels = list(first), list(first.values())
    try:
        _, test_texts = train_test_split(texts, test_size=float(test_share), random_state=seed, stratify=labels)
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


SAVED_AS = (".csv", ".jsonl")


def save_texts(data: TextDataset, folder: Path) -> Path:
    """Write texts and the names of their classes to ``train.csv``, or as the split is called.

    Texts that could be misread in a CSV file, for example because of their line breaks, make it a JSONL file.

    Parameters
    ----------
    data : TextDataset
    folder : Path

    Returns
    -------
    Path
        The file.

    Raises
    ------
    HubError
        If the folder has such a file, or the texts cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> data = TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"])
    >>> save_texts(data, Path(tempfile.mkdtemp())).name
    'train.csv'
    """
    targets = [folder / f"{data.split}{kind}" for kind in SAVED_AS]
    if present := [path for path in targets if path.exists()]:
        raise HubError(f"{present[0]} exists already; give a new folder.")
    table = pd.DataFrame({"text": data.texts, "label": [data.label_names[i] for i in data.labels]}, dtype=object)
    for path in targets:
        try:
            content = _as_csv(table) if path.suffix == ".csv" else _as_json_lines(table)
            is_same = _is_read_as(content, path.name, table)
        except (HubError, UnicodeEncodeError):
            continue
        if is_same:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, content)
            return path
    raise HubError(f"The texts of {data.name} cannot be written such that they are read as they are.")


def _as_csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _as_json_lines(table: pd.DataFrame) -> str:
    return "".join(json.dumps(row) + "\n" for row in table.to_dict("records"))


def _is_read_as(content: str, name: str, table: pd.DataFrame) -> bool:
    """Whether a file with this content has the texts and labels of a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_text(path, content)
        return texts_and_labels([path], "text", "label") == (list(table["text"]), list(table["label"]))


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


def warn_of_empty_texts(data: TextDataset) -> None:
    """Warn if texts of a dataset have no character but white space.

    Parameters
    ----------
    data : TextDataset

    Warns
    -----
    DatasetWarning
        If there is such a text; the message states their number.

    Examples
    --------
    >>> warn_of_empty_texts(TextDataset("reviews", "train", ["good", "bad"], [1, 0], ["negative", "positive"]))
    """
    if n_empty := sum(not text.strip() for text in data.texts):
        warnings.warn(
            f"{n_empty} of {len(data)} texts of {data.name} are empty. They count like others; remove their rows.",
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
    check_name("split", split)
    check_column_names(text_column, label_column)
    if isinstance(dataset, Mapping) and dataset and all(hasattr(part, "column_names") for part in dataset.values()):
        if split not in dataset:
            raise HubError(f"The {type(dataset).__name__} has no split {split!r}; it has {', '.join(dataset)}.")
        return _from_splits(dataset, split, text_column, label_column)
    if hasattr(dataset, "column_names") and hasattr(dataset, "features"):  # datasets.Dataset
        names = _stored_names(dataset, label_column)
        return _from_stored(dataset, split, _Coding(names), text_column, label_column)
    if isinstance(dataset, pd.DataFrame):
        return _from_frame(dataset, "DataFrame", split, _Coding(), text_column, label_column)
    if isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        return _from_pair(dataset[0], dataset[1], split)
    size = f" of {len(dataset)} items" if isinstance(dataset, (tuple, list)) else ""
    raise TypeError(
        "A dataset must be a name, a file or folder, a pair (texts, labels), a DataFrame, a datasets.Dataset or a "
        f"TextDataset; got {type(dataset).__name__}{size}. pandas.DataFrame(...) makes a DataFrame of columns or rows."
    )


def _from_pair(given_texts: Any, given_labels: Any, split: str) -> TextDataset:
    if getattr(given_texts, "ndim", 1) != 1:
        raise HubError(
            f"In a pair (texts, labels), texts must have one dimension, got shape {tuple(given_texts.shape)}."
        )
    texts = _items(given_texts, "In a pair (texts, labels), texts")
    if getattr(given_labels, "ndim", 1) != 1:
        raise HubError(
            f"In a pair (texts, labels), labels must have one dimension, got shape {tuple(given_labels.shape)}; give "
            "labels.argmax(1) of one-hot rows, and labels.reshape(-1) of one column."
        )
    labels = _items(given_labels, "In a pair (texts, labels), labels")
    if len(texts) != len(labels):
        raise HubError(f"{len(texts)} texts need as many labels; got {len(labels)} labels.")
    numbers, label_names = _encode(labels, _Coding(), "texts")
    return _dataset("texts", split, texts, numbers, label_names)


def _from_splits(splits: Mapping[str, Any], split: str, text_column: str, label_column: str) -> TextDataset:
    """One split of a ``datasets.DatasetDict``; all splits share one numbering of the classes."""
    labeled = {name: part for name, part in splits.items() if label_column in (part.column_names or ())}
    stored = {name: _stored_names(part, label_column) for name, part in labeled.items()}
    named = [tuple(names) for names in stored.values() if names is not None]
    if not named:
        coding = _common_coding({name: list(part[label_column]) for name, part in labeled.items()})
    elif len({*stored.values()}) == 1:
        coding = _Coding(named[0])
    else:
        raise HubError(
            f"The splits {' and '.join(labeled)} have different class names in the column {label_column!r}: "
            f"{'; '.join(str(names) for names in {*stored.values()})}. Give all splits the same ClassLabel."
        )
    return _from_stored(splits[split], split, coding, text_column, label_column)


def _stored_names(dataset: Any, label_column: str) -> tuple[str, ...] | None:
    """Class names that a ``datasets.Dataset`` has for its labels."""
    names = getattr((dataset.features or {}).get(label_column), "names", None)
    return None if names is None else tuple(names)


def _from_stored(dataset: Any, split: str, coding: _Coding, text_column: str, label_column: str) -> TextDataset:
    name = str(getattr(dataset, "split", None) or split)
    return _from_frame(dataset.to_pandas(), "dataset", name, coding, text_column, label_column)


def _from_frame(
    frame: pd.DataFrame, name: str, split: str, coding: _Coding, text_column: str, label_column: str
) -> TextDataset:
    where = f"The {name}"
    if frame.columns.nlevels > 1:
        raise HubError(f"{where} has names of columns with {frame.columns.nlevels} levels; give it one level.")
    # A column may have commas in its name.
    parts = [text_column] if text_column in frame.columns else column_names(text_column)
    check_columns(frame, where, text=parts, label=[label_column])
    labels, label_names = _encode(frame[label_column].tolist(), coding, where)
    return _dataset(name, split, column(frame, text_column, where), labels, label_names)


def _plain(label: Any) -> Any:
    """A label as a Python object, from a numpy or torch scalar; dates stay dates."""
    if label is np.ma.masked:
        return None
    is_date = isinstance(label, (np.datetime64, np.timedelta64))
    return label.item() if getattr(label, "ndim", None) == 0 and not is_date else label


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
        Name of the split. A single file is "train", or the split that it is named after.
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
    if not isinstance(dataset, (str, Path)) or not str(dataset):
        given = repr(dataset) if isinstance(dataset, str) else type(dataset).__name__
        raise TypeError(
            f"dataset must be a name or a path, got {given}; as_dataset(...) takes texts and labels in memory."
        )
    check_name("split", split)
    check_column_names(text_column, label_column)
    path = Path(dataset)
    if path.is_dir():
        return _from_folder(path, split, text_column, label_column)
    if path.is_file():
        if split not in ("train", table_stem(path)):
            raise HubError(
                f"{path} is one file and has no split {split!r}. Leave the split out, or give a folder with a file for "
                f"each split; ntps datasets split makes train.csv and test.csv from one file."
            )
        texts, raw = texts_and_labels([path], text_column, label_column)
        labels, names = _encode(raw, _Coding(), str(path))
        return _dataset(table_stem(path), "all", texts, labels, names)
    name = str(dataset)
    if name.startswith(LAB):
        return _from_lab(name, split)
    entries = registered_datasets()
    if name in entries:
        return _from_hub(name, split, entries[name])
    if name.count("/") == 1 and not name.startswith((".", "/")) and path.suffix not in SUFFIXES:
        template = PAIR.join(f"{{{part}}}" for part in column_names(text_column))
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
        names = _names_in(names_file)
        coding = _Coding(names, by_name={_as_name(_plain(label)) for label in raw} <= set(names))
    else:  # all splits share one numbering of the classes
        others = {name: labels_in(paths, text_column, label_column) for name, paths in files.items() if name != split}
        coding = _common_coding({split: raw, **others})
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
    is_list = isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)
    if not is_list or len(set(names)) < len(names):
        raise HubError(
            f"{file} must contain a JSON list of class names in label order: strings that differ, such as "
            '["negative", "positive"].'
        )
    return list(names)


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


def _common_coding(parts: Mapping[str, Sequence[Any]]) -> _Coding:
    """Coding of the labels of several splits, by the name of the split; missing labels do not count.

    Raises
    ------
    HubError
        If the labels of one split are numbers and those of another are names.
    """
    columns = {name: [_plain(label) for label in part] for name, part in parts.items()}
    if any(_holds_several(label) for part in columns.values() for label in part):
        return _Coding()  # such labels are refused
    missing = _missing_rows([label for part in columns.values() for label in part])
    start = 0
    for name, part in columns.items():
        columns[name] = [label for row, label in enumerate(part, start) if row not in missing]
        start += len(part)
    columns = {name: part for name, part in columns.items() if part}
    labels = [label for part in columns.values() for label in part]
    numbers = [_as_integer(label) for label in labels]
    whole = [number for number in numbers if number is not None]
    if len(whole) < len(labels):
        _check_kinds(columns)
        return _Coding(sorted({_as_name(label) for label in labels}), by_name=True)
    if _are_codes(whole):
        return _Coding()
    return _Coding([str(i) for i in range(max(whole, default=0) + 1)])


def _check_kinds(columns: Mapping[str, Sequence[Any]]) -> None:
    """Raise if all labels of one split are numbers, and those of another are names."""
    shares = {name: np.mean([_as_integer(label) is not None for label in part]) for name, part in columns.items()}
    numbers = next((name for name, share in shares.items() if share == 1.0), None)
    names = next((name for name, share in shares.items() if share == 0.0), None)
    if numbers is not None and names is not None:
        raise HubError(
            f"The labels of {numbers} are numbers (such as {_as_name(columns[numbers][0])}), but those of {names} are "
            f"names (such as {_as_name(columns[names][0])!r}). Give all splits labels of one kind, or write the names "
            "in the order of the numbers into label_names.json."
        )


def _as_name(label: Any) -> str:
    """Name of a class; 1.0 is 1, as tables with missing values store integers."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return label.strip() if isinstance(label, str) and _as_integer(label) is not None else str(label)


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
        parts = _load_dataset(entry["hub"], None, entry.get("revision"))
        coding = _common_coding({key: list(part[label]) for key, part in parts.items() if label in part.column_names})
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
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
CLASS_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)(\.\d*([eE][-+]\d+)?)?", re.ASCII)
"""A string that may be a class number: 1, 1.0 or 1.0e+00, but not the codes 01 and 1E1."""
SEVERAL = re.compile(r"[\[(]?\s*-?\d+(\s*[,;|]\s*-?\d+)+\s*[\])]?|\[.*\]")
MISSING_WORDS = frozenset(
    ("nan", "-nan", "na", "n/a", "<na>", "nat", "null", "none", "nil", "#n/a", "#na", "missing", "?", "-", "--", ".")
)
"""What stands for a missing label among labels that are numbers, in lower case."""
WRITTEN_FOR_MISSING = frozenset(("nan", "NaN", "NA", "N/A", "<NA>", "NaT", "NULL", "null", "None", "#N/A"))
"""What programs write for a missing value. Among names it may be the name of a class."""


def _as_integer(label: Any) -> int | None:
    """A label as a class number: an integer, or a number or string with the value of one; truth values are names."""
    if isinstance(label, (bool, np.bool_)):
        return None
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, str):
        label = label.strip()
        if CLASS_NUMBER.fullmatch(label) is None:
            return None
        if "." not in label:
            return int(label)
        label = float(label)
    if isinstance(label, (float, np.floating, Decimal)) and float(label).is_integer():
        return int(label)
    return None


def _is_missing(value: Any) -> bool:
    """Whether a value stands for a missing one: None, NA, NaT, a NaN of any type, or a string of white space."""
    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _missing_rows(labels: Sequence[Any]) -> set[int]:
    """Rows without a label. Words such as "nan" count if all others are numbers, truth values or such words."""
    missing = {row for row, label in enumerate(labels) if _is_missing(label)}
    words = {row for row, label in enumerate(labels) if str(label).strip().lower() in MISSING_WORDS}
    others = [label for row, label in enumerate(labels) if row not in missing and row not in words]
    if not others:
        return missing | words if {str(labels[row]) for row in words} <= WRITTEN_FOR_MISSING else missing
    return missing | words if all(map(_is_number_or_truth, others)) else missing


def _is_number_or_truth(label: Any) -> bool:
    return _as_integer(label) is not None or _is_decimal(label) or str(label).strip().lower() in ("true", "false")


def _holds_several(label: Any) -> bool:
    """Whether a label is a list, an array, a dictionary or the like."""
    return hasattr(label, "__iter__") and not isinstance(label, (str, bytes))


def _is_list(label: Any) -> bool:
    return _holds_several(label) or (isinstance(label, str) and SEVERAL.fullmatch(label.strip()) is not None)


def _is_decimal(label: Any) -> bool:
    if isinstance(label, str):
        return NUMBER.fullmatch(label.strip()) is not None and not float(label).is_integer()
    return isinstance(label, (float, np.floating, Decimal)) and not float(label).is_integer()


def _check_labels(raw: Sequence[Any], where: str) -> None:
    """Raise for labels that are missing, or no classes."""
    if not len(raw):
        raise HubError(f"{where} has no rows.")
    _refuse_missing(raw, {row for row, label in enumerate(raw) if _is_missing(label)}, where)
    several = next((row for row, label in enumerate(raw, 1) if _is_list(label)), None)
    only_lists = all(_is_list(label) or _as_integer(label) is not None for label in raw)
    several = several if only_lists else next((row for row, label in enumerate(raw, 1) if _holds_several(label)), None)
    if several is not None:
        one_hot = " The classes of one-hot rows are rows.argmax(1)." if _holds_several(raw[several - 1]) else ""
        raise HubError(
            f"{where}, row {several}: the label {raw[several - 1]!r} holds several values. A text has one class here; "
            f"give each label a column of 0 and 1, and score one column at a time.{one_hot}"
        )
    coded = next((row for row, label in enumerate(raw, 1) if isinstance(label, bytes)), None)
    if coded is not None:
        raise HubError(
            f"{where}, row {coded}: the label {raw[coded - 1]!r} is bytes, not a string; decode the labels first."
        )
    n_numbers = sum(_as_integer(label) is not None or _is_decimal(label) for label in raw)
    if n_numbers >= MOSTLY * len(raw):  # the others may stand for missing ones, such as "?"
        decimal = next((row for row, label in enumerate(raw, 1) if _is_decimal(label)), None)
        if decimal is not None:
            raise HubError(
                f"{where}, row {decimal}: the label is the number {raw[decimal - 1]}, not a class. Cut the numbers "
                "into classes first, for example below and above the median."
            )
    _refuse_missing(raw, _missing_rows(raw), where)


def _refuse_missing(raw: Sequence[Any], missing: set[int], where: str) -> None:
    if missing:
        first = min(missing)
        rows = "this row" if len(missing) == 1 else f"the {len(missing)} rows without a label"
        raise HubError(
            f"{where}, row {first + 1}: the label is {raw[first]!r}; expected a class number or a class name. "
            f"Remove {rows}."
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
                f"{', '.join(index_of)}."
            )
        labels = np.array([index_of[name] for name in own], dtype=np.int64)
        _warn_of_names(set(own), set(index_of), where)
    counts = np.bincount(labels)
    n_present, n_single = int(np.sum(counts > 0)), int(np.sum(counts == 1))
    if n_present > 10 and n_single > n_present / 2:
        warnings.warn(
            f"{where}: {n_single} of {n_present} classes have one text each. Is the column of labels one of classes?",
            DatasetWarning,
            stacklevel=2,
        )
    return labels, tuple(map(str, names))


def _warn_of_names(own: set[str], names: set[str], where: str) -> None:
    """Warn of names of classes that are probably meant otherwise."""
    joined = sorted(
        name for name in own if len(parts := re.split("[,;|]", name)) > 1 and {part.strip() for part in parts} <= own
    )
    if joined:
        _warn(
            f"{where}: the label {joined[0]!r} looks like several labels. It is a class of its own here, because a "
            "text has one class."
        )
    if words := sorted(WRITTEN_FOR_MISSING & own):
        _warn(
            f"{where}: the label {words[0]!r} is what programs write for a missing value. It is a class of its own "
            "here; remove these rows if they have no label."
        )
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(_letters(name), []).append(name)
    pairs = [same for same in alike.values() if len(same) > 1]
    if pairs:
        shown = "; ".join(" and ".join(map(ascii, same)) for same in pairs[:5])
        more = f"; and {len(pairs) - 5} others" if len(pairs) > 5 else ""
        _warn(
            f"{where}: labels differ only in spaces, in upper and lower case, or in how a character is stored, and are "
            f"classes of their own: {shown}{more}. Write them alike if they mean the same class."
        )


def _letters(name: str) -> str:
    """A name without what is hardly seen: case, spaces, invisible characters, and forms of one character."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(
        c for c in unicodedata.normalize("NFKC", plain) if not c.isspace() and unicodedata.category(c) != "Cf"
    )


def _warn(message: str) -> None:
    warnings.warn(message, DatasetWarning, stacklevel=5)


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
        shown = str(highest)[:40]
        raise HubError(
            f"{where}, row {numbers.index(highest) + 1}: the label is {shown}, but there are only {len(numbers)} "
            "rows; class numbers count from 0. To use codes as class names, write a letter in front of them, "
            f"such as 'c{shown}'."
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
        if not isinstance(text, str):
            what = "missing" if _is_missing(text) else f"{type(text).__name__}, not a string"
            raise HubError(f"{name}, row {row + 1}: the text is {what}.")
        if "\0" in text:
            raise HubError(
                f"{name}, row {row + 1}: the text contains a NUL character; the file may be UTF-16. Save it as UTF-8."
            )
    return TextDataset(name, split, tuple(texts), labels, tuple(names))

"""Read tables of texts and labels from files, and find the files of a split in a folder."""

from __future__ import annotations

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from pandas.io.common import get_handle

from ntps_utils.models._hub import HubError, first_line, is_lfs_pointer

KINDS = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".jsonl": "JSON lines", ".json": "JSON"}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
COMPRESSED = (*COMPRESSIONS, ".zip")
SUFFIXES = (*KINDS, *COMPRESSED)
SEPARATORS = (",", ";", "\t", "|")
TABLES = "CSV, TSV, Parquet, JSON or JSONL"
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?")
"""Name of one of several files of a split, as on the Hub: train-00000-of-00002, or with a hash behind it."""
METADATA = ("dataset_infos", "dataset_info", "dataset_dict", "label_names", "state")
"""Names of JSON files that are no tables."""
PAIR = " "
"""What joins the texts of several columns."""
SEPARATOR_LINE = re.compile(r"\ufeff?\"?sep=(.)\"?\r?\n?")
"""First line of a CSV file that tells Excel the separator."""
LINE_BREAK = re.compile(r"\r\n?|\n")
SHOWN = 20
"""Number of names that a message lists."""


def table_kind(path: Path) -> str | None:
    """Return the suffix of a table without that of its compression, or None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".zip":
        members = _tables_in(path)
        return PurePosixPath(members[0]).suffix.lower() if len(members) == 1 else None
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def _tables_in(archive: Path) -> list[str]:
    """Names of the tables in a ZIP archive; none if the file is damaged."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, OSError):
        return []
    paths = [PurePosixPath(name) for name in names if not name.endswith("/")]
    return [str(path) for path in paths if path.suffix.lower() in KINDS and not _is_leftover(path.name)]


def _is_leftover(name: str) -> bool:
    """Whether a file is what macOS (``._train.csv``), an editor or Excel (``~$train.csv``) left behind."""
    return name.startswith((".", "~"))


def table_stem(path: Path) -> str:
    """Return the name of a table without its suffixes."""
    name = path.name.removesuffix(path.suffix) if path.suffix.lower() in COMPRESSED else path.name
    return name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in KINDS else path.stem


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Find the tables in a folder by split: train.csv, or train-00000-of-00001.parquet, here or in ``data``.

    Raises
    ------
    HubError
        If a split has several files that are not parts of one table, or the parts are not complete.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = table_stem(path)
        is_table = path.is_file() and not _is_leftover(path.name) and table_kind(path) is not None
        if is_table and stem not in METADATA:
            shard = SHARD.fullmatch(stem)
            files.setdefault(shard[1] if shard else stem, []).append(path)
    for split, paths in files.items():
        _check_parts(folder, split, paths)
    if not files and (folder / "data").is_dir():
        return split_files(folder / "data")
    return files


def _check_parts(folder: Path, split: str, paths: Sequence[Path]) -> None:
    """Raise unless the files of a split are one table, or its parts 0 ... n - 1."""
    shards = [shard for path in paths if (shard := SHARD.fullmatch(table_stem(path)))]
    if len(paths) > 1 and len(shards) < len(paths):
        names = ", ".join(path.name for path in paths)
        raise HubError(f"{folder} has several files of the split {split!r}: {names}. Keep one of them.")
    by_number: dict[int, str] = {}
    for path, shard in zip(paths, shards, strict=False):
        if (other := by_number.setdefault(int(shard[2]), path.name)) != path.name:
            raise HubError(
                f"{folder} has the part {int(shard[2])} of the split {split!r} twice: {other} and {path.name}. "
                "Keep one of them."
            )
    if len(totals := {int(shard[3]) for shard in shards}) > 1:
        raise HubError(
            f"{folder} has parts of different versions of the split {split!r}, with {' and '.join(map(str, totals))} "
            "files. Keep those of one version."
        )
    expected = max(totals, default=0)
    if shards and sorted(by_number) != list(range(expected)):
        raise HubError(
            f"{folder} has {len(paths)} of the {expected} files of the split {split!r} ({paths[0].name}, ...). "
            f"The parts are numbered 0 ... {expected - 1}. Download all of them."
        )


def labels_in(paths: Sequence[Path], text_column: str, label_column: str) -> list[Any]:
    """Return the labels in one or several files; none if a file lacks one of the columns.

    Raises
    ------
    HubError
        If a file cannot be read, see :func:`read_table`.
    """
    tables = [read_table(path, text_column, label_column) for path in paths]
    needed = {*column_names(text_column), label_column}
    complete = all(needed <= set(table.columns) for table in tables)
    return [label for table in tables for label in table[label_column].tolist()] if complete else []


_HINTS = {
    "EOF inside string": " A quotation mark is not closed.",
    "Error tokenizing": " A row has more columns than the header: put texts that contain the separator in quotation "
    "marks, and close each quotation mark.",
}
"""What to do about an error of pandas, by a part of its message; the first one that fits."""


def read_table(path: Path, text_column: str, label_column: str) -> pd.DataFrame:
    """Read a table.

    Parameters
    ----------
    path : Path
    text_column : str
        See :func:`column`. The names of the columns tell the separator of a CSV file.
    label_column : str

    Raises
    ------
    HubError
        If the file cannot be read, has one of the columns twice, or has a quotation mark that is not closed; the
        message names it.
    """
    if is_lfs_pointer(path):
        raise HubError(f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its folder.")
    names = column_names(text_column)
    try:
        frame = _read(path, [*names, label_column])
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except HubError:
        raise
    except (
        ValueError,
        pd.errors.ParserError,
        OSError,
        EOFError,
        RuntimeError,  # a ZIP archive with a password
        NotImplementedError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        ImportError,
    ) as error:
        hint = next((hint for part, hint in _HINTS.items() if part in str(error)), "")
        raise HubError(f"{path} could not be read: {first_line(error)}.{hint}") from None
    _check_once(frame.columns, str(path), [*names, label_column])
    if table_kind(path) in (".csv", ".tsv") and {*names, label_column} <= set(frame.columns):
        check_quotes(frame, str(path), names, label_column)
    return frame


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    kind = table_kind(path)
    source = _unzipped(path) if path.suffix.lower() == ".zip" and kind is not None else path
    match kind:
        case ".csv" | ".tsv":
            return _read_csv(source, "\t" if kind == ".tsv" else ",", columns, str(path))
        case ".parquet":
            from pyarrow import parquet  # slow to import

            _check_once(parquet.read_schema(source).names, str(path), columns)
            return pd.read_parquet(source)
        case ".json" | ".jsonl":
            return _read_json(_text_in(source), kind == ".jsonl", columns, str(path))
    hint = "; a ZIP archive must contain one of them" if path.suffix.lower() == ".zip" else ""
    raise HubError(f"{path} has an unknown type {path.suffix!r}; expected {TABLES}, possibly compressed (.gz){hint}.")


def _unzipped(path: Path) -> io.BytesIO:
    """The only table in a ZIP archive."""
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(_tables_in(path)[0]))


def _text_in(source: Path | io.BytesIO, size: int | None = None) -> str:
    """The contents of a file of text, or its first line if that is not longer than ``size``."""
    if isinstance(source, io.BytesIO):
        return source.getvalue().decode("utf-8-sig")
    with get_handle(source, "r", encoding="utf-8-sig", compression="infer") as opened:
        return str(opened.handle.read() if size is None else opened.handle.readline(size))


def _read_csv(source: Path | io.BytesIO, default: str, columns: Sequence[str], where: str) -> pd.DataFrame:
    def read(separator: str, **options: Any) -> pd.DataFrame:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        # "NA" and "null" are texts, not missing values.
        return pd.read_csv(source, sep=separator, dtype=str, encoding="utf-8-sig", keep_default_na=False, **options)

    told = SEPARATOR_LINE.fullmatch(_text_in(source, 9).partition("\n")[0])
    skip = 1 if told else 0
    headers = {sep: list(read(sep, nrows=0, skiprows=skip).columns) for sep in (told[1] if told else SEPARATORS)}
    separator = (
        told[1] if told else next((sep for sep, names in headers.items() if set(columns) <= set(names)), default)
    )
    frame = read(separator, skiprows=skip)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas used the first field of each row as its index
        raise HubError(f"{where}: the rows have more fields than the header; quote texts that contain the separator.")
    header = read(separator, skiprows=skip, header=None, nrows=1).iloc[0]
    repeated = {name for name in columns if list(header).count(name) > 1}  # pandas made other names of the second one
    frame.columns = pd.Index([new if new in repeated else old for old, new in zip(frame.columns, header, strict=True)])
    return frame


def _read_json(text: str, by_line: bool, columns: Sequence[str], where: str) -> pd.DataFrame:
    """A table from JSON: a list of rows, an object of columns, an object that holds a list of rows, or JSON lines."""
    if not text.strip():
        raise HubError(f"{where} is empty.")
    _check_keys(text, columns, where)

    def read(lines: bool) -> pd.DataFrame:
        return pd.read_json(io.StringIO(text), lines=lines, dtype=False)

    if by_line and not text.lstrip().startswith("["):
        frame = read(True)
    else:
        try:
            frame = read(False)
        except ValueError:  # one object in each line, or tables of different lengths
            frame = read(True)
    nested = [name for name in frame.columns if _holds_rows(frame[name])]
    if nested and not set(columns) & set(frame.columns):
        if len(nested) > 1:
            raise HubError(f"{where} has several tables: {_listed(nested)}. Write each of them to a file of its own.")
        rows = frame[nested[0]]
        return pd.DataFrame(rows.iloc[0] if isinstance(rows.iloc[0], list) else list(rows))
    return frame


def _check_keys(text: str, columns: Sequence[str], where: str) -> None:
    """Raise if the first object has one of the columns twice; pandas would take the last one."""
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        repeated.extend(name for name in columns if keys.count(name) > 1)

    try:
        json.JSONDecoder(object_pairs_hook=note).raw_decode(text, max(0, text.find("{")))
    except (ValueError, RecursionError):
        return  # pandas says what is wrong
    if repeated:
        raise HubError(f"{where} has {repeated[0]!r} twice in one object. Rename or remove one of them.")


def _holds_rows(column: pd.Series) -> bool:
    """Whether a column consists of objects, or of one list of objects."""
    values = column.iloc[0] if len(column) == 1 and isinstance(column.iloc[0], list) else list(column)
    return len(values) > 0 and all(isinstance(value, dict) for value in values)


def check_quotes(frame: pd.DataFrame, where: str, text_columns: Sequence[str], label_column: str) -> None:
    """Refuse a CSV file in which a field contains lines that look like rows: a quotation mark was not closed.

    Parameters
    ----------
    frame : DataFrame
    where : str
        Name of the file, for the message.
    text_columns : sequence of str
    label_column : str

    Raises
    ------
    HubError
        If a line inside a field has as many fields as a row has there, and a label that other rows have at its place.
    """
    columns = list(frame.columns)
    known = {label.strip() for label in frame[label_column] if isinstance(label, str)}
    label, first_text = columns.index(label_column), min(map(columns.index, text_columns))
    for position, name in enumerate(columns):
        for row, cell in enumerate(frame.iloc[:, position].tolist(), 1):
            lines = LINE_BREAK.split(cell) if isinstance(cell, str) else []
            if len(lines) > 1:
                parts = _parts_of_rows(len(lines), position, len(columns))
                inside = [
                    line
                    for line, (first, last) in zip(lines, parts, strict=True)
                    if first <= label <= last and _has_label(line, first, last, label, label > first_text, known)
                ]
                if inside:
                    raise HubError(
                        f"{where}, row {row}: the {'text' if name in text_columns else f'column {name!r}'} has "
                        f"{len(lines)} lines, and {len(inside)} of them look like rows of their own, so a quotation "
                        "mark is probably not closed. Close it, or write a quotation mark inside a text twice; texts "
                        "that are meant so can be stored as JSONL or Parquet."
                    )


def _parts_of_rows(n_lines: int, position: int, n_columns: int) -> list[tuple[int, int]]:
    """First and last column of each line in a field that runs over several rows."""
    last = n_columns - 1
    return [(position, last), *[(0, last)] * (n_lines - 2), (0, position)]


def _has_label(line: str, first: int, last: int, label: int, from_end: bool, known: set[str]) -> bool:
    """Whether a line holds at least the columns from the first to the last one, and a label at its place."""
    index = label - last - 1 if from_end else label - first
    rows = (line.split(separator) for separator in SEPARATORS)
    return any(len(row) > max(1, last - first) and row[index].strip('"\r ') in known for row in rows)


def check_columns(frame: pd.DataFrame, where: str, **wanted: Sequence[str]) -> None:
    """Raise if columns are missing, and name the options that give other names.

    Parameters
    ----------
    frame : DataFrame
    where : str
        What the columns are missing in, for the message.
    **wanted : sequence of str
        Names of the columns of texts (``text``) and of labels (``label``).

    Raises
    ------
    HubError
    """
    missing = {kind: [name for name in names if name not in frame.columns] for kind, names in wanted.items()}
    missing = {kind: names for kind, names in missing.items() if names}
    if missing:
        names = [repr(name) for part in missing.values() for name in part]
        options = " and ".join(f"--{kind}-column" for kind in missing)
        arguments = " and ".join(f"{kind}_column" for kind in missing)
        raise HubError(
            f"{where} has no column{'s' if len(names) > 1 else ''} {' and '.join(names)}; it has "
            f"{_listed(frame.columns)}. Give the right names with {options} ({arguments} in Python)."
        )
    _check_once(frame.columns, where, [name for names in wanted.values() for name in names])


def _check_once(columns: Iterable[Any], where: str, names: Sequence[str]) -> None:
    """Raise if one of the names occurs several times among the columns."""
    for name in names:
        if (n := list(columns).count(name)) > 1:
            raise HubError(
                f"{where} has {n} columns {name!r}, so it is not clear which one is meant. Rename or remove the others."
            )


def _listed(names: Sequence[Any]) -> str:
    """The first names, and the number of others."""
    texts = map(str, names[:SHOWN])
    shown = ", ".join(text if text.isprintable() else repr(text) for text in texts) or "none"
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} others"


def check_column_names(text_column: Any, label_column: Any) -> None:
    """Raise unless the names of the columns are strings, or numbers as in a DataFrame, and differ.

    Raises
    ------
    TypeError
        If a name has another type.
    HubError
        If a column is given twice.
    """
    for argument, name in (("text_column", text_column), ("label_column", label_column)):
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            several = "; several text columns are one string, separated by commas" if argument == "text_column" else ""
            raise TypeError(f"{argument} must be the name of a column, got {name!r}{several}.")
    texts = column_names(text_column)
    if label_column in (text_column, *texts):
        raise HubError(
            f"The column {label_column!r} is given as the column of labels and of texts. Give the texts with "
            "--text-column and the labels with --label-column (text_column and label_column in Python)."
        )
    if len(set(texts)) < len(texts):
        raise HubError(f"The text column {text_column!r} has the same name twice; give each column once.")


def column(frame: pd.DataFrame, name: str, where: str) -> list[Any]:
    """Return a column of texts; several names separated by commas are joined by a space, row by row.

    Raises
    ------
    HubError
        If there is no such column, or a part of a pair is missing.
    """
    if name in frame.columns:
        return list(frame[name].tolist())
    names = column_names(name)
    check_columns(frame, where, text=names)
    rows = list(zip(*(frame[part].tolist() for part in names), strict=True))
    for row, parts in enumerate(rows, 1):
        for part, text in zip(names, parts, strict=True):
            if not isinstance(text, str):
                raise HubError(f"{where}, row {row}: the text of the column {part!r} is missing or not a string.")
    return [PAIR.join(parts) for parts in rows]


def describe_text_column(text_column: str) -> str:
    """Return the names of the text columns, and how several are joined, for provenance."""
    names = column_names(text_column)
    return names[0] if len(names) == 1 else f"{','.join(names)}, joined by a space"


def texts_and_labels(paths: Sequence[Path], text_column: str, label_column: str) -> tuple[list[Any], list[Any]]:
    """Read the columns of texts and of labels of one or several files.

    Parameters
    ----------
    paths : sequence of Path
        Files of one table.
    text_column : str
        See :func:`column`.
    label_column : str

    Raises
    ------
    HubError
        If a file cannot be read, or a column is missing.
    """
    texts: list[Any] = []
    labels: list[Any] = []
    for path in paths:
        frame = read_table(path, text_column, label_column)
        check_columns(frame, str(path), text=column_names(text_column), label=[label_column])
        texts += column(frame, text_column, str(path))
        labels += frame[label_column].tolist()
    return texts, labels


def column_names(text_column: str) -> list[str]:
    """Return the names of text columns that are separated by commas."""
    return [part.strip() for part in text_column.split(",")] if isinstance(text_column, str) else [text_column]

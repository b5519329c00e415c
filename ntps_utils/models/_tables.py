"""Read tables of texts and labels from files, and find the files of a split in a folder."""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ntps_utils.models._hub import HubError, first_line, is_lfs_pointer

KINDS = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".jsonl": "JSON lines", ".json": "JSON"}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
SEPARATORS = (",", ";", "\t", "|")
TABLES = "CSV, TSV, Parquet, JSON or JSONL"
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(-[0-9a-f]+)?")
"""Name of one of several files of a split, as on the Hub: train-00000-of-00002, or with a hash behind it."""
METADATA = ("dataset_infos", "dataset_info", "dataset_dict", "label_names", "state")
"""Names of JSON files that are no tables."""
PAIR = " "
"""What joins the texts of several columns."""


def table_kind(path: Path) -> str | None:
    """Return the suffix of a table without that of its compression, or None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def table_stem(path: Path) -> str:
    """Return the name of a table without its suffixes."""
    kind = table_kind(path)
    return path.stem if kind is None else path.name[: path.name.lower().rindex(kind)]


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Find the tables in a folder by split: train.csv, or train-00000-of-00001.parquet, here or in ``data``.

    Raises
    ------
    HubError
        If a split has several files that are not parts of one table, or a part is missing.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = table_stem(path)
        if path.is_file() and table_kind(path) is not None and stem not in METADATA:
            shard = SHARD.fullmatch(stem)
            files.setdefault(shard[1] if shard else stem, []).append(path)
    for split, paths in files.items():
        shards = [SHARD.fullmatch(table_stem(path)) for path in paths]
        if len(paths) > 1 and not all(shards):
            names = ", ".join(path.name for path in paths)
            raise HubError(f"{folder} has several files of the split {split!r}: {names}. Keep one of them.")
        expected = max((int(shard[2]) for shard in shards if shard), default=len(paths))
        if len(paths) != expected:
            raise HubError(
                f"{folder} has {len(paths)} of the {expected} files of the split {split!r} ({paths[0].name}, ...). "
                "Download all of them."
            )
    if not files and (folder / "data").is_dir():
        return split_files(folder / "data")
    return files


def read_tables(paths: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    """Read one or several files as one table."""
    return pd.concat([read_table(path, columns) for path in paths], ignore_index=True)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Columns that are needed. They tell the separator of a CSV file.

    Raises
    ------
    HubError
        If the file cannot be read; the message names it.
    """
    if is_lfs_pointer(path):
        raise HubError(f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its folder.")
    try:
        match table_kind(path):
            case ".csv" | ".tsv":
                return _read_csv(path, columns)
            case ".parquet":
                return pd.read_parquet(path)
            case ".jsonl":
                return pd.read_json(path, lines=True, dtype=False, encoding="utf-8-sig")
            case ".json":
                try:
                    return pd.read_json(path, dtype=False, encoding="utf-8-sig")
                except ValueError:  # one object in each line
                    return pd.read_json(path, lines=True, dtype=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except HubError:
        raise
    except (ValueError, pd.errors.ParserError, OSError, EOFError, zlib.error, lzma.LZMAError, ImportError) as error:
        raise HubError(f"{path} could not be read: {first_line(error)}.") from None
    raise HubError(f"{path} has an unknown type {path.suffix!r}; expected {TABLES}, possibly compressed (.gz).")


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    # "NA" and "null" are texts, not missing values.
    options: dict[str, Any] = {"keep_default_na": False, "dtype": str, "encoding": "utf-8-sig"}
    headers = {sep: pd.read_csv(path, sep=sep, nrows=0, **options).columns for sep in SEPARATORS}
    default = "\t" if table_kind(path) == ".tsv" else ","
    separator = next((sep for sep, header in headers.items() if set(columns) <= set(header)), default)
    frame = pd.read_csv(path, sep=separator, **options)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas used the first field of each row as its index
        raise HubError(f"{path}: the rows have more fields than the header; quote texts that contain the separator.")
    return frame


def check_quotes(
    texts: Sequence[Any], labels: Sequence[Any], where: str, *, position: int = -1, n_fields: int = 2
) -> None:
    """Refuse texts of a CSV file that contain lines which look like rows: a quotation mark was not closed.

    Parameters
    ----------
    texts, labels : sequence
    where : str
        Name of the file, for the message.
    position : int
        Place of the label among the fields of a row: counted from the first one, or, if it stands behind the text,
        from the last one (negative).
    n_fields : int
        Number of fields of a row.

    Raises
    ------
    HubError
        If a line inside a text has as many fields, and a label that other rows have at its place.
    """
    known = {str(label).strip() for label in labels}

    def is_row(line: str) -> bool:
        rows = (line.split(separator) for separator in SEPARATORS)
        return any(len(fields) >= n_fields and fields[position].strip('"\r ') in known for fields in rows)

    for row, text in enumerate(texts, 1):
        if isinstance(text, str) and "\n" in text:
            lines = text.splitlines()
            inside = [line for line in (lines[:-1] if position < 0 else lines[1:]) if is_row(line)]
            if inside:
                raise HubError(
                    f"{where}, row {row}: the text has {len(lines)} lines, and {len(inside)} of them look "
                    "like rows of their own, so a quotation mark is probably not closed. Close it, or write a "
                    "quotation mark inside a text twice; texts that are meant so can be stored as JSONL or Parquet."
                )


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
            f"{', '.join(map(str, frame.columns))}. Give the right names with {options} ({arguments} in Python)."
        )


def column(frame: pd.DataFrame, name: str, where: str) -> list[Any]:
    """Return a column; several names separated by commas are joined by a space, row by row.

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
        Files of one kind.
    text_column : str
        See :func:`column`.
    label_column : str

    Raises
    ------
    HubError
        If a file cannot be read, a column is missing, or a quotation mark is not closed.
    """
    where = str(paths[0])
    frame = read_tables(paths, [*column_names(text_column), label_column])
    check_columns(frame, where, text=column_names(text_column), label=[label_column])
    labels, texts = list(frame[label_column].tolist()), column(frame, text_column, where)
    if table_kind(paths[0]) in (".csv", ".tsv"):
        columns = list(frame.columns)
        position, first_text = columns.index(label_column), min(map(columns.index, _text_parts(frame, text_column)))
        position -= len(columns) if position > first_text else 0
        check_quotes(texts, labels, where, position=position, n_fields=len(columns))
    return texts, labels


def _text_parts(frame: pd.DataFrame, text_column: str) -> list[str]:
    return [text_column] if text_column in frame.columns else column_names(text_column)


def column_names(text_column: str) -> list[str]:
    """Return the names of text columns that are separated by commas."""
    return [part.strip() for part in text_column.split(",")]

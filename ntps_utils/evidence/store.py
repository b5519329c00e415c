"""Results, one file for each cell, named by everything that determines it.

A file is complete or absent: it is written beside its place and renamed. A second run
finds what the first one finished, however that ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import atomic_path

VERSION = 1


class StoreError(ValueError):
    """A results folder holds what this version cannot read. One line says what to do."""


class Store:
    """Results by their settings.

    Parameters
    ----------
    folder : path
        Made when the first result is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(settings: Mapping[str, Any]) -> str:
        """Name of a result: hash of the settings, 20 hex digits.

        Raises
        ------
        ValueError
            If the settings hold something that JSON has no exact form for.
        """
        try:
            text = json.dumps(settings, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Settings must be plain JSON values: {error}.") from None
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def get(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of these settings, or None."""
        record = self._read(self.folder / f"{self.key(settings)}.json")
        return None if record is None else record["result"]

    def put(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Write a result; the file appears whole or not at all."""
        key = self.key(settings)
        record = {"version": VERSION, "settings": dict(settings), "result": dict(result)}
        text = json.dumps(record, indent=1, allow_nan=False)
        with atomic_path(self.folder / f"{key}.json") as temporary:
            temporary.write_text(text + "\n", "utf-8")

    def discard(self, settings: Mapping[str, Any]) -> None:
        """Forget the result of these settings, if there is one."""
        (self.folder / f"{self.key(settings)}.json").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Settings and result of every cell, by name of file."""
        for file in sorted(self.folder.glob("[0-9a-f]*.json")):
            record = self._read(file)
            if record is not None:
                yield record["settings"], record["result"]

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9a-f]*.json"))

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        """A record, or None if the file is not there (any more: another process may discard it)."""
        try:
            record = json.loads(file.read_text("utf-8"))
            version = record["version"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError):
            raise StoreError(f"{file} is not a result of this library; move it away and run again.") from None
        if version != VERSION:
            raise StoreError(
                f"{file} was written by version {version} of the results format, this is {VERSION}; "
                "choose another folder."
            )
        return dict(record)

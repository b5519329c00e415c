"""A folder of results: one JSON file per result, named by the settings that determine it.

A file is complete or absent, because it is written under a temporary name and then renamed. A
second run finds the results of the first, however the first one ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import write_json

VERSION = 2


class StoreError(ValueError):
    """A file in a store cannot be read by this version. The message is one line that says what to do."""


class Store:
    """Results by their settings.

    Parameters
    ----------
    folder : str or Path
        Folder of the files; created when the first result is written.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.put({"model": "lab/XS", "seed": 0}, {"accuracy": 0.9})
    >>> store.get({"seed": 0, "model": "lab/XS"})
    {'accuracy': 0.9}
    >>> print(store.get({"model": "lab/XS", "seed": 1}))
    None
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(settings: Mapping[str, Any]) -> str:
        """Compute the name of a result from its settings.

        Parameters
        ----------
        settings : mapping
            Values that JSON can represent.

        Returns
        -------
        str
            Hash of the settings, 20 hex digits. The order of the settings does not matter.

        Raises
        ------
        ValueError
            If JSON cannot represent the settings.

        Examples
        --------
        >>> Store.key({"a": 1, "b": 2}) == Store.key({"b": 2, "a": 1})
        True
        """
        try:
            text = json.dumps(settings, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The settings must be plain JSON values: {error}.") from None
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def get(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read a result.

        Parameters
        ----------
        settings : mapping

        Returns
        -------
        dict or None
            None if the store has no result for these settings.

        Raises
        ------
        StoreError
            If the file is not a result, or has another format version.
        """
        record = self._read(self.folder / f"{self.key(settings)}.json")
        return None if record is None else record["result"]

    def put(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Write a result, replacing an earlier one; a reader never sees an incomplete file.

        Parameters
        ----------
        settings, result : mapping
            Values that JSON can represent.

        Raises
        ------
        ValueError
            If JSON cannot represent a value, such as NaN.
        """
        key = self.key(settings)
        record = {"version": VERSION, "settings": dict(settings), "result": dict(result)}
        write_json(self.folder / f"{key}.json", record, allow_nan=False)

    def discard(self, settings: Mapping[str, Any]) -> None:
        """Delete the result of these settings, if there is one.

        Parameters
        ----------
        settings : mapping
        """
        (self.folder / f"{self.key(settings)}.json").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Iterate over pairs of settings and result, ordered by the names of the files."""
        for file in sorted(self.folder.glob("[0-9a-f]*.json")):
            record = self._read(file)
            if record is not None:
                yield record["settings"], record["result"]

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9a-f]*.json"))

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        """Read a record; None if the file does not exist, for example because another process discarded it."""
        try:
            record = json.loads(file.read_text("utf-8"))
            version = record["version"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError):
            raise StoreError(f"{file} is not a result of this library. Move it away and run again.") from None
        if version != VERSION:
            raise StoreError(
                f"{file} has version {version} of the results format, but this library reads version {VERSION}. "
                "Use another folder."
            )
        return dict(record)

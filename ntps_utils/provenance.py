"""What made a number: versions, settings, hashes, date."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

PACKAGES = ("ntps-utils", "numpy", "scipy", "torch", "transformers", "tokenizers", "datasets")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(**settings: Any) -> dict[str, Any]:
    """A record to keep beside a result: the settings given, versions, and the time in UTC."""
    return {
        **settings,
        "versions": versions(),
        "machine": platform.machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def provenance_note(**settings: Any) -> str:
    """The record as one line of Markdown, for the foot of a page."""
    record = provenance(**settings)
    parts = [f"{name} {value}" for name, value in settings.items()]
    parts += [f"{name} {version}" for name, version in record["versions"].items()]
    return f"*Provenance:* {' · '.join([*parts, record['machine'], record['date']])}"

"""What loading of models and of datasets share: errors, registries, and the connection to the Hub."""

from __future__ import annotations

import difflib
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

from ntps_utils._utils.files import data_file

PATIENCE = 5.0  # seconds for the Hub to answer at all


class HubError(ValueError):
    """A model or dataset could not be found, reached or read. One line says what to do."""


def registry(what: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads(data_file(f"{what}.toml").read_text("utf-8"))


def suggestion(name: str, known: Iterable[str]) -> str:
    """A half sentence that helps with an unknown name."""
    lower = {one.lower(): one for one in known}
    close = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=3)]
    return f"Did you mean {' or '.join(close)}?" if close else f"Registered names: {', '.join(sorted(known))}."


def looks_like_hub_id(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and name == name.strip() and bool(name)


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def offline_if_unreachable() -> None:
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

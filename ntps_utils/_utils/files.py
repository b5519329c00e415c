"""Files of the package, and files that are written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def data_file(name: str) -> Path:
    """Return the path of a table, registry or checkpoint in ``ntps_utils/data``.

    Parameters
    ----------
    name : str
        Path relative to that folder.

    Returns
    -------
    Path

    Examples
    --------
    >>> data_file("models.toml").name
    'models.toml'
    """
    return Path(str(resources.files("ntps_utils"))) / "data" / name


def asset_text(name: str) -> str:
    """Return the contents of an HTML template in ``ntps_utils/assets``.

    Parameters
    ----------
    name : str
        Path relative to that folder.

    Returns
    -------
    str
    """
    return (Path(str(resources.files("ntps_utils"))) / "assets" / name).read_text("utf-8")


def cache_folder() -> Path:
    """Return the user's folder for downloaded and converted models.

    Returns
    -------
    Path
        The environment variable ``NTPS_CACHE``, or ``ntps-utils`` in ``XDG_CACHE_HOME``, which
        is ``~/.cache`` by default.

    Examples
    --------
    >>> os.environ["NTPS_CACHE"] = "elsewhere"
    >>> cache_folder().name
    'elsewhere'
    >>> del os.environ["NTPS_CACHE"]
    """
    if own := os.environ.get("NTPS_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ntps-utils"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Provide a temporary path in the folder of ``path`` that replaces it if the block succeeds.

    Missing folders are created. If the block raises, ``path`` stays as it was. A link stays, and the
    file that it points to is replaced. A device or a pipe cannot be replaced; the contents are
    written to it.

    Parameters
    ----------
    path : path
        File to write.

    Yields
    ------
    Path
        An existing empty file with the suffix of ``path``.

    Raises
    ------
    OSError
        If ``path`` cannot be written, for example because the disk is full or the folder
        is read-only. The message names ``path``.

    See Also
    --------
    write_text, write_json : Write a string or a JSON value this way.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "new" / "weights.bin") as temporary:
    ...     _ = temporary.write_bytes(b"abc")
    >>> (folder / "new" / "weights.bin").read_bytes()
    b'abc'
    """
    path = Path(path)
    if _is_special(path):
        with _write_errors(path), tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"contents{path.suffix}"
            temporary.touch()
            yield temporary
            with open(temporary, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        return
    with _write_errors(path):
        if path.is_symlink():
            path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp creates private files; this one gets the permissions of any other new file.
            temporary.chmod(0o666 & ~_umask())
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # otherwise a power failure after the rename may leave an empty file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Provide a temporary folder that replaces ``path`` if the block succeeds.

    Parameters
    ----------
    path : path
        Folder to write; an existing one is removed.

    Yields
    ------
    Path
        An empty folder beside ``path``.

    Raises
    ------
    OSError
        If ``path`` cannot be written, as for :func:`atomic_path`.
    """
    path = Path(path)
    with _write_errors(path):
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


def write_text(path: str | Path, text: str) -> None:
    """Write a string to a UTF-8 file, completely or not at all.

    Parameters
    ----------
    path : path
        File to write; missing folders are created.
    text : str

    Raises
    ------
    OSError
        If ``path`` cannot be written, as for :func:`atomic_path`.

    Examples
    --------
    >>> file = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_text(file, "done")
    >>> file.read_text()
    'done'
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: str | Path, value: Any, *, allow_nan: bool = True) -> None:
    """Write a JSON value to a file, completely or not at all.

    Parameters
    ----------
    path : path
        File to write; missing folders are created.
    value : object
        A value that :func:`json.dumps` accepts.
    allow_nan : bool
        Accept NaN and infinities, which strict JSON does not have.

    Raises
    ------
    TypeError, ValueError
        If JSON cannot represent ``value``; nothing is written.
    OSError
        If ``path`` cannot be written, as for :func:`atomic_path`.

    Examples
    --------
    >>> file = Path(tempfile.mkdtemp()) / "settings.json"
    >>> write_json(file, {"seed": 0})
    >>> json.loads(file.read_text())
    {'seed': 0}
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=allow_nan) + "\n")


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing into an OSError that names the file; safetensors has its own for a full disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OSError(f"{path} could not be written: {reason}.") from error


def _is_special(path: Path) -> bool:
    """Whether a path is something other than a file or a folder, such as a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(path: str | Path, *, make_folders: bool = True) -> None:
    """Raise if a file could not be written; call it before a long computation.

    Parameters
    ----------
    path : path
        File that is to be written later.
    make_folders : bool
        Whether missing folders will be created.

    Raises
    ------
    ValueError
        If ``path`` is a folder, a link that leads back to itself or a file descriptor that is not open, or lies in a
        folder that is read-only or, without ``make_folders``, does not exist.

    Examples
    --------
    >>> check_writable(tempfile.gettempdir())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: Cannot write ...: it is a folder.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise ValueError(f"Cannot write {path}: it is a folder.")
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise ValueError(f"Cannot write {path}: permission denied.")
        return
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"Cannot write {path}: it is a link that leads back to itself.") from None
    folder = path.resolve().parent
    if folder.parts[1:2] == ("proc",):  # /dev/fd leads there
        raise ValueError(f"Cannot write {path}: it is not open, and no file can be made in {folder}.")
    while make_folders and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"Cannot write {path}: the folder {folder} does not exist or is read-only.")


def sha256(*paths: str | Path) -> str:
    """Return the SHA-256 digest of the concatenated contents of files.

    Parameters
    ----------
    *paths : path
        Files, read in the order given.

    Returns
    -------
    str
        64 hex digits.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

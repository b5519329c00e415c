"""Run a command while holding a lock, so that two builds of one checkout take turns.

    python -m book.tools.locked FILE COMMAND [ARGUMENT ...]

The lock is the operating system's: it ends with the command, however that ends. Nothing but
the standard library is needed, since the making of the environment is guarded too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock, as if nobody else were building
    fcntl = None  # type: ignore[assignment]


def main(arguments: list[str]) -> int:
    """Entry point of ``python -m book.tools.locked``; the command takes this process's place."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, command = Path(arguments[0]), arguments[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build of this checkout is at work; waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
    os.set_inheritable(handle, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

"""Run a command while holding a lock, so that two builds of a checkout do not run at the same time.

    python -m book.tools.locked FILE COMMAND [ARGUMENT ...]

The operating system releases the lock when the command ends, even if it is killed. The module
needs only the standard library, because it also guards the creation of the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks; the command runs without one
    fcntl = None  # type: ignore[assignment]


def main(arguments: list[str]) -> int:
    """Run ``python -m book.tools.locked``: wait for the lock, then replace this process by the command.

    Parameters
    ----------
    arguments : list of str
        Lock file, command, and its arguments.

    Returns
    -------
    int
        2 if there is no command; otherwise the function does not return.
    """
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
            print("Another build of this checkout is running; waiting for it to finish.", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
    os.set_inheritable(handle, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

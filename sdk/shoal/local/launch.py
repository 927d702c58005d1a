"""Starts a local program so that it ends when the command that started it is killed.

Run as a script: `launch.py PARENT PROGRAM ARGUMENT…`. See prctl(2), PR_SET_PDEATHSIG, which an exec
keeps; elsewhere than on Linux the program is started all the same.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def main() -> None:
    """Become the program."""
    parent, *argv = sys.argv[1:]
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        pass
    else:
        if os.getppid() != int(parent):  # it was killed meanwhile
            sys.exit(NOT_STARTED)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - that is what it is for
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()

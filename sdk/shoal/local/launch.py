"""Starts a program so that it gets a signal when the process that started it ends, however it does.

Run as a script: `launch.py PARENT SIGNAL PROGRAM ARGUMENT…`, both as numbers. See prctl(2),
PR_SET_PDEATHSIG, which an exec keeps; elsewhere than on Linux the program is started all the same.

The signal may come several times: a parent with threads is gone once for each of them.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def main() -> None:
    """Become the program."""
    parent, number, *argv = sys.argv[1:]
    signal.signal(int(number), signal.SIG_DFL)  # which a program below `nohup` would ignore
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
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

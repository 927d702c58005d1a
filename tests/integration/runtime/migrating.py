"""Brings a file to a version, and kills itself at a moment: `python -m … FILE LAST MOMENT`; 0 is never.

It prints how many moments there were: each some hundred steps of SQLite's machine, and each file that
is opened, renamed or removed.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from services.runtime.group_commit import open_database
from services.runtime.migration import migrate

EVENTS = frozenset({"open", "os.rename", "os.remove"})
OPCODES = 100


def main() -> None:
    """Migrate."""
    path, moment = Path(sys.argv[1]), int(sys.argv[3])
    steps = [
        f"CREATE TABLE t{n} AS SELECT value FROM generate;"  # noqa: S608 - n is a number
        if n
        else "CREATE TABLE generate (value INTEGER); INSERT INTO generate WITH RECURSIVE c(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) SELECT n FROM c;"
        for n in range(int(sys.argv[2]))
    ]
    seen = 0

    def another() -> int:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def prepare(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(another, OPCODES)
        sys.addaudithook(lambda event, _arguments: another() if event in EVENTS else None)
        migrate(connection, path, steps)

    open_database(path, prepare).close()
    sys.stdout.write(f"{seen}\n")


if __name__ == "__main__":
    main()

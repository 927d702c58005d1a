"""Brings a SQLite file of an earlier version to that of this program, and leaves one of a later version alone.

Theory. The version of a file is how many steps its tables have taken, in `PRAGMA user_version`; a program knows a list
of steps, and appends to it with each release that needs other tables.

Rules. A file of a later version is only read, and refused in a sentence that says which backup this program could go
back to. Before a file of an earlier version is touched, a copy of it lies beside it, whole and on the disk, under a
name that says its version. All steps and the new version are one transaction.

Invariant. Whenever the program is killed, the file has the old tables or the new ones, and where it has the new ones
the backup is complete: it is written under another name, synced, renamed, and its folder synced, before the
transaction begins. Where there is no room for it, nothing has changed.

Why `VACUUM INTO` and not a copy of the file: it reads one moment of the file and of its log together, and leaves out
the pages that are free, of which our files keep some megabytes (https://www.sqlite.org/lang_vacuum.html).

Example: `controller.db` of version 12 is opened by a program that knows 13 steps. `controller.db.v12.backup` appears,
then step 13 is taken. The program before refuses the file from then on, and names that backup.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from services.runtime.log import fields
from services.runtime.state_folder import create_private

LOG = logging.getLogger(__name__)


class NewerFileError(Exception):
    """A later version of the program wrote the file; the message says for people how to go on or back."""


class BackupError(Exception):
    """There is no room for a backup, or its disk takes none, so nothing was changed."""


def refuse_newer(path: Path, known: int) -> None:
    """Look at the version of a file, if there is one, without changing anything.

    Args:
        path: of the file.
        known: the version that this program writes.

    Raises:
        NewerFileError: it is of a later version.
    """
    version = _version_at(path)
    if version is None or version <= known:
        return
    remedy = "no backup that this program could read lies beside it: start the newer program again"
    if (backup := _best_backup(path, known)) is not None:
        made = datetime.fromtimestamp(backup.stat().st_mtime, UTC)
        remedy = (
            f"start the newer program again; or go back to {made:%Y-%m-%d %H:%M} UTC, without what was recorded since: "
            f"move {path.name}, {path.name}-wal and {path.name}-shm away, and copy the backup {backup} to {path}"
        )
    raise NewerFileError(
        f"{path} has version {version} and this program knows {known}, so a later program wrote it, and nothing of it "
        f"was changed; {remedy} (docs/upgrade.md)"
    )


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    """Take the steps that a file lacks, in one transaction, with a backup before; a new file gets no backup.

    Args:
        connection: of the file; it begins no transaction by itself.
        path: of the file.
        steps: the statements that lead from each version to the next; an empty file has version 0.

    Raises:
        BackupError: there is no backup, and the file is as it was.
        sqlite3.Error: a step was not taken, and neither was any other.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version >= len(steps):
        return
    if version:
        backup = _back_up(connection, path, version, len(steps))
        LOG.warning(
            "a file is brought to a later version",
            extra=fields(path=path, version=version, to=len(steps), backup=backup),
        )
    connection.executescript(
        f"BEGIN IMMEDIATE; {''.join(steps[version:])} PRAGMA user_version = {len(steps)}; COMMIT;"
    )


def backup_path(path: Path, version: int) -> Path:
    """Where the backup of a file of a version lies."""
    return path.with_name(f"{path.name}.v{version}.backup")


def _back_up(connection: sqlite3.Connection, path: Path, version: int, later: int) -> Path:
    backup = backup_path(path, version)
    part = backup.with_name(f"{backup.name}.part")
    try:
        part.unlink(missing_ok=True)
        create_private(part)
        connection.execute("VACUUM INTO ?", (str(part),))
        _sync(part)
        part.replace(backup)
        _sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        wanted = path.stat().st_size >> 20
        raise BackupError(
            f"{path} is of version {version}, and no backup could be made before it is brought to {later}: {error}; "
            f"make room for {wanted + 1} MiB beside it, or see that its disk is healthy; nothing of it was changed"
        ) from error
    return backup


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version_at(path: Path) -> int | None:
    """The version of a file; None where there is none, or none that can be read."""
    log = path.with_name(f"{path.name}-wal")
    try:
        if not path.stat().st_size:
            return None
        # Without a log nothing is made beside the file to read it.
        unlogged = not log.exists() or not log.stat().st_size
        options = "mode=ro&immutable=1" if unlogged else "mode=ro"
        connection = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, timeout=5.0)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, OSError):
        return None


def _best_backup(path: Path, known: int) -> Path | None:
    """The backup of the latest version that is not later than `known`."""
    name = re.compile(rf"{re.escape(path.name)}\.v(\d+)\.backup")
    found = {
        int(match[1]): one
        for one in path.parent.iterdir()
        if (match := name.fullmatch(one.name)) and one.is_file()
    }
    return max(((v, p) for v, p in found.items() if v <= known), default=(0, None))[1]

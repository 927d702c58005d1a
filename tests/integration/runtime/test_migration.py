"""A file that is brought to a later version: with a backup before, in one go, and not by a program that is too old."""

import logging
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.group_commit import open_database
from services.runtime.migration import (
    BackupError,
    NewerFileError,
    backup_path,
    migrate,
    refuse_newer,
)
from tests.kit.small_disk import small_disk

STEPS = ("CREATE TABLE a (x);", "ALTER TABLE a ADD COLUMN y DEFAULT 7;", "CREATE TABLE b (z);")
KILLS = 24


def opened(path: Path, steps: tuple[str, ...]) -> sqlite3.Connection:
    return open_database(path, lambda connection: migrate(connection, path, steps))


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def old_file(path: Path) -> None:
    """A file of version 1 in use: its newest row is in the log alone."""
    connection = opened(path, STEPS[:1])
    connection.execute("INSERT INTO a VALUES (1)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO a VALUES (2)")
    connection.close()


def test_a_file_has_a_backup_before_it_is_brought_to_a_later_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.db"
    old_file(path)
    with caplog.at_level(logging.WARNING):
        opened(path, STEPS).close()
    backup = backup_path(path, 1)
    assert backup == tmp_path / "x.db.v1.backup"
    assert str(backup) in str(caplog.records[0].__dict__)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert rows(backup, "SELECT x FROM a") == [(1,), (2,)]
    assert rows(backup, "PRAGMA user_version") == [(1,)]
    assert rows(path, "SELECT x, y FROM a") == [(1, 7), (2, 7)]
    assert rows(path, "PRAGMA user_version") == [(3,)]


def test_a_new_file_and_one_of_this_version_get_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened(path, STEPS).close()
    opened(path, STEPS).close()
    assert [one.name for one in tmp_path.iterdir()] == ["x.db"]


def test_an_older_program_leaves_a_newer_file_alone_and_says_how_to_go_back(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old_file(path)
    opened(path, STEPS[:2]).close()
    opened(path, STEPS).close()
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(NewerFileError, match="has version 3 and this program knows 2") as refused:
        refuse_newer(path, 2)
    said = str(refused.value)
    assert f"copy the backup {backup_path(path, 2)} to {path}" in said
    assert "start the newer program again" in said
    with pytest.raises(NewerFileError, match=r"x\.db\.v1\.backup"):
        refuse_newer(path, 1)
    refuse_newer(path, 3)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before
    backup_path(path, 2).replace(path)
    backup_path(path, 1).unlink()
    assert rows(path, "SELECT x, y FROM a") == [(1, 7), (2, 7)]
    with pytest.raises(NewerFileError, match="no backup that this program could read lies"):
        refuse_newer(path, 1)


def test_what_only_has_the_name_of_a_backup_is_none(tmp_path: Path) -> None:
    """A folder, and a link to a backup that was moved elsewhere."""
    path = tmp_path / "x.db"
    opened(path, STEPS).close()
    backup_path(path, 2).mkdir()
    backup_path(path, 1).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NewerFileError, match="no backup that this program could read lies"):
        refuse_newer(path, 2)


def test_without_room_for_a_backup_nothing_changes(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as disk:
        path = disk.path / "x.db"
        old_file(path)
        connection = open_database(path, lambda _: None)  # which has the files beside it already
        disk.fill()
        with pytest.raises(BackupError, match="make room for 1 MiB beside it") as refused:
            migrate(connection, path, STEPS)
        connection.close()
        assert "nothing of it was changed" in str(refused.value)
        assert not list(disk.path.glob("*backup*"))
        disk.empty()
        assert rows(path, "PRAGMA user_version") == [(1,)]
        assert rows(path, "SELECT * FROM a") == [(1,), (2,)]


def test_a_step_that_fails_takes_the_others_back(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old_file(path)
    with pytest.raises(sqlite3.Error, match="no such table"):
        opened(path, (*STEPS, "INSERT INTO missing VALUES (1);"))
    assert rows(path, "PRAGMA user_version") == [(1,)]
    assert rows(path, "SELECT * FROM a") == [(1,), (2,)]


def test_killed_at_any_moment_it_has_the_old_tables_or_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    moments = migrating(path, 1)
    assert moments
    beginning = path.read_bytes()
    moments = migrating(path, 4)
    assert moments is not None
    kinds: set[object] = set()
    for kill in range(KILLS):
        for one in tmp_path.iterdir():
            one.unlink()
        path.write_bytes(beginning)
        assert migrating(path, 4, 1 + kill * moments // KILLS) is None
        ((version,),) = rows(path, "PRAGMA user_version")
        tables = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}
        assert tables == {"generate"} | {f"t{n}" for n in range(1, 4) if version == 4}
        kinds.add(version)
        backup = backup_path(path, 1)
        if version == 4:
            assert backup.exists()
        if backup.exists():
            assert rows(backup, "PRAGMA integrity_check") == [("ok",)]
            assert rows(backup, "SELECT count(*) FROM generate") == [(3000,)]
        assert migrating(path, 4), "it is brought there by the next start"
        assert rows(path, "SELECT count(*) FROM t3") == [(3000,)]
        assert {one.name for one in tmp_path.iterdir()} == {"x.db", "x.db.v1.backup"}
    assert 1 in kinds


def migrating(path: Path, last: int, moment: int = 0) -> int | None:
    """Bring a file to a version, and return at how many moments it could be killed; None if it was."""
    program = [sys.executable, "-m", "tests.integration.runtime.migrating"]
    done = subprocess.run(
        [*program, path, str(last), str(moment)], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, -9}, done.stderr
    return int(done.stdout) if done.returncode == 0 else None

"""The tries of messages outlive the process, and are bounded."""

import sqlite3
from pathlib import Path

import pytest

from services.intake.tries import KEPT, STEPS, MessageTries
from services.runtime.process import OtherVersionError, StartRefusedError

KEY = ("sqs:q", "m-1")
DAY = 86_400.0


def test_tries_are_there_after_a_restart_and_can_be_forgotten(tmp_path: Path) -> None:
    with MessageTries(tmp_path / "intake.db") as tries:
        assert tries.of(KEY) == (0, "")
        tries.record(KEY, 1, "first", 0.0)
        tries.record(KEY, 2, "second", 1.0)
    with MessageTries(tmp_path / "intake.db") as tries:
        assert tries.of(KEY) == (2, "second")
        assert tries.of(("sqs:other", "m-1")) == (0, "")
        tries.forget(KEY)
        assert tries.of(KEY) == (0, "")


def test_what_is_old_or_too_much_is_forgotten(tmp_path: Path) -> None:
    with MessageTries(tmp_path / "intake.db", kept_max=3) as tries:
        tries.record(KEY, 1, "old", 0.0)
        tries.record(("q", "0"), 1, "new", KEPT.total_seconds())
        assert tries.of(KEY) == (1, "old")
        for number in range(1, 6):
            tries.record(("q", str(number)), 1, "new", KEPT.total_seconds() + number)
        assert tries.of(KEY) == (0, "")
        assert [tries.of(("q", str(number)))[0] for number in range(6)] == [0, 0, 1, 1, 1, 1]


def test_a_file_that_cannot_be_used_refuses_the_start(tmp_path: Path) -> None:
    path = tmp_path / "intake.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StartRefusedError, match="cannot be used"):
        MessageTries(path)
    path.unlink()
    with MessageTries(path):
        pass
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    newer.close()
    with pytest.raises(OtherVersionError):
        MessageTries(path)

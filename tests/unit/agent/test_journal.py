"""What is written is there after the process that wrote it."""

import asyncio
import base64
import contextlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.attempts.local_attempt import LocalAttempt, Verdict
from edge_agent.attempts.phase import Phase
from edge_agent.journal import STEPS, Journal, JournalError, encode_record
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.secret import SecretUse, no_secrets
from shoal.session.assignment import Assignment, Goal
from shoal.session.lane import Lane, LanePeer
from shoal.session.port_hold import PortHold
from shoal.spec import Distribute, Environment, FileInput, Job, Output, PipStep, StreamInput
from tests.kit.until import until

RECORD = LocalAttempt(
    Assignment(
        AttemptRef("default", "p", "work", 2, 3),
        Job(
            "work",
            ("python", "x.py"),
            environment=Environment("3.11", (PipStep(("six",)),)),
            streams=(StreamInput("in", "other", "out", block_count=3),),
            files=(FileInput("m", "s3://b/k", "m.bin", "0" * 64),),
            outputs=(Output("out"),),
            variables={"A": "é"},
            timeout_seconds=2.5,
        ),
        replica=1,
        replicas=2,
        bundle_digest="a" * 64,
        bundle_url="http://x/y?z",
        file_urls={"m": "http://x/m"},
        goal=Goal.STOP,
        lanes=(
            Lane("i", True, "out", 1, 2, LanePeer("h:1", "a", 4, done=True),
                 Distribute.BROADCAST, "in", "next"),
        ),
        replacement=True,
    ),
    phase=Phase.STOPPING,
    turn=9,
    state=JobState.RUNNING,
    reason=Reason(ReasonCode.EXIT, 3, "wörds"),
    artifacts=(Artifact("results/x", 7, "b" * 64, "k"),),
    start_time=1.5,
    end_time=2.5,
    verdict=Verdict(JobState.CANCELLED, Reason(ReasonCode.CANCELLED, 0, "asked")),
    forget=True,
    acknowledged=True,
    holds=(PortHold("out", 3, 1 << 40, ended=True),),
    ended_inputs=("in",),
    keeper="k",
)  # fmt: skip


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    async with Journal(tmp_path / "agent.db") as journal:
        await journal.put(RECORD._replace(phase=Phase.BUNDLE))
        await journal.put(RECORD)
        await journal.note("boot_id", "x")
    async with Journal(tmp_path / "agent.db") as journal:
        assert await journal.load() == (RECORD,)
        assert await journal.facts() == {"boot_id": "x"}
        journal.forget(RECORD.ref)
        await journal.note("boot_id", "x")
        assert await journal.load() == ()


async def test_what_is_forgotten_alone_is_gone_after_a_while_and_what_comes_again_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"

    def rows() -> int:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM attempt").fetchone()[0])

    async with Journal(path) as journal:
        await journal.put(RECORD)
        journal.forget(RECORD.ref)
        journal.barrier()
        await until(lambda: rows() == 0, what="the row gone")
        await journal.put(RECORD)
        journal.forget(RECORD.ref)
        await journal.put(RECORD._replace(turn=7))
        journal.forget(attempt(1).ref)
    async with Journal(path) as journal:
        assert await journal.load() == (RECORD._replace(turn=7),)


async def test_writes_become_durable_in_their_order(tmp_path: Path) -> None:
    async with Journal(tmp_path / "agent.db") as journal:
        writes = [journal.note("last", str(number)) for number in range(2000)]
        await journal.barrier()
        assert all(write.done() for write in writes)
        assert (await journal.facts())["last"] == "1999"
        await asyncio.gather(*writes)


async def test_a_row_that_cannot_be_read_costs_one_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Journal(tmp_path / "agent.db") as journal:
        await journal.put(RECORD)
        with sqlite3.connect(tmp_path / "agent.db") as database:
            database.execute("INSERT INTO attempt VALUES ('bad', x'ff', '{}')")
            database.execute(
                "INSERT INTO attempt SELECT 'none', assignment, '{\"turn\": null}' FROM attempt "
                "WHERE key != 'bad'"
            )
        database.close()
        assert await journal.load() == (RECORD,)
    assert caplog.text.count("a row of the journal cannot be read") == 2


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"this is no database, and it says so at length" * 99)
    with pytest.raises(JournalError, match=r"agent\.db"):
        async with Journal(tmp_path / "agent.db"):
            pass


async def test_the_journal_of_a_newer_agent_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "agent.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="99"):
        async with Journal(tmp_path / "agent.db"):
            pass


TOKEN = b"correct horse battery staple"
WITH_SECRET = RECORD._replace(
    assignment=replace(
        RECORD.assignment,
        job=replace(RECORD.assignment.job, secrets=(SecretUse("TOKEN", "lab-token"),)),
        secrets={"lab-token": TOKEN},
    ),
)


async def test_a_secret_comes_back_and_is_nowhere_in_the_state_folder(tmp_path: Path) -> None:
    async with Journal(tmp_path / "agent.db") as journal:
        await journal.put(WITH_SECRET)
        await journal.put(WITH_SECRET._replace(phase=Phase.BUNDLE))
        await journal.put(WITH_SECRET)
    assert sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        for form in (TOKEN, base64.b64encode(TOKEN)[:30], TOKEN.hex().encode()):
            assert form not in path.read_bytes(), path
    async with Journal(tmp_path / "agent.db") as journal:
        assert await journal.load() == (WITH_SECRET,)
        (found,) = await journal.load()
        assert found.assignment.secrets == {"lab-token": TOKEN}
    assert "correct" not in repr(WITH_SECRET)


async def test_without_its_key_an_attempt_lacks_its_secrets_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Journal(tmp_path / "agent.db") as journal:
        await journal.put(WITH_SECRET)
    (tmp_path / "secrets.key").unlink()
    async with Journal(tmp_path / "agent.db") as journal:
        (found,) = await journal.load()
        assert found == WITH_SECRET._replace(
            assignment=replace(WITH_SECRET.assignment, secrets=no_secrets())
        )
        assert "secrets cannot be opened" in caplog.text
        await journal.put(WITH_SECRET)
    async with Journal(tmp_path / "agent.db") as journal:
        assert await journal.load() == (WITH_SECRET,)


async def test_a_secret_waits_for_a_disk_that_takes_no_key(tmp_path: Path) -> None:
    """The key is there before what is sealed under it."""
    key = tmp_path / "secrets.key"
    async with Journal(tmp_path / "agent.db") as journal:
        key.mkdir()
        written = journal.put(WITH_SECRET)
        await until(lambda: "secrets.key" in journal.trouble, 10, "the trouble")
        assert not written.done()
        key.rmdir()
        await written
        assert journal.trouble == ""
        assert await journal.load() == (WITH_SECRET,)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


async def test_a_journal_is_of_a_later_version_only_while_it_holds_secrets(tmp_path: Path) -> None:
    """An agent of before would begin the job without them, and show what it printed of them."""
    path = tmp_path / "agent.db"
    other = WITH_SECRET._replace(
        assignment=replace(WITH_SECRET.assignment, ref=AttemptRef("default", "p", "other", 1, 1)),
    )
    async with Journal(path) as journal:
        await journal.put(RECORD._replace(assignment=replace(RECORD.assignment, ref=other.ref)))
        assert version(path) == len(STEPS)
        await journal.put(WITH_SECRET)
        await journal.put(other)
        assert version(path) == len(STEPS) + 1
    async with Journal(path) as journal:
        journal.forget(WITH_SECRET.ref)
        await journal.note("boot_id", "x")
        assert version(path) == len(STEPS) + 1
        assert await journal.load() == (other,)
        # What has lost its secrets keeps them sealed, for a key that is put back.
        await journal.put(
            other._replace(assignment=replace(other.assignment, secrets=no_secrets()))
        )
        assert await journal.load() == (other,)
        journal.forget(other.ref)
        await journal.note("boot_id", "x")
        assert version(path) == len(STEPS)
        await journal.put(WITH_SECRET)
        journal.forget(WITH_SECRET.ref)
        await journal.put(other)
        assert version(path) == len(STEPS) + 1
    async with Journal(path) as journal:
        assert await journal.load() == (other,)


def attempt(number: int, **changes: Any) -> LocalAttempt:
    ref = AttemptRef("default", f"p{number}", "work", 1, number)
    return LocalAttempt(replace(RECORD.assignment, ref=ref))._replace(**changes)


async def test_many_attempts_are_written_and_forgotten_together(tmp_path: Path) -> None:
    """More than a statement takes, and none of a round number."""
    records = [attempt(number, turn=number) for number in range(203)]
    async with Journal(tmp_path / "agent.db") as journal:
        await asyncio.gather(*map(journal.put, records))
        assert {record.turn for record in await journal.load()} == set(range(203))
        for record in records[:-3]:
            journal.forget(record.ref)
        put = [journal.put(record._replace(forget=True)) for record in records[-3:]]
        await journal.note("boot_id", "x")
        assert all(one.done() for one in put)
        left = await journal.load()
        assert left == tuple(record._replace(forget=True) for record in records[-3:])


async def test_a_record_that_cannot_be_written_out_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = attempt(1, keeper=object())
    async with Journal(tmp_path / "agent.db") as journal:
        failing, other = journal.put(broken), journal.put(attempt(2))
        with pytest.raises(JournalError, match="p1"):
            await failing
        await other
        await journal.put(attempt(1))
        assert await journal.load() == (attempt(1), attempt(2))
    assert caplog.text.count("a record cannot be written out") == 1


async def test_a_record_says_how_it_differs_from_a_new_one(tmp_path: Path) -> None:
    assert json.loads(encode_record(attempt(1))) == {}
    said = json.loads(encode_record(attempt(1, phase=Phase.RUNNING, start_time=1.5)))
    assert said == {"phase": "running", "start_time": 1.5}
    whole = json.loads(encode_record(RECORD))
    assert whole["reason"] == ["EXIT", 3, "wörds"]
    assert whole["verdict"] == [JobState.CANCELLED, ["CANCELLED", 0, "asked"]]
    assert whole["holds"] == [["out", 3, 1 << 40, True]]


async def test_a_record_that_says_everything_is_read(tmp_path: Path) -> None:
    """As versions up to 0.2 wrote it."""
    record = {
        "phase": "ended", "turn": 4, "state": JobState.SUCCEEDED, "reason": ["", 0, ""], "artifacts": [],
        "start_time": 1.5, "end_time": 2.5, "verdict": None, "forget": False, "acknowledged": False,
        "closed": False, "finishing": False, "missing": False, "archived": True, "keeper": "k",
        "holds": [], "ended_inputs": [],
    }  # fmt: skip
    expected = attempt(
        1,
        phase=Phase.ENDED,
        turn=4,
        state=JobState.SUCCEEDED,
        start_time=1.5,
        end_time=2.5,
        archived=True,
        keeper="k",
    )
    async with Journal(tmp_path / "agent.db") as journal:
        await journal.put(attempt(1))
        with closing(sqlite3.connect(tmp_path / "agent.db")) as database, database:
            database.execute("UPDATE attempt SET record = ?", (json.dumps(record),))
        assert await journal.load() == (expected,)

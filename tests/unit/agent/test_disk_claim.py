"""What a job has written of what it claims, on real files, and which attempt is failed for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.deleted_files import deleted_files
from edge_agent.disk_claim import ClaimedFolder, beyond_claim, next_look
from edge_agent.disk_gauge import DiskGauge
from edge_agent.disk_watch import FolderUse
from shoal.model import ReasonCode
from shoal.names import AttemptRef
from tests.kit.until import until_sync

MIB = 1 << 20
REF = AttemptRef("default", "p", "work", 1, 1)
HOLDS = """
import os, sys, signal
file = open(sys.argv[1], "wb")
file.write(b"x" * (2 << 20))
file.flush()
os.unlink(sys.argv[1])
signal.pause()
"""


def folder(path: Path, size: int) -> ClaimedFolder:
    return ClaimedFolder(REF, path, size)


async def use(claimed: ClaimedFolder, pids: tuple[int, ...] = ()) -> FolderUse:
    state = claimed.path.parent
    async with DiskGauge(state, state, lambda: "", time.monotonic, lambda _: pids) as gauge:
        [found] = await gauge.claimed([claimed])
        return found


def test_more_than_the_claim_fails_an_attempt_and_as_much_does_not() -> None:
    claimed = folder(Path("/x"), 5 * MIB)
    assert beyond_claim(claimed, FolderUse(REF, 5 * MIB, 7)) is None
    failed = beyond_claim(claimed, FolderUse(REF, 5 * MIB + 1, 7))
    assert failed is not None
    assert failed.reason.code is ReasonCode.DISK
    assert (
        "more than the 5.0 MiB that it claims: its folder has 5,242,881 bytes in 7 files"
        in failed.reason.message
    )


def test_a_look_that_takes_long_is_taken_less_often() -> None:
    assert next_look(10.0, 10.01, 1.0) == 11.01
    assert next_look(10.0, 14.0, 1.0) == 34.0


async def test_all_that_the_job_has_counts_but_not_what_the_stream_worker_keeps(
    tmp_path: Path,
) -> None:
    attempt = tmp_path / "attempt"
    for name in ("work/deep/er", "home", "tmp", "spool"):
        (attempt / name).mkdir(parents=True)
    for name in ("work/deep/er/a", "home/b", "tmp/c", "stdout", "spool/records"):
        (attempt / name).write_bytes(b"x" * MIB)
    found = await use(folder(attempt, 100 * MIB))
    assert 4 * MIB <= found.size_bytes < 4.2 * MIB


async def test_empty_files_count_and_no_more_of_them_are_looked_at_than_needed(
    tmp_path: Path,
) -> None:
    attempt = tmp_path / "attempt"
    (attempt / "work").mkdir(parents=True)
    for number in range(1000):
        (attempt / "work" / str(number)).touch()
    found = await use(folder(attempt, MIB))
    assert found.size_bytes > MIB
    assert found.files < 300


async def test_names_elsewhere_make_no_file_smaller(tmp_path: Path) -> None:
    attempt, outside = tmp_path / "attempt", tmp_path / "outside"
    (attempt / "work").mkdir(parents=True)
    outside.mkdir()
    (attempt / "work/large").write_bytes(b"x" * (2 * MIB))
    for number in range(20):
        (outside / str(number)).hardlink_to(attempt / "work/large")
    (attempt / "work/again").hardlink_to(attempt / "work/large")
    found = await use(folder(attempt, 100 * MIB))
    assert 2 * MIB <= found.size_bytes < 2.2 * MIB


async def test_a_deleted_file_that_is_open_counts(tmp_path: Path) -> None:
    attempt = tmp_path / "attempt"
    (attempt / "work").mkdir(parents=True)
    path = attempt / "work/gone"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)]) as holder:
        try:
            device = attempt.stat().st_dev
            until_sync(
                lambda: deleted_files((holder.pid,), device)[0] >= 2 * MIB, 20, "that it is deleted"
            )
            found = await use(folder(attempt, 100 * MIB), (holder.pid,))
            assert found.size_bytes >= 2 * MIB
            assert deleted_files((holder.pid,), device + 1) == (0, 0)
        finally:
            holder.kill()
    assert deleted_files((holder.pid,), device) == (0, 0)


async def test_a_folder_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert (await use(folder(tmp_path / "gone", MIB))).size_bytes == 0


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without a name")
async def test_a_file_that_never_had_a_name_counts(tmp_path: Path) -> None:
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    try:
        descriptor = os.open(attempt, os.O_TMPFILE | os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"the file system has no files without a name: {error}")
    try:
        os.write(descriptor, b"x" * MIB)
        found = await use(folder(attempt, 100 * MIB), (os.getpid(),))
        assert found.size_bytes >= MIB
    finally:
        os.close(descriptor)

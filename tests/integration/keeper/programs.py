"""What the tests of the keeper ask of it, and how they find it."""

import os
from pathlib import Path

from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.client import KeeperClient, StartRequest
from edge_agent.keeper.record import ProcessRecord
from tests.kit.until import until


def program(
    board: Path, *argv: str, attempt: str = "a", lease: float = 0.0, **more: object
) -> StartRequest:
    """A program whose folder and files are in `board`; `lease` seconds from now are its lease, if any."""
    if lease:
        more |= {"lease_until": boottime() + lease, "lease_grace_seconds": 0.5}
    return StartRequest(
        attempt=attempt,
        argv=argv,
        env={"PATH": os.environ["PATH"], "MARK": "here"},
        cwd=board,
        stdout=board / f"{attempt}.out",
        stderr=board / f"{attempt}.err",
        **more,  # type: ignore[arg-type]
    )


async def ended(client: KeeperClient, attempt: str = "a") -> ProcessRecord:
    """Wait for the end of an attempt."""

    async def over() -> ProcessRecord | None:
        records = {record.attempt: record for record in await client.list()}
        return None if records[attempt].running else records[attempt]

    found = await until(over, what=f"{attempt} ended")
    assert isinstance(found, ProcessRecord)
    return found


def keeper_of(board: Path) -> int:
    """Process id of the keeper of a folder."""
    [found] = [pid for pid in pids() if _is_keeper(pid, board)]
    return found


def pids() -> list[int]:
    """Every process."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _is_keeper(pid: int, board: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"edge_agent.keeper" in words and os.fsencode(board / "keeper.sock") in words

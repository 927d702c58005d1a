"""Ending an agent from outside: first new work, then its process, then everything that it left."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc.aio

from edge_agent.error_words import words_of
from edge_agent.keeper.client import KeeperClient, KeeperError, end_keeper
from edge_agent.keeper_link import attempt_of
from edge_agent.state_lock import LOCK_NAME
from services.runtime.process import StartRefusedError
from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import Credentials
from shoal.v1 import nodes_service_pb2, nodes_service_pb2_grpc

_AGENT_SECONDS: Final = 20.0
_KEEPER_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_MOVED_SECONDS: Final = 60.0
"""How long after the deadline what is moved may take to end: its grace, and a while."""
_REPORTED_SECONDS: Final = 60.0
"""How long what has ended may take to be stored and reported."""


async def shut_down(state: Path, say: Callable[[str], None]) -> None:
    """End the agent of a state folder, its keeper, its stream worker and all its jobs.

    Raises:
        StartRefusedError: something did not end in time; names it.
    """
    pid = agent_pid(state)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_AGENT_SECONDS):
                while agent_pid(state):  # noqa: ASYNC110 - another process: there is no event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise StartRefusedError(
                f"the agent (process {pid}) did not end within {_AGENT_SECONDS:g} s of SIGTERM; "
                f"end it with: kill -9 {pid}"
            ) from None
        say(f"the agent (process {pid}) has ended")
    try:
        had_keeper = await end_keeper(state / "keeper.sock", _KEEPER_SECONDS)
    except TimeoutError:
        raise StartRefusedError(
            f"the keeper of {state} did not end within {_KEEPER_SECONDS:g} s; see "
            f"{state / 'keeper.log'}"
        ) from None
    if had_keeper:
        say("the keeper, the stream worker and all jobs have ended")
    if not pid and not had_keeper:
        say(f"nothing of {state} was running")


async def drain(
    state: Path,
    name: str,
    controllers: tuple[str, ...],
    say: Callable[[str], None],
    credentials: Credentials | None = None,
    *,
    move_seconds: float | None = None,
) -> None:
    """Ask for no new work, and wait until the programs that run on the node have ended, and are reported.

    Args:
        state: folder of the agent.
        name: of the node.
        controllers: their addresses, `host:port`.
        say: tells a person how far it is.
        credentials: of the node; None where no process has an identity.
        move_seconds: after so long the controller moves what still runs; what does not go then is left to run.
            None waits for as long as it takes.

    Raises:
        StartRefusedError: no controller could be asked.
    """
    for address in controllers:
        try:
            async with open_channel(address, channel_options(USER), credentials) as channel:
                stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
                request = nodes_service_pb2.DrainNodeRequest(
                    name=name, drained=True, move_seconds=move_seconds
                )
                await stub.DrainNode(request, timeout=_CALL_SECONDS)
            break
        except grpc.aio.AioRpcError as error:
            say(f"{address} does not drain {name}: {words_of(error)}")
    else:
        raise StartRefusedError(
            f"no controller could be asked to drain {name}: name one with --controller HOST:PORT, "
            "or leave --drain out"
        )
    say(f"{name} gets no new work, also once it is back; then: shoal drain {name} --undo")
    waits = None if move_seconds is None else move_seconds + _MOVED_SECONDS
    if not await _none_left(lambda: _running(state), "running jobs", say, waits):
        say("what still runs can go nowhere else, and ends with the agent")
    # Until then the controller does not know that they ended, and takes them for lost.
    if not await _none_left(
        lambda: _unreported(state), "jobs to be reported", say, _REPORTED_SECONDS
    ):
        say("not all of it could be stored and reported; it begins anew elsewhere")


def agent_pid(state: Path) -> int:
    """Process id of the agent that holds a state folder; 0 when none does."""
    try:
        with (state / LOCK_NAME).open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = lock.read().strip()
                return int(text) if text.isdecimal() else 0
    except OSError:
        pass
    return 0


async def _none_left(
    count: Callable[[], Awaitable[int]],
    what: str,
    say: Callable[[str], None],
    within: float | None,
) -> bool:
    """Wait until nothing of a kind is left; False if something is after so many seconds."""
    last = -1
    try:
        async with asyncio.timeout(within):
            while left := await count():
                if left != last:
                    say(f"waiting for {left} {what}")
                    last = left
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


async def _unreported(state: Path) -> int:
    """How many attempts the agent of a state folder knows: each until the controller knows of its end."""
    if not agent_pid(state):
        return 0

    def look() -> int:
        file = f"{(state / 'agent.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(file, uri=True, timeout=_CALL_SECONDS)) as journal:
            (found,) = journal.execute("SELECT count(*) FROM attempt").fetchone()
        return int(found)

    try:
        return await asyncio.to_thread(look)
    except sqlite3.Error:
        return 0  # a journal that cannot be read holds nothing up


async def _running(state: Path) -> int:
    try:
        async with KeeperClient(state / "keeper.sock") as client:
            records = await client.list()
    except KeeperError:
        return 0
    return sum(1 for record in records if record.running and attempt_of(record))

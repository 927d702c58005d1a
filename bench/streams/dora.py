"""Peer: dora-rs, two nodes in Python, on one daemon or on two; it may lose records, which is counted.

Two daemons on one machine stand for two machines: they speak over zenoh, as on a network. Inputs
have dora's `backpressure` there, which lost least and was fastest of its settings when they were
compared; on one daemon its default, which is fastest for large records. The pool of shared memory is
raised to 256 MB for each node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from bench.streams.lanes import PROGRAMS
from bench.streams.passed import Passed
from bench.streams.peer_python import PeerMissingError, peer_folder
from tests.kit.ports import accepts, free_port

POOL_BYTES = 256 * 1024 * 1024
_SECONDS = 90


async def pass_records(count: int, size: int, *, daemons: int = 2) -> Passed:
    """Pass records from one node to another.

    Raises:
        PeerMissingError: It is not installed and cannot be, or did not run.
    """
    programs = await asyncio.to_thread(peer_folder)
    with tempfile.TemporaryDirectory(prefix="sd", dir="/tmp") as folder:
        environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(programs.parent),
            "DORA_NODE_SHM_POOL_SIZE": str(POOL_BYTES),
            "COUNT": str(count),
            "BYTES": str(size),
            "OUT": folder,
        }
        flow = Path(folder) / "flow.yml"
        flow.write_text(json.dumps(_flow(folder, daemons)))
        if daemons == 1:
            said = await _dora(environ, folder, "run", str(flow))
        else:
            async with _two_daemons(environ, folder) as port:
                said = await _dora(
                    environ, folder, "start", str(flow), "--attach", "--coordinator-port", port
                )
        passed = await asyncio.to_thread(_read, Path(folder), count)
        if passed is None:
            raise PeerMissingError(f"dora with {daemons} daemons did not run: {said[-400:]}")
        return passed


def _read(folder: Path, count: int) -> Passed | None:
    """Read what the two nodes wrote; None if they did not."""
    try:
        start = float((folder / "sent").read_text())
        return Passed.told(start, json.loads((folder / "taken").read_text()), count)
    except FileNotFoundError:
        return None


def _flow(folder: str, daemons: int) -> dict[str, object]:
    def place(machine: str) -> dict[str, object]:
        return {"deploy": {"machine": machine, "working_dir": folder}} if daemons > 1 else {}

    source: dict[str, object] = {"source": "send/out", "queue_size": 1000}
    if daemons > 1:
        source["queue_policy"] = "backpressure"
    send = {"id": "send", "path": str(PROGRAMS / "dora_send.py"), "outputs": ["out"]}
    take = {"id": "take", "path": str(PROGRAMS / "dora_take.py"), "inputs": {"in": source}}
    return {"nodes": [{**send, **place("a")}, {**take, **place("b")}]}


@contextlib.asynccontextmanager
async def _two_daemons(environ: Mapping[str, str], folder: str) -> AsyncIterator[str]:
    """Start a coordinator and two daemons; yields the coordinator's port."""
    port = free_port()
    commands = [["coordinator", "--port", str(port), "--store", "memory", "--quiet"]]
    commands += [
        [
            "daemon", "--machine-id", machine, "--coordinator-port", str(port),
            "--local-listen-port", str(free_port()), "--zenoh-no-multicast", "--quiet",
        ]
        for machine in ("a", "b")
    ]  # fmt: skip
    running: list[asyncio.subprocess.Process] = []
    try:
        for command in commands:
            running.append(
                await asyncio.create_subprocess_exec(
                    "dora",
                    *command,
                    env=environ,
                    cwd=folder,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            )
            for _ in range(100):
                if accepts(port):
                    break
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # both have registered; nothing else tells
        yield str(port)
    finally:
        for process in reversed(running):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in running:
            await process.wait()


async def _dora(environ: Mapping[str, str], folder: str, *words: str) -> str:
    """Run the command to its end and return what it said."""
    process = await asyncio.create_subprocess_exec(
        "dora", *words, env=environ, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise PeerMissingError(f"dora {words[0]} did not end within {_SECONDS} s") from None
    return said.decode(errors="replace")

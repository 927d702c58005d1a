"""P10: goodput between two network namespaces on a link that `tbf` holds to 400 Mbit/s.

The stream workers run in the namespaces, everything else beside them. Goodput is the payload of the
records over the time from the first sending to the last arrival. A plain TCP connection over the same
link shows what its headers leave: 95.7 % with packets of 1,500 bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from bench.streams.figure import Figure, unmeasured
from bench.streams.lanes import PROGRAMS, between, ticket
from tests.kit.board import Board, joined
from tests.kit.identities import ProvenCluster
from tests.kit.namespaces import Lab

MEGABITS = 400
SIZES = {64: 0.90, 64 * 1024: 0.95, 1024 * 1024: 0.95}
"""Bytes of a record, and the bar."""
BURST, LATENCY = "128kb", "20ms"


class ShapingError(Exception):
    """There is no shaped link to be had here; the message says why."""


async def figures(seconds: float, *, tls: bool = False) -> list[Figure]:
    """Measure each size for so many seconds, and with `tls` again under mutual TLS."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            lab = await stack.enter_async_context(shaped_link())
            plain = await _plain(lab, seconds)
            found: list[Figure] = []
            for size, bar in SIZES.items():
                found.append(await _figure(lab, size, bar, seconds, plain))
                if tls:
                    cluster = ProvenCluster()
                    found.append(await _figure(lab, size, 0.0, seconds, plain, cluster))
            return found
    except ShapingError as error:
        return [unmeasured("P10", f"goodput at {MEGABITS} Mbit/s", str(error))]


@contextlib.asynccontextmanager
async def shaped_link() -> AsyncIterator[Lab]:
    """Two hosts whose link has a rate.

    Raises:
        ShapingError: This is not root, or the kernel has no `tbf`.
    """
    if shutil.which("tc") is None or shutil.which("ip") is None:
        raise ShapingError("not installed: ip and tc (iproute2)")
    lab = Lab(2)
    try:
        try:
            await lab.build()
            for host in (1, 2):
                await _run(
                    *lab.inside(host, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf"),
                    *("rate", f"{MEGABITS}mbit", "burst", BURST, "latency", LATENCY),
                )
        except RuntimeError as error:
            raise ShapingError(f"no shaped link here (root is needed): {error}") from error
        yield lab
    finally:
        await lab.remove()


async def _figure(
    lab: Lab,
    size: int,
    bar: float,
    seconds: float,
    plain: float,
    cluster: ProvenCluster | None = None,
) -> Figure:
    count = max(50, int(MEGABITS * 1e6 / 8 * seconds / (size + 4)))
    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as folder:
        left, right = [
            Board(
                Path(folder) / str(host),
                arguments=joined(cluster, Path(folder) / str(host), host - 1),
                listen=f"{lab.address(host)}:0",
                prefix=lab.inside(host),
            )
            for host in (1, 2)
        ]
        async with left, right:
            leave = b"" if cluster is None else ticket(cluster)
            passed = await between(left, right, count, size, ticket=leave)
    goodput = passed.per_second * size * 8 / 1e6 / MEGABITS
    return Figure(
        "P10",
        f"goodput at {MEGABITS} Mbit/s, {_size(size)}" + (", TLS" if cluster else ""),
        f"{goodput:.1%}",
        f"{plain:.1%} plain TCP",
        f"{goodput / plain:.2f}",
        f">= {bar:.0%}" if bar else "",
        goodput >= bar if bar else None,
        {
            "size": size,
            "tls": cluster is not None,
            "goodput": round(goodput, 4),
            "plain_tcp": round(plain, 4),
            "megabits": MEGABITS,
        },
    )


async def _plain(lab: Lab, seconds: float) -> float:
    """Goodput of one TCP connection, as a share of the rate."""
    program = [sys.executable, str(PROGRAMS / "tcp.py")]
    taker = await asyncio.create_subprocess_exec(
        *lab.inside(2, *program, "take", lab.address(2)), stdout=asyncio.subprocess.PIPE
    )
    if taker.stdout is None:
        raise RuntimeError("the taker has no output")
    port = (await taker.stdout.readline()).decode().strip()
    count = str(int(MEGABITS * 1e6 / 8 * seconds))
    await _run(*lab.inside(1, *program, "send", lab.address(2), port, count))
    told, _ = await taker.communicate()
    found = json.loads(told)
    return float(found["bytes"]) * 8 / 1e6 / float(found["seconds"]) / MEGABITS


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {said.decode().strip()}")


def _size(size: int) -> str:
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"

"""`make bench-streams`: the stream figures of the goals, ours and the peers' in turns.

A table, then one JSON object as the last line; exit code 1 when a bar is missed. ROUNDS says how
often each way is measured (3), ONLY which figures (`P1,P9`), QUICK=1 takes a tenth of the records,
FULL=1 gives the memory figure its ten minutes, TLS=1 measures P1, P6, P9 and P10 under mutual TLS too,
with a ticket, beside the same in the clear. See docs/streams-bench.md for how each is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bench.streams import (
    chaos,
    connect,
    dora,
    fifo,
    interruptible,
    lanes,
    outage,
    plain_grpc,
    shaped,
    slow,
    zeromq,
)
from bench.streams.figure import HEAD, Figure, cost_figure, latency_figure, rate_figure, unmeasured
from bench.streams.passed import Passed
from bench.streams.way import Way

ALL = ("P1", "P2", "P3", "P5", "P6", "P7", "P9", "P10", "P11", "P13", "P14", "P15")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ONLY = tuple(filter(None, os.environ.get("ONLY", "").replace(" ", ",").upper().split(","))) or ALL
QUICK = os.environ.get("QUICK", "") not in {"", "0"}
FULL = os.environ.get("FULL", "") not in {"", "0"}
TLS = os.environ.get("TLS", "") not in {"", "0"}
SMALL, PAGE, LARGE, HUGE = 64, 4096, 1024 * 1024, 4 * 1024 * 1024
RATE, BEATS = 200, 800


class Ways:
    """Every way there is; one is measured only if a figure that was asked for needs it."""

    def __init__(self) -> None:
        self.used: dict[str, Way] = {}

    def ours(self, size: int, count: int, *, nodes: int = 2, forgetful: bool = False) -> Way:
        """Records of a job through the SDK."""
        return self._way(
            f"ours-{size}-{nodes}-{forgetful}",
            "ours",
            count,
            lambda n: lanes.pass_records(n, size, nodes=nodes, forgetful=forgetful),
        )

    def proven(self, size: int, count: int) -> Way:
        """Ours, between two nodes that prove themselves."""
        return self._way(
            f"ours-{size}-tls",
            "ours under TLS",
            count,
            lambda n: lanes.pass_records(n, size, tls=True),
        )

    def packed(self, count: int) -> Way:
        """Records of a program that packs its blocks itself."""
        return self._way(
            "packed",
            "ours",
            count,
            lambda n: lanes.pass_records(n, SMALL, program="blast.py", consumer="swallow.py"),
        )

    def beats(self, program: str, name: str, count: int, *, tls: bool = False) -> Way:
        """Records that come one by one."""
        return self._way(
            f"{program}-{tls}",
            f"{name}, TLS" if tls else name,
            count,
            lambda n: lanes.pass_records(n, SMALL, rate=RATE, program=program, tls=tls),
        )

    def fifo(self, count: int) -> Way:
        """The raw FIFO with pickle framing."""
        return self._way("fifo", "FIFO", count, lambda n: fifo.pass_records(n, SMALL))

    def grpc(self, size: int, count: int, rate: float = 0.0) -> Way:
        """A plain grpc.aio stream."""
        return self._way(
            f"grpc-{size}-{rate}",
            "grpc.aio",
            count,
            lambda n: plain_grpc.pass_records(n, size, rate),
        )

    def zeromq(self, size: int, count: int, rate: float = 0.0) -> Way:
        """ZeroMQ PUSH and PULL."""
        return self._way(
            f"zeromq-{size}-{rate}",
            "ZeroMQ",
            count,
            lambda n: zeromq.pass_records(n, size, rate),
        )

    def dora(self, size: int, count: int, daemons: int = 2) -> Way:
        """dora-rs."""
        return self._way(
            f"dora-{size}-{daemons}",
            "dora-rs",
            count,
            partial(dora.pass_records, size=size, daemons=daemons),
        )

    async def measure(self) -> None:
        """Measure all that were asked for, in turns."""
        for number in range(ROUNDS):
            for name, way in self.used.items():
                began = time.monotonic()
                await way.measure()
                _say(
                    f"round {number + 1} of {ROUNDS}: {name} took {time.monotonic() - began:.1f} s"
                )

    def _way(self, key: str, name: str, count: int, run: Callable[[int], Awaitable[Passed]]) -> Way:
        if key not in self.used:
            # One in ten is enough to see that it works; latencies are short anyway.
            fewer = QUICK and count > BEATS
            self.used[key] = Way(name, max(BEATS // 10, count // 10) if fewer else count, run)
        return self.used[key]


def compared(ways: Ways) -> list[Callable[[], Figure]]:
    """Say which ways are to be measured, and return what makes figures of them afterwards."""
    figures: list[Callable[[], Figure]] = []

    def add(name: str, what: str, ours: Way, peer: Way, bar: float = 0.0, note: str = "") -> None:
        figures.append(partial(rate_figure, name, what, ours, peer, bar=bar, note=note))

    small = partial(ways.ours, SMALL, 2_000_000)
    large = partial(ways.ours, LARGE, 2_000)
    if "P1" in ONLY:
        pickled = ways.fifo(1_000_000)
        add("P1", "64 B, two nodes", small(), pickled, 3)
        add("P1", "64 B, program packs blocks", ways.packed(8_000_000), pickled)
        add("P1", "64 B, two nodes", small(), ways.zeromq(SMALL, 1_000_000))
        if TLS:
            add("P1", "64 B under mutual TLS", ways.proven(SMALL, 2_000_000), small())
    if "P2" in ONLY:
        add("P2", "64 B, two nodes", small(), ways.dora(SMALL, 30_000), 40)
    if "P3" in ONLY:
        add("P3", "64 B, two nodes", small(), ways.grpc(SMALL, 40_000), 100)
    if "P5" in ONLY:
        page = ways.ours(PAGE, 200_000)
        add("P5", "4 KiB, two nodes", page, ways.dora(PAGE, 20_000), 5)
    if "P6" in ONLY:
        add("P6", "1 MiB, two nodes", large(), ways.grpc(LARGE, 2_000), 0.8)
        add("P6", "1 MiB, two nodes", large(), ways.zeromq(LARGE, 2_000))
        if TLS:
            add("P6", "1 MiB under mutual TLS", ways.proven(LARGE, 2_000), large())
    if "P7" in ONLY:
        huge = ways.ours(HUGE, 1_000, nodes=1)
        add("P7", "4 MiB, one node", huge, ways.dora(HUGE, 500, daemons=1), 1)
    if "P9" in ONLY:
        peers = [ways.grpc(SMALL, BEATS, RATE), ways.zeromq(SMALL, BEATS, RATE)]
        for program, name in (("beat_sdk.py", "library"), ("beat.py", "raw port")):
            beats = ways.beats(program, name, BEATS)
            figures.append(partial(latency_figure, beats, peers, p50_ms=0.6, p99_ms=5.0))
            if TLS:
                under = ways.beats(program, name, BEATS, tls=True)
                figures.append(partial(latency_figure, under, [beats], p50_ms=0, p99_ms=0))
    if "P11" in ONLY:
        forgotten = partial(ways.ours, forgetful=True)
        for what, kept, free in (
            ("64 B", small(), forgotten(SMALL, 2_000_000)),
            ("1 MiB", large(), forgotten(LARGE, 2_000)),
        ):
            figures.append(partial(cost_figure, what, kept, free, bar=0.15))
    return figures


async def main() -> int:
    """Measure everything that was asked for, and print it."""
    began = time.monotonic()
    if unknown := set(ONLY) - set(ALL):
        sys.stderr.write(f"ONLY={','.join(sorted(unknown))}: there are {', '.join(ALL)}\n")
        return 2
    ways = Ways()
    comparisons = compared(ways)
    await ways.measure()
    figures = [one() for one in comparisons]
    if "P10" in ONLY:
        _say("shaping a link")
        figures += await _whole("P10", shaped.figures(1.0 if QUICK else 4.0, tls=TLS))
    if TLS:
        _say("dialling a stream worker")
        figures += await _whole("TLS", connect.figures())
    if "P13" in ONLY:
        figures += await _whole("P13", _outages(1 if QUICK else ROUNDS))
    if "P14" in ONLY:
        figures.append(_chaos())
    if "P15" in ONLY:
        seconds = 600 if FULL else 30 if QUICK else 60
        _say(f"a slow consumer for {seconds} s")
        figures += await _whole("P15", _memory(seconds))
    return _show(figures, time.monotonic() - began)


def _show(figures: Sequence[Figure], seconds: float) -> int:
    load = os.getloadavg()[0]
    print(f"load average {load:.1f}, {os.cpu_count()} cores, {ROUNDS} rounds, {seconds:.0f} s")
    print(HEAD)
    for figure in figures:
        print(figure.row())
    print(
        "not like for like: FIFO, grpc.aio, ZeroMQ and dora carry records of one program to another "
        "and forget them;\nours pass two stream workers, are checked, acknowledged, and kept until "
        "then. CPU is that of all processes, less what starting them takes."
    )
    missed = sorted({figure.id for figure in figures if figure.met is False})
    unmet = sorted({figure.id for figure in figures if figure.met is None and figure.bar})
    print(f"missed: {', '.join(missed) or 'none'}; not measured: {', '.join(unmet) or 'none'}")
    first = next((figure for figure in figures if "ratio" in figure.values), None)
    print(
        json.dumps(
            {
                "bench": "streams",
                "ours": first.values["ours"] if first else None,
                "peer": first.values["peer"] if first else None,
                "ratio": first.values["ratio"] if first else None,
                "figures": [
                    {**figure.values, "id": figure.id, "what": figure.what, "met": figure.met}
                    for figure in figures
                ],
                "missed": missed,
                "not_measured": unmet,
                "rounds": ROUNDS,
                "quick": QUICK,
                "seconds": round(seconds),
                "load": round(load, 2),
            }
        )
    )
    return 1 if missed else 0


async def _whole(name: str, measured: Awaitable[list[Figure]]) -> list[Figure]:
    """Return the figures, or a miss that says what broke, so that the others are still told."""
    try:
        return await measured
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        why = f"failed: {error!r}"[:400]
        return [Figure(name, "broke", "", "", "", "", False, {"missing": why}, why)]


async def _memory(seconds: int) -> list[Figure]:
    return [slow.figure(await slow.sample(seconds), seconds)]


async def _outages(rounds: int) -> list[Figure]:
    found: list[outage.Outages] = []
    for number in range(rounds):
        _say(f"killing boards, cluster {number + 1} of {rounds}")
        found.append(await outage.outages())
    silences = [one for outages in found for one in outages.seconds]
    median = statistics.median(silences)
    wrong = {
        name: sum(getattr(one, name) for one in found)
        for name in ("lost", "made_up", "repeated", "out_of_order")
    }
    figure = Figure(
        "P13",
        f"node killed at {outage.RATE}/s, {len(silences)} times",
        f"{median:.2f} s, worst {max(silences):.2f}",
        "",
        "",
        f"<= {outage.BAR:g} s; 0, 0, 0",
        median <= outage.BAR and not any(wrong.values()),
        {
            "seconds": [round(one, 3) for one in silences],
            "median_seconds": round(median, 3),
            **wrong,
        },
        ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in wrong.items()),
    )
    return [figure]


def _chaos() -> Figure:
    what = "records through kills of everything"
    how = "`make chaos-streams` measures it in about ten minutes"
    if not chaos.RESULT.exists():
        return unmeasured("P14", what, f"not run here yet: {how}")
    last = json.loads(chaos.RESULT.read_text())
    return Figure(
        "P14",
        what,
        f"{last['records']:,}, {last['faults']} faults",
        "",
        "",
        "1e7, 100; 0, 0",
        last["met"] and last["records"] >= 10**7 and last["faults"] >= 100,
        last,
        f"last run: lost {last['lost']}, repeated {last['repeated']}, out of order "
        f"{last['out_of_order']}, {last['seconds']} s, seed {last['seed']}; {how}",
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(interruptible.run(main()))

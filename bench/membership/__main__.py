"""`python -m bench.membership [--only m3,m6] [--full]`: a table, then one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator

from bench.membership import hostile, interop, lag, real, simulated, starved
from bench.membership.figure import Figure


async def _collect(figures: AsyncIterator[Figure]) -> list[Figure]:
    found: list[Figure] = []
    async for figure in figures:
        print(figure.line(), flush=True)
        found.append(figure)
    return found


def _plain(figures: Iterator[Figure]) -> list[Figure]:
    found: list[Figure] = []
    for figure in figures:
        print(figure.line(), flush=True)
        found.append(figure)
    return found


def _parts(*, full: bool) -> dict[str, Callable[[], list[Figure]]]:
    packets, streams = (10_000_000, 100_000) if full else (500_000, 50_000)
    members, crashes = (10_000, 100) if full else (10_000, 10)
    return {
        "m1": lambda: asyncio.run(_collect(interop.m1())),
        "m3": lambda: _plain(simulated.m3(members, crashes)),
        "m4": lambda: asyncio.run(_collect(real.m4())),
        "m5": lambda: asyncio.run(_collect(real.m5())),
        "m6": lambda: _plain(simulated.m6()),
        "m7": lambda: _plain(simulated.m7()),
        "m7real": lambda: asyncio.run(_collect(starved.m7_real())),
        "m8": lambda: _plain(simulated.m8()),
        "m9": lambda: _plain(simulated.m9()),
        "m10": lambda: _plain(hostile.m10(packets, streams)),
        "m11": lambda: asyncio.run(_collect(lag.m11())),
    }


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="bench.membership", description=__doc__)
    parser.add_argument("--only", default="", help="figures to measure, such as m3,m6")
    parser.add_argument(
        "--full", action="store_true", help="M3 with 100 crashes at once, M10 with 10^7 packets"
    )
    arguments = parser.parse_args()
    parts = _parts(full=arguments.full)
    wanted = [name for name in arguments.only.split(",") if name] or list(parts)
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; choose from {', '.join(parts)}")
    figures = [figure for name in wanted for figure in parts[name]()]
    print(
        json.dumps(
            {
                figure.key: {"value": figure.value, "bar": figure.bar, "passed": figure.passed}
                for figure in figures
            }
        )
    )
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A way of passing records, ours or a peer's, measured in turns with the others."""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.streams.passed import Passed
from bench.streams.peer_python import PeerMissingError


@dataclass
class Way:
    """One way, and what came of it in each round.

    What its processes take to start and end is measured once with a few records, and taken off.
    """

    name: str
    count: int
    run: Callable[[int], Awaitable[Passed]]
    few: int = 20
    passed: list[Passed] = field(default_factory=list[Passed])
    cpu_seconds: list[float] = field(default_factory=list[float])
    start_seconds: float = 0.0
    missing: str = ""
    """Why it cannot be measured here, if so."""
    failed: bool = False
    """Whether it is to be had here, and broke."""

    async def measure(self) -> None:
        """Pass the records once; all of its processes have ended when it returns."""
        if self.missing:
            return
        try:
            if not self.passed:
                self.start_seconds, _ = await _cpu_of(self.run, self.few)
            seconds, passed = await _cpu_of(self.run, self.count)
        except PeerMissingError as error:
            self.missing = str(error)
            return
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            # One way that breaks is a row of the table, not the end of all the others.
            self.failed = True
            self.missing = f"{self.name} failed: {error!r}"[:400]
            return
        self.passed.append(passed)
        self.cpu_seconds.append(seconds)

    @property
    def rates(self) -> Sequence[float]:
        """Records a second, for each round."""
        return [one.per_second for one in self.passed]

    @property
    def rate(self) -> float:
        """Records a second, the median."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """Largest less smallest rate, as a share of the median."""
        return (max(self.rates) - min(self.rates)) / self.rate

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor a record that came, over all processes; the median."""
        return statistics.median(
            max(0.0, seconds - self.start_seconds) / max(1, passed.records - self.few) * 1e6
            for seconds, passed in zip(self.cpu_seconds, self.passed, strict=True)
        )

    @property
    def lost(self) -> float:
        """Share of the records that did not come, the median."""
        return statistics.median(one.lost for one in self.passed)

    def latency(self) -> tuple[float, float, float]:
        """Milliseconds on the way: medians of p50 and p99, and the longest of all rounds."""
        return (
            statistics.median(one.p50_ms for one in self.passed),
            statistics.median(one.p99_ms for one in self.passed),
            max(one.max_ms for one in self.passed),
        )


async def _cpu_of(run: Callable[[int], Awaitable[Passed]], count: int) -> tuple[float, Passed]:
    before = _cpu_seconds()
    passed = await run(count)
    return _cpu_seconds() - before, passed


def _cpu_seconds() -> float:
    # What the boards started are our children too; a child counts once it has been waited for.
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

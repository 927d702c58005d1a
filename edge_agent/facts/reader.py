"""Reads the facts of a machine in a thread of its own, with a deadline: a file that hangs stalls nothing.

A sensor may hang for good: a bus that is stuck, a disk that went. What was read until the deadline counts,
and the rest is said to be missing. What hangs is left to its thread and not asked again before it came
back, so there are at most as many such threads as there are sources.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge_agent.facts import parsers
from edge_agent.facts.heat import heat_of
from edge_agent.facts.machine_files import MachineFiles
from edge_agent.facts.sources import SOURCES, Source
from shoal.node_facts import Heat, NodeFacts

DEADLINE_SECONDS: Final = 0.6
WINDOW_SECONDS: Final = 0.2


class FactsReader:
    """Reads facts, one reading at a time.

    Args:
        root: the folder that stands for `/`.
        state: the folder of the agent's state, whose disk is named.
        wall: seconds since 1970.
        sources: what is read, by what people call it.
        deadline_seconds: how long a reading may take, beside its window.
    """

    def __init__(
        self,
        root: Path,
        state: Path,
        wall: Callable[[], float],
        *,
        sources: Mapping[str, Source] = SOURCES,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._files = MachineFiles(root)
        self._state = state
        self._wall = wall
        self._sources = {"the cores": self._cores, **sources}
        self._deadline_seconds = deadline_seconds
        self._hung: set[str] = set()
        self._times: parsers.CpuTimes | None = None
        self._window_seconds = 0.0
        self._heat = Heat.UNKNOWN

    async def read(self, *, window_seconds: float = 0.0) -> NodeFacts:
        """Return what there is to know now.

        Args:
            window_seconds: how long the cores are watched, so that how busy they are is of now; 0 takes the
                time since they were looked at before.
        """
        loop = asyncio.get_running_loop()
        reading = _Reading(self._files, self._state, self._sources, self._hung)
        over = loop.create_future()

        def done() -> None:
            if not over.done():
                over.set_result(None)

        def work() -> None:
            reading.run()
            with contextlib.suppress(RuntimeError):  # the agent has ended meanwhile
                loop.call_soon_threadsafe(done)

        self._window_seconds = window_seconds
        threading.Thread(target=work, name="facts", daemon=True).start()
        try:
            async with asyncio.timeout(window_seconds + self._deadline_seconds):
                await over
        except TimeoutError:
            reading.give_up()
        return self._facts(reading)

    def _cores(self, files: MachineFiles, _: Path) -> Mapping[str, object]:
        if self._window_seconds:
            self._times = parsers.cpu_times(files.text("proc/stat"))
            time.sleep(self._window_seconds)
        now = parsers.cpu_times(files.text("proc/stat"))
        before, self._times = self._times, now
        return {
            "cpu_count": 0 if now is None else now.cores,
            "cpu_percent": parsers.cpu_percent(before, now),
        }

    def _facts(self, reading: "_Reading") -> NodeFacts:
        fields, missing = reading.result()
        facts = NodeFacts(**fields)
        self._heat = heat_of(facts.temperatures, facts.throttled, self._heat)
        return replace(
            facts,
            heat=self._heat,
            measure_time=datetime.fromtimestamp(self._wall(), UTC),
            problem=f"{' and '.join(missing)} could not be read in time" if missing else "",
        )


class _Reading:
    """One reading: filled by its thread, taken by the loop."""

    def __init__(
        self,
        files: MachineFiles,
        state: Path,
        sources: Mapping[str, Source],
        hung: set[str],
    ) -> None:
        self._files = files
        self._state = state
        self._hung = hung
        self._lock = threading.Lock()
        self._missing = [name for name in sources if name in hung]
        self._wanted = {name: read for name, read in sources.items() if name not in hung}
        self._fields: dict[str, Any] = {}
        self._given_up = False

    def run(self) -> None:
        """Read one source after the other, until the reading is given up."""
        for name, read in tuple(self._wanted.items()):
            found: Mapping[str, object] = {}
            with contextlib.suppress(OSError, ValueError):  # it went while it was read
                found = read(self._files, self._state)
            with self._lock:
                del self._wanted[name]
                if self._given_up:
                    self._hung.discard(name)
                    return
                self._fields.update(found)

    def give_up(self) -> None:
        """Take no more of it; what is being read hangs."""
        with self._lock:
            self._given_up = True
            if self._wanted:
                self._hung.add(next(iter(self._wanted)))

    def result(self) -> tuple[dict[str, Any], list[str]]:
        """What was read, and what was not."""
        with self._lock:
            return dict(self._fields), [*self._missing, *self._wanted]

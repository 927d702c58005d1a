"""What a gateway tells of itself."""

import datetime as dt
from pathlib import Path

import pytest

from services.gateway.gateway_figures import (
    CALLS,
    FAILED,
    GATEWAY_FIGURES,
    IDENTITY_END,
    MESSAGES,
    REFUSED,
    SESSIONS,
    USERS,
    WATCHES,
    GatewayFigures,
)
from services.gateway.upstream import Upstream
from services.metrics.text import text_of
from shoal.errors import ShoalError
from tests.unit.gateway.test_door import Entry


def figures(entry: Entry) -> GatewayFigures:
    upstream = Upstream(
        "127.0.0.1:1", None, 1.0, lambda: dt.datetime.now(dt.UTC), lambda: entry.now, entry.counts
    )
    return GatewayFigures(
        entry.counts, entry.door, entry.users, entry.sessions, upstream, lambda: 3
    )


async def test_calls_and_refusals_are_counted_by_what_they_are(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    read = figures(entry)
    headers = {"authorization": "Bearer ann-word"}
    entry.door.caller(headers, "POST", "10.0.0.1", "NodesService.ListNodes")
    for _ in range(2):
        with pytest.raises(ShoalError):
            entry.door.caller({"authorization": "Bearer x"}, "POST", "10.0.0.9", "/members")
    await entry.sessions.begin(entry.user("ann"))
    watch = entry.door.take_watch(entry.user("ann"), headers)
    entry.counts.failed["UNAVAILABLE"] += 1
    entry.counts.messages += 5
    told = (await read.read()).numbers
    assert told[CALLS] == {("NodesService.ListNodes",): 1}
    assert told[REFUSED][("TOKEN_UNKNOWN",)] == 2
    assert told[REFUSED][("QUOTA",)] == 0
    assert (told[FAILED][("UNAVAILABLE",)], told[FAILED][("NOT_FOUND",)]) == (1, 0)
    assert [told[one][()] for one in (WATCHES, MESSAGES, USERS, SESSIONS)] == [1, 5, 2, 1]
    entry.door.watches.give(watch)
    entry.now += 61
    entry.users.forbid("ann")
    told = (await read.read()).numbers
    assert [told[one][()] for one in (WATCHES, USERS, SESSIONS)] == [0, 1, 0]
    assert IDENTITY_END not in told


async def test_a_million_methods_and_reasons_are_few_series(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    for number in range(1_000_000):
        entry.counts.calls[f"m{number}"] = 1
    for number in range(1000):
        entry.counts.refused[f"R{number}"] = 1
    readings = await figures(entry).read()
    assert (len(readings.numbers[CALLS]), len(readings.numbers[REFUSED])) == (100, 32)
    assert sum(readings.numbers[CALLS].values()) == 1_000_000
    names = {one.name for one in GATEWAY_FIGURES}
    said = {
        line.split()[2] for line in text_of(readings).decode().splitlines() if line[:6] == "# TYPE"
    }
    assert said <= names


async def test_a_file_that_cannot_be_read_leaves_one_figure_out(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    (tmp_path / "users.json").write_text("{")
    told = (await figures(entry).read()).numbers
    assert USERS not in told
    assert WATCHES in told

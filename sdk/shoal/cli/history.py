"""`shoal history`: coarse figures of the last week, as the controller keeps them by itself."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import bytes_text, count_text
from shoal.cli.moment_option import moment
from shoal.cli.sparkline import parts_of, sparkline
from shoal.errors import ShoalError
from shoal.history import ClusterHistory

_DAY: Final = "24h"
_BARS: Final = 48
_COUNTED: Final = frozenset({"attempts_succeeded", "attempts_failed", "attempts_lost"})
"""Figures that say how many there were in a slot; the others are means of it."""


@click.command()
@click.argument("figures", nargs=-1, metavar="[FIGURE]…")
@click.option(
    "--since",
    default=_DAY,
    show_default=True,
    metavar="WHEN",
    help="From when on: how long ago, as 3d, or a time. A week is kept.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each figure.")
@controller_options
async def history(target: Target, *, figures: tuple[str, ...], since: str, as_json: bool) -> None:
    r"""Show how nodes, jobs, attempts, cores, events and the disk went lately.

    \b
        shoal history
        shoal history attempts_failed jobs_waiting --since 7d

    A number stands for five minutes. Where the controller did not run, or its clock was set, there is a gap. `mean` of
    attempts that ended is how many there were in all.
    """
    begin = moment(since)
    async with target.client() as client:
        found = since_when(await client.history(), begin)
    unknown = [name for name in figures if name not in found.series]
    if unknown:
        raise ShoalError(
            "UNKNOWN_FIGURE",
            f"there is no figure {unknown[0]!r}: write one of {', '.join(sorted(found.series))}",
        )
    wanted = {name: found.series[name] for name in figures or found.series}
    if as_json:
        for name, values in wanted.items():
            print_document(
                {
                    "name": name,
                    "begin_time": found.begin_time,
                    "slot_seconds": found.slot_seconds,
                    "values": [None if math.isnan(value) else value for value in values],
                }
            )
        return
    from shoal.cli.tables import make_table, show

    table = make_table("figure", ">last", ">least", ">mean", ">most", "")
    for name, values in wanted.items():
        table.add_row(name, *_row(name, values))
    show(table)


def since_when(found: ClusterHistory, begin: datetime) -> ClusterHistory:
    """Leave out the slots that had ended at a moment."""
    passed = (begin - found.begin_time) // timedelta(seconds=max(found.slot_seconds, 1))
    left_out = max(passed, 0)
    return ClusterHistory(
        found.begin_time + timedelta(seconds=left_out * found.slot_seconds),
        found.slot_seconds,
        {name: values[left_out:] for name, values in found.series.items()},
    )


def _row(name: str, values: Sequence[float]) -> Sequence[str]:
    counted = name in _COUNTED
    known = [value for value in values if not math.isnan(value)]
    bars = sparkline(parts_of(values, _BARS, add=counted))
    if not known:
        return ("-", "-", "-", "-", bars)
    said = bytes_text if name.endswith("_bytes") else count_text
    total = math.fsum(known)
    return (
        said(known[-1]),
        said(min(known)),
        said(total if counted else total / len(known)),
        said(max(known)),
        bars,
    )

"""One figure of the goals: ours, the peer's, the bar, and whether it is met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.streams.way import Way


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table; what was not measured has `met` None, and `note` says why.

    `ours` and `peer` are texts, `values` what goes into the JSON object.
    """

    id: str
    what: str
    ours: str
    peer: str
    ratio: str
    bar: str
    met: bool | None
    values: dict[str, Any]
    note: str = ""

    def row(self) -> str:
        """The figure as a line."""
        verdict = {True: "met", False: "NOT MET", None: "-"}[self.met]
        line = (
            f"{self.id:5}{self.what:40}{self.ours:>28}{self.peer:>18}{self.ratio:>9}"
            f"{self.bar:>16}  {verdict}"
        )
        return f"{line}\n     {self.note}" if self.note else line


HEAD = f"{'':5}{'':40}{'ours':>28}{'peer':>18}{'ratio':>9}{'bar':>16}"


def rate_figure(
    name: str, what: str, ours: Way, peer: Way, *, bar: float = 0.0, note: str = ""
) -> Figure:
    """Compare records a second; the ratio is the median of those of the rounds."""
    missing = ours.missing or peer.missing
    if missing:
        return _missing(name, what, f">= {bar:g}" if bar else "", missing, failed=ours.failed)
    ratio = statistics.median(
        one / other for one, other in zip(ours.rates, peer.rates, strict=True)
    )
    notes = [
        f"CPU us a record {ours.cpu_us:.2f} and {peer.cpu_us:.2f}",
        f"spread {ours.spread:.0%} and {peer.spread:.0%}",
    ]
    if peer.lost:
        notes.append(f"the peer lost {peer.lost:.1%}")
    if note:
        notes.append(note)
    return Figure(
        name,
        f"{what}, against {peer.name}",
        f"{ours.rate:,.0f}/s",
        f"{peer.rate:,.0f}/s",
        f"{ratio:,.2f}" if ratio < 10 else f"{ratio:,.1f}",
        f">= {bar:g}" if bar else "",
        ratio >= bar if bar else None,
        {
            "ours": _round(ours.rate),
            "peer": _round(peer.rate),
            "peer_name": peer.name,
            "ratio": round(ratio, 3),
            "cpu_us": [round(ours.cpu_us, 3), round(peer.cpu_us, 3)],
            "spread": [round(ours.spread, 2), round(peer.spread, 2)],
            "peer_lost": round(peer.lost, 4),
        },
        "; ".join(notes),
    )


def latency_figure(ours: Way, peers: Sequence[Way], *, p50_ms: float, p99_ms: float) -> Figure:
    """Compare how long a record is on its way, without any ratio; there is no bar where `p50_ms` is 0."""
    what = f"one way at 200/s, 64 B, {ours.name}"
    bar = f"{p50_ms:g}/{p99_ms:g} ms" if p50_ms else ""
    if ours.missing:
        return _missing("P9", what, bar, ours.missing, failed=ours.failed)
    p50, p99, longest = ours.latency()
    others = {
        one.name: [round(value, 3) for value in one.latency()] for one in peers if not one.missing
    }
    notes = [f"{name} {one[0]:.2f}/{one[1]:.2f}/{one[2]:.1f}" for name, one in others.items()]
    notes += [f"{one.name} missing: {one.missing}" for one in peers if one.missing]
    return Figure(
        "P9",
        what,
        f"{p50:.2f}/{p99:.2f}/{longest:.1f} ms",
        "",
        "",
        bar,
        p50 <= p50_ms and p99 <= p99_ms if p50_ms else None,
        {
            "way": ours.name,
            "p50_ms": round(p50, 3),
            "p99_ms": round(p99, 3),
            "max_ms": round(longest, 3),
            "peers": others,
        },
        "p50/p99/max; " + ", ".join(notes),
    )


def cost_figure(what: str, kept: Way, forgotten: Way, *, bar: float) -> Figure:
    """Say what acknowledging and retaining costs: processor time, which is steadier than rates."""
    if missing := kept.missing or forgotten.missing:
        return _missing("P11", what, f"<= +{bar:.0%}", missing, failed=True)
    cpu = kept.cpu_us / forgotten.cpu_us - 1 if forgotten.cpu_us else math.inf
    rate = 1 - statistics.median(
        one / other for one, other in zip(kept.rates, forgotten.rates, strict=True)
    )
    return Figure(
        "P11",
        f"acknowledged and retained, {what}",
        f"{kept.cpu_us:,.2f} us CPU",
        f"{forgotten.cpu_us:,.2f} us CPU",
        f"{cpu:+.0%}",
        f"<= +{bar:.0%}",
        cpu <= bar,
        {
            "what": what,
            "cpu_us": [round(kept.cpu_us, 3), round(forgotten.cpu_us, 3)],
            "cost_cpu": round(cpu, 3),
            "cost_rate": round(rate, 3),
        },
        f"on {kept.rate:,.0f}/s, off {forgotten.rate:,.0f}/s: {-rate:+.0%} records a second",
    )


def unmeasured(name: str, what: str, why: str) -> Figure:
    """A figure that could not be had here."""
    return Figure(name, what, "", "", "", "", None, {"missing": why}, why)


def _missing(name: str, what: str, bar: str, why: str, *, failed: bool) -> Figure:
    """A figure without its way: not measured if that is not to be had here, missed if ours broke."""
    told = "" if failed else "peer missing"
    return Figure(name, what, "", told, "", bar, False if failed else None, {"missing": why}, why)


def _round(rate: float) -> float:
    return round(rate) if rate >= 100 else round(rate, 2)

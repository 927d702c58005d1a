"""One node in full, as a table of what is asked and what is so."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.table import Table

from shoal import view
from shoal.cli.figures import age_text, bytes_text, state_word
from shoal.cli.tables import make_table, node_state
from shoal.node_facts import Heat, NodeFacts, TemperatureFact
from shoal.sandbox import Claim, NodeSandbox, SandboxLevel

_HEATS = {
    Heat.COOL: "cool",
    Heat.WARM: "warm: within 15 °C of where it is slowed down",
    Heat.HOT: "hot: within 5 °C of where it is slowed down, or slowed down; it gets new work last",
}


def node_details(node: view.NodeView, now: datetime) -> Table:
    """Show a node: how it stands, what it has, and the facts of its machine that are known."""
    table = make_table("", "")
    table.show_header = False
    for name, said in (*_record(node), *_facts(node, now)):
        if said:
            table.add_row(name, said)
    return table


def _record(node: view.NodeView) -> Iterator[tuple[str, str]]:
    yield "node", node.name
    yield "state", node_state(node)
    yield "why", node.quarantine or node.conflict or node.refuses
    yield "member", state_word(node.member_state) if node.member_state else ""
    yield "location", node.labels.get("location", "")
    yield "labels", " ".join(f"{key}={value}" for key, value in sorted(node.labels.items()))
    yield "agent", f"{node.agent_version} on {node.architecture}".strip()
    yield "cores for jobs", f"{node.claimed.cpus:g} of {node.capacity.cpus:g} claimed"
    claimed, whole = node.claimed.memory_bytes, node.capacity.memory_bytes
    yield "memory for jobs", f"{bytes_text(claimed)} of {bytes_text(whole)} claimed"
    yield "devices for jobs", " ".join(node.capacity.devices)
    yield from _sandbox(node.sandbox)
    yield "attempts", ", ".join(node.attempts)


def _sandbox(can: NodeSandbox | None) -> Iterator[tuple[str, str]]:
    if can is None:
        return
    more = [
        level.value for level in SandboxLevel if level in can.levels and level is not can.default
    ]
    yield "sandbox of jobs", can.default.value + (f" (or {', '.join(more)})" if more else "")
    yield (
        "cannot be had",
        _lines(
            f"{level.value}: {can.refused[level]}" for level in SandboxLevel if level in can.refused
        ),
    )
    yield (
        "binds jobs",
        _lines(
            f"{claim.value} by {can.enforces[claim]}" for claim in Claim if claim in can.enforces
        ),
    )
    yield "filters", ", ".join(can.filters)


def _facts(node: view.NodeView, now: datetime) -> Iterator[tuple[str, str]]:
    facts = node.facts
    if facts is not None:
        yield from _machine(facts)
        yield "told", f"{age_text(node.facts_time, now)} ago" if node.facts_time else ""
        yield "missing", facts.problem
    yield "facts", node.facts_problem


def _machine(facts: NodeFacts) -> Iterator[tuple[str, str]]:
    yield "board", facts.board
    yield "system", " ".join(filter(None, (facts.os_version or facts.os, facts.kernel)))
    jetpack = f" (JetPack {facts.jetpack_version})" if facts.jetpack_version else ""
    yield "Jetson Linux", f"{facts.l4t_version}{jetpack}" if facts.l4t_version else ""
    busy = _percent("busy", facts.cpu_percent)
    yield "cores", f"{facts.cpu_count}{f', {busy}' if busy else ''}" if facts.cpu_count else ""
    yield "memory", _of(facts.memory_used_bytes, facts.memory_total_bytes)
    yield "swap", _of(facts.swap_total_bytes - facts.swap_free_bytes, facts.swap_total_bytes)
    yield (
        "disks",
        _lines(
            f"{disk.path}  {bytes_text(disk.free_bytes)} of {bytes_text(disk.total_bytes)} free"
            for disk in facts.disks
        ),
    )
    yield "GPU", _percent("busy", facts.gpu_percent)
    yield "memory controller", _percent("busy", facts.emc_percent)
    yield "temperatures", _lines(map(_zone, facts.temperatures))
    yield "headroom", _HEATS.get(facts.heat, "")
    yield "slowed down", ", ".join(facts.throttled)
    yield "power", _lines(f"{rail.name}  {rail.milliwatts / 1000:.2f} W" for rail in facts.rails)


def _zone(zone: TemperatureFact) -> str:
    bounds = [
        f"{word} at {bound:g}"
        for word, bound in (("slows", zone.throttle_celsius), ("ends", zone.critical_celsius))
        if bound is not None
    ]
    return f"{zone.name}  {zone.celsius:g} °C" + (f" ({', '.join(bounds)})" if bounds else "")


def _of(used: int, whole: int) -> str:
    return f"{bytes_text(max(used, 0))} of {bytes_text(whole)} used" if whole else ""


def _percent(word: str, share: float | None) -> str:
    return "" if share is None else f"{share:.0f} % {word}"


def _lines(said: Iterable[str]) -> str:
    return "\n".join(said)

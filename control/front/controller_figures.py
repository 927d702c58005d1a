"""What a controller tells of itself and of its nodes to Prometheus, read from what its parts know anyway.

Nothing here is kept: a collection goes over the nodes and what runs on them, and over nothing that waits or has
ended. Those are integers of the control machine (`control.core.end_counts`).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from control.core.errors import StoreFailedError
from control.core.machine import ControlMachine
from control.core.rows import OutboxWaiting
from control.core.state import Cluster, NodeRecord
from control.front.access.interceptor import AccessInterceptor
from control.front.control_plane import ControlPlane
from control.leader.span_export import SpanExport
from services.membership.figures import GOSSIP_FIGURES, read_gossip
from services.membership.shell import GossipShell
from services.metrics.figure import OF_THE_PAGE, Figure, FigureKind, Readings
from shoal.model import JobState, MemberState, PipelineState, ReasonCode
from shoal.node_facts import NodeFacts

NODES_MAX: Final = 1_000
"""Nodes that have series of their own."""
IDENTITIES_MAX: Final = 100
_DISK_SECONDS: Final = 2.0
"""How long the disk and the store may take; else their figures are left out."""

_G, _C, _H = FigureKind.GAUGE, FigureKind.COUNTER, FigureKind.HISTOGRAM
_ENDS: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST)
_CURRENT: Final = tuple(state for state in JobState if not state.terminal)[1:-1]
_NODE_STATES: Final = ("ready", "refuses", "drained", "quarantined", "away")

BUILD: Final = Figure(
    "shoal_build_info", _G, "Always 1; what runs, by its version.", ("component", "version")
)
LEADS: Final = Figure(
    "shoal_controller_leads",
    _G,
    "1 while the control plane decides and records; 0 while its store is away.",
)
NODES: Final = Figure(
    "shoal_controller_nodes",
    _G,
    "Nodes by the first that holds: away (no session), quarantined, drained, refuses (new work), ready.",
    ("state",),
    len(_NODE_STATES),
)
CORES: Final = Figure(
    "shoal_controller_cores",
    _G,
    "Cores of nodes that have a session, `offered` and `claimed`.",
    ("share",),
    2,
)
MEMORY: Final = Figure(
    "shoal_controller_memory_bytes",
    _G,
    "Memory of nodes that have a session, `offered` and `claimed`.",
    ("share",),
    2,
)
WAITING: Final = Figure(
    "shoal_controller_jobs_waiting",
    _G,
    "Jobs that wait for a node; of pipelines from before the start of which none was ever placed, pipelines.",
)
ATTEMPTS: Final = Figure(
    "shoal_controller_attempts", _G, "Attempts on nodes now.", ("state",), len(_CURRENT)
)
ATTEMPTS_ENDED: Final = Figure(
    "shoal_controller_attempts_ended_total",
    _C,
    "Attempts that ended since the control machine was built, by how and why.",
    ("outcome", "reason"),
    len(_ENDS) * len(ReasonCode),
)
OPEN: Final = Figure("shoal_controller_pipelines_open", _G, "Pipelines that have not ended.")
OPEN_OF: Final = Figure(
    "shoal_controller_pipelines_open_of",
    _G,
    "Those of them by the identity that submitted them.",
    ("identity",),
    IDENTITIES_MAX,
)
PIPELINES_ENDED: Final = Figure(
    "shoal_controller_pipelines_ended_total",
    _C,
    "Pipelines that ended since the control machine was built.",
    ("outcome",),
    3,
)
DEAD_LETTERS: Final = Figure(
    "shoal_controller_dead_letters",
    _G,
    "Pipelines that failed and are kept until they are revived or discarded.",
)
WAITED: Final = Figure(
    "shoal_controller_job_wait_seconds",
    _H,
    "From a submission to the first attempt of a job, of attempts that have ended.",
)
RAN: Final = Figure("shoal_controller_attempt_run_seconds", _H, "How long programs ran.")
ODD: Final = Figure(
    "shoal_controller_durations_odd_total",
    _C,
    "Durations that no clock can have measured (negative, or above a year) and that no histogram has.",
)
COMMITS: Final = Figure(
    "shoal_controller_commits_total",
    _C,
    "Transactions of the control machine since its start was counted.",
)
OUTBOX: Final = Figure(
    "shoal_controller_outbox_rows",
    _G,
    "Events, texts and manifests that wait to leave; counted up to 10,000.",
)
OUTBOX_AGE: Final = Figure(
    "shoal_controller_outbox_oldest_seconds", _G, "Age of the first of them, 0 for none."
)
BROKER: Final = Figure(
    "shoal_controller_broker_connected",
    _G,
    "1 while the broker has accepted the controller; not there without a broker.",
)
CALLS: Final = Figure(
    "shoal_controller_calls_total",
    _C,
    "Calls of the API that were let in, by method.",
    ("method",),
    100,
)
CALLS_REFUSED: Final = Figure(
    "shoal_controller_calls_refused_total",
    _C,
    "Calls that were refused because of their caller: its identity, its role, its quota.",
    ("reason",),
    32,
)
DISK_FREE: Final = Figure(
    "shoal_controller_disk_free_bytes", _G, "Free on the disk of the state folder."
)
DISK_SIZE: Final = Figure("shoal_controller_disk_size_bytes", _G, "Size of that disk.")
STORE_SIZE: Final = Figure("shoal_controller_store_bytes", _G, "Size of the store's file.")

SPANS_SENT: Final = Figure(
    "shoal_controller_spans_sent_total", _C, "Spans that the collector of traces has taken."
)
SPANS_LOST: Final = Figure(
    "shoal_controller_spans_lost_total",
    _C,
    "Spans that the collector refused, or for which there was no room while it was away.",
)
SPANS_LEAVE: Final = Figure(
    "shoal_controller_traces_connected",
    _G,
    "0 while the collector of traces takes no spans; these three are not there without one.",
)

NODE_UP: Final = Figure(
    "shoal_node_up", _G, "1 for a node that has a session.", ("node",), NODES_MAX, steady=True
)
NODE_ATTEMPTS: Final = Figure(
    "shoal_node_attempts", _G, "Attempts on a node now.", ("node",), NODES_MAX, steady=True
)
NODE_SILENT: Final = Figure(
    "shoal_node_silent_seconds",
    _G,
    "Since a node was heard the last time; of one that was not since the start, since that.",
    ("node",),
    NODES_MAX,
    adds_up=False,
    steady=True,
)
NODE_CPU: Final = Figure(
    "shoal_node_cpu_ratio",
    _G,
    "Share of a node's processors that was busy, 0 to 1, as its agent told last.",
    ("node",),
    NODES_MAX,
    adds_up=False,
    steady=True,
)
NODE_MEMORY: Final = Figure(
    "shoal_node_memory_available_bytes",
    _G,
    "Memory that programs could have without swapping, as told last.",
    ("node",),
    NODES_MAX,
    steady=True,
)
NODE_DISK: Final = Figure(
    "shoal_node_disk_free_bytes",
    _G,
    "Free on the fullest disk of a node, as told last.",
    ("node",),
    NODES_MAX,
    steady=True,
)
NODE_CELSIUS: Final = Figure(
    "shoal_node_temperature_celsius",
    _G,
    "The hottest zone of a node, where the board has any, as told last.",
    ("node",),
    NODES_MAX,
    adds_up=False,
    steady=True,
)

CONTROLLER_FIGURES: Final = (
    BUILD, LEADS, NODES, CORES, MEMORY, WAITING, ATTEMPTS, ATTEMPTS_ENDED, OPEN, OPEN_OF, PIPELINES_ENDED,
    DEAD_LETTERS, WAITED, RAN, ODD, COMMITS, OUTBOX, OUTBOX_AGE, BROKER, CALLS, CALLS_REFUSED, DISK_FREE, DISK_SIZE,
    STORE_SIZE, SPANS_SENT, SPANS_LOST, SPANS_LEAVE, NODE_UP, NODE_ATTEMPTS, NODE_SILENT, NODE_CPU, NODE_MEMORY,
    NODE_DISK, NODE_CELSIUS,
    *GOSSIP_FIGURES, *OF_THE_PAGE,
)  # fmt: skip
"""All that a controller tells, but for what is said of its process (`process_*` and `python_gc_*`)."""


class OutboxCount(Protocol):
    """What knows how much waits to leave."""

    async def outbox_waiting(self) -> OutboxWaiting:
        """Count the rows that wait, up to a bound.

        Raises:
            StoreFailedError: the store cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class ControllerFigures:
    """Reads the figures of a controller.

    Args:
        plane: what it decides.
        outbox: what waits to leave.
        broker: whether the broker has accepted the controller; None without one.
        access: what it lets in; None for a controller that lets in all.
        gossip: its member; None if it does not gossip.
        spans: what sends spans; None without traces.
        state: its state folder.
        store: the file of its store.
        clock: seconds on a monotonic clock, that of the control plane.
        wall: now, in UTC.
        version: what it is.
    """

    plane: ControlPlane
    outbox: OutboxCount
    broker: Callable[[], bool | None]
    access: AccessInterceptor | None
    gossip: GossipShell | None
    spans: SpanExport | None
    state: Path
    store: Path
    clock: Callable[[], float]
    wall: Callable[[], datetime]
    version: str

    async def read(self) -> Readings:
        """Read them: what changes together at once, then what the disk says."""
        readings = Readings()
        readings.tell(BUILD, 1, "controller", self.version)
        machine = self.plane.leader.machine
        readings.tell(LEADS, machine is not None)
        if machine is not None:
            self._read_machine(machine, readings)
        if (connected := self.broker()) is not None:
            readings.tell(BROKER, connected)
        if self.access is not None:
            readings.tell_each(CALLS, self.access.calls)
            readings.tell_each(CALLS_REFUSED, _REFUSED | self.access.refused)
        if self.gossip is not None:
            read_gossip(self.gossip, readings)
        if self.spans is not None:
            readings.tell(SPANS_SENT, self.spans.sent)
            readings.tell(SPANS_LOST, self.spans.lost)
            readings.tell(SPANS_LEAVE, not self.spans.away)
        try:
            async with asyncio.timeout(_DISK_SECONDS):
                waiting = await self.outbox.outbox_waiting()
                free, size, stored = await asyncio.to_thread(self._look)
        except (OSError, TimeoutError, StoreFailedError):
            return readings
        age = 0.0 if waiting.oldest is None else (self.wall() - waiting.oldest).total_seconds()
        readings.tell(OUTBOX, waiting.rows)
        readings.tell(OUTBOX_AGE, max(age, 0.0))
        readings.tell(DISK_FREE, free)
        readings.tell(DISK_SIZE, size)
        readings.tell(STORE_SIZE, stored)
        return readings

    def _look(self) -> tuple[int, int, int]:
        disk = os.statvfs(self.state)
        return (
            disk.f_bavail * disk.f_frsize,
            disk.f_blocks * disk.f_frsize,
            self.store.stat().st_size,
        )

    def _read_machine(self, machine: ControlMachine, readings: Readings) -> None:
        situation, cluster = machine.situation, machine.cluster
        ends = situation.end_counts
        readings.tell(WAITING, len(situation.backlog))
        readings.tell(OPEN, situation.open)
        readings.tell_each(OPEN_OF, situation.open_of)
        readings.tell(DEAD_LETTERS, len(situation.dead))
        readings.tell(COMMITS, machine.commits)
        readings.tell(ODD, ends.waits.odd + ends.runs.odd)
        readings.distribute(WAITED, ends.waits)
        readings.distribute(RAN, ends.runs)
        ended: dict[tuple[str, ...], float] = dict.fromkeys(_EXPECTED, 0)
        for (state, code), count in ends.attempts.items():
            ended[_word(state), _reason(code)] = count
        readings.tell_all(ATTEMPTS_ENDED, ended)
        pipelines = [state for state in PipelineState if state.terminal]
        outcomes = {state.name.lower(): ends.pipelines[state] for state in pipelines}
        readings.tell_each(PIPELINES_ENDED, outcomes)
        self._read_nodes(cluster, readings)

    def _read_nodes(self, cluster: Cluster, readings: Readings) -> None:
        now = self.clock()
        states = Counter[str](dict.fromkeys(_NODE_STATES, 0))
        attempts = Counter[JobState]()
        cores, memory = [0.0, 0.0], [0, 0]
        silent: dict[str, float] = {}
        for name, node in cluster.nodes.items():
            states[_state(node)] += 1
            attempts.update(one.state for one in node.attempts.values())
            silent[name] = max(now - max(node.heard_at, self.plane.leader.began_at), 0.0)
            if node.session_id:
                claimed = cluster.snapshot(node).claimed
                for share, capacity in enumerate((node.capacity, claimed)):
                    cores[share] += capacity.cpus
                    memory[share] += capacity.memory_bytes
        readings.tell_each(NODES, states)
        readings.tell_each(ATTEMPTS, {_word(state): attempts[state] for state in _CURRENT})
        readings.tell_each(CORES, {"offered": cores[0], "claimed": cores[1]})
        readings.tell_each(MEMORY, {"offered": memory[0], "claimed": memory[1]})
        readings.tell_each(
            NODE_UP, {one.name: bool(one.session_id) for one in cluster.nodes.values()}
        )
        readings.tell_each(
            NODE_ATTEMPTS, {one.name: len(one.attempts) for one in cluster.nodes.values()}
        )
        readings.tell_each(NODE_SILENT, silent)
        told = {name: facts for name in cluster.nodes if (facts := self.plane.facts.told(name))}
        for figure, read in _TOLD.items():
            values = {
                name: value for name, facts in told.items() if (value := read(facts)) is not None
            }
            readings.tell_each(figure, values)


def _state(node: NodeRecord) -> str:
    if not node.session_id:
        return "away"
    if node.quarantine:
        return "quarantined"
    if node.drained:
        return "drained"
    doubted = node.member_state in {MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT}
    return "refuses" if node.condition.refuses or doubted else "ready"


def _word(state: JobState) -> str:
    return state.name.lower()


def _reason(code: ReasonCode) -> str:
    return str(code) or "none"


def _cpu(facts: NodeFacts) -> float | None:
    return None if facts.cpu_percent is None else facts.cpu_percent / 100


def _memory(facts: NodeFacts) -> float | None:
    return facts.memory_available_bytes if facts.memory_total_bytes else None


def _disk(facts: NodeFacts) -> float | None:
    return min((disk.free_bytes for disk in facts.disks), default=None)


def _celsius(facts: NodeFacts) -> float | None:
    return max((zone.celsius for zone in facts.temperatures), default=None)


_EXPECTED: Final = (
    (_word(JobState.SUCCEEDED), _reason(ReasonCode.NONE)),
    (_word(JobState.CANCELLED), _reason(ReasonCode.CANCELLED)),
    (_word(JobState.LOST), _reason(ReasonCode.LOST)),
    *((_word(JobState.FAILED), _reason(code)) for code in ReasonCode if code),
)
"""What is told from the start, so that the first of each is a rise and not a new series."""
_REFUSED: Final = dict.fromkeys(
    ("NO_IDENTITY", "NOT_ALLOWED", "OTHER_NAMESPACE", "QUOTA", "REVOKED"), 0
)
_TOLD: Final = {NODE_CPU: _cpu, NODE_MEMORY: _memory, NODE_DISK: _disk, NODE_CELSIUS: _celsius}

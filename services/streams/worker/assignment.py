"""Reads an assignment of the contract as the plan of an attempt's streams."""

from __future__ import annotations

from collections.abc import Iterable

from services.streams.event import PeersMoved
from services.streams.plan import AttemptPlan, InputPlan, LanePlan, OutputPlan, Peer
from shoal import limits
from shoal.session.lane import Stretch
from shoal.spec import Merge, Recovery
from shoal.v1 import session_service_pb2
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_distribute, decode_job_spec


def plan_from(message: session_service_pb2.Assignment) -> AttemptPlan:
    """Return the streams of an assignment.

    Raises:
        WireError: It breaks the contract.
    """
    job = decode_job_spec(message.job, "job")
    return AttemptPlan(
        epoch=message.ref.epoch,
        resume=job.recovery is Recovery.RESUME,
        replacement=message.replacement,
        replica=message.replica,
        replicas=max(1, message.replicas),
        inputs=tuple(
            InputPlan(
                port.name,
                port.binding,
                _lanes(message.lanes, port.name, output=False),
                port.block_count,
                port.merge is Merge.ORDERED,
            )
            for port in job.streams
        ),
        outputs=tuple(
            OutputPlan(
                port.name,
                port.binding,
                _lanes(message.lanes, port.name, output=True),
                port.key,
            )
            for port in job.outputs
        ),
        peers=peers_from(message.lanes),
    )


def peers_from(lanes: Iterable[session_service_pb2.Lane]) -> dict[str, Peer]:
    """Return where the peers of lanes stand, by lane id."""
    return {lane.id: Peer(lane.peer.address, lane.peer.epoch, lane.peer.done) for lane in lanes}


def moved_from(lanes: Iterable[session_service_pb2.Lane]) -> PeersMoved:
    """Return what the lanes of an attempt are now, and where their peers stand.

    Raises:
        WireError: One breaks the contract.
    """
    every = tuple(lanes)

    def ports(*, output: bool) -> dict[str, tuple[LanePlan, ...]]:
        names = dict.fromkeys(lane.port for lane in every if lane.output == output)
        return {name: _lanes(every, name, output=output) for name in names}

    return PeersMoved(peers_from(every), ports(output=False), ports(output=True))


def _lanes(
    lanes: Iterable[session_service_pb2.Lane], port: str, *, output: bool
) -> tuple[LanePlan, ...]:
    return tuple(
        LanePlan(
            lane.id,
            lane.port,
            lane.peer_port,
            lane.peer_job,
            lane.peer_replica,
            _replicas(lane),
            decode_distribute(lane.distribute),
            Stretch(
                lane.generation,
                lane.producer_begin,
                lane.consumer_begin,
                lane.consumer_end if lane.HasField("consumer_end") else None,
            ),
            lane.hold,
            lane.keep,
            end=lane.end if lane.HasField("end") else None,
        )
        for lane in lanes
        if lane.output == output and lane.port == port
    )


def _replicas(lane: session_service_pb2.Lane) -> int:
    """How many replicas the other end has: bounded, since turns are counted out among them."""
    if problem := limits.count_problem(lane.peer_replicas, limits.LANES_MAX):
        raise WireError(f"lane {lane.id}.peer_replicas", f"{lane.peer_replicas} {problem}")
    return max(1, lane.peer_replicas)

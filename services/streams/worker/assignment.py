"""Reads an assignment of the contract as the plan of an attempt's streams."""

from __future__ import annotations

from collections.abc import Iterable

from services.streams.plan import AttemptPlan, InputPlan, LanePlan, OutputPlan, Peer
from shoal.names import AttemptRef, parse_attempt
from shoal.spec import PortAttachment, PortBinding, PortFormat
from shoal.v1 import session_service_pb2, spec_pb2

_FORMATS = {
    spec_pb2.PORT_FORMAT_UNSPECIFIED: PortFormat.BLOCKS,
    spec_pb2.PORT_FORMAT_BLOCKS: PortFormat.BLOCKS,
    spec_pb2.PORT_FORMAT_LINES: PortFormat.LINES,
    spec_pb2.PORT_FORMAT_JSONL: PortFormat.JSONL,
    spec_pb2.PORT_FORMAT_U32: PortFormat.U32,
    spec_pb2.PORT_FORMAT_BYTES: PortFormat.BYTES,
}


def ref_from(message: session_service_pb2.AttemptRef) -> AttemptRef:
    """Return which attempt is meant.

    Raises:
        InvalidNameError: The name does not name an attempt.
    """
    return parse_attempt(message.attempt, message.namespace, message.epoch)


def plan_from(message: session_service_pb2.Assignment) -> AttemptPlan:
    """Return the streams of an assignment.

    Raises:
        ValueError: It names a format that does not exist.
    """
    job = message.job
    return AttemptPlan(
        epoch=message.ref.epoch,
        resume=job.recovery == spec_pb2.RECOVERY_RESUME,
        replacement=message.replacement,
        replica=message.replica,
        replicas=max(1, message.replicas),
        inputs=tuple(
            InputPlan(
                port.name,
                _binding(port.stream.binding),
                _lanes(message.lanes, port.name, output=False),
                max(1, port.stream.block_count),
                port.stream.merge != spec_pb2.MERGE_ARRIVAL,
            )
            for port in job.inputs
            if port.WhichOneof("source") == "stream"
        ),
        outputs=tuple(
            OutputPlan(
                port.name,
                _binding(port.binding),
                _lanes(message.lanes, port.name, output=True),
            )
            for port in job.outputs
        ),
        peers=peers_from(message.lanes),
    )


def peers_from(lanes: Iterable[session_service_pb2.Lane]) -> dict[str, Peer]:
    """Return where the peers of lanes stand, by lane id."""
    return {lane.id: Peer(lane.peer.address, lane.peer.epoch, lane.peer.done) for lane in lanes}


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
            max(1, lane.peer_replicas),
            lane.distribute == spec_pb2.DISTRIBUTE_BROADCAST,
        )
        for lane in lanes
        if lane.output == output and lane.port == port
    )


def _binding(binding: spec_pb2.PortBinding) -> PortBinding:
    try:
        port_format = _FORMATS[binding.format]
    except KeyError:
        raise ValueError(f"port format {binding.format} does not exist") from None
    return PortBinding(port_format, PortAttachment.FD, binding.record_bytes)

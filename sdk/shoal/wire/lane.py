"""A lane between `shoal.session.lane` and the contract."""

from __future__ import annotations

from shoal import limits
from shoal.session.lane import Lane, LanePeer, Stretch
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.fields import WireError
from shoal.wire.spec import (
    decode_distribute,
    decode_port_format,
    encode_distribute,
    encode_port_format,
)


def encode_lane(lane: Lane) -> v1.Lane:
    """Write one lane."""
    return v1.Lane(
        id=lane.id,
        output=lane.output,
        port=lane.port,
        peer_replica=lane.peer_replica,
        peer_replicas=lane.peer_replicas,
        peer=v1.LanePeer(
            address=lane.peer.address,
            attempt=lane.peer.attempt,
            epoch=lane.peer.epoch,
            done=lane.peer.done,
        ),
        distribute=encode_distribute(lane.distribute),
        peer_port=lane.peer_port,
        peer_job=lane.peer_job,
        peer_format=encode_port_format(lane.peer_format),
        keep=lane.keep,
        generation=lane.stretch.generation,
        producer_begin=lane.stretch.producer_begin,
        consumer_begin=lane.stretch.consumer_begin,
        consumer_end=lane.stretch.consumer_end,
        hold=lane.hold,
        end=lane.end,
    )


def decode_lane(message: v1.Lane, path: str = "lane") -> Lane:
    """Read one lane; replicas are bounded, since turns are counted out among them.

    Raises:
        WireError: it has no id or port, too many replicas, or an unknown way or format.
    """
    if not message.id or not message.port:
        raise WireError(path, "a lane has an id and a port")
    return Lane(
        id=message.id,
        output=message.output,
        port=message.port,
        peer_replica=message.peer_replica,
        peer_replicas=fields.count(
            message.peer_replicas, limits.LANES_MAX, fields.at(path, "peer_replicas")
        )
        or 1,
        peer=LanePeer(
            message.peer.address, message.peer.attempt, message.peer.epoch, message.peer.done
        ),
        distribute=decode_distribute(message.distribute, fields.at(path, "distribute")),
        peer_port=message.peer_port,
        peer_job=message.peer_job,
        peer_format=decode_port_format(message.peer_format, fields.at(path, "peer_format")),
        keep=message.keep,
        stretch=Stretch(
            message.generation,
            message.producer_begin,
            message.consumer_begin,
            message.consumer_end if message.HasField("consumer_end") else None,
        ),
        hold=message.hold,
        end=message.end if message.HasField("end") else None,
    )

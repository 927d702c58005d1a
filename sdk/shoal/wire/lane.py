"""A lane, and what changed of those of an attempt, between `shoal.session` and the contract."""

from shoal import limits
from shoal.session.attempt_lanes import AttemptLanes
from shoal.session.lane import Lane, LanePeer, Stretch
from shoal.v1 import session_service_pb2 as v1
from shoal.wire.attempt import ATTEMPT_REF
from shoal.wire.codec import NounCodec, codec, count, each, one, spread
from shoal.wire.fields import WireError
from shoal.wire.spec import DISTRIBUTE, PORT_FORMAT

_STRETCH = ("generation", "producer_begin", "consumer_begin", "consumer_end")


def _decode_stretch(message: v1.Lane, _path: str) -> Stretch:
    return Stretch(
        message.generation,
        message.producer_begin,
        message.consumer_begin,
        message.consumer_end if message.HasField("consumer_end") else None,
    )


encode_lane, _decode = codec(
    Lane,
    v1.Lane,
    peer_replicas=count(limits.LANES_MAX, 1),
    peer=one(codec(LanePeer, v1.LanePeer)),
    distribute=one(DISTRIBUTE),
    peer_format=one(PORT_FORMAT),
    stretch=spread(
        lambda value: tuple(getattr(value, name) for name in _STRETCH), _decode_stretch, *_STRETCH
    ),
)


def decode_lane(message: v1.Lane, path: str = "lane") -> Lane:
    """Read one lane; replicas are bounded, since turns are counted out among them.

    Raises:
        WireError: it has no id or port, too many replicas, or an unknown way or format.
    """
    if not message.id or not message.port:
        raise WireError(path, "a lane has an id and a port")
    return _decode(message, path)


LANE = NounCodec(encode_lane, decode_lane)
ATTEMPT_LANES = encode_attempt_lanes, _ = codec(
    AttemptLanes, v1.AttemptLanes, "lanes", ref=one(ATTEMPT_REF), lanes=each(LANE)
)

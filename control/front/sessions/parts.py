"""Cuts what should run on a node into messages of a bounded size."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from shoal.limits import BATCH_BYTES_MAX
from shoal.session.messages import Desired
from shoal.v1 import session_service_pb2 as v1
from shoal.wire.session import encode_controller_message, encode_desired


def in_parts(desired: Desired, bytes_max: int = BATCH_BYTES_MAX) -> Iterator[v1.ControllerMessage]:
    """Write what should run on a node, in parts that fit into a message.

    A part has one assignment, or the lanes of one attempt, at least, and no more bytes of them than
    `bytes_max` otherwise; what was removed goes with the first.
    """
    whole = encode_controller_message(desired)
    if whole.ByteSize() <= bytes_max:
        yield whole
        return
    rest: deque[v1.Assignment | v1.AttemptLanes] = deque(whole.desired.assignments)
    rest.extend(whole.desired.lanes)
    removed = desired.removed
    for part in count():
        taken: list[v1.Assignment | v1.AttemptLanes] = []
        left = bytes_max
        while rest and (not taken or rest[0].ByteSize() <= left):
            left -= rest[0].ByteSize()
            taken.append(rest.popleft())
        message = encode_desired(
            replace(desired, assignments=(), lanes=(), removed=removed, part=part, more=bool(rest))
        )
        for one in taken:
            if isinstance(one, v1.Assignment):
                message.assignments.append(one)
            else:
                message.lanes.append(one)
        yield v1.ControllerMessage(desired=message)
        if not rest:
            return
        removed = ()

"""Listens to the lanes between boards: what no end of a lane may say.

Lanes within one stream worker pass no call and are not listened to; the machines are the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shoal.names import JobRef, PipelineRef
from shoal.spec import Pipeline, Recovery
from shoal.v1.streams_service_pb2 import PullOpen, PullResponse
from tests.simulation.mesh.network import ServerContext

_ACCEPT_TAG = PullResponse.ACCEPT_FIELD_NUMBER << 3 | 2


@dataclass(eq=False)
class LaneWatch:
    """Looks at every call of a lane.

    Args:
        specs: recorded pipelines.
        committed: whether a job is committed.
        broken: raises, with words.
    """

    specs: dict[PipelineRef, Pipeline]
    committed: Callable[[JobRef], bool]
    broken: Callable[[str], None]
    _highest: dict[tuple[str, str, int], int] = field(
        default_factory=dict[tuple[str, str, int], int]
    )

    def accepted(self, opened: PullOpen) -> None:
        """A producer takes a call: never that of a consumer whose epoch it knows to be over."""
        key = opened.pipeline, opened.lane, opened.producer_epoch
        highest = self._highest.get(key, 0)
        if opened.consumer_epoch < highest:
            self.broken(
                f"4: lane {opened.lane} was opened for consumer epoch {opened.consumer_epoch}, "
                f"which {highest} had replaced"
            )
        self._highest[key] = opened.consumer_epoch

    def released(self, opened: PullOpen, released: int) -> None:
        """A consumer lets go of records: one that is restarted only once it is committed."""
        consumer = opened.lane.partition("/")[2].partition(".")[0]
        ref = PipelineRef(opened.namespace, opened.pipeline)
        spec = self.specs.get(ref)
        jobs = () if spec is None else spec.jobs
        for job in jobs:
            if re.fullmatch(rf"{job.name}(-\d+)?", consumer) is None:
                continue
            restarts = job.recovery is Recovery.RESTART
            if restarts and not self.committed(JobRef(ref.namespace, ref.pipeline, consumer)):
                self.broken(
                    f"lane {opened.lane}: {released} records were released by a consumer that "
                    "begins anew when it dies, and has not committed"
                )


class WatchedPull:
    """The server's end of a lane's call, looked at."""

    def __init__(self, context: ServerContext, watch: LaneWatch) -> None:
        self._context = context
        self._watch = watch
        self._opened: PullOpen | None = None
        self._answered = False
        self.peer = context.peer
        self.abort = context.abort

    async def read(self) -> Any:
        """Return the next message of the consumer."""
        message = await self._context.read()
        if self._opened is None:
            self._opened = getattr(message, "open", None)
            if self._opened is not None and self._opened.released:
                self._watch.released(self._opened, self._opened.released)
        elif (ack := getattr(message, "ack", None)) is not None and ack.released:
            self._watch.released(self._opened, ack.released)
        return message

    async def write(self, message: bytes) -> None:
        """Send a message of the producer."""
        if not self._answered:
            self._answered = True
            if self._opened is not None and message[0] == _ACCEPT_TAG:
                self._watch.accepted(self._opened)
        await self._context.write(message)

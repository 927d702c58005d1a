"""Concurrent submissions in few messages: a unary call costs more than a hundred of these.

Theory. The first of them leaves at once. While a message is unanswered, what comes gathers for a moment; so one
alone waits for nothing, and thousands travel hundreds at a time.

The stream of batches is dialled again after a cut, and what was not answered is sent again: a submission is
idempotent by its request id.

Deadline. A submission is given up once the controller has answered none for the connection's deadline. So twenty
thousand may be made at once: those at the end wait as long as it takes to record those before them.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from shoal.cause import causes
from shoal.connection import Connection, Pause
from shoal.crossing import is_crossed
from shoal.errors import ShoalError, TooLateError, code_name
from shoal.limits import BATCH_BYTES_MAX
from shoal.v1 import pipelines_service_pb2, pipelines_service_pb2_grpc, spec_pb2

BATCH_MAX = 256
"""Most submissions of a message."""

GATHER_SECONDS = 0.001
"""How long the first submission of a batch waits for others while a message is unanswered."""

UNANSWERED_MAX = 8
"""Most messages that are not answered yet; what comes meanwhile waits as it is, which takes no room."""

_CROSSED_MAX = 5
"""How often in a row that is tried again: a call that is refused at once crosses its first message now and then."""


@dataclass(slots=True)
class _Item:
    namespace: str
    request_id: str
    spec: spec_pb2.PipelineSpec
    traceparent: str
    since: float
    answer: "asyncio.Future[pipelines_service_pb2.SubmitPipelineResponse]"


class _StreamEndedError(Exception):
    """The controller closed the stream of batches."""


class Submitter:
    """Carries submissions of one connection; `run` has to run meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = pipelines_service_pb2_grpc.PipelinesServiceStub(connection.channel)
        # It has no bound of its own: for each item there is a caller that waits.
        self._waiting: deque[_Item] = deque()
        self._some = asyncio.Event()
        self._unanswered: deque[list[_Item]] = deque()
        self._room = asyncio.Event()
        self._heard_at = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._crossed = 0

    async def submit(
        self,
        namespace: str,
        request_id: str,
        spec: spec_pb2.PipelineSpec,
        traceparent: str = "",
    ) -> pipelines_service_pb2.SubmitPipelineResponse:
        """Send one submission along with others; `spec` is not changed any more.

        Raises:
            ShoalError: it was refused, or the controller answered nothing for the connection's deadline.
        """
        loop = asyncio.get_running_loop()
        item = _Item(namespace, request_id, spec, traceparent, loop.time(), loop.create_future())
        self._waiting.append(item)
        self._some.set()
        if self._expiry is None:
            self._expiry = loop.call_later(self._connection.deadline_seconds, self._expire)
        return await item.answer

    async def run(self) -> None:
        """Carry submissions until cancelled; those that are not answered by then are given up."""
        try:
            await self._carry_on()
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
            words = "the client was closed before the controller answered; submit again with the same request id"
            for item in self._open_items():
                item.answer.set_exception(ShoalError("CLIENT_CLOSED", words))

    async def _carry_on(self) -> None:
        pause = Pause()
        while True:
            if not self._unanswered:
                await self._some.wait()
            try:
                await self._carry(pause)
            except* grpc.aio.AioRpcError as group:
                self._fail_unless_passing(cast("grpc.aio.AioRpcError", causes(group)[0]))
            except* _StreamEndedError:
                pass
            await pause.wait()

    async def _carry(self, pause: Pause) -> None:
        """Open a stream, send what is unanswered and then what comes, until it breaks."""
        call = self._stub.SubmitPipelines()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(call))
                group.create_task(self._read(call, pause))
        finally:
            call.cancel()

    async def _write(self, call: Any) -> None:
        for batch in tuple(self._unanswered):
            await _send(call, batch)
        while True:
            await self._some.wait()
            # Alone, it leaves once those have joined it that are made at the same moment.
            await asyncio.sleep(GATHER_SECONDS if self._unanswered else 0)
            while len(self._unanswered) >= UNANSWERED_MAX:
                self._room.clear()
                await self._room.wait()  # the deadline of what is unanswered ends it
            batch = self._take()
            if batch:
                self._unanswered.append(batch)
                await _send(call, batch)

    def _take(self) -> list[_Item]:
        """Take the next batch of what waits, without those whose callers do not."""
        batch: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < BATCH_MAX:
            item = self._waiting[0]
            if not item.answer.done():
                size += item.spec.ByteSize()
                if batch and size > BATCH_BYTES_MAX:
                    return batch
                batch.append(item)
            self._waiting.popleft()
        if not self._waiting:
            self._some.clear()
        return batch

    async def _read(self, call: Any, pause: Pause) -> None:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                await call.code()
                raise _StreamEndedError
            if not self._unanswered:  # it answers what was not sent
                raise _StreamEndedError
            self._connection.answered = True
            self._heard_at = asyncio.get_running_loop().time()
            pause.reset()
            self._crossed = 0
            _resolve(self._unanswered.popleft(), response.outcomes)
            self._room.set()

    def _expire(self) -> None:
        """Give up on what was not answered in time, and look again when the next may be late."""
        loop = asyncio.get_running_loop()
        allowed = self._connection.deadline_seconds
        self._expiry = None
        for item in self._open_items():
            left = max(item.since, self._heard_at) + allowed - loop.time()
            if left > 0:  # those behind it came later
                self._expiry = loop.call_later(left, self._expire)
                return
            item.answer.set_exception(
                TooLateError(
                    f"the controller at {self._connection.address} did not record "
                    f"the pipeline {item.spec.name!r}",
                    allowed,
                )
            )

    def _open_items(self) -> Iterator[_Item]:
        """All whose callers wait, in the order in which they came."""
        for batch in (*self._unanswered, self._waiting):
            for item in batch:
                if not item.answer.done():
                    yield item

    def _fail_unless_passing(self, error: grpc.aio.AioRpcError) -> None:
        """Give up on what is unanswered, unless the controller may be back soon."""
        away = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        if away and self._connection.answered:
            return
        if is_crossed(error) and self._crossed < _CROSSED_MAX:
            self._crossed += 1
            return
        self._crossed = 0
        failure = self._connection.error(error, self._connection.deadline_seconds)
        sent = list(self._unanswered)
        # Where no answer ever came, what waits would meet the same.
        for batch in sent if self._connection.answered else (*sent, self._waiting):
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(failure)
        self._unanswered.clear()


async def _send(call: Any, batch: Sequence[_Item]) -> None:
    request = pipelines_service_pb2.SubmitPipelinesRequest()
    for item in batch:
        request.requests.add(
            namespace=item.namespace,
            request_id=item.request_id,
            spec=item.spec,
            traceparent=item.traceparent,
        )
    try:
        await call.write(request)
    except asyncio.InvalidStateError:  # the call is over; its status says why
        raise _StreamEndedError from None


def _resolve(batch: Sequence[_Item], outcomes: Sequence[Any]) -> None:
    for index, item in enumerate(batch):
        if item.answer.done():  # its caller no longer waits
            continue
        kind = outcomes[index].WhichOneof("outcome") if index < len(outcomes) else None
        if kind == "response":
            item.answer.set_result(outcomes[index].response)
            continue
        error = ShoalError(
            "WIRE",
            "the controller did not answer this submission; is its version as new as this?",
            code="INTERNAL",
        )
        if kind == "refusal":
            refusal = outcomes[index].refusal
            code = code_name(refusal.code)
            error = ShoalError(refusal.reason, refusal.message, dict(refusal.metadata), code)
        item.answer.set_exception(error)

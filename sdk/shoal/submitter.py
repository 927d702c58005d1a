"""Concurrent submissions in few messages: a unary call costs more than a hundred of these.

The stream of batches is dialled again after a cut, and what was not answered is sent again: a
submission is idempotent by its request id.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from shoal.cause import causes
from shoal.connection import Connection, Pause
from shoal.errors import ShoalError, TooLateError, code_name
from shoal.v1 import pipelines_service_pb2, pipelines_service_pb2_grpc

BATCH_MAX = 64
"""Most submissions of a message."""

GATHER_SECONDS = 0.001
"""How long the first submission of a batch waits for others."""

_QUEUE_MAX = 1_024

_CROSSED = "Internal error from Core."
"""What grpc.aio reports in place of a call's own status, when the call ended while a message was being written."""

_CROSSED_MAX = 5
"""How often in a row that is tried again: a call that is refused at once crosses its first message now and then."""


@dataclass(slots=True)
class _Item:
    request: pipelines_service_pb2.SubmitPipelineRequest
    answer: "asyncio.Future[pipelines_service_pb2.SubmitPipelineResponse]"


class _StreamEndedError(Exception):
    """The controller closed the stream of batches."""


class Submitter:
    """Carries submissions of one connection; `run` has to run meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = pipelines_service_pb2_grpc.PipelinesServiceStub(connection.channel)
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(_QUEUE_MAX)
        self._unanswered: deque[list[_Item]] = deque()
        self._crossed = 0

    async def submit(
        self, request: pipelines_service_pb2.SubmitPipelineRequest
    ) -> pipelines_service_pb2.SubmitPipelineResponse:
        """Send one submission along with others.

        Raises:
            ShoalError: it was refused, or not answered within the connection's deadline.
        """
        item = _Item(request, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(self._connection.deadline_seconds):
                await self._queue.put(item)
                return await item.answer
        except TimeoutError:
            raise TooLateError(
                f"the controller at {self._connection.address} did not record "
                f"the pipeline {request.spec.name!r}",
                self._connection.deadline_seconds,
            ) from None

    async def run(self) -> None:
        """Carry submissions until cancelled."""
        pause = Pause()
        while True:
            if not self._unanswered:
                self._unanswered.append(await self._batch())
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
            batch = await self._batch()
            self._unanswered.append(batch)
            await _send(call, batch)

    async def _batch(self) -> list[_Item]:
        batch = [await self._queue.get()]
        try:
            await asyncio.sleep(GATHER_SECONDS)
        except asyncio.CancelledError:  # the stream broke meanwhile; the next one carries it
            self._unanswered.append(batch)
            raise
        while len(batch) < BATCH_MAX and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _read(self, call: Any, pause: Pause) -> None:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                await call.code()
                raise _StreamEndedError
            self._connection.answered = True
            pause.reset()
            self._crossed = 0
            _resolve(self._unanswered.popleft(), response.outcomes)

    def _fail_unless_passing(self, error: grpc.aio.AioRpcError) -> None:
        """Give up on what is unanswered, unless the controller may be back soon."""
        away = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        if away and self._connection.answered:
            return
        if error.details() == _CROSSED and self._crossed < _CROSSED_MAX:
            self._crossed += 1
            return
        self._crossed = 0
        failure = self._connection.error(error, self._connection.deadline_seconds)
        for batch in self._unanswered:
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(failure)
        self._unanswered.clear()


async def _send(call: Any, batch: Sequence[_Item]) -> None:
    try:
        await call.write(
            pipelines_service_pb2.SubmitPipelinesRequest(requests=[item.request for item in batch])
        )
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

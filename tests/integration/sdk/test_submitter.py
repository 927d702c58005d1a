"""The client's stream of submissions, where its end crosses a message."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from services.runtime.rpc import bind, server_options
from shoal.channel import USER
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.spec import Job, Pipeline

CROSSED = (grpc.StatusCode.INTERNAL, "Internal error from Core.")
CROSSED_TOO = (grpc.StatusCode.INTERNAL, "Internal error from Core")
"""What grpc.aio makes of a call that ended while its message was on the way."""


class Refusing:
    """Ends each stream of submissions with the next of its statuses, and the last one over and over."""

    def __init__(self, *statuses: tuple[grpc.StatusCode, str]) -> None:
        self._statuses = list(statuses)
        self.calls = 0

    async def answer(self, _requests: Any, context: Any) -> None:
        self.calls += 1
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        await context.abort(*status)


@contextlib.asynccontextmanager
async def client_of(refusing: Refusing) -> AsyncIterator[Client]:
    server = grpc.aio.server(options=server_options(USER))
    method = cast("Any", grpc).stream_stream_rpc_method_handler(refusing.answer)
    service = grpc.method_handlers_generic_handler(
        "shoal.v1.PipelinesService", {"SubmitPipelines": method}
    )
    server.add_generic_rpc_handlers((service,))
    port = bind(server, "127.0.0.1:0", None)
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        await server.stop(0)


async def refusal(refusing: Refusing) -> ShoalError:
    async with client_of(refusing) as client:
        with pytest.raises(ShoalError) as error:
            await client.submit(Pipeline("hello", (Job("greet", ("true",)),)))
    return error.value


async def test_a_refusal_that_crosses_the_submission_is_asked_for_again() -> None:
    refusing = Refusing(CROSSED, CROSSED_TOO, (grpc.StatusCode.PERMISSION_DENIED, "not here"))
    error = await refusal(refusing)
    assert error.code == "PERMISSION_DENIED"
    assert refusing.calls == 3


async def test_a_controller_that_only_ever_breaks_is_given_up() -> None:
    refusing = Refusing(CROSSED)
    assert (await refusal(refusing)).code == "INTERNAL"
    assert refusing.calls == 6

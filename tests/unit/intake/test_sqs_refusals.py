"""What SQS refuses is told apart: a delivery that is over, a letter that it never takes, and all else as an outage."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web

from services.intake.message import IncomingMessage, MessageKind
from services.intake.room import DeliveryRoom
from services.intake.source import DeliveryLostError, LetterRefusedError, ServerAwayError
from services.intake.sqs import SqsDeadLetters, SqsQueue, SqsSource, sqs_client
from tests.kit.s3_servers import CREDENTIALS

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

MESSAGE = IncomingMessage("sqs:q", MessageKind.TASK, "m", b"[", "r")


@dataclass
class Refusals:
    """Answers every call as SQS does that refuses it, in its JSON protocol."""

    code: str
    address: str = ""
    client: "SQSClient | None" = None

    async def answer(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"__type": f"com.amazonaws.sqs#{self.code}", "message": "no"},
            status=400,
            headers={"x-amzn-query-error": f"{self.code};Sender"},
        )

    @property
    def queue(self) -> SqsQueue:
        assert self.client is not None
        return SqsQueue(self.client, f"{self.address}/queue")

    @property
    def source(self) -> SqsSource:
        return SqsSource(self.queue, MessageKind.TASK, 60.0, DeliveryRoom(1), lambda: 0.5)


@pytest_asyncio.fixture
async def refusals(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Refusals]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    refusals = Refusals("InvalidParameterValue")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refusals.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        refusals.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with sqs_client(refusals.address, "us-east-1", 1) as refusals.client:
            yield refusals
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("code", ["InvalidParameterValue", "InvalidMessageContents"])
async def test_a_letter_that_a_queue_never_takes_is_no_lost_delivery(
    refusals: Refusals, code: str
) -> None:
    """A message of 1 MiB is too long once its reason stands beside it."""
    refusals.code = code
    with pytest.raises(LetterRefusedError):
        await SqsDeadLetters(refusals.queue).bury(MESSAGE, 5, "it is no JSON")


async def test_a_receipt_that_is_over_is_a_lost_delivery(refusals: Refusals) -> None:
    for code in ("InvalidParameterValue", "ReceiptHandleIsInvalid"):
        refusals.code = code
        with pytest.raises(DeliveryLostError):
            await refusals.source.delete(MESSAGE)
        with pytest.raises(DeliveryLostError):
            await refusals.source.hide(MESSAGE, 0)


async def test_a_queue_that_is_gone_is_away(refusals: Refusals) -> None:
    refusals.code = "AWS.SimpleQueueService.NonExistentQueue"
    with pytest.raises(ServerAwayError):
        await refusals.source.delete(MESSAGE)
    with pytest.raises(ServerAwayError):
        await SqsDeadLetters(refusals.queue).bury(MESSAGE, 5, "it is no JSON")

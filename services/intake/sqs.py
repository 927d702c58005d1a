"""Queues of SQS: messages come by long polling, and refused ones go to another queue.

Sources: "Amazon SQS visibility timeout" and "Amazon SQS short and long polling" in its Developer Guide: a
receipt is good until the visibility timeout is over, 12 hours in all; a long poll waits 20 seconds at most.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from services.intake.message import IncomingMessage, MessageKind
from services.intake.room import DeliveryRoom
from services.intake.source import (
    Deliver,
    DeliveryLostError,
    LetterRefusedError,
    ServerAwayError,
)
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.near_address import is_near

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

LOG = logging.getLogger(__name__)

POLL_SECONDS: Final = 20
BATCH: Final = 10
HIDDEN_MAX: Final = 12 * 3600
_SPARE_CONNECTIONS: Final = 20
_AGAIN: Final = Backoff(0.5, 30.0)
_LOST: Final = frozenset({
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "AWS.SimpleQueueService.MessageNotInflight",
    "MessageNotInflight",
    "InvalidIdFormat",
})  # fmt: skip
"""What SQS says of a receipt that is over."""
_UNFIT: Final = frozenset({"InvalidParameterValue", "InvalidMessageContents"})
"""What it says of a message that it never takes: 1 MiB is the most, attributes included."""
_ATTRIBUTE_CHARACTERS: Final = 1_000


def sqs_client(endpoint: str, region: str, queues: int) -> "AbstractAsyncContextManager[SQSClient]":
    """Return a client that opens with `async with`; credentials come from the environment, as boto3 finds them.

    Args:
        endpoint: `http[s]://host[:port]`; empty for Amazon's own.
        region: of the queues.
        queues: how many are polled at once, each on a connection of its own.
    """
    session = cast("Any", aioboto3.Session())
    client = session.client(
        "sqs",
        endpoint_url=endpoint or None,
        region_name=region,
        config=AioConfig(
            connect_timeout=5,
            read_timeout=POLL_SECONDS + 10,
            retries={"max_attempts": 1, "mode": "standard"},  # we try again, and say so
            max_pool_connections=queues + _SPARE_CONNECTIONS,
            proxies={} if endpoint and is_near(endpoint) else None,
        ),
    )
    return cast("AbstractAsyncContextManager[SQSClient]", client)


@dataclass(eq=False)
class SqsQueue:
    """One queue, by its name or its address.

    Args:
        client: opened.
        named: name or address.
    """

    client: "SQSClient"
    named: str
    _url: str = field(default="", init=False)

    async def url(self) -> str:
        """Return its address; a name is looked up once.

        Raises:
            ServerAwayError: SQS does not answer, or has no such queue.
        """
        if not self._url:
            if self.named.startswith(("http://", "https://")):
                self._url = self.named
            else:
                with sqs_errors(self.named):
                    self._url = (await self.client.get_queue_url(QueueName=self.named))["QueueUrl"]
        return self._url


@dataclass(eq=False)
class SqsSource:
    """Messages of one queue.

    Args:
        queue: which.
        kind: what they are about.
        hidden_seconds: how long a message that was received is hidden from others.
        room: how many messages may be received yet.
        chance: a number from [0, 1) for each back-off.
    """

    queue: SqsQueue
    kind: MessageKind
    hidden_seconds: float
    room: DeliveryRoom
    chance: Callable[[], float]

    @property
    def name(self) -> str:
        """`sqs:` and how the queue was named."""
        return f"sqs:{self.queue.named}"

    async def run(self, deliver: Deliver) -> None:
        """Receive messages until cancelled; while SQS is away, with a growing pause."""
        failures = 0
        while True:
            try:
                await self._receive(deliver)
            except ServerAwayError as error:
                failures += 1
                if failures == 1:
                    LOG.warning("a queue is away", extra=fields(source=self.name, why=error))
                await asyncio.sleep(_AGAIN.delay_seconds(failures, self.chance()))
            else:
                if failures:
                    LOG.info("a queue is back", extra=fields(source=self.name))
                failures = 0

    async def _receive(self, deliver: Deliver) -> None:
        url = await self.queue.url()
        free = await self.room.wait()  # what waits here is hidden from others, and not kept so
        with sqs_errors(self.queue.named):
            answer = await self.queue.client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(BATCH, free),
                WaitTimeSeconds=POLL_SECONDS,
                VisibilityTimeout=max(1, round(self.hidden_seconds)),
            )
        for message in answer.get("Messages", []):
            body = message.get("Body", "")
            await deliver(
                IncomingMessage(
                    self.name,
                    self.kind,
                    message.get("MessageId", ""),
                    body.encode(errors="surrogatepass"),
                    message.get("ReceiptHandle", ""),
                )
            )

    async def delete(self, message: IncomingMessage) -> None:
        """Delete a message; one that is gone already is deleted."""
        url = await self.queue.url()
        with sqs_errors(self.queue.named, lost=_LOST):
            await self.queue.client.delete_message(QueueUrl=url, ReceiptHandle=message.receipt)

    async def hide(self, message: IncomingMessage, seconds: float) -> None:
        """Extend the visibility timeout of a message; 0 makes it visible."""
        url = await self.queue.url()
        with sqs_errors(self.queue.named, lost=_LOST):
            await self.queue.client.change_message_visibility(
                QueueUrl=url,
                ReceiptHandle=message.receipt,
                VisibilityTimeout=min(HIDDEN_MAX, round(seconds)),
            )


@dataclass(eq=False)
class SqsDeadLetters:
    """Puts messages into a queue as they came, so that they can be moved back; the reason is an attribute.

    Args:
        queue: which.
    """

    queue: SqsQueue

    async def bury(self, message: IncomingMessage, tries: int, reason: str) -> None:
        """Send the message with the attributes reason, tries, source and id."""
        told = {"reason": reason, "tries": str(tries), "source": message.source, "id": message.id}
        attributes: dict[str, Any] = {
            f"shoal-{name}": {"DataType": "String", "StringValue": printable(value)}
            for name, value in told.items()
        }
        url = await self.queue.url()
        with sqs_errors(self.queue.named, unfit=_UNFIT):
            await self.queue.client.send_message(
                QueueUrl=url,
                MessageBody=message.body.decode(errors="replace") or " ",
                MessageAttributes=attributes,
                **_ordered(self.queue.named, message),
            )


def _ordered(queue: str, message: IncomingMessage) -> dict[str, Any]:
    """What a FIFO queue wants to know beside."""
    if not queue.endswith(".fifo"):
        return {}
    return {"MessageGroupId": "dead-letters", "MessageDeduplicationId": message.id[:128]}


def printable(text: str) -> str:
    """Return text that any server takes as an attribute: one line, not empty, not long."""
    line = "".join(one if one.isprintable() else " " for one in text.strip())
    return line[:_ATTRIBUTE_CHARACTERS] or "-"


@contextmanager
def sqs_errors(
    queue: str, *, lost: Container[str] = (), unfit: Container[str] = ()
) -> Iterator[None]:
    """Say what went wrong in the words of `services.intake.source`.

    Args:
        queue: which, for people.
        lost: codes of SQS that mean that a delivery is over.
        unfit: codes that mean that a message is never taken.
    """
    try:
        yield
    except ClientError as error:
        told = cast("dict[str, Any]", error.response).get("Error", {})
        code = str(told.get("Code", ""))
        if code in lost:
            raise DeliveryLostError(f"queue {queue}: {error}") from error
        if code in unfit:
            raise LetterRefusedError(f"queue {queue}: {error}") from error
        raise ServerAwayError(f"queue {queue}: {error}") from error
    except (BotoCoreError, OSError, TimeoutError) as error:
        raise ServerAwayError(f"queue {queue} cannot be reached: {error}") from error

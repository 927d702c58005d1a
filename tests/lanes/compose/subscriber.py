"""A consumer of events with a session that the broker keeps, as a dashboard has one."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import aiomqtt

from tests.kit.until import PATIENCE

_ID: Final = "lane-compose"
_SECONDS: Final = 30


def subscribe(port: int) -> None:
    """Begin a session at the broker, which keeps what comes while the consumer is away."""

    async def main() -> None:
        async with aiomqtt.Client("127.0.0.1", port, identifier=_ID, clean_session=False) as client:
            await client.subscribe("shoal/#", qos=1)

    asyncio.run(main())


def received(port: int, enough: Callable[[set[str]], bool]) -> set[str]:
    """Return the ids of the events that the broker has kept, once there are enough.

    Raises:
        TimeoutError: they do not come.
    """

    async def main() -> set[str]:
        found: set[str] = set()
        async with (
            asyncio.timeout(PATIENCE * _SECONDS),
            aiomqtt.Client("127.0.0.1", port, identifier=_ID, clean_session=False) as client,
        ):
            await client.subscribe("shoal/#", qos=1)
            async for message in client.messages:
                if str(message.topic).endswith("/events"):
                    event: Any = json.loads(bytes(message.payload))
                    found.add(str(event["id"]))
                if enough(found):
                    break
        return found

    return asyncio.run(main())

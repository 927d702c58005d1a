"""The link from an agent to what it remembers across its own death."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from edge_agent.attempts.local_attempt import LocalAttempt
from shoal.names import AttemptRef


class AttemptJournal(Protocol):
    """Writes become durable in the order in which they were asked for; awaiting one waits for that.

    A write that no task awaits is done all the same; `forget` is done with the next one, or a little later.
    """

    def put(self, record: LocalAttempt) -> asyncio.Future[None]:
        """Remember an attempt."""
        ...

    def forget(self, ref: AttemptRef) -> None:
        """Remember an attempt no more; nothing waits for that."""
        ...

    def note(self, name: str, value: str) -> asyncio.Future[None]:
        """Remember a fact about the node, such as its boot id."""
        ...

    def barrier(self) -> asyncio.Future[None]:
        """Awaiting it waits until everything asked for before is durable, but what was to be forgotten."""
        ...

    async def load(self) -> tuple[LocalAttempt, ...]:
        """Every attempt that is remembered, in the order of their names."""
        ...

    async def facts(self) -> Mapping[str, str]:
        """Every fact that was noted."""
        ...

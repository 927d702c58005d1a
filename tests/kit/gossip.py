"""Members of ours for tests, on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from services.membership.config import GossipConfig
from services.membership.message import SwimState
from services.membership.shell import GossipShell


@contextlib.asynccontextmanager
async def running(name: str, **options: Any) -> AsyncIterator[GossipShell]:
    """Run a member on a free port of loopback."""
    config = replace(GossipConfig(name=name, bind_host="127.0.0.1", bind_port=0), **options)
    async with GossipShell(config) as gossip:
        task = asyncio.create_task(gossip.run())
        try:
            yield gossip
        finally:
            failed = task.done() and not task.cancelled()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert not failed, "gossip ended by itself"


def states(gossip: GossipShell) -> dict[str, SwimState]:
    """What a member believes of everybody."""
    return {member.name: member.state for member in gossip.members(all_states=True)}

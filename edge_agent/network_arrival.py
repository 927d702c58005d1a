"""An agent that starts on a machine without a network, as after a power cut before its Wi-Fi is up.

Rule: a board works on with what it has, so its agent starts all the same, takes over its jobs and
starts what it was told to run. It tells others no address that is none: it begins anew, in the same
process, as soon as the machine has one, which touches no job, because keeper and stream worker go on
(docs/architecture.md, section 1). Where the machine then has several addresses and nothing says which
is meant, it says so and goes on alone.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from edge_agent.config import AgentConfig
from services.runtime.address import host_port
from services.runtime.log import fields
from services.runtime.outward import NoAddressError, outward_host
from services.runtime.process import StartRefusedError

LOG = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
_NOBODY: Final = "127.0.0.1"

Start = Callable[[AgentConfig], Coroutine[Any, Any, None]]


async def run_with_or_without_network(config: AgentConfig, start: Start) -> None:
    """Run an agent until cancelled, and begin it anew when its machine gets a network.

    Args:
        config: what the operator set.
        start: runs one agent until it is cancelled.

    Raises:
        StartRefusedError: the agent cannot begin as it was asked to.
    """
    try:
        await asyncio.to_thread(_outward, config)
    except NoAddressError as error:
        LOG.warning("no network yet: this board works on alone", extra=fields(why=error))
        async with asyncio.TaskGroup() as group:
            alone = group.create_task(start(replace(config, advertise=_NOBODY)))
            host = await _arrival(config)
            alone.cancel()
        LOG.info("the network is there: the agent begins anew", extra=fields(address=host))
    await start(config)


async def _arrival(config: AgentConfig) -> str:
    """Wait until this machine has an address that others reach, and return it."""
    told = ""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            return await asyncio.to_thread(_outward, config)
        except NoAddressError:
            pass
        except StartRefusedError as error:
            if str(error) != told:
                told = str(error)
                LOG.error("the network cannot be used", extra=fields(why=error))  # noqa: TRY400


def _outward(config: AgentConfig) -> str:
    """Return a host under which others reach this node; may wait for a name server."""
    if config.advertise:
        return config.advertise
    return [
        outward_host(host_port(bound, hostless=True)[0], config.peers)
        for bound in (config.gossip, config.streams)
        if bound
    ][-1]

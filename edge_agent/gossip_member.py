"""An agent's own member of the gossip cluster: its keys on disk, and the ports beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random

from edge_agent.config import AgentConfig, host_port
from services.membership.config import GossipConfig
from services.membership.gossip import Gossip
from services.membership.ipc import IpcServer
from services.membership.keyring import Keyring
from services.membership.web import MembersPage
from services.runtime.keyring_file import KeyringFile, KeyringFileError
from services.runtime.log import fields
from services.runtime.process import StartRefusedError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GossipMember:
    """A member that gossips while `run` runs; without `keyring`, rotated keys last until its end."""

    gossip: Gossip
    keyring: KeyringFile | None = None

    async def run(self) -> None:
        """Gossip, and keep the keys, until cancelled."""
        rotated = asyncio.Event()
        self.gossip.serf.on_keys = rotated.set
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gossip.run())
            if self.keyring is not None:
                tasks.create_task(self.keyring.follow(self.gossip.keyring, rotated))


@contextlib.asynccontextmanager
async def open_member(
    config: AgentConfig, *, clock: Callable[[], float], wall: Callable[[], float], rng: Random
) -> AsyncIterator[GossipMember | None]:
    """Bind what the configuration names; None for an agent that does not gossip.

    Raises:
        StartRefusedError: an address cannot be had, or the keyring not be used.
    """
    if not config.gossip:
        yield None
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            member = await _open(config, stack, clock=clock, wall=wall, rng=rng)
        except KeyringFileError as error:
            raise StartRefusedError(f"{error} (--gossip-keyring)") from error
        except OSError as error:
            raise StartRefusedError(
                f"cannot gossip on {config.gossip}: {error}; choose other addresses for --gossip, "
                "--serf-rpc and --members-http"
            ) from error
        yield member


async def _open(
    config: AgentConfig,
    stack: contextlib.AsyncExitStack,
    *,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
) -> GossipMember:
    keys, kept = config.gossip_keys, None
    if config.gossip_keyring is not None:
        kept = KeyringFile(config.gossip_keyring)
        keys = await asyncio.to_thread(kept.open, keys)
    host, port = host_port(config.gossip)
    gossip = await stack.enter_async_context(
        Gossip(
            GossipConfig(
                name=config.name,
                bind_host=host or "0.0.0.0",  # noqa: S104 - members have to be reachable
                bind_port=port,
                advertise=config.advertise,
                tags={"role": "agent"},
                preset=config.gossip_preset,
                keyring=Keyring(
                    keys,
                    verify_incoming=config.gossip_encryption == "require",
                    verify_outgoing=config.gossip_encryption != "hear",
                ),
                label=config.gossip_label,
                seeds=config.seeds,
            ),
            clock=clock,
            wall=wall,
            rng=rng,
        )
    )
    if config.serf_rpc:
        host, port = host_port(config.serf_rpc)
        serf = IpcServer(gossip, host=host, port=port, auth_key=config.serf_rpc_auth)
        await stack.enter_async_context(serf)
        LOG.info("the serf command is answered", extra=fields(address=f"{host}:{serf.port}"))
    if config.members_http:
        host, port = host_port(config.members_http)
        page = MembersPage(gossip, clock=clock, host=host, port=port)
        await stack.enter_async_context(page)
        LOG.info("members are served", extra=fields(address=f"{host}:{page.port}"))
    return GossipMember(gossip, kept)

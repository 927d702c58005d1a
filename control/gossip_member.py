"""A controller's own member of the gossip cluster: its keys on disk, and the ports beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random

from control.config import ControllerConfig, host_port, joined
from services.membership.config import GossipConfig
from services.membership.gossip import Gossip
from services.membership.ipc import IpcServer
from services.membership.keyring import Keyring
from services.membership.web import MembersPage
from services.runtime.keyring_file import KeyringFile, KeyringFileError
from services.runtime.process import StartRefusedError


@dataclass(frozen=True, slots=True)
class GossipMember:
    """A member that gossips while `run` runs.

    Attributes:
        gossip: the member itself.
        keyring: file that its keys are kept in; None keeps what is rotated until the end only.
        serf_rpc: `host:port` for the stock `serf` command, empty if it is not served.
        members_http: `host:port` of the members as JSON, empty if they are not served.
    """

    gossip: Gossip
    keyring: KeyringFile | None = None
    serf_rpc: str = ""
    members_http: str = ""

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
    config: ControllerConfig,
    grpc: str,
    *,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
) -> AsyncIterator[GossipMember | None]:
    """Bind what the configuration names; None for a controller that does not gossip.

    Args:
        config: what the operator set.
        grpc: `host:port` that agents are told to dial.
        clock: monotonic seconds.
        wall: seconds since 1970.
        rng: chance.

    Raises:
        OSError: an address cannot be had.
        StartRefusedError: the keyring cannot be used.
    """
    if not config.gossip:
        yield None
        return
    host, port = host_port("--gossip", config.gossip)
    keys, kept = config.gossip_keys, None
    if config.gossip_keyring is not None:
        kept = KeyringFile(config.gossip_keyring)
        try:
            keys = await asyncio.to_thread(kept.open, keys)
        except KeyringFileError as error:
            raise StartRefusedError(f"{error} (--gossip-keyring)") from error
    async with contextlib.AsyncExitStack() as stack:
        gossip = await stack.enter_async_context(
            Gossip(
                GossipConfig(
                    name=config.name,
                    bind_host=host,
                    bind_port=port,
                    advertise=config.advertise,
                    tags={"role": "controller", "grpc": grpc},
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
        serf_rpc = members_http = ""
        if config.serf_rpc:
            host, port = host_port("--serf-rpc", config.serf_rpc)
            serf = IpcServer(gossip, host=host, port=port, auth_key=config.serf_rpc_auth)
            await stack.enter_async_context(serf)
            serf_rpc = joined(host, serf.port)
        if config.members_http:
            host, port = host_port("--members-http", config.members_http)
            page = MembersPage(gossip, clock=clock, host=host, port=port)
            await stack.enter_async_context(page)
            members_http = joined(host, page.port)
        yield GossipMember(gossip, kept, serf_rpc, members_http)

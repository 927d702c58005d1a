"""A process's own member of the gossip cluster: its keys on disk, and the ports beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from random import Random

from services.membership.config import GossipConfig
from services.membership.ipc import IpcServer
from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile, KeyringFileError
from services.membership.settings import GossipSettings
from services.membership.shell import GossipShell
from services.runtime.address import host_port, joined
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

    gossip: GossipShell
    keyring: KeyringFile | None = None
    serf_rpc: str = ""
    members_http: str = ""

    async def run(self) -> None:
        """GossipShell, and keep the keys, until cancelled."""
        rotated = asyncio.Event()
        self.gossip.serf.on_keys = rotated.set
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gossip.run())
            if self.keyring is not None:
                tasks.create_task(self.keyring.follow(self.gossip.keyring, rotated))


@contextlib.asynccontextmanager
async def open_member(
    settings: GossipSettings,
    tags: Mapping[str, str],
    *,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
) -> AsyncIterator[GossipMember | None]:
    """Bind what the settings name; None for a process that does not gossip.

    Args:
        settings: what the operator set.
        tags: what the member announces of itself.
        clock: monotonic seconds.
        wall: seconds since 1970.
        rng: chance.

    Raises:
        OSError: an address cannot be had.
        StartRefusedError: the keyring cannot be used.
    """
    if not settings.gossip:
        yield None
        return
    host, port = host_port(settings.gossip, hostless=True)
    keys, kept = settings.gossip_keys, None
    if settings.gossip_keyring is not None:
        kept = KeyringFile(settings.gossip_keyring)
        try:
            keys = await asyncio.to_thread(kept.open, keys)
        except KeyringFileError as error:
            raise StartRefusedError(f"{error} (--gossip-keyring)") from error
    async with contextlib.AsyncExitStack() as stack:
        gossip = await stack.enter_async_context(
            GossipShell(
                GossipConfig(
                    name=settings.name,
                    bind_host=host or "0.0.0.0",  # noqa: S104 - members have to be reachable
                    bind_port=port,
                    advertise=settings.advertise,
                    tags=dict(tags),
                    preset=settings.gossip_preset,
                    keyring=Keyring(
                        keys,
                        verify_incoming=settings.gossip_encryption == "require",
                        verify_outgoing=settings.gossip_encryption != "hear",
                    ),
                    label=settings.gossip_label,
                    seeds=settings.seeds,
                    peers=settings.peers,
                ),
                clock=clock,
                wall=wall,
                rng=rng,
            )
        )
        serf_rpc = members_http = ""
        if settings.serf_rpc:
            host, port = host_port(settings.serf_rpc, hostless=True)
            serf = IpcServer(gossip, host=host, port=port, auth_key=settings.serf_rpc_auth)
            await stack.enter_async_context(serf)
            serf_rpc = joined(host, serf.port)
        if settings.members_http:
            # Its web server takes longer to load than everything else of a member.
            from services.membership.web import MembersPage  # noqa: PLC0415

            host, port = host_port(settings.members_http, hostless=True)
            page = MembersPage(gossip, clock=clock, host=host, port=port)
            await stack.enter_async_context(page)
            members_http = joined(host, page.port)
        yield GossipMember(gossip, kept, serf_rpc, members_http)

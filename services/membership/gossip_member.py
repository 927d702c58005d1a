"""A process's own member of the gossip cluster: its keys on disk, and the ports beside it.

Rule: in a cluster with identity gossip is sealed unless the operator names keys. The controller's ring
is that of the cluster: an agent gets it as it joins, and again with each session and each change, so
that one which was away during a rotation is heard again.
Why it is not sent by gossip: a member that missed a rotation cannot open what is sealed since.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from services.membership.config import GossipConfig
from services.membership.ipc import IpcServer
from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile, KeyringFileError
from services.membership.settings import GossipSettings
from services.membership.shell import GossipShell
from services.runtime.address import host_port, joined
from services.runtime.log import fields
from services.runtime.outward import on_loopback
from services.runtime.process import StartRefusedError
from shoal.credentials import Credentials
from shoal.gossip_key import key_id

LOG = logging.getLogger(__name__)

KEYRING_NAME: Final = "gossip.keyring"
"""File of the ring in the folder of an identity, unless the operator names another one."""


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """What a process with an identity gossips with, where its operator names no keys.

    Attributes:
        keyring: file that the ring is kept in; it wins over `first` once it exists.
        first: the ring where there is no file yet; empty for a process that has not heard of any.
        identity: returns what the process proves where it serves members beyond loopback.
        is_revoked: says whether a certificate with a serial number is believed no more there.
    """

    keyring: Path
    first: tuple[bytes, ...] = field(repr=False)
    identity: Callable[[], Credentials]
    is_revoked: Callable[[int], bool] = lambda _: False


@dataclass(eq=False, slots=True)
class GossipMember:
    """A member that gossips while `run` runs.

    Attributes:
        gossip: the member itself.
        keyring: file that its keys are kept in; None keeps what is rotated until the end only.
        serf_rpc: `host:port` for the stock `serf` command, empty if it is not served.
        members_http: `host:port` of the members as JSON, empty if they are not served.
        on_keys: called after the ring has changed, for whatever reason.
    """

    gossip: GossipShell
    keyring: KeyringFile | None = None
    serf_rpc: str = ""
    members_http: str = ""

    on_keys: Callable[[], None] = lambda: None
    _rotated: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gossip.serf.on_keys = self._changed

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The ring, the key that seals first; empty for plain gossip."""
        return self.gossip.keyring.keys

    def take_keys(self, keys: Sequence[bytes]) -> None:
        """Take the ring of the cluster in the place of what there was; one without keys changes nothing."""
        if not keys or tuple(keys) == self.keys:
            return
        try:
            self.gossip.keyring.replace(keys)
        except ValueError as error:
            LOG.error("keys of gossip refused", extra=fields(why=error))  # noqa: TRY400 it says all
            return
        told = " ".join(key_id(key) for key in keys)
        LOG.info("keys of gossip replaced", extra=fields(keys=told))
        self._changed()

    async def run(self) -> None:
        """Gossip, and keep the keys, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gossip.run())
            if self.keyring is not None:
                ring = self.gossip.keyring
                tasks.create_task(self.keyring.follow(ring, self._rotated, self._told))

    def _changed(self) -> None:
        self._rotated.set()
        self._told()

    def _told(self) -> None:
        self.on_keys()


@contextlib.asynccontextmanager
async def open_member(
    settings: GossipSettings,
    tags: Mapping[str, str],
    *,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
    cluster_keys: ClusterKeys | None = None,
) -> AsyncIterator[GossipMember | None]:
    """Bind what the settings name; None for a process that does not gossip.

    Args:
        settings: what the operator set.
        tags: what the member announces of itself.
        clock: monotonic seconds.
        wall: seconds since 1970.
        rng: chance.
        cluster_keys: what a process with an identity gossips with.

    Raises:
        OSError: an address cannot be had.
        StartRefusedError: the keyring cannot be used.
    """
    if not settings.gossip:
        yield None
        return
    host, port = host_port(settings.gossip, hostless=True)
    kept, keys = await asyncio.to_thread(_open_keys, settings, cluster_keys)
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
            proves = None if on_loopback(settings.members_http) else cluster_keys
            page = MembersPage(
                gossip,
                clock=clock,
                host=host,
                port=port,
                identity=None if proves is None else proves.identity,
                is_revoked=None if proves is None else proves.is_revoked,
            )
            await stack.enter_async_context(page)
            members_http = joined(host, page.port)
        yield GossipMember(gossip, kept, serf_rpc, members_http)


def _open_keys(
    settings: GossipSettings, cluster_keys: ClusterKeys | None
) -> tuple[KeyringFile | None, tuple[bytes, ...]]:
    """Return the file that the ring is kept in, if it is kept, and the ring.

    Raises:
        StartRefusedError: the file cannot be used.
    """
    try:
        if settings.gossip_keyring is not None:
            kept = KeyringFile(settings.gossip_keyring)
            return kept, kept.open(settings.gossip_keys or _first(cluster_keys))
        if settings.gossip_keys or cluster_keys is None:
            return None, settings.gossip_keys
        kept = KeyringFile(cluster_keys.keyring)
        empty = not cluster_keys.first and not kept.exists
        return kept, () if empty else kept.open(cluster_keys.first)
    except KeyringFileError as error:
        raise StartRefusedError(f"{error} (--gossip-keyring)") from error


def _first(cluster_keys: ClusterKeys | None) -> tuple[bytes, ...]:
    """The ring of a cluster as this process knows it, for a file of the operator's that does not exist yet.

    Raises:
        KeyringFileError: it cannot be read.
    """
    if cluster_keys is None:
        return ()
    kept = KeyringFile(cluster_keys.keyring)
    return kept.read() if kept.exists else cluster_keys.first

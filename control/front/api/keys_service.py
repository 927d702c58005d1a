"""The keys of gossip over gRPC: named by their digests, changed on all members at once."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from control.front.ring_renewal import RingRenewal
from control.front.rpc_status import invalid
from services.membership.keyring_file import KeyringFileError
from services.membership.serf.shell import KeyReport
from services.membership.shell import GossipShell
from services.runtime.log import fields
from services.runtime.rpc import RpcError, rpc_error
from shoal.gossip_key import KEY_BYTES, key_id
from shoal.v1 import keys_service_pb2 as v1
from shoal.v1 import keys_service_pb2_grpc as v1_grpc

LOG = logging.getLogger(__name__)

_TRIES: Final = 3

Context = grpc.aio.ServicerContext[Any, Any]


class KeysService(v1_grpc.KeysServiceServicer):
    """Answers operators.

    Args:
        gossip: the controller's own member, which asks all the others; None if there is none.
        renewal: replaces the ring of a cluster with identity; None in one without.
    """

    def __init__(self, gossip: GossipShell | None, renewal: RingRenewal | None = None) -> None:
        self._gossip = gossip
        self._renewal = renewal

    async def ListKeys(self, request: v1.ListKeysRequest, context: Context) -> v1.ListKeysResponse:
        """Ask every member for its keys."""
        report = await _insisting(self._encrypted().serf.list_keys)
        holders = [
            v1.KeyHolders(id=key_id(key), installed=count, primary=report.primaries.get(word, 0))
            for word, count in report.keys.items()
            if (key := _decoded(word))
        ]
        holders.sort(key=lambda key: (-key.primary, -key.installed, key.id))
        return v1.ListKeysResponse(keys=holders, report=_report(report))

    async def InstallKey(
        self, request: v1.InstallKeyRequest, context: Context
    ) -> v1.InstallKeyResponse:
        """Have every member install a key."""
        gossip = self._encrypted()
        if len(request.key) not in KEY_BYTES:
            raise invalid(
                "INVALID_KEY",
                f"the key has {len(request.key)} bytes and needs 16, 24 or 32; "
                "make one with: shoal keys generate",
            )
        report = await _insisting(lambda: gossip.serf.install_key(request.key))
        _log("install", request.key, report)
        return v1.InstallKeyResponse(id=key_id(request.key), report=_report(report))

    async def UseKey(self, request: v1.UseKeyRequest, context: Context) -> v1.UseKeyResponse:
        """Have every member seal with a key."""
        gossip = self._encrypted()
        key = await _find(gossip, request.id)
        report = await _insisting(lambda: gossip.serf.use_key(key))
        _log("use", key, report)
        return v1.UseKeyResponse(report=_report(report))

    async def RemoveKey(
        self, request: v1.RemoveKeyRequest, context: Context
    ) -> v1.RemoveKeyResponse:
        """Have every member drop a key."""
        gossip = self._encrypted()
        key = await _find(gossip, request.id)
        if key == gossip.keyring.primary:
            raise _not_now(
                "KEY_IN_USE",
                f"the key {request.id} seals gossip; first let another: shoal keys use ID",
            )
        report = await _insisting(lambda: gossip.serf.remove_key(key))
        _log("remove", key, report)
        return v1.RemoveKeyResponse(report=_report(report))

    async def RotateKey(
        self, request: v1.RotateKeyRequest, context: Context
    ) -> v1.RotateKeyResponse:
        """Replace all keys by a new one, over sessions."""
        gossip = self._encrypted()
        if self._renewal is None:
            raise _not_now(
                "NO_IDENTITY",
                "this cluster has no identity, so keys travel by gossip: shoal keys install, use and remove",
            )
        try:
            key = await self._renewal.renew()
        except KeyringFileError as error:
            raise _not_now("KEYRING_NOT_WRITTEN", f"{error}; make room there") from error
        report = await _insisting(gossip.serf.list_keys)
        _log("rotate", key, report)
        return v1.RotateKeyResponse(id=key_id(key), report=_report(report))

    def _encrypted(self) -> GossipShell:
        """Return the member, if there are keys to speak of.

        Raises:
            RpcError: the controller does not gossip, or sends its gossip in the clear.
        """
        if self._gossip is None:
            raise _not_now(
                "GOSSIP_OFF",
                "this controller does not gossip; start it with --gossip",
            )
        if self._gossip.keyring.primary is None:
            raise _not_now(
                "ENCRYPTION_OFF",
                "gossip is not encrypted, so there are no keys; start every member with "
                "--gossip-keyring or --gossip-key",
            )
        if not self._gossip.keyring.seals:
            raise _not_now(
                "GOSSIP_NOT_SEALED",
                "this controller hears sealed gossip and sends plain, where keys do not belong; "
                "start every member with --gossip-encryption speak first",
            )
        return self._gossip


def _not_now(reason: str, message: str) -> RpcError:
    return rpc_error(grpc.StatusCode.FAILED_PRECONDITION, reason, message)


async def _insisting(ask: Callable[[], Awaitable[KeyReport]]) -> KeyReport:
    """Ask again where answers are missing: a query is a few packets, and all of them may be lost.

    Each of the four questions may be asked again without harm.

    Raises:
        RpcError: it cannot be asked now.
    """
    try:
        report = await ask()
        for _ in range(_TRIES - 1):
            if report.failed or report.answered >= report.members:
                break
            report = await ask()
    except ValueError as error:
        raise rpc_error(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUERIES", str(error)
        ) from error
    return report


async def _find(gossip: GossipShell, identity: str) -> bytes:
    """Find a key by the beginning of its name: in the controller's ring, else at any member.

    Raises:
        RpcError: there is none, or several.
    """
    keys = _called(gossip.keyring.keys, identity)
    if not keys:  # the controller may have dropped it already, and another member not
        encoded = (await _insisting(gossip.serf.list_keys)).keys
        keys = _called([key for word in encoded if (key := _decoded(word))], identity)
    if len(keys) == 1:
        return keys[0]
    have = ", ".join(key_id(key) for key in gossip.keyring.keys)
    raise rpc_error(
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_KEY",
        f"{len(keys) or 'no'} keys are called {identity!r}; the controller has {have}",
    )


def _called(keys: Iterable[bytes], identity: str) -> Sequence[bytes]:
    return [key for key in keys if identity and key_id(key).startswith(identity)]


def _decoded(encoded: str) -> bytes:
    """Read a key that a member told; empty if it is none."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _report(report: KeyReport) -> v1.KeysReport:
    return v1.KeysReport(
        members=report.members,
        answered=report.answered,
        failed=report.failed,
        messages=report.messages,
    )


def _log(done: str, key: bytes, report: KeyReport) -> None:
    LOG.info(
        "keys of gossip changed",
        extra=fields(
            done=done,
            key=key_id(key),
            members=report.members,
            answered=report.answered,
            failed=report.failed,
        ),
    )

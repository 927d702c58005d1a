"""The keys of gossip over gRPC: named by their digests, changed on all members at once."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

import base64
import binascii
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from control.refusal import invalid, refusing
from services.membership.gossip import Gossip
from services.membership.serf.shell import KeyReport
from services.runtime.keyring_file import KEY_BYTES, key_id
from services.runtime.log import fields
from services.runtime.rpc import rpc_error
from shoal.v1 import keys_service_pb2 as v1
from shoal.v1 import keys_service_pb2_grpc as v1_grpc

LOG = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class KeysService(v1_grpc.KeysServiceServicer):
    """Answers operators.

    Args:
        gossip: the controller's own member, which asks all the others; None if there is none.
    """

    def __init__(self, gossip: Gossip | None) -> None:
        self._gossip = gossip

    async def ListKeys(self, request: v1.ListKeysRequest, context: Context) -> v1.ListKeysResponse:
        """Ask every member for its keys."""
        with refusing(), _asking():
            report = await self._encrypted().serf.list_keys()
            holders = [
                v1.KeyHolders(id=_id_of(key), installed=count, primary=report.primaries.get(key, 0))
                for key, count in report.keys.items()
            ]
            holders.sort(key=lambda key: (-key.primary, -key.installed, key.id))
            return v1.ListKeysResponse(keys=holders, report=_report(report))

    async def InstallKey(
        self, request: v1.InstallKeyRequest, context: Context
    ) -> v1.InstallKeyResponse:
        """Have every member install a key."""
        with refusing(), _asking():
            gossip = self._encrypted()
            if len(request.key) not in KEY_BYTES:
                raise invalid(
                    "INVALID_KEY",
                    f"the key has {len(request.key)} bytes and needs 16, 24 or 32; "
                    "make one with: shoal keys generate",
                )
            report = await gossip.serf.install_key(request.key)
            _log("install", request.key, report)
            return v1.InstallKeyResponse(id=key_id(request.key), report=_report(report))

    async def UseKey(self, request: v1.UseKeyRequest, context: Context) -> v1.UseKeyResponse:
        """Have every member seal with a key."""
        with refusing(), _asking():
            gossip = self._encrypted()
            key = _known(gossip, request.id)
            report = await gossip.serf.use_key(key)
            _log("use", key, report)
            return v1.UseKeyResponse(report=_report(report))

    async def RemoveKey(
        self, request: v1.RemoveKeyRequest, context: Context
    ) -> v1.RemoveKeyResponse:
        """Have every member drop a key."""
        with refusing(), _asking():
            gossip = self._encrypted()
            key = _known(gossip, request.id)
            if key == gossip.keyring.primary:
                raise rpc_error(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "KEY_IN_USE",
                    f"the key {request.id} seals gossip; first let another: shoal keys use ID",
                )
            report = await gossip.serf.remove_key(key)
            _log("remove", key, report)
            return v1.RemoveKeyResponse(report=_report(report))

    def _encrypted(self) -> Gossip:
        """Return the member, if there are keys to speak of.

        Raises:
            RpcError: the controller does not gossip, or gossips in the clear.
        """
        if self._gossip is None:
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION,
                "GOSSIP_OFF",
                "this controller does not gossip; start it with --gossip",
            )
        if self._gossip.keyring.primary is None:
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION,
                "ENCRYPTION_OFF",
                "gossip is not encrypted, so there are no keys; start every member with "
                "--gossip-keyring or --gossip-key",
            )
        return self._gossip


@contextmanager
def _asking() -> Iterator[None]:
    """Turn what cannot be asked now into what the caller is told."""
    try:
        yield
    except ValueError as error:
        raise rpc_error(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUERIES", str(error)
        ) from error


def _known(gossip: Gossip, identity: str) -> bytes:
    """Find a key of the controller's own ring by the beginning of its name.

    Raises:
        RpcError: there is none, or several.
    """
    keys = [key for key in gossip.keyring.keys if identity and key_id(key).startswith(identity)]
    if len(keys) == 1:
        return keys[0]
    have = ", ".join(key_id(key) for key in gossip.keyring.keys)
    raise rpc_error(
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_KEY",
        f"{len(keys) or 'no'} keys of the controller are called {identity!r}; it has {have}",
    )


def _id_of(encoded: str) -> str:
    """Name a key that a member told; what is no base64 is named by its text."""
    try:
        return key_id(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return key_id(encoded.encode())


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

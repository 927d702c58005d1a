"""What a stream worker proves and trusts, read from the agent's folder, and replaced while it runs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.identity.authority import Authority
from services.identity.issuers import Issuers
from services.identity.ticket import TicketError
from services.identity.trust_file import read_trust
from services.runtime.log import fields
from services.runtime.peer import HandshakeContext, Peer, peer_of
from services.runtime.rpc import abort, rpc_error
from services.streams.lane_leave import LaneLeave, LaneWish
from services.streams.worker.call import BROKEN_CALL, ServerContext
from shoal.credentials import Credentials, CredentialsError, read_credentials
from shoal.identity import Role
from shoal.session.trust import Trust
from shoal.v1.streams_service_pb2 import LaneTicket

LOG = logging.getLogger(__name__)


class NodeProof:
    """The credentials of the node, what its cluster trusts, and the calls that this allows.

    Args:
        folder: of the agent, with `identity.pem` and `authorities.pem`.
        credentials: what is proven now.
        trust: what is trusted now.
        proven: whether lanes are under mutual TLS; else they are in the clear, and tickets alone are checked.
    """

    def __init__(
        self, folder: Path, credentials: Credentials, trust: Trust, *, proven: bool
    ) -> None:
        self._folder = folder
        self._calls: dict[asyncio.Timeout, Peer] = {}
        self._trusted: Sequence[Authority] = ()
        self._issuers = Issuers(lambda: self._trusted)
        self.proven = proven
        self.credentials = credentials
        self.leave = self._leave(trust)

    @classmethod
    def read(cls, folder: Path, *, proven: bool) -> Self:
        """Read what the agent has written.

        Raises:
            CredentialsError: it is missing, cannot be read, or is not of a node.
        """
        credentials, trust = _read(folder), read_trust(folder)
        if trust is None:
            raise CredentialsError(f"{folder} does not say what the cluster trusts; join again")
        try:
            return cls(folder, credentials, trust, proven=proven)
        except ValueError as error:
            raise CredentialsError(
                f"the authorities in {folder} cannot be read: {error}"
            ) from error

    async def replace(self, trust: Trust) -> None:
        """Trust something else from now on, and prove what is in the folder now.

        The calls of peers that are not trusted any more are cut.

        Raises:
            CredentialsError: the folder cannot be read; then what was proven goes on being proven.
            ValueError: its authorities cannot be read; then nothing has changed.
        """
        self.leave = self._leave(trust)
        now = asyncio.get_running_loop().time()
        for limit, caller in tuple(self._calls.items()):
            try:
                self.leave.check_caller(caller)
            except TicketError as error:
                LOG.warning("a caller is cut", extra=fields(why=error))
                limit.reschedule(now)
        found = await asyncio.to_thread(_read, self._folder)
        self.credentials = replace(found, authorities=trust.authorities or found.authorities)

    def _leave(self, trust: Trust) -> LaneLeave:
        own = self.credentials
        bundle = x509.load_pem_x509_certificates(trust.authorities or own.authorities)
        self._trusted = [Authority(b"", one.public_bytes(Encoding.PEM)) for one in bundle]
        return LaneLeave.by(own.identity, trust, self._issuers.signed, proven=self.proven)

    @contextlib.asynccontextmanager
    async def allowed(
        self, ticket: bytes, wish: LaneWish, context: ServerContext
    ) -> AsyncIterator[LaneTicket]:
        """Carry a call in this context: its ticket is good, and its caller is trusted for as long as it lasts.

        Raises:
            TicketError: the ticket is not good for this call, and why.
        """
        caller = peer_of(cast("HandshakeContext", context)) if self.proven else None
        said = self.leave.check(ticket, wish, caller)
        limit = asyncio.timeout(None)
        try:
            async with limit:
                if caller is not None:
                    self._calls[limit] = caller
                try:
                    yield said
                finally:
                    self._calls.pop(limit, None)
        except TimeoutError:
            if not limit.expired():
                raise
            why = "the certificate of the caller is not trusted any more"
            with contextlib.suppress(*BROKEN_CALL):
                await abort(context, rpc_error(grpc.StatusCode.PERMISSION_DENIED, "REVOKED", why))


def _read(folder: Path) -> Credentials:
    found = read_credentials(folder)
    if found is None:
        raise CredentialsError(f"{folder} has no identity; let the node join with a token")
    if found.identity.role is not Role.NODE:
        raise CredentialsError(f"{folder} is the identity of {found.identity.described}, no node's")
    return found

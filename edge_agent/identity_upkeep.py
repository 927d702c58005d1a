"""What keeps the identity of a node up to date: trust and certificates as a controller says them.

Rule: what is told is on the disk before it is acted by, and one thing is kept at a time.
The agent asks for another certificate with each trust that it is told, that is with each session and
whenever an authority takes over, and once a day; the controller answers when one is due. It decides,
since its clock is right: a board that stands in 1970 would never find its certificate old.
The key of a question is kept until it is answered, so that an answer to an earlier one fits as well.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edge_agent.node_identity import NodeIdentity
from services.runtime.log import fields
from shoal.credentials import CredentialsError
from shoal.session.messages import FromAgent
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.signing_request import new_key, signing_request

LOG = logging.getLogger(__name__)

ASK_SECONDS: Final = 24 * 3600.0
_WAITING_MAX: Final = 64
_RETRY_SECONDS: Final = 5.0


class IdentityUpkeep:
    """Keeps what a controller says of trust and certificates; let `run` run.

    Args:
        identity: that of the node.
        say: says something to the controller, if there is a session.
        trust_changed: called after what is trusted, or proved, is another one.
        take_gossip_keys: takes the keys that seal gossip.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        say: Callable[[FromAgent], Awaitable[None]],
        trust_changed: Callable[[], Awaitable[None]],
        take_gossip_keys: Callable[[Sequence[bytes]], None],
    ) -> None:
        self._identity = identity
        self._say = say
        self._trust_changed = trust_changed
        self._take_gossip_keys = take_gossip_keys
        self._told: asyncio.Queue[Trust | CertificateIssued] = asyncio.Queue(_WAITING_MAX)
        self._key = b""

    def take(self, message: Trust | CertificateIssued) -> None:
        """Take what the controller said; of very much at once the latest counts."""
        if self._told.full():
            self._told.get_nowait()
        self._told.put_nowait(message)

    async def run(self) -> None:
        """Keep what is told, and ask for certificates, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    message = await self._told.get()
            except TimeoutError:
                await self._ask()
                continue
            kept = await self._kept(message)
            while not kept:
                await asyncio.sleep(_RETRY_SECONDS)  # a disk that is full may have room again
                kept = await self._kept(message)

    async def _kept(self, message: Trust | CertificateIssued) -> bool:
        """Keep a message; False if it has to be tried again."""
        try:
            match message:
                case Trust():
                    await self._keep_trust(message)
                case CertificateIssued(certificate):
                    await self._keep_certificate(certificate)
        except OSError as error:
            LOG.warning(
                "what the controller says of the node's identity cannot be kept",
                extra=fields(folder=self._identity.folder, why=error),
            )
            return not self._told.empty()  # something newer is there
        except CredentialsError as error:
            LOG.error("a certificate is not taken", extra=fields(why=error))  # noqa: TRY400 it says all
        return True

    async def _keep_trust(self, trust: Trust) -> None:
        if not trust.authorities:
            LOG.warning("a controller that names no authority is not believed about trust")
            return
        known = self._identity.trust
        self._take_gossip_keys(trust.gossip_keys)
        if (trust.authorities, trust.ticket_keys, trust.revoked) != (
            known.authorities,
            known.ticket_keys,
            known.revoked,
        ):
            await asyncio.to_thread(self._identity.replace_trust, trust)
            LOG.info(
                "the cluster trusts something else now", extra=fields(revoked=len(trust.revoked))
            )
            await self._trust_changed()
        await self._ask()

    async def _keep_certificate(self, certificate: bytes) -> None:
        if not self._key or not _fits(self._key, certificate):
            raise CredentialsError("it is for a key that this agent did not ask with")
        await asyncio.to_thread(self._identity.replace_certificate, self._key, certificate)
        self._key = b""
        LOG.info("the certificate of this node was renewed")
        await self._trust_changed()

    async def _ask(self) -> None:
        known = self._identity.current()
        if known is None:
            return
        self._key = self._key or new_key()
        await self._say(CertificateWanted(signing_request(self._key, known.identity.name)))


def _fits(key: bytes, certificate: bytes) -> bool:
    """Whether a certificate is for a key.

    Raises:
        CredentialsError: it cannot be read.
    """
    try:
        own = serialization.load_pem_private_key(key, password=None).public_key()
        return own == x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError as error:
        raise CredentialsError(f"a certificate cannot be read: {error}") from error

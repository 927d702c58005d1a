"""The registrar of a cluster: it makes join tokens, issues certificates, and says what is trusted.

Files and keys are in `services.identity`, decisions in `control.core.identities`; here they meet.
Rule: a certificate is signed first, recorded second and handed out third; one that cannot be recorded
was never seen by its asker.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from cryptography.hazmat.primitives import serialization

from control.core.answers import Refusal, RefusalCode
from control.core.errors import ControlError
from control.core.identities import newest
from control.core.rows import CertificateRow, Holder, TokenRow
from control.front.control_plane import ControlPlane
from services.identity.authority import (
    CERTIFICATE_DAYS,
    Authority,
    AuthorityError,
    end_of,
    make_authority,
    requested_key,
    serial_of,
)
from services.identity.cluster_identity import RENEW_WITHIN_DAYS, ClusterIdentity
from services.identity.local_operator import keep_local_operator
from services.runtime.log import fields
from services.runtime.peer import Peer
from shoal.identity import Identity, IdentityError, Role
from shoal.join_token import JoinToken, secret_hash
from shoal.session.trust import Trust
from shoal.signing_request import signing_request

LOG = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

TTL: Final = timedelta(hours=1)
"""How long a token is good, unless its maker says something else."""
TTL_MAX: Final = timedelta(days=366)
USES_MAX: Final = 10_000
NAME_CHARACTERS_MAX: Final = 63
_ID_CHARACTERS: Final = 8
_WORTH_IT: Final = timedelta(days=1)
_SECRET_CHARACTERS: Final = 64
_PATTERN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-*?[]!")
_PATTERN_CHARACTERS: Final = 100


class RegistrarError(Exception):
    """What the registrar refuses.

    Attributes:
        refusal: why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Wanted:
    """A join token that is asked for: as `TokenRow`; no time to live and no uses mean what is usual."""

    role: Role
    name_pattern: str = ""
    namespace: str = ""
    ttl: timedelta | None = None
    uses: int = 0


class Registrar:
    """Issues what a cluster's identities need.

    Args:
        plane: records tokens and certificates.
        identity: authorities and keys of the cluster.
        gossip_keys: returns the keys that seal gossip now, the first seals; none where it is plain.
        token: draws a random word of so many hexadecimal digits.
        wall: the time now.
    """

    def __init__(
        self,
        plane: ControlPlane,
        identity: ClusterIdentity,
        *,
        gossip_keys: Callable[[], Sequence[bytes]],
        token: Callable[[int], str],
        wall: Callable[[], datetime],
    ) -> None:
        self._plane = plane
        self._identity = identity
        self._gossip_keys = gossip_keys
        self._token = token
        self._wall = wall
        self._changing = asyncio.Lock()

    @property
    def cluster(self) -> str:
        """Id of the cluster."""
        return self._identity.cluster

    # ---- what is trusted

    def trust(self, role: Role = Role.NODE) -> Trust:
        """Return what the cluster trusts now, as far as an identity of this role has to know it."""
        if role is not Role.NODE:
            return Trust(self._identity.bundle)
        return Trust(
            self._identity.bundle,
            (self._identity.signer.public_key,),
            self._plane.trust.revoked,
            tuple(self._gossip_keys()),
        )

    @property
    def authorities(self) -> Sequence[Authority]:
        """Those that are believed, the one that signs first."""
        return self._identity.authorities

    def signed_by(self, fingerprint: str) -> int:
        """Return of how many identities the newest certificate that is good is of this authority."""
        last: dict[Holder, CertificateRow] = {}
        for row in newest(self.certificates()):
            if row.revoke_time is None:
                last.setdefault(row.holder, row)
        return sum(row.authority == fingerprint for row in last.values())

    async def add_authority(self, authority: Authority | None) -> Authority:
        """Believe one more authority, or a new one; returns it.

        Raises:
            RegistrarError: it cannot be used.
        """
        async with self._changing:
            added = authority or make_authority(self.cluster, now=self._wall())
            await _in_thread(self._identity.add_authority, added)
            await self._tell()
            return added

    async def use_authority(self, prefix: str) -> Authority:
        """Let the authority whose fingerprint begins so sign from now on; returns it.

        Raises:
            RegistrarError: there is none, or there are several.
        """
        async with self._changing:
            found = self._find(prefix)
            await _in_thread(self._identity.use_authority, found.fingerprint)
            await self._tell()
            return found

    async def remove_authority(self, prefix: str) -> None:
        """Believe the authority whose fingerprint begins so no more.

        Raises:
            RegistrarError: there is none, there are several, or it signs.
        """
        async with self._changing:
            await _in_thread(self._identity.remove_authority, self._find(prefix).fingerprint)
            await self._tell()

    async def _tell(self) -> None:
        """Let all know what is believed now, the operator of this machine first."""
        await self._keep_operator()
        self._plane.trust.say()

    async def keep_operator(self) -> None:
        """Keep the credentials of the operator of this machine, and record their certificate.

        Raises:
            OSError: the disk is full or broken.
        """
        async with self._changing:
            await self._keep_operator()

    async def _keep_operator(self) -> None:
        refused = self._plane.trust.is_revoked
        kept = await _in_thread(keep_local_operator, self._identity, self._wall(), refused)
        serial = f"{serial_of(kept.certificate):x}"
        row = CertificateRow(
            serial,
            kept.identity.role,
            kept.identity.name,
            "",
            self._wall(),
            kept.end,
            await _in_thread(_key_hash, signing_request(kept.key, kept.identity.name)),
            self._identity.signing.fingerprint,
            kept.certificate,
        )
        try:
            if serial not in self._plane.identities.certificates:
                _row(await self._plane.renew(row, serial))
        except (ControlError, RegistrarError) as error:
            LOG.warning(
                "the certificate of the local operator is not listed", extra=fields(why=error)
            )

    async def renew_own(self) -> bool:
        """Renew what the controller itself proves, if that is due; say whether it was.

        Raises:
            OSError: the disk is full or broken.
        """
        async with self._changing:
            return await asyncio.to_thread(self._identity.renew_if_due)

    def _find(self, prefix: str) -> Authority:
        found = [one for one in self.authorities if prefix and one.fingerprint.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        have = ", ".join(one.fingerprint[:12] for one in self.authorities)
        raise _refused(
            RefusalCode.NOT_FOUND,
            "UNKNOWN_AUTHORITY",
            f"{len(found) or 'no'} authorities have a fingerprint that begins with {prefix!r}; there are {have}",
        )

    # ---- tokens

    def tokens(self) -> Sequence[TokenRow]:
        """Return the tokens that are good, the newest first."""
        now = self._wall()
        good = [
            token
            for token in self._plane.identities.tokens.values()
            if token.expire_time > now and token.uses_left > 0
        ]
        return sorted(good, key=lambda token: (token.create_time, token.id), reverse=True)

    async def create_token(self, wanted: Wanted, creator: str) -> tuple[str, TokenRow]:
        """Make a join token; returns the word to hand over, and what is kept of it.

        Raises:
            RegistrarError: such a token cannot be.
            ControlError: it could not be recorded.
        """
        _check(wanted)
        now = self._wall()
        known = self._plane.identities.tokens
        token_id = next(word for word in iter(self._new_id, "") if word not in known)
        secret = self._token(_SECRET_CHARACTERS)
        row = TokenRow(
            token_id,
            secret_hash(secret),
            wanted.role,
            wanted.name_pattern,
            wanted.namespace,
            now,
            now + (wanted.ttl or TTL),
            wanted.uses or 1,
            creator,
        )
        _raise(await self._plane.create_token(row))
        return JoinToken(self._identity.signing.fingerprint, token_id, secret).word, row

    async def revoke_token(self, token_id: str) -> None:
        """Take a token no more.

        Raises:
            RegistrarError: there is none of this id.
        """
        _raise(await self._plane.revoke_token(token_id))

    def _new_id(self) -> str:
        return self._token(_ID_CHARACTERS)

    # ---- certificates

    def certificates(self) -> Sequence[CertificateRow]:
        """Return the certificates that are not over, the newest first."""
        now = self._wall()
        rows = self._plane.identities.certificates.values()
        return newest(row for row in rows if row.expire_time > now)

    async def join(
        self,
        token: JoinToken,
        name: str,
        request: bytes,
        address: str,
        role: Role | None = None,
        *,
        person: bool = False,
    ) -> CertificateRow:
        """Take a token for a certificate.

        Args:
            token: as it was shown.
            name: that is asked for.
            request: PKCS #10, PEM.
            address: where the newcomer dialled from.
            role: that the newcomer expects; None for whatever the token is for.
            person: whether it expects any role but that of a node.

        Raises:
            RegistrarError: the token is not taken, or the request cannot be.
            ControlError: it could not be recorded.
        """
        if all(token.authority != one.fingerprint for one in self.authorities):
            raise _refused(
                RefusalCode.PERMISSION_DENIED,
                "UNKNOWN_TOKEN",
                f"join token {token.id} names authority {token.authority[:12]}, which this cluster does not "
                "believe: it is another cluster's, or that one was removed; make another one: shoal token create",
            )
        if len(name) > NAME_CHARACTERS_MAX:
            raise _refused(
                RefusalCode.INVALID_ARGUMENT,
                "INVALID_NAME",
                f"the name has {len(name)} characters; at most {NAME_CHARACTERS_MAX} are taken",
            )
        known = self._plane.identities.tokens.get(token.id)
        wanted = role or (Role.NODE if known is None else known.role)
        if person and wanted is Role.NODE:
            wanted = (
                Role.VIEWER
            )  # which a token for a node is refused for, once its secret is right
        holder = Holder(wanted, name, "" if known is None else known.namespace)
        hashed = secret_hash(token.secret)
        # Before anything is signed, and again when it is recorded: another may use it in between.
        key_hash = await _in_thread(_key_hash, request)
        _raise(self._plane.identities.refusal(token.id, hashed, holder, key_hash))
        row = await self._signed(holder, request, token.id)
        return _row(await self._plane.join(row, hashed, address))

    async def renew(self, peer: Peer, request: bytes) -> CertificateRow:
        """Issue a certificate for the identity of a peer, and for a new key.

        Raises:
            RegistrarError: the peer's certificate was revoked, or the request cannot be taken.
            ControlError: it could not be recorded.
        """
        own = peer.identity
        holder = Holder(own.role, own.name, own.namespace)
        row = await self._signed(holder, request, "")
        return _row(await self._plane.renew(row, f"{peer.serial:x}"))

    def renewal_is_due(self, peer: Peer) -> bool:
        """Whether another certificate is due: a third of the time is left, or another authority signs now.

        One that the store does not know is as good as any, and due so that it can be revoked.
        """
        row = self._plane.identities.certificates.get(f"{peer.serial:x}")
        signing = self._identity.signing
        if row is None or row.authority != signing.fingerprint:
            return True
        now = self._wall()
        renewed_until = min(now + timedelta(days=CERTIFICATE_DAYS), end_of(signing.certificate))
        due = row.expire_time - now < timedelta(days=RENEW_WITHIN_DAYS)
        return due and renewed_until - row.expire_time > _WORTH_IT

    async def revoke(self, holder: Holder, revoker: str) -> int:
        """Revoke all certificates of an identity; returns how many.

        Raises:
            RegistrarError: it has none.
            ControlError: it could not be recorded.
        """
        answer = await self._plane.revoke_identity(holder, revoker)
        if isinstance(answer, Refusal):
            raise RegistrarError(answer)
        return answer

    async def _signed(self, holder: Holder, request: bytes, token_id: str) -> CertificateRow:
        try:
            identity = Identity(self.cluster, holder.role, holder.name, holder.namespace)
        except IdentityError as error:
            raise _refused(RefusalCode.INVALID_ARGUMENT, "INVALID_NAME", str(error)) from error
        return await _in_thread(self._sign, identity, request, token_id)

    def _sign(self, identity: Identity, request: bytes, token_id: str) -> CertificateRow:
        signing, now = self._identity.signing, self._wall()
        certificate = signing.issue(request, identity, now=now)
        return CertificateRow(
            f"{serial_of(certificate):x}",
            identity.role,
            identity.name,
            identity.namespace,
            now,
            end_of(certificate),
            _key_hash(request),
            signing.fingerprint,
            certificate,
            token_id,
        )


def _check(wanted: Wanted) -> None:
    """Refuse a token that cannot be."""
    why = ""
    if wanted.role is Role.CONTROLLER:
        why = "a controller does not join with a token: choose another role"
    elif set(wanted.name_pattern) - _PATTERN or len(wanted.name_pattern) > _PATTERN_CHARACTERS:
        why = (
            f"no name fits {wanted.name_pattern!r}: write lower-case letters, digits and hyphens with the "
            "wildcards * and ?, as in cam-*"
        )
    elif wanted.ttl is not None and not timedelta() < wanted.ttl <= TTL_MAX:
        why = f"a token is good for at most {TTL_MAX.days} days, and for more than no time"
    elif wanted.uses > USES_MAX:
        why = f"a token is good for at most {USES_MAX} uses, and {wanted.uses} were asked for"
    if not why:
        try:
            Identity("x", wanted.role, "x", wanted.namespace)
        except IdentityError as error:
            why = str(error)
    if why:
        raise _refused(RefusalCode.INVALID_ARGUMENT, "INVALID_TOKEN", why)


async def _in_thread(function: Callable[..., ResultT], *args: object) -> ResultT:
    """Run what reads, writes or signs.

    Raises:
        RegistrarError: an authority, or a request, cannot be used, or a file not be written.
    """
    try:
        return await asyncio.to_thread(function, *args)
    except AuthorityError as error:
        raise _refused(RefusalCode.INVALID_ARGUMENT, "INVALID_REQUEST", str(error)) from error
    except OSError as error:
        raise _refused(
            RefusalCode.RESOURCE_EXHAUSTED,
            "NOT_KEPT",
            f"the controller cannot write {error.filename or 'its state folder'}: {error.strerror}; make room "
            "there, and ask again",
        ) from error


def _key_hash(request: bytes) -> str:
    public = requested_key(request).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def _refused(code: RefusalCode, reason: str, message: str) -> RegistrarError:
    return RegistrarError(Refusal(code, reason, message))


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RegistrarError(refusal)


def _row(answer: CertificateRow | Refusal) -> CertificateRow:
    if isinstance(answer, Refusal):
        raise RegistrarError(answer)
    return answer

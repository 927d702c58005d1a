"""Join tokens and certificates: what is good, what is used up, what was revoked.

Rule: a certificate is handed out only once it is recorded together with the use of its token, in one
commit; so a token for one use gives one certificate, however many ask at once. What is revoked is
recorded before its sessions end, and stays revoked until it would be over anyway.

Invariants:
1. A token is taken only with its secret, before its end, while it has uses left, for its role, its
   namespace and names that fit its pattern.
2. The same key asks twice and gets the same certificate, at the cost of one use: an answer that was lost
   on its way costs a board nothing.
3. A node has one key at a time. It that joins again with another key (its disk was wiped) takes the
   place of what it was, whose certificates are revoked; while the node has a session, its name is refused.
4. An identity that a person revoked joins again only with a token that is younger than the revocation: the
   one that a stolen board may still hold brings it nothing.

Example: cam-1 joins with a token for one use, and its answer is lost. It asks again with the same key,
and gets what is recorded. A copy of the token on another board has another key: TOKEN_USED.

The time of the world is compared here, since it is what tokens and certificates end by.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final

from control.core import events, outbox_rows
from control.core.answers import Refusal, RefusalCode
from control.core.effects import Issued, Revoked
from control.core.errors import RevokedError
from control.core.machine_part import MachinePart
from control.core.rows import (
    CertificateForgotten,
    CertificateRow,
    Holder,
    Loaded,
    TokenForgotten,
    TokenRow,
)
from control.core.situation import Situation
from shoal.identity import LOCAL_OPERATOR, Role

TOKENS_MAX: Final = 10_000
CERTIFICATES_MAX: Final = 100_000
CERTIFICATES_OF_ONE_MAX: Final = 64
TOKEN_KEPT: Final = timedelta(days=7)
"""So long after its end a token is remembered, so that it can be said that it has ended."""
SAME_ANSWER: Final = timedelta(days=1)
"""So long after it was issued, the same certificate is the answer to the same key."""
LOOK_SECONDS: Final = 3600.0


class Identities(MachinePart):
    """All tokens and certificates that are remembered."""

    def __init__(self, situation: Situation) -> None:
        super().__init__(situation)
        self.tokens: dict[str, TokenRow] = {}
        self.certificates: dict[str, CertificateRow] = {}
        self._of: dict[Holder, dict[str, None]] = {}
        self._revoked: dict[str, None] = {}
        self._look_at = situation.now

    def load(self, loaded: Loaded) -> None:
        """Take what was recorded."""
        self.tokens = {token.id: token for token in loaded.tokens}
        for row in loaded.certificates:
            self._keep(row)

    # ---- questions

    def revoked(self) -> tuple[str, ...]:
        """Serials (hexadecimal) of what was revoked and is not over."""
        return tuple(self._revoked)

    def against(self, serial: str) -> RevokedError | None:
        """Say why what proves itself by a certificate is not believed."""
        if serial not in self._revoked:
            return None
        row = self.certificates[serial]
        remedy = "to let it in again, make a new token: shoal token create"
        why = (
            f"{row.holder.described} joined again with another key"
            if row.replaced_by
            else f"{row.holder.described} was revoked"
        )
        return RevokedError(f"certificate {serial} is revoked, since {why}; {remedy}")

    def of(self, holder: Holder) -> Sequence[CertificateRow]:
        """All that is remembered of an identity."""
        return [self.certificates[serial] for serial in self._of.get(holder, ())]

    def refusal(
        self, token_id: str, secret_hash: str, holder: Holder, key_hash: str
    ) -> Refusal | None:
        """Say why a token is not taken for an identity now; None if it is.

        Args:
            token_id: as it was shown.
            secret_hash: of the secret that was shown.
            holder: the identity that is asked for.
            key_hash: of the key that it is asked for.
        """
        token = self.tokens.get(token_id)
        # Both cost the same, so that the time says nothing of ids.
        right = hmac.compare_digest(secret_hash, token.secret_hash if token else "0" * 64)
        if token is None or not right:
            return _denied(
                "UNKNOWN_TOKEN",
                f"there is no join token {token_id} with this secret: it was revoked, or it ended more than a "
                "week ago, or it is another cluster's; make another one: shoal token create",
            )
        now = self._situation.wall_time
        if token.expire_time <= now:
            return _denied(
                "TOKEN_EXPIRED",
                f"join token {token_id} ended at {token.expire_time:%Y-%m-%d %H:%M:%S} UTC, and it is "
                f"{now:%Y-%m-%d %H:%M:%S} now; make another one: shoal token create",
            )
        if token.role is not holder.role or token.namespace != holder.namespace:
            return _denied(
                "ROLE_NOT_ALLOWED",
                f"join token {token_id} is for {_kind(token.role, token.namespace)}, and "
                f"{_kind(holder.role, holder.namespace)} was asked for; make another one: shoal token create",
            )
        if holder.role is Role.OPERATOR and holder.name == LOCAL_OPERATOR:
            return _denied(
                "NAME_NOT_ALLOWED",
                f"operator/{LOCAL_OPERATOR} is the one whose credentials the controller keeps itself: choose "
                "another --name",
            )
        if not fnmatchcase(holder.name, token.name_pattern or "*"):
            return _denied(
                "NAME_NOT_ALLOWED",
                f"join token {token_id} is for names that fit {token.name_pattern!r}, and {holder.name!r} does "
                "not: choose such a --name, or make another token",
            )
        mine = [row for row in self.of(holder) if row.key_hash == key_hash]
        if token.uses_left <= 0 and not any(row.token_id == token_id for row in mine):
            return _denied(
                "TOKEN_USED",
                f"join token {token_id} was used as often as it may be; make another one: shoal token create",
            )
        return self._against_name(token, holder, key_hash)

    def _against_name(self, token: TokenRow, holder: Holder, key_hash: str) -> Refusal | None:
        """Say why an identity may not be joined as, whatever the token allows."""
        for row in self.of(holder):
            if row.revoke_time is None or row.replaced_by:
                continue
            if row.revoke_time >= token.create_time:
                return _denied(
                    "REVOKED",
                    f"{holder.described} was revoked at {row.revoke_time:%Y-%m-%d %H:%M:%S} UTC, and join token "
                    f"{token.id} is older; make another one: shoal token create",
                )
        node = self._cluster.nodes.get(holder.name) if holder.role is Role.NODE else None
        others = any(row.key_hash != key_hash for row in self._good(holder))
        if node is not None and node.session_id and others:
            return Refusal(
                RefusalCode.ALREADY_EXISTS,
                "NAME_IN_USE",
                f"node {holder.name} is connected now, with another key: choose another --name, or end "
                f"that one's agent, or: shoal nodes revoke {holder.name}",
            )
        return None

    # ---- events

    def create(self, event: events.CreateToken) -> Refusal | None:
        """Make a join token."""
        if len(self.tokens) >= TOKENS_MAX:
            self._forget_tokens()
        if len(self.tokens) >= TOKENS_MAX:
            return _full(f"there are {TOKENS_MAX} join tokens: revoke some (shoal token revoke)")
        self.tokens[event.token.id] = event.token
        self._change.token(event.token)
        return None

    def end_token(self, event: events.RevokeToken) -> Refusal | None:
        """Take a token no more."""
        token = self.tokens.pop(event.token_id, None)
        if token is None:
            return Refusal(
                RefusalCode.NOT_FOUND,
                "UNKNOWN_TOKEN",
                f"there is no join token {event.token_id!r}: see shoal token list",
            )
        self._change.token(TokenForgotten(token.id))
        return None

    def join(self, event: events.Join) -> Issued | Refusal:
        """Take a token for a certificate."""
        row = event.certificate
        refusal = self.refusal(row.token_id, event.secret_hash, row.holder, row.key_hash)
        if refusal is None:
            refusal = self._no_room(row.holder)
        if refusal is not None:
            return refusal
        known = self._same(row)
        if known is not None:
            return Issued(known)
        token = self.tokens[row.token_id]
        if not any(
            one.key_hash == row.key_hash and one.token_id == token.id for one in self.of(row.holder)
        ):
            self.tokens[token.id] = replace(token, uses_left=token.uses_left - 1)
            self._change.token(self.tokens[token.id])
        replaced = (
            [one for one in self._good(row.holder) if one.key_hash != row.key_hash]
            if row.role is Role.NODE
            else []
        )
        for one in replaced:
            self._revoke(one, replaced_by=row.serial)
        self._record(row)
        self._tell(
            row.holder,
            "joined",
            row.serial,
            {
                "serial": row.serial,
                "token": token.id,
                "creator": token.creator,
                "address": event.address,
                "replaced": [one.serial for one in replaced],
            },
        )
        return Issued(row)

    def renew(self, event: events.Renew) -> Issued | Refusal:
        """Record another certificate of an identity that has proved itself."""
        row = event.certificate
        revoked = self.against(event.serial)
        if revoked is not None:
            return _denied("REVOKED", str(revoked))
        known = self._same(row)
        if known is not None:
            return Issued(known)
        refusal = self._no_room(row.holder)
        if refusal is not None:
            return refusal
        before = self.certificates.get(event.serial)
        row = replace(row, token_id="" if before is None else before.token_id)
        self._record(row)
        return Issued(row)

    def revoke(self, event: events.RevokeIdentity) -> Revoked | Refusal:
        """Believe no certificate of an identity any more, and end what a node has with us."""
        holder = event.holder
        good = self._good(holder)
        if not good:
            return Refusal(
                RefusalCode.NOT_FOUND,
                "UNKNOWN_IDENTITY",
                f"{holder.described} has no certificate that is good: see shoal identities list",
            )
        for row in good:
            self._revoke(row)
        serials = [row.serial for row in good]
        self._tell(holder, "revoked", serials[0], {"serials": serials, "revoker": event.revoker})
        node = self._cluster.nodes.get(holder.name) if holder.role is Role.NODE else None
        if node is not None:
            self._situation.end_session(node, f"node {node.name} was revoked")
        return Revoked(len(good))

    # ---- the end of things

    def deadline(self) -> float | None:
        """When to look for what is over."""
        return self._look_at if self.tokens or self.certificates else None

    def forget_over(self) -> None:
        """Forget what has been over for long, every hour."""
        if self._situation.now < self._look_at:
            return
        self._look_at = self._situation.now + LOOK_SECONDS
        self._forget_tokens()
        now = self._situation.wall_time
        for row in [one for one in self.certificates.values() if one.expire_time <= now]:
            del self.certificates[row.serial]
            self._of[row.holder].pop(row.serial)
            if not self._of[row.holder]:
                del self._of[row.holder]
            if row.serial in self._revoked:
                del self._revoked[row.serial]
                self._change.trust_changed()
            self._change.certificate(CertificateForgotten(row.serial))

    def _forget_tokens(self) -> None:
        now = self._situation.wall_time
        for token in [one for one in self.tokens.values() if one.expire_time + TOKEN_KEPT <= now]:
            del self.tokens[token.id]
            self._change.token(TokenForgotten(token.id))

    # ---- the records

    def _good(self, holder: Holder) -> Sequence[CertificateRow]:
        now = self._situation.wall_time
        return [row for row in self.of(holder) if row.revoke_time is None and row.expire_time > now]

    def _same(self, asked: CertificateRow) -> CertificateRow | None:
        """The certificate that the same key has got a moment ago from the same authority."""
        since = asked.issue_time - SAME_ANSWER
        for row in self._good(asked.holder):
            same = (row.key_hash, row.authority) == (asked.key_hash, asked.authority)
            if same and since < row.issue_time:
                return row
        return None

    def _no_room(self, holder: Holder) -> Refusal | None:
        if len(self._good(holder)) >= CERTIFICATES_OF_ONE_MAX:
            return _full(
                f"{holder.described} has {CERTIFICATES_OF_ONE_MAX} certificates that are good: revoke them, and "
                "let it join again"
            )
        if len(self.certificates) >= CERTIFICATES_MAX:
            return _full(f"there are {CERTIFICATES_MAX} certificates: wait until some are over")
        return None

    def _record(self, row: CertificateRow) -> None:
        self._keep(row)
        self._change.certificate(row)

    def _revoke(self, row: CertificateRow, replaced_by: str = "") -> None:
        self._record(replace(row, revoke_time=self._situation.wall_time, replaced_by=replaced_by))
        self._change.trust_changed()

    def _keep(self, row: CertificateRow) -> None:
        self.certificates[row.serial] = row
        self._of.setdefault(row.holder, {})[row.serial] = None
        if row.revoke_time is not None:
            self._revoked[row.serial] = None

    def _tell(self, holder: Holder, what: str, number: str, data: dict[str, object]) -> None:
        self._change.outbox(
            outbox_rows.identity_event(holder, what, number, data, self._situation.wall_time)
        )


def newest(rows: Iterable[CertificateRow]) -> Sequence[CertificateRow]:
    """Order certificates, the newest first."""
    return sorted(rows, key=lambda row: (row.issue_time, row.serial), reverse=True)


def _denied(reason: str, message: str) -> Refusal:
    return Refusal(RefusalCode.PERMISSION_DENIED, reason, message)


def _full(message: str) -> Refusal:
    return Refusal(RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY", message)


def _kind(role: Role, namespace: str) -> str:
    return f"a {role} of namespace {namespace}" if namespace else f"a {role} without a namespace"

"""What clients see of the identities of a cluster."""

from dataclasses import dataclass
from datetime import datetime

from shoal.identity import Role


@dataclass(frozen=True, slots=True)
class IdentityView:
    """One identity: what it may be, its name, and the only namespace of its role, if there is one."""

    role: Role
    name: str
    namespace: str = ""

    @property
    def described(self) -> str:
        """As logs and events name it: `node/cam-1`, `viewer/lab/ann`."""
        return "/".join(filter(None, (self.role, self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class CallerView:
    """What the controller takes the caller for; None in a cluster without identity."""

    identity: IdentityView | None
    cluster_id: str


@dataclass(frozen=True, slots=True)
class TokenView:
    """A join token without its secret.

    Attributes:
        id: 8 characters.
        role: of what joins with it.
        name_pattern: which names it may take: shell wildcards.
        namespace: the only one of its role; empty for all of them.
        create_time: when it was made.
        expire_time: when it ends.
        uses_left: how often it may still be used.
        creator: the operator that made it.
    """

    id: str
    role: Role
    name_pattern: str
    namespace: str
    create_time: datetime | None
    expire_time: datetime | None
    uses_left: int
    creator: str


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate that is not over.

    Attributes:
        serial: serial number, hexadecimal.
        identity: whose it is.
        issue_time: when it was issued.
        expire_time: when it ends.
        revoke_time: when it was revoked; None while it is good.
        token_id: the join token that its first one was got with; empty for a controller's.
    """

    serial: str
    identity: IdentityView
    issue_time: datetime | None
    expire_time: datetime | None
    revoke_time: datetime | None
    token_id: str


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """An authority that is believed.

    Attributes:
        fingerprint: SHA-256 of its certificate, hexadecimal.
        signs: whether new certificates are its.
        expire_time: when it ends.
        certificates: how many certificates that are good it has signed.
    """

    fingerprint: str
    signs: bool
    expire_time: datetime | None
    certificates: int

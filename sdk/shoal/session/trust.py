"""What a cluster trusts, and how a node comes by its next certificate."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Trust:
    """What a cluster trusts; the whole of it.

    Attributes:
        authorities: certificates of its authorities (PEM, one after the other).
        ticket_keys: public keys that sign tickets of lanes (Ed25519, 32 bytes each).
        revoked: serial numbers (hexadecimal, lower case) of certificates that were revoked and are
            not over yet.
        gossip_keys: keys that seal gossip, the first seals; empty where gossip is plain.
    """

    authorities: bytes = b""
    ticket_keys: tuple[bytes, ...] = ()
    revoked: tuple[str, ...] = ()
    gossip_keys: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class CertificateWanted:
    """A node asks for a certificate for its own identity; `request` is PKCS #10 in PEM."""

    request: bytes


@dataclass(frozen=True, slots=True)
class CertificateIssued:
    """The certificate that a node asked for, in PEM."""

    certificate: bytes

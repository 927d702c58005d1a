"""The peer of a gRPC call, as the handshake proved it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote

from cryptography import x509

from shoal.identity import SCHEME, Identity, IdentityError, parse_uri


class HandshakeContext(Protocol):
    """A call as its server holds it, of which only the handshake matters here."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What gRPC knows of the other end (grpc/include/grpc/grpc_security_constants.h)."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a call: its identity, and the certificate (PEM) that proved it, with its serial number."""

    identity: Identity
    serial: int
    certificate: bytes = field(default=b"", repr=False)


def peer_of(context: HandshakeContext) -> Peer | None:
    """Return the peer of a call; None over a connection in the clear, or for a certificate without an identity."""
    certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return None if certificate is None else _read(bytes(certificate))


def host_of(peer: str) -> str:
    """The host in gRPC's `ipv4:10.0.0.7:41234`, without a port that says nothing."""
    return unquote(peer).partition(":")[2].rpartition(":")[0] or peer


@lru_cache(4096)
def _read(certificate: bytes) -> Peer | None:
    """Read a certificate that the handshake has verified."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        (uri,) = (uri for uri in uris if uri.startswith(SCHEME))
        return Peer(parse_uri(uri), found.serial_number, certificate)
    except (ValueError, x509.ExtensionNotFound, IdentityError):
        return None

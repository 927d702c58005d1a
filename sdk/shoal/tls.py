"""Contexts of TLS for what is served and fetched over HTTP; gRPC makes its own (`shoal.channel`).

Rule: a server proves the identity that it has at the moment of a handshake, so a renewal needs no
restart. A client believes the authorities of the web and those of the cluster at once: what an
address names decides which of them has to have signed, and the giver of an address was proved before.
Why not one per host: an archive may be a bucket, an input may be anywhere, and a redirect leads from
one to the other.
Source: RFC 8446 (TLS 1.3), RFC 9325 section 3.1.1 (nothing before TLS 1.2).
"""

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.credentials import Credentials


def server_context(identity: "Callable[[], Credentials]", *, prove: bool = False) -> ssl.SSLContext:
    """Return the context of a server.

    Args:
        identity: returns what the server proves; asked anew at each handshake.
        prove: whether a client has to prove an identity of the same authorities.
    """
    made_for = identity()
    current = _serving(made_for, prove=prove)

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL calls it for a client that names no host as well (SSL_CTX_set_tlsext_servername_callback).
        nonlocal made_for, current
        now = identity()
        if now is not made_for:
            current, made_for = _serving(now, prove=prove), now
        connection.context = current

    entrance = _serving(made_for, prove=prove)
    entrance.sni_callback = choose
    return entrance


def client_context(authorities: bytes, *, web: bool = True) -> ssl.SSLContext:
    """Return a context that checks names, and believes authorities.

    Args:
        authorities: those of the cluster (PEM, one after the other); empty for none.
        web: believe those of the system too (`SSL_CERT_FILE` names others).

    Raises:
        ssl.SSLError: `authorities` are no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if web:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if authorities:
        context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    return context


class ClientTls:
    """The context of clients of a cluster, made anew when its authorities change.

    Args:
        authorities: returns those of the cluster as they are now (PEM); empty for none.
    """

    def __init__(self, authorities: Callable[[], bytes] = lambda: b"") -> None:
        self._authorities = authorities
        self._made_for: bytes | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return it; the first call reads the authorities of the system, which takes some ms.

        Raises:
            ssl.SSLError: the authorities are no certificates.
        """
        now = self._authorities()
        if self._context is None or now != self._made_for:
            self._context, self._made_for = client_context(now), now
        return self._context


def _serving(credentials: "Credentials", *, prove: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if prove:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=credentials.authorities.decode("ascii"))
    # Python reads a key from a file alone, and this one is nowhere but in memory.
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(credentials.key + credentials.certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context

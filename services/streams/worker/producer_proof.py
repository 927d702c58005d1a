"""With which certificate a stream worker at an address proves itself, asked by a handshake of its own.

Rule: a consumer takes no record of a node whose certificate was revoked.
Why a handshake of its own: gRPC verifies the chain and the name of what it dials, but shows Python none
of it and takes no list of what was revoked. What answers here has the same key as what answers there, or
another one of the same name; revoking a node revokes all certificates of its name.
The server wants a certificate of the one that asks, after it has shown its own (RFC 8446, section 2): none
is needed to see it, and the connection ends then.
"""

import asyncio
import ssl
from typing import Final

from cryptography import x509

from services.runtime.address import host_port
from shoal.tls import client_context

_SECONDS: Final = 5.0


async def serial_at(address: str, expect: str, authorities: bytes) -> int:
    """Return the serial number of the certificate that is proven at an address.

    Args:
        address: `host:port` of a stream worker.
        expect: DNS name that it has to prove.
        authorities: that are believed (PEM).

    Raises:
        OSError: it does not answer in time, or does not prove the name.
    """
    context = client_context(authorities, web=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    host, port = host_port(address)
    async with asyncio.timeout(_SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=expect)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown).serial_number
    finally:
        writer.transport.abort()

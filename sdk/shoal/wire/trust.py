"""What a cluster trusts, between `shoal.session.trust` and the contract."""

from collections.abc import Sequence
from typing import Final

from shoal.gossip_key import KEY_BYTES
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.v1 import session_service_pb2 as v1
from shoal.wire.codec import Check, checked, codec
from shoal.wire.fields import WireError

PEM_BYTES_MAX: Final = 64 << 10
"""Largest request, certificate or bundle of authorities."""
TICKET_KEY_BYTES: Final = 32
KEYS_MAX: Final = 16
REVOKED_MAX: Final = 100_000


def _pem(value: bytes, path: str) -> bytes:
    if len(value) > PEM_BYTES_MAX:
        raise WireError(path, f"it has {len(value)} bytes; at most {PEM_BYTES_MAX} are taken")
    return value


def _keys(sizes: Sequence[int]) -> Check:
    def check(values: Sequence[bytes], path: str) -> tuple[bytes, ...]:
        if len(values) > KEYS_MAX or any(len(value) not in sizes for value in values):
            raise WireError(path, f"at most {KEYS_MAX} keys of {sizes} bytes are taken")
        return tuple(values)

    return check


def _revoked(values: Sequence[str], path: str) -> tuple[str, ...]:
    if len(values) > REVOKED_MAX:
        raise WireError(path, f"{len(values)} are too many; at most {REVOKED_MAX} are taken")
    return tuple(values)


TRUST = codec(
    Trust,
    v1.Trust,
    "trust",
    authorities=checked(_pem),
    ticket_keys=checked(_keys((TICKET_KEY_BYTES,))),
    revoked=checked(_revoked),
    gossip_keys=checked(_keys(KEY_BYTES)),
)
CERTIFICATE_WANTED = codec(
    CertificateWanted, v1.CertificateWanted, "certificate_wanted", request=checked(_pem)
)
CERTIFICATE_ISSUED = codec(
    CertificateIssued, v1.CertificateIssued, "certificate_issued", certificate=checked(_pem)
)

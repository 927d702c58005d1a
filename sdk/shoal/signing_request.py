"""A key of one's own and the request for its certificate: the key never leaves where it is made."""

from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def new_key() -> bytes:
    """Make a private key on P-256, PEM (PKCS #8)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def is_key(key: bytes) -> bool:
    """Whether this is a private key on an elliptic curve, PEM; a file may be half of one."""
    try:
        found = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return isinstance(found, ec.EllipticCurvePrivateKey)


def signing_request(key: bytes, name: str) -> bytes:
    """Return a request (PKCS #10, PEM) for the certificate of a key.

    Args:
        key: private key, PEM.
        name: for people that read the request; the authority does not look at it.
    """
    private = cast(
        "ec.EllipticCurvePrivateKey", serialization.load_pem_private_key(key, password=None)
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    )
    return request.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

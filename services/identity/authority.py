"""An authority: the P-256 key that signs the certificates of a cluster (RFC 5280).

Rule: a certificate begins in 1970, so that a board without a right clock can be talked to; what ends
trust early is revocation, not time. Each names one identity twice: as the URI that is believed and
as the DNS name that TLS libraries compare.
A cluster whose controller stands in 1970, too, makes certificates that outlive the setting of its clock.
Why P-256: every TLS library speaks it, and gRPC's default list of ciphers expects it.
"""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.identity import Identity

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 365
BEGINNING: Final = dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
"""When every certificate begins: a board without a battery wakes up then."""
_SET_FROM: Final = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
"""A clock before this was never set: nothing of ours is as old."""
_AT_LEAST: Final = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
"""When this was written: what a clock that was never set is taken for, so that setting it ends no certificate."""


class AuthorityError(Exception):
    """An authority that cannot be used, or a request that it does not sign; the message says why."""


@dataclass(frozen=True, slots=True)
class Authority:
    """One authority.

    Attributes:
        key: its private key, PEM (PKCS #8).
        certificate: its certificate, PEM; of an imported one with what leads to its root.
    """

    key: bytes = field(repr=False)
    certificate: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate in DER, hexadecimal: what a join token carries."""
        return fingerprint(self.certificate)

    def issue(
        self,
        request: bytes,
        identity: Identity,
        *,
        now: dt.datetime,
        days: int = CERTIFICATE_DAYS,
        hosts: Sequence[str] = (),
    ) -> bytes:
        """Sign a request (PKCS #10, PEM) for an identity; what the request itself says of a name is not looked at.

        Args:
            request: proves that the asker has the key.
            identity: what the certificate will say.
            now: the time of the authority.
            days: until when it is good, counted from `now`.
            hosts: addresses and names under which it serves HTTPS, whose clients compare those.

        Raises:
            AuthorityError: the request is broken, its key is not one on P-256, or a host is none.
        """
        public = requested_key(request)
        own = x509.load_pem_x509_certificate(self.certificate)
        end = min(_reckoned(now) + dt.timedelta(days=days), own.not_valid_after_utc)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(identity.uri),
            x509.DNSName(identity.dns),
            *map(host_name, hosts),
        ]
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        signer = cast(
            "ec.EllipticCurvePrivateKey",
            serialization.load_pem_private_key(self.key, password=None),
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(identity.name))
            .issuer_name(own.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(BEGINNING)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _reckoned(now: dt.datetime) -> dt.datetime:
    """The time from which a life is counted."""
    return now if now >= _SET_FROM else _AT_LEAST


def make_authority(cluster: str, *, now: dt.datetime) -> Authority:
    """Make an authority of its own for a cluster, good for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    name = _name(f"Shoal {cluster}")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(_reckoned(now) + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_private(key), certificate.public_bytes(serialization.Encoding.PEM))


def check_authority(authority: Authority, *, now: dt.datetime) -> None:
    """Refuse an authority that cannot sign for us, as one that is imported may.

    Raises:
        AuthorityError: its key and its certificate do not belong together, it is no authority, it
            is over, or its key is not on P-256.
    """
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = serialization.load_pem_private_key(authority.key, password=None)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise AuthorityError(
            f"this is not the key and the certificate of an authority: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise AuthorityError("the key of an authority has to be on P-256 (prime256v1)")
    if key.public_key() != certificate.public_key():
        raise AuthorityError("the key is not that of the certificate")
    if not constraints.ca:
        raise AuthorityError("the certificate is not that of an authority (CA:TRUE is missing)")
    if certificate.not_valid_after_utc <= now:
        raise AuthorityError(
            f"the authority is over since {certificate.not_valid_after_utc:%Y-%m-%d}"
        )


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a request.

    Raises:
        AuthorityError: the request is broken, or its key is not one on P-256.
    """
    try:
        found = x509.load_pem_x509_csr(request)
        public = found.public_key()
        signed = found.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise AuthorityError(f"the request for a certificate cannot be read: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise AuthorityError("the key of a certificate has to be on P-256 (prime256v1)")
    if not signed:
        raise AuthorityError("the request for a certificate is not signed with its own key")
    return public


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, hexadecimal; of several in PEM the first counts.

    Raises:
        AuthorityError: it cannot be read.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise AuthorityError(f"a certificate cannot be read: {error}") from error
    return hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest()


def serial_of(certificate: bytes) -> int:
    """Serial number of a certificate, PEM."""
    return x509.load_pem_x509_certificate(certificate).serial_number


def end_of(certificate: bytes) -> dt.datetime:
    """When a certificate (PEM) ends."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def hosts_of(certificate: bytes) -> Sequence[str]:
    """Return the addresses and names of hosts in a certificate (PEM), that of its identity among them."""
    found = x509.load_pem_x509_certificate(certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def host_name(host: str) -> x509.IPAddress | x509.DNSName:
    """Return a host as it stands in a certificate.

    Raises:
        AuthorityError: it is neither an address nor a name.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(
            host.encode("idna").decode()
        )  # as clients write it, RFC 5280 section 7.2
    except ValueError as error:
        raise AuthorityError(
            f"host {host!r} cannot stand in a certificate: {error}; choose another --advertise"
        ) from error


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

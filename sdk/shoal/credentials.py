"""What proves an identity: a key, the certificate for it, and the authorities that are believed.

On disk it is a folder of two PEM files that `openssl` reads: `identity.pem` is the key and the
certificate in one file, so that a renewal replaces both at once, and `authorities.pem` is the
bundle of authorities, of which there are two while one takes over from another.
"""

import datetime as dt
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509

from shoal.affix import beside
from shoal.identity import Identity, IdentityError, Role, dns_name, parse_uri

IDENTITY_FILE: Final = "identity.pem"
AUTHORITIES_FILE: Final = "authorities.pem"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
RENEW_WITHIN: Final = dt.timedelta(days=122)
"""A certificate of a year that has less than this left, a third of it, is renewed."""
_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700


class CredentialsError(Exception):
    """Credentials that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key with its certificate, and the authorities that are believed; each in PEM.

    Attributes:
        identity: what the certificate says.
        key: private key (PKCS #8).
        certificate: certificate of the identity, with what leads to its authority, if anything does.
        authorities: certificates of the authorities that are believed, at least one.
    """

    identity: Identity
    key: bytes = field(repr=False)
    certificate: bytes
    authorities: bytes

    def controller_name(self) -> str:
        """Return the DNS name that a controller of the same cluster proves."""
        return dns_name(self.identity.cluster, Role.CONTROLLER)

    @property
    def end(self) -> dt.datetime:
        """When the certificate ends."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


CredentialsSource: TypeAlias = Callable[[], Credentials | None]
"""Returns the credentials as they are now, since they are renewed; None where nothing has an identity."""


def make_credentials(key: bytes, certificate: bytes, authorities: bytes) -> Credentials:
    """Return credentials with the identity that the certificate says.

    Raises:
        CredentialsError: the certificate cannot be read, or names no identity.
    """
    return Credentials(identity_of(certificate), key, certificate, authorities)


def identity_of(certificate: bytes) -> Identity:
    """Read the identity in a certificate (PEM; of several the first).

    Raises:
        CredentialsError: it cannot be read, or names no identity or several.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise CredentialsError(f"a certificate names {len(uris)} identities instead of one")
        return parse_uri(uris[0])
    except (ValueError, x509.ExtensionNotFound, IdentityError) as error:
        raise CredentialsError(f"a certificate names no identity: {error}") from error


def read_credentials(folder: Path) -> Credentials | None:
    """Read a folder of credentials; None where there is none.

    Raises:
        CredentialsError: it cannot be read, or others may read the key.
    """
    path = folder / IDENTITY_FILE
    try:
        mode = path.stat().st_mode
        own = path.read_bytes()
        authorities = (folder / AUTHORITIES_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialsError(f"{folder} cannot be read: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise CredentialsError(f"others may read the key {path}: chmod 600 {path}")
    try:  # of none, gRPC would believe those of the web instead
        x509.load_pem_x509_certificates(authorities)
    except ValueError as error:
        raise CredentialsError(
            f"{folder / AUTHORITIES_FILE} has no certificates: {error}; join again with a token"
        ) from error
    begins = own.find(_CERTIFICATE)
    if begins <= 0:
        raise CredentialsError(f"{path} is not a key and its certificate; join again with a token")
    try:
        return make_credentials(own[:begins], own[begins:], authorities)
    except CredentialsError as error:
        raise CredentialsError(f"{path}: {error}; join again with a token") from error


def write_credentials(folder: Path, credentials: Credentials) -> None:
    """Write a folder of credentials, durably; the authorities first, since they fit the old key too.

    Raises:
        OSError: the disk is full or broken.
    """
    folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
    write_private(folder / AUTHORITIES_FILE, credentials.authorities)
    write_private(folder / IDENTITY_FILE, credentials.key + credentials.certificate)


def write_private(path: Path, data: bytes) -> None:
    """Put a file that its owner alone may read in the place of what was there, durably.

    Raises:
        OSError: the disk is full or broken.
    """
    draft = beside(path, ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _PRIVATE_FILE)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)

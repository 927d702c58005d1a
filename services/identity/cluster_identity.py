"""What a controller holds of its cluster's identity: a folder that is its user's alone.

`identity/` in the state folder:
- `cluster`: id of the cluster that all of it belongs to, that of the store beside it;
- `authorities/FINGERPRINT.pem`: each authority that is believed, key and certificate;
- `signing`: fingerprint of the one that signs;
- `tickets.key`: raw Ed25519 key that signs tickets of lanes;
- `gossip.key`: the first key that sealed gossip; rotated ones are in the keyring of the member;
- `identity.pem`, `authorities.pem`: what the controller itself proves (`shoal.credentials`).

Rule: a file is written whole or not at all, and what signs is written before what names it, so that
a controller that ends in between starts again with what it had.
"""

import datetime as dt
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from services.identity.authority import (
    Authority,
    AuthorityError,
    check_authority,
    end_of,
    host_name,
    hosts_of,
    make_authority,
)
from services.identity.ticket import TicketSigner, new_ticket_key
from services.runtime.state_folder import PRIVATE_FOLDER
from shoal.credentials import (
    Credentials,
    CredentialsError,
    make_credentials,
    read_credentials,
    write_credentials,
    write_private,
)
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY_BYTES: Final = 32
RENEW_WITHIN_DAYS: Final = 122
"""A certificate of a year that has less than this left, a third of it, is renewed."""


class ClusterIdentity:
    """The authorities and keys of a cluster, as files.

    Its methods read and write files: call them in a thread.

    Args:
        folder: where they are; made if it is missing.
        cluster: id of the cluster of the store.
        controller: name of the controller.
        wall: the time now.
        import_authority: key and certificate (PEM) of the authority of a new cluster; None makes one.
        hosts: addresses and names under which the controller serves HTTPS.

    Raises:
        AuthorityError: the folder belongs to another cluster, or something in it cannot be used.
        OSError: the disk is full or broken.
    """

    def __init__(
        self,
        folder: Path,
        cluster: str,
        controller: str,
        wall: Callable[[], dt.datetime],
        import_authority: Authority | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self._controller = controller
        self._wall = wall
        self._hosts = hosts
        for private in (folder, folder / "authorities"):
            private.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            private.chmod(PRIVATE_FOLDER)
        recorded = self._once("cluster", cluster.encode).decode(errors="replace")
        if recorded != cluster:
            raise AuthorityError(
                f"{folder} belongs to cluster {recorded}, and the store beside it to {cluster}: put back "
                "the store that belongs to it, or move the folder away; every node has to join again then"
            )
        self.signer = TicketSigner(self._key("tickets.key", new_ticket_key))
        self.gossip_key = self._key("gossip.key", lambda: secrets.token_bytes(_KEY_BYTES))
        if not (folder / "signing").exists():
            first = import_authority or make_authority(cluster, now=wall())
            self._keep(first)
            self._sign_with(first.fingerprint)
        self.authorities = self._read_authorities()
        self.credentials = self._own_credentials()

    @property
    def signing(self) -> Authority:
        """The authority that signs."""
        return self.authorities[0]

    @property
    def bundle(self) -> bytes:
        """The certificates of all authorities, the one that signs first."""
        return b"".join(authority.certificate for authority in self.authorities)

    def issue(self, request: bytes, identity: Identity) -> bytes:
        """Sign a request (PEM); see `Authority.issue`."""
        return self.signing.issue(request, identity, now=self._wall())

    def add_authority(self, authority: Authority) -> None:
        """Believe one more authority.

        Raises:
            AuthorityError: it cannot be used.
        """
        self._keep(authority)
        self.authorities = self._read_authorities()

    def use_authority(self, fingerprint: str) -> None:
        """Let an authority that is believed sign from now on, and renew what the controller proves."""
        self._sign_with(fingerprint)
        self.authorities = self._read_authorities()
        self.credentials = self._renewed()

    def remove_authority(self, fingerprint: str) -> None:
        """Believe an authority no more.

        Raises:
            AuthorityError: it is the one that signs.
        """
        if fingerprint == self.signing.fingerprint:
            raise AuthorityError(
                f"the authority {fingerprint[:12]} signs: first let another one, with `shoal authority use`"
            )
        self._path(fingerprint).unlink(missing_ok=True)
        self.authorities = self._read_authorities()
        self.credentials = self._renewed()

    def renew_if_due(self) -> bool:
        """Renew what the controller proves once two thirds of its time are over; say whether it was."""
        left = end_of(self.credentials.certificate) - self._wall()
        if left > dt.timedelta(days=RENEW_WITHIN_DAYS):
            return False
        self.credentials = self._renewed()
        return True

    def _keep(self, authority: Authority) -> None:
        check_authority(authority, now=self._wall())
        write_private(self._path(authority.fingerprint), authority.key + authority.certificate)

    def _sign_with(self, fingerprint: str) -> None:
        write_private(self.folder / "signing", fingerprint.encode())

    def _read_authorities(self) -> Sequence[Authority]:
        signing = (self.folder / "signing").read_text(errors="replace").strip()
        found = [_read(path) for path in sorted((self.folder / "authorities").glob("*.pem"))]
        found.sort(key=lambda authority: authority.fingerprint != signing)
        if not found or found[0].fingerprint != signing:
            raise AuthorityError(
                f"{self._path(signing)} is missing, and it is the authority that signs: put it back from "
                "a copy of the state folder"
            )
        return tuple(found)

    def _own_credentials(self) -> Credentials:
        try:
            known = read_credentials(self.folder)
        except CredentialsError:
            known = None
        own = Identity(self.cluster, Role.CONTROLLER, self._controller)
        if known is None or known.identity != own or known.authorities != self.bundle:
            return self._renewed()
        if end_of(known.certificate) - self._wall() < dt.timedelta(days=RENEW_WITHIN_DAYS):
            return self._renewed()
        hosts = {str(host_name(host).value) for host in self._hosts}
        if not hosts <= set(hosts_of(known.certificate)):
            return self._renewed()
        return known

    def _renewed(self) -> Credentials:
        key = new_key()
        own = Identity(self.cluster, Role.CONTROLLER, self._controller)
        certificate = self.signing.issue(
            signing_request(key, own.name), own, now=self._wall(), hosts=self._hosts
        )
        credentials = make_credentials(key, certificate, self.bundle)
        write_credentials(self.folder, credentials)
        return credentials

    def _once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Read a file, and make it first if it is missing."""
        path = self.folder / name
        if not path.exists():
            write_private(path, make())
        return path.read_bytes()

    def _key(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Read a key, and make it first if it is missing."""
        key = self._once(name, make)
        if len(key) != _KEY_BYTES:
            raise AuthorityError(
                f"{self.folder / name} has {len(key)} bytes, and a key has {_KEY_BYTES}: put it back from a "
                "copy of the state folder, or delete it, and the next start makes another one"
            )
        return key

    def _path(self, fingerprint: str) -> Path:
        return self.folder / "authorities" / f"{fingerprint}.pem"


def read_authority(data: bytes) -> Authority:
    """Read a PEM file with the key and the certificate of an authority.

    Raises:
        AuthorityError: it has not both.
    """
    key_begins, begins = data.find(b"-----BEGIN "), data.find(_CERTIFICATE)
    if key_begins < 0 or begins < 0:
        raise AuthorityError(
            "this is not a PEM file with the key and the certificate of an authority"
        )
    if key_begins < begins:
        return Authority(data[key_begins:begins], data[begins:])
    end = data.find(b"-----BEGIN ", data.rfind(_CERTIFICATE) + len(_CERTIFICATE))
    if end < 0:
        raise AuthorityError("this PEM file has no key; an authority has to sign")
    return Authority(data[end:], data[begins:end])


def _read(path: Path) -> Authority:
    try:
        return read_authority(path.read_bytes())
    except AuthorityError as error:
        raise AuthorityError(f"{path}: {error}") from error

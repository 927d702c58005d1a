"""What a node proves, and what it believes: a folder in its state folder that is its user's alone.

`identity/` in the state folder: `identity.pem` and `authorities.pem` (`shoal.credentials`), and
`trust.json` (`services.identity.trust_file`). With it a board starts, dials and streams without a
controller; a join token is needed once, to make it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509

from edge_agent.config import AgentConfig
from services.identity.trust_file import read_trust, write_trust
from services.runtime.process import StartRefusedError
from shoal.credentials import (
    Credentials,
    CredentialsError,
    make_credentials,
    read_credentials,
    write_credentials,
)
from shoal.session.trust import Trust

FOLDER: Final = "identity"


class NodeIdentity:
    """The identity of a node, as files and in memory.

    Making one, and the methods that replace something, read and write files: call them in a thread,
    one at a time. The others only look at what is in memory.

    Args:
        folder: where it is; it need not exist yet.

    Raises:
        CredentialsError: what is there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._credentials = read_credentials(folder)
        self._trust = read_trust(folder)

    def current(self) -> Credentials | None:
        """Return what the node proves now; None before it has joined."""
        return self._credentials

    @property
    def trust(self) -> Trust:
        """What the cluster trusts, as far as it was told; without its gossip keys."""
        if self._trust is not None:
            return self._trust
        known = self._credentials
        return Trust() if known is None else Trust(known.authorities)

    def join(self, credentials: Credentials, trust: Trust) -> None:
        """Keep what a token was taken for: the trust first, since without credentials nothing is believed by it.

        Raises:
            OSError: the disk is full or broken.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_trust(self.folder, trust)
        write_credentials(self.folder, credentials)
        self._credentials, self._trust = credentials, replace(trust, gossip_keys=())

    def replace_trust(self, trust: Trust) -> None:
        """Believe what the cluster trusts now, in the place of what was believed.

        Raises:
            CredentialsError: its authorities cannot be read, so that nothing would be believed any more.
            OSError: the disk is full or broken; nothing has changed in memory then.
        """
        try:
            x509.load_pem_x509_certificates(trust.authorities)
        except ValueError as error:
            raise CredentialsError(
                f"the authorities that were told cannot be read: {error}"
            ) from error
        known = self._credentials
        if known is not None and trust.authorities and trust.authorities != known.authorities:
            known = replace(known, authorities=trust.authorities)
            write_credentials(self.folder, known)
        write_trust(self.folder, trust)
        self._credentials, self._trust = known, replace(trust, gossip_keys=())

    def replace_certificate(self, key: bytes, certificate: bytes) -> None:
        """Prove the same identity with a new key and certificate (PEM).

        Raises:
            CredentialsError: the certificate is for another identity, or there is none to replace.
            OSError: the disk is full or broken; nothing has changed in memory then.
        """
        known = self._credentials
        if known is None:
            raise CredentialsError("a node that has not joined has no certificate to replace")
        renewed = make_credentials(key, certificate, known.authorities)
        if renewed.identity != known.identity:
            raise CredentialsError(
                f"the new certificate is for {renewed.identity.uri}, and this is {known.identity.uri}"
            )
        write_credentials(self.folder, renewed)
        self._credentials = renewed


def known_identity(config: AgentConfig) -> NodeIdentity:
    """Read the identity of the node that an agent is for.

    Raises:
        StartRefusedError: it cannot be read, or is that of another node.
    """
    folder = config.state / FOLDER
    try:
        identity = NodeIdentity(folder)
    except CredentialsError as error:
        raise StartRefusedError(f"the identity of this node cannot be used: {error}") from error
    known = identity.current()
    if known is not None and known.identity.name != config.name:
        raise StartRefusedError(
            f"{folder} is the identity of node {known.identity.name}, and --name is {config.name}: give "
            f"--name {known.identity.name}, or move the folder away and join again with a token"
        )
    return identity

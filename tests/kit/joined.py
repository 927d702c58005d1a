"""Identities of a controller that runs in a test, signed with the authority in its state folder."""

import datetime as dt
from pathlib import Path

from services.identity.cluster_identity import ClusterIdentity
from services.identity.trust_file import write_trust
from services.membership.gossip_member import KEYRING_NAME
from services.membership.keyring_file import KeyringFile
from shoal.credentials import Credentials, make_credentials, write_credentials
from shoal.identity import Identity, Role
from shoal.session.trust import Trust
from shoal.signing_request import new_key, signing_request


def issued(state: Path, role: Role, name: str) -> Credentials:
    """Make credentials for an identity of the cluster whose controller has this state folder."""
    own = _authority_of(state)
    key = new_key()
    certificate = own.issue(signing_request(key, name), Identity(own.cluster, role, name))
    return make_credentials(key, certificate, own.bundle)


def join_node(state: Path, folder: Path, name: str) -> None:
    """Write what a node has after it has joined to its state folder: credentials, trust and keys of gossip."""
    own = _authority_of(state)
    write_credentials(folder / "identity", issued(state, Role.NODE, name))
    write_trust(folder / "identity", Trust(own.bundle, (own.signer.public_key,)))
    ring = KeyringFile(state / "identity" / KEYRING_NAME).read()
    KeyringFile(folder / "identity" / KEYRING_NAME).write(ring)


def _authority_of(state: Path) -> ClusterIdentity:
    folder = state / "identity"
    cluster = (folder / "cluster").read_text()
    return ClusterIdentity(folder, cluster, "controller", lambda: dt.datetime.now(dt.UTC))

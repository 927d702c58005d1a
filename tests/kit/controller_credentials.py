"""Credentials of people and nodes of a controller that runs, signed with the authority in its state folder."""

import datetime as dt
from pathlib import Path

from services.identity.cluster_identity import ClusterIdentity
from shoal.credentials import Credentials, make_credentials
from shoal.identity import Identity, Role
from shoal.signing_request import new_key, signing_request


def credentials_of(state: Path, role: Role, name: str, namespace: str = "") -> Credentials:
    """Make credentials; `state` is the folder of the controller."""
    folder = state / "identity"
    cluster = (folder / "cluster").read_text()
    own = ClusterIdentity(folder, cluster, "controller", lambda: dt.datetime.now(dt.UTC))
    key = new_key()
    identity = Identity(cluster, role, name, namespace)
    certificate = own.issue(signing_request(key, name), identity)
    return make_credentials(key, certificate, own.bundle)

"""The first operator of a cluster: `operator/local`, for an administrator of the controller's machine.

Rule: a user that may read the state folder of a controller has its authorities' keys and may make any
identity; a folder in it, `identity/operator`, with the credentials of an operator, gives away nothing
more. `shoal --identity STATE/identity/operator` and `shoal up` use it, and so the first token needs no
token. The controller records its certificate, so that it is listed and can be revoked as any other is,
renews it in time, and makes another one at its next start where it was deleted or revoked.
"""

import datetime as dt
from collections.abc import Callable
from typing import Final

from services.identity.authority import serial_of
from services.identity.cluster_identity import ClusterIdentity
from shoal.credentials import (
    RENEW_WITHIN,
    Credentials,
    CredentialsError,
    make_credentials,
    read_credentials,
    write_credentials,
)
from shoal.identity import LOCAL_OPERATOR, Identity, Role
from shoal.signing_request import new_key, signing_request

FOLDER: Final = "operator"


def keep_local_operator(
    cluster: ClusterIdentity,
    now: dt.datetime,
    refused: Callable[[int], bool] = lambda _serial: False,
) -> Credentials:
    """Write the credentials of the local operator, unless those that are there will do; blocks.

    Args:
        cluster: signs them; they go to `operator` in its folder.
        now: the time of the controller.
        refused: whether the certificate with a serial number was revoked; then there will be another.

    Raises:
        OSError: the disk is full or broken.
    """
    folder = cluster.folder / FOLDER
    own = Identity(cluster.cluster, Role.OPERATOR, LOCAL_OPERATOR)
    try:
        known = read_credentials(folder)
    except CredentialsError:
        known = None
    if (
        known is not None
        and known.identity == own
        and known.authorities == cluster.bundle
        and known.end - now > RENEW_WITHIN
        and not refused(serial_of(known.certificate))
    ):
        return known
    key = new_key()
    certificate = cluster.issue(signing_request(key, own.name), own)
    credentials = make_credentials(key, certificate, cluster.bundle)
    write_credentials(folder, credentials)
    return credentials

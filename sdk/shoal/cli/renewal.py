"""The identity of a person is kept fresh by the commands that prove it.

Rule: once two thirds of a certificate's time are over, any command asks for the next one before it does
its own work, with a new key. Once an hour a command also asks which authorities are believed, so that a
person hears of a new one before it signs. A command that is not answered says nothing and goes on: what is
there is still good, and the next command tries again.
"""

import contextlib
import datetime as dt
import os
from pathlib import Path

from shoal.cli.identity_folder import credentials_in
from shoal.errors import ShoalError

_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 3600.0


async def renew_if_due(folder: Path, address: str, now: dt.datetime) -> bool:
    """Renew the credentials in a folder if it is time; say whether there is anything new."""
    from shoal.client import Client
    from shoal.credentials import (
        AUTHORITIES_FILE,
        RENEW_WITHIN,
        CredentialsError,
        make_credentials,
        write_credentials,
        write_private,
    )
    from shoal.signing_request import new_key, signing_request

    with contextlib.suppress(ShoalError, CredentialsError, OSError):
        own = credentials_in(folder)
        bundle = folder / AUTHORITIES_FILE
        due = own.end - now <= RENEW_WITHIN
        asked = abs(now.timestamp() - bundle.stat().st_mtime)
        if own.end <= now or not (due or asked > _ASK_AGAIN_SECONDS):
            return False
        async with Client(address, credentials=own, deadline_seconds=_SECONDS) as client:
            if not due:
                believed = await client.believed()
                if believed in {b"", own.authorities}:
                    os.utime(bundle, (now.timestamp(), now.timestamp()))
                    return False
                write_private(bundle, believed)
                return True
            key = new_key()
            certificate, authorities = await client.renew_certificate(
                signing_request(key, own.identity.name)
            )
        renewed = make_credentials(key, certificate, authorities or own.authorities)
        if renewed.identity == own.identity:
            write_credentials(folder, renewed)
            return True
    return False

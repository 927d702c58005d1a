"""The certificate of a person is renewed by the command that notices that it has to be.

Rule: once two thirds of its time are over, any command asks for the next one before it does its own
work, with a new key. One that cannot get it says nothing and goes on: the old one is still good for
four months, and the next command tries again.
"""

import contextlib
import datetime as dt
from pathlib import Path

from shoal.cli.identity_folder import credentials_in
from shoal.errors import ShoalError

_SECONDS = 10.0


async def renew_if_due(folder: Path, address: str, now: dt.datetime) -> bool:
    """Renew the credentials in a folder if it is time; say whether it was done."""
    from shoal.client import Client
    from shoal.credentials import (
        RENEW_WITHIN,
        CredentialsError,
        make_credentials,
        write_credentials,
    )
    from shoal.signing_request import new_key, signing_request

    with contextlib.suppress(ShoalError, CredentialsError, OSError):
        own = credentials_in(folder)
        if own.end <= now or own.end - now > RENEW_WITHIN:
            return False
        key = new_key()
        async with Client(address, credentials=own, deadline_seconds=_SECONDS) as client:
            certificate, authorities = await client.renew_certificate(
                signing_request(key, own.identity.name)
            )
        renewed = make_credentials(key, certificate, authorities or own.authorities)
        if renewed.identity == own.identity:
            write_credentials(folder, renewed)
            return True
    return False

"""The trust of a cluster as a node keeps it, so that it starts without its controller."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any, Final

from shoal.credentials import CredentialsError, write_private
from shoal.session.trust import Trust

NAME: Final = "trust.json"


def write_trust(folder: Path, trust: Trust) -> None:
    """Keep a trust in a folder of credentials; its gossip keys are the keyring's, and are left out.

    Raises:
        OSError: the disk is full or broken.
    """
    said = {
        "authorities": trust.authorities.decode(),
        "ticket_keys": [base64.b64encode(key).decode() for key in trust.ticket_keys],
        "revoked": list(trust.revoked),
    }
    write_private(folder / NAME, json.dumps(said, indent=1).encode() + b"\n")


def read_trust(folder: Path) -> Trust | None:
    """Read the trust in a folder of credentials; None where there is none.

    Raises:
        CredentialsError: it cannot be read.
    """
    path = folder / NAME
    try:
        said: Any = json.loads(path.read_bytes())
        return Trust(
            str(said["authorities"]).encode(),
            tuple(base64.b64decode(str(key), validate=True) for key in said["ticket_keys"]),
            tuple(str(serial) for serial in said["revoked"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise CredentialsError(
            f"{path} cannot be read: {error}; join again with a token"
        ) from error

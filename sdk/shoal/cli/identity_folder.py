"""Where the identity is that a command proves to a controller: a folder of credentials, or none.

Rule, the first that says something wins:
1. --identity FOLDER, or SHOAL_IDENTITY;
2. the record of a cluster of `shoal up` with this address;
3. `identities/HOST_PORT` in the state folder of the user, which `shoal login` makes.
Else nothing is proved, and the controller is dialled in the clear.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shoal.cli.cluster_record import running_clusters
from shoal.cli.state_home import NoHomeError, from_home, state_home
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.credentials import Credentials


def login_folder(address: str) -> Path:
    """Return where `shoal login` keeps the identity for the controller at `host:port`."""
    host, _, port = address.rpartition(":")
    return state_home() / "identities" / f"{host.lower()}_{port}".replace("/", "_")


def identity_folder(given: str, address: str) -> Path | None:
    """Find the folder for a controller; None where there is none.

    Args:
        given: of --identity or SHOAL_IDENTITY; empty for neither.
        address: `host:port` of the controller.
    """
    if given:
        return from_home(Path(given))
    meant = _loopback(address)
    for record in running_clusters():
        if record.controller == meant:
            return Path(record.identity) if record.identity else None
    try:
        folder = login_folder(address)
    except NoHomeError:  # where no login is kept, nothing is proved
        return None
    return folder if folder.is_dir() else None


def _loopback(address: str) -> str:
    """Return the address with the number of this machine in the place of its name."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host.lower() == "localhost" else address


def credentials_in(folder: Path) -> "Credentials":
    """Read the credentials in a folder that was chosen.

    Raises:
        ShoalError: there are none, or they cannot be used.
    """
    from shoal.credentials import CredentialsError, read_credentials

    try:
        found = read_credentials(folder)
    except CredentialsError as error:
        raise ShoalError("CREDENTIALS", str(error), code="UNAUTHENTICATED") from error
    if found is None:
        raise ShoalError(
            "CREDENTIALS",
            f"there is no identity in {folder}: name a folder that `shoal login` made or the "
            "identity/operator of a controller's state folder, or leave --identity and SHOAL_IDENTITY out",
            code="UNAUTHENTICATED",
        )
    return found

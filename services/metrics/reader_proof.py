"""What a page of figures proves beyond loopback, and which readers it believes."""

from collections.abc import Callable
from dataclasses import dataclass

from shoal.credentials import Credentials


@dataclass(frozen=True, slots=True)
class ReaderProof:
    """Both sides of a handshake.

    Attributes:
        identity: returns what the page proves; readers have to prove an identity of the same authorities.
        is_revoked: says whether a certificate with a serial number is believed no more.
    """

    identity: Callable[[], Credentials]
    is_revoked: Callable[[int], bool]

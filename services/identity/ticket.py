"""A ticket: what a controller has allowed on one lane, which a stream worker can check by itself.

Rule: the controller signs a ticket with the assignment (Ed25519, RFC 8032); the end that dials shows
it, and the worker that is dialled checks the signature, that the TLS peer is the node that the
ticket names, and that the epochs are those it knows. A ticket has no end in time: boards stream on
through a long outage and without a right clock, and a newer epoch fences the older one.
Example: the consumer `sink-0` on cam-2 shows a ticket for `source.out/sink.in`, from cam-1 at epoch 7
to cam-2 at epoch 9; a worker that knows epoch 10 of the consumer refuses it.
"""

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from shoal.v1.streams_service_pb2 import LaneTicket

SIGNATURE_BYTES: Final = 64
_CONTEXT: Final = b"shoal lane ticket 1\n"
"""What is signed begins with this, so that nothing else that the key signs is taken for a ticket."""


class TicketError(ValueError):
    """A ticket that is not believed; the message says why."""


class TicketSigner:
    """Signs tickets.

    Args:
        key: raw private key, 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)

    @property
    def public_key(self) -> bytes:
        """Raw public key, 32 bytes, by which workers check."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def sign(self, ticket: LaneTicket) -> bytes:
        """Return a ticket as it travels: the signature, then what is signed."""
        said = ticket.SerializeToString(deterministic=True)
        return self._key.sign(_CONTEXT + said) + said


def new_ticket_key() -> bytes:
    """Make a raw private key, 32 bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def read_ticket(ticket: bytes, public_keys: Sequence[bytes]) -> LaneTicket:
    """Return what a ticket says, once one of the keys (32 bytes each) has signed it.

    Raises:
        TicketError: there is none, none of the keys has signed it, or it cannot be read.
    """
    if not ticket:
        raise TicketError("no ticket was shown")
    signature, said = ticket[:SIGNATURE_BYTES], ticket[SIGNATURE_BYTES:]
    if not any(_signed(key, signature, said) for key in public_keys):
        raise TicketError("the ticket is not signed by a controller of this cluster")
    try:
        return LaneTicket.FromString(said)
    except DecodeError as error:
        raise TicketError(f"the ticket cannot be read: {error}") from error


def producer_node_of(ticket: bytes) -> str:
    """Return the node that the holder of a ticket is to dial; empty where the ticket cannot be read.

    Nothing is checked: the controller gave the holder the ticket, and the worker that is dialled checks it.
    """
    try:
        return LaneTicket.FromString(ticket[SIGNATURE_BYTES:]).producer_node
    except DecodeError:
        return ""


def _signed(key: bytes, signature: bytes, said: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _CONTEXT + said)
    except (InvalidSignature, ValueError):
        return False
    return True

"""The cleartext label around packets and streams that keeps neighbouring clusters apart.

`244 | u8 length 1..255 | label`, outermost. A label is no secret; under encryption it is also
authenticated, as additional data.
"""

from __future__ import annotations

from typing import Final

from services.membership.message import MessageType
from services.membership.refusal import DropReason, RefusedError

LABEL_BYTES_MAX: Final = 255
_HEADER_BYTES: Final = 2


def label_header(label: bytes) -> bytes:
    """Give the header to put before a packet or a dialled stream; empty for no label.

    Raises:
        ValueError: The label is longer than 255 bytes.
    """
    if not label:
        return b""
    if len(label) > LABEL_BYTES_MAX:
        raise ValueError(f"label has {len(label)} bytes; use at most {LABEL_BYTES_MAX}")
    return bytes((MessageType.HAS_LABEL, len(label))) + label


def split_label(data: bytes) -> tuple[bytes, bytes]:
    """Take the label off a packet: `(label, rest)`, with an empty label where there is none.

    Raises:
        RefusedError: The header is cut short, or its label empty.
    """
    if not data or data[0] != MessageType.HAS_LABEL:
        return b"", data
    if len(data) < _HEADER_BYTES or len(data) < _HEADER_BYTES + data[1]:
        raise RefusedError(DropReason.TRUNCATED, "label header is cut short")
    if data[1] == 0:
        raise RefusedError(DropReason.MALFORMED, "label is present but empty")
    end = _HEADER_BYTES + data[1]
    return data[_HEADER_BYTES:end], data[end:]


def check_label(found: bytes, ours: bytes) -> None:
    """Refuse traffic of another cluster.

    Raises:
        RefusedError: The labels differ.
    """
    if found != ours:
        raise RefusedError(DropReason.WRONG_LABEL, f"label {found!r} is not {ours!r}")

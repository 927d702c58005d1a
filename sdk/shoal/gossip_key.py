"""The keys that seal gossip: AES keys, and names for them that tell nothing."""

import base64
import binascii
import hashlib
import re
from typing import Final

KEY_BYTES: Final = (16, 24, 32)
_HEXADECIMAL: Final = re.compile(r"(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{48}|[0-9a-fA-F]{64})")
_ID_DIGITS: Final = 12


def parse_key(text: str) -> bytes:
    """Read an AES key of 16, 24 or 32 bytes in hexadecimal or base64.

    Raises:
        ValueError: it is neither, or of another length; the message does not hold the key.
    """
    text = text.strip()
    if _HEXADECIMAL.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_BYTES:
        raise ValueError(
            f"a key of {len(text)} characters is not 16, 24 or 32 bytes in base64 or hexadecimal; "
            "make one with: shoal keys generate"
        )
    return key


def write_key(key: bytes) -> str:
    """Write a key as files have it: in base64."""
    return base64.b64encode(key).decode()


def key_id(key: bytes) -> str:
    """Name a key without telling it: the first 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:_ID_DIGITS]

"""What a key of an object may look like."""

import re
from typing import Final

KEY_BYTES_MAX = 1024
"""Longest key in bytes of UTF-8 (Amazon S3 User Guide, "Naming Amazon S3 objects")."""

SEGMENT_BYTES_MAX = 255
"""Longest part between two slashes in bytes: the longest file name of common file systems."""


_PLAIN: Final = re.compile(r"[\w-][\w.-]{0,254}(?:/[\w-][\w.-]{0,254})*", re.ASCII)
"""Keys as nearly all are, of which only the length is left to be looked at."""


class InvalidKeyError(ValueError):
    """A key that no store takes, so that none can be led out of its folder."""


def check_key(key: str) -> str:
    """Return `key` if every store can keep an object under it.

    Raises:
        InvalidKeyError: when it is empty or too long, begins or ends with a slash, has an empty
            part, `.` or `..`, or a null character. Any other name of a file can be one, line breaks
            included: addresses carry keys quoted, and manifests are JSON.
    """
    if len(key) <= KEY_BYTES_MAX and _PLAIN.fullmatch(key):
        return key
    if not key:
        raise InvalidKeyError("the key is empty: name the object")
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(f"key {key!r} is not UTF-8: rename the file") from None
    if len(encoded) > KEY_BYTES_MAX:
        raise InvalidKeyError(
            f"key {key[:80]!r}… has {len(encoded)} bytes; at most {KEY_BYTES_MAX} are allowed"
        )
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise InvalidKeyError(
                f"key {key!r} has the part {segment!r}: use relative paths without `.` and `..`"
            )
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            raise InvalidKeyError(
                f"key {key!r} has a part of more than {SEGMENT_BYTES_MAX} bytes: shorten the name"
            )
    if "\0" in key:
        raise InvalidKeyError(f"key {key!r} has a null character: rename the file")
    return key

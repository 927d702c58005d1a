"""Serf's tags in a member's meta: byte 255 and a msgpack map of text to text.

Meta without the leading 255 is the old single `role`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from services.membership.dialect import pack, unpack
from services.membership.fields import META_BYTES_MAX, mapping, text
from services.membership.refusal import RefusedError

_MARK: Final = 0xFF


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Encode tags into meta.

    Raises:
        ValueError: They need more than 512 bytes.
    """
    if not tags:
        return b""
    meta = bytes((_MARK,)) + pack(dict(sorted(tags.items())))
    if len(meta) > META_BYTES_MAX:
        raise ValueError(
            f"tags need {len(meta)} bytes, over {META_BYTES_MAX}; shorten or drop some"
        )
    return meta


@lru_cache(maxsize=16384)
def decode_tags(meta: bytes) -> Mapping[str, str]:
    """Decode meta into tags; what cannot be read is no tags at all, never an error."""
    if not meta:
        return MappingProxyType({})
    if meta[0] != _MARK:
        return MappingProxyType({"role": meta.decode("utf-8", "replace")})
    try:
        pairs = mapping(unpack(meta[1:]), "meta").items()
        tags = {text(key, "tag"): text(item, "tag") for key, item in pairs}
    except RefusedError:
        return MappingProxyType({})
    return MappingProxyType(tags)

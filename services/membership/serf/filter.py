"""Which members a query asks: filters by name, and by tag with a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

from services.membership.dialect import pack, unpack
from services.membership.fields import U16_MAX, fields, items, octets, text
from services.membership.refusal import DropReason, RefusedError

_EXPRESSION_MAX: Final = 256
_REPETITIONS_MAX: Final = 2
_REPEATED_GROUP: Final = re.compile(r"\)[*+?{]|\\[1-9]|\(\?[^:]")
_REPETITION: Final = re.compile(r"[*+{]")


class FilterType(IntEnum):
    """First byte of a filter."""

    NODE = 0
    TAG = 1


def encode_filters(names: Iterable[str], tags: Mapping[str, str]) -> tuple[bytes, ...]:
    """Write filters that let through the named members with the matching tags."""
    filters: list[bytes] = []
    wanted = list(names)
    if wanted:
        filters.append(bytes((FilterType.NODE,)) + pack(wanted))
    filters.extend(
        bytes((FilterType.TAG,)) + pack({"Expr": expression, "Tag": tag})
        for tag, expression in sorted(tags.items())
    )
    return tuple(filters)


def passes(filters: Iterable[bytes], name: str, tags: Mapping[str, str]) -> bool:
    """Whether a query asks a member; one with a filter that cannot be read asks no member.

    Raises:
        RefusedError: A filter is malformed.
    """
    for packed in filters:
        if not packed:
            raise RefusedError(DropReason.EMPTY, "empty query filter")
        body = unpack(memoryview(packed)[1:])
        if packed[0] == FilterType.NODE:
            if name not in {text(item, "name") for item in items(body, U16_MAX, "node filter")}:
                return False
        elif packed[0] == FilterType.TAG:
            tag, expression = fields(body, (b"Tag", b"Expr"))
            if not _matches(expression, tags.get(text(tag, "Tag"), "")):
                return False
        else:
            raise RefusedError(DropReason.UNKNOWN_TYPE, f"query filter of type {packed[0]}")
    return True


def _matches(expression: object, value: str) -> bool:
    """Match as Go's regexp does: anywhere, unless anchored."""
    pattern = octets(expression, _EXPRESSION_MAX, "Expr").decode("utf-8", "replace")
    # Go's engine is linear, ours is not: a pattern that could run for long is not run at all.
    if _REPEATED_GROUP.search(pattern) or len(_REPETITION.findall(pattern)) > _REPETITIONS_MAX:
        raise RefusedError(DropReason.NOT_ADMITTED, f"tag expression {pattern!r} repeats too much")
    try:
        return re.search(pattern, value) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise RefusedError(DropReason.MALFORMED, f"tag expression: {error}") from error

"""Why a peer's input was not accepted: one exception, a closed list of reasons."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """The reasons under which refused input is counted; the values are counter names."""

    EMPTY = "empty"
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    OUT_OF_RANGE = "out_of_range"
    TOO_BIG = "too_big"
    TOO_DEEP = "too_deep"
    TRUNCATED = "truncated"
    BAD_CHECKSUM = "bad_checksum"
    WRONG_LABEL = "wrong_label"
    UNDECRYPTABLE = "undecryptable"
    NOT_ENCRYPTED = "not_encrypted"
    BAD_COMPRESSION = "bad_compression"
    INCOMPATIBLE = "incompatible"
    WRONG_NODE = "wrong_node"
    CONFLICT = "conflict"
    OVERLOADED = "overloaded"
    ACCUSER_LIMIT = "accuser_limit"
    NOT_ADMITTED = "not_admitted"
    PEER_ERROR = "peer_error"
    UNPROBED = "unprobed"


class RefusedError(Exception):
    """A peer's input is refused; nothing of it was applied.

    Args:
        reason: What it is counted under.
        detail: One sentence for the log: the thing, the value, the bound.
    """

    def __init__(self, reason: DropReason, detail: str) -> None:
        """Keep the reason beside the sentence."""
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

"""Where the next page of a list begins, as a word that means nothing to its reader.

Rule. A token is good for the question that it answers a part of, and for no other: it has a digest of the method and of
all that is asked but the size and the token of a page. So a filter that was changed between two pages is a mistake that
is told, and not a list with gaps.

What it says is where the page before ended, by what never changes of the things listed; the controller remembers
nothing of it. It is no secret: a caller that makes one up gets a part of a list that it may read anyway.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from control.core.errors import ControlError, PageTokenError
from shoal.limits import INTEGER_MAX

_DIGEST_BYTES: Final = 6
_TOKEN_CHARACTERS_MAX: Final = 4_096

PartT = TypeVar("PartT", int, str)


class PageTokens:
    """The tokens of one list, or of one watch.

    Args:
        method: which list it is.
        request: what is asked for; its field `page_size` and that of the token are left out of account.
        field: the field of the request that has the token.
        error: what is raised for a token that is none.
    """

    def __init__(
        self,
        method: str,
        request: Message,
        field: str = "page_token",
        error: type[ControlError] = PageTokenError,
    ) -> None:
        asked = type(request)()
        asked.CopyFrom(request)
        for one in {"page_size", field} & {*asked.DESCRIPTOR.fields_by_name}:
            asked.ClearField(one)
        said = method.encode() + b"\0" + asked.SerializeToString(deterministic=True)
        self._digest = blake2b(said, digest_size=_DIGEST_BYTES).hexdigest()
        self._token = getattr(cast("Any", request), field)
        self._name = field.replace("_", " ")
        self._error = error

    def write(self, key: Sequence[int | str] | None) -> str:
        """Return the token for what is behind a key; empty where nothing is."""
        if key is None:
            return ""
        said = json.dumps([self._digest, *key], separators=(",", ":"))
        return base64.urlsafe_b64encode(said.encode()).rstrip(b"=").decode()

    def read(self, kind: type[PartT], *lengths: int) -> tuple[PartT, ...] | None:
        """Return the key in the token of the request, of so many parts of a kind; None for the first page.

        Raises:
            ControlError: it is no token, or one of another list.
        """
        token = self._token
        if not token:
            return None
        parts = _parts(token)
        if parts is None:
            raise self._error(
                f"{self._name} {token[:100]!r} is none of ours: use the one of the last answer, unchanged"
            )
        if parts[0] != self._digest:
            raise self._error(
                f"{self._name} {token[:100]!r} is of another list, or of this one with another filter, order or "
                "namespace: ask for what was asked before, or begin without a token"
            )
        key = tuple(parts[1:])
        if len(key) not in lengths or not all(type(one) is kind and _is_kept(one) for one in key):
            raise self._error(
                f"{self._name} {token[:100]!r} was changed on its way: use the one of the last answer, unchanged"
            )
        return cast("tuple[PartT, ...]", key)


def _is_kept(part: Any) -> bool:
    return not isinstance(part, int) or 0 <= part <= INTEGER_MAX


def _parts(token: str) -> list[Any] | None:
    if len(token) > _TOKEN_CHARACTERS_MAX:
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        parts: Any = json.loads(data)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return [*parts] if type(parts) is list and parts else None

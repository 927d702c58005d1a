"""A page of a list that is in memory as a whole."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from control.front.api.request import page_size_of
from control.front.page_token import PageTokens

ItemT = TypeVar("ItemT")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Paged(Protocol):
    """A request that asks for a page."""

    @property
    def page_size(self) -> int: ...


def page_of(
    items: Iterable[ItemT],
    key: Callable[[ItemT], str],
    request: _Paged,
    tokens: PageTokens,
    *,
    backwards: bool = False,
    size_unset: int | None = None,
) -> tuple[Sequence[ItemT], str]:
    """Return the things of a page in the order of their keys, and the token of the next page.

    Args:
        items: all things, in any order.
        key: never changes of a thing, and is its own.
        request: asks for the page.
        tokens: those of its list.
        backwards: whether the last key comes first.
        size_unset: how many a page has that is asked for without a size; None for all.

    Raises:
        PageTokenError: the token is none of this list.
        RpcError: the size is negative.
    """
    keyed = sorted(((key(item), item) for item in items), key=_first, reverse=backwards)
    behind = tokens.read(str, 1)
    if behind is not None:
        last = behind[0]
        keyed = [one for one in keyed if (one[0] < last if backwards else one[0] > last)]
    size = page_size_of(request.page_size) if request.page_size else size_unset or len(keyed)
    more = (keyed[size - 1][0],) if len(keyed) > size else None
    return [item for _, item in keyed[:size]], tokens.write(more)


def key_of(time: datetime, name: str) -> str:
    """Return the key of a thing that is listed by when it was made, and by its name where times are equal."""
    return f"{(time - _EPOCH) // timedelta(microseconds=1):020d}/{name}"


def _first(one: tuple[str, ItemT]) -> str:
    return one[0]

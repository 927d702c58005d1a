"""What a watch does not say by itself: what went while its reader was cut off."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from shoal.view import SnapshotEnd


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


async def with_gone(
    watch: Callable[[Callable[[int], object]], AsyncGenerator[NamedT | SnapshotEnd, None]],
    request: Callable[[int], object],
    as_gone: Callable[[NamedT], NamedT],
    is_gone: Callable[[NamedT], bool],
) -> AsyncGenerator[NamedT | SnapshotEnd, None]:
    """Say of what went during a cut that it is gone: a snapshot after it does not have it.

    Args:
        watch: begins the watch; its argument asks for what is behind a revision.
        request: makes that request.
        as_gone: turns what was shown last into what says that it is gone.
        is_gone: recognises that.
    """
    known: dict[str, NamedT] = {}
    shown: set[str] = set()

    def begin(revision: int) -> object:
        shown.clear()  # a snapshot, if there is one, begins now
        return request(revision)

    async with contextlib.aclosing(watch(begin)) as changes:
        async for change in changes:
            if isinstance(change, SnapshotEnd):
                for name in sorted(known.keys() - shown):
                    yield as_gone(known.pop(name))
            else:
                shown.add(change.name)
                known[change.name] = change
                if is_gone(change):
                    del known[change.name]
            yield change

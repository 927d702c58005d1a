"""What went wrong first, where several things went wrong at once."""

from __future__ import annotations

from typing import cast


def first_cause(error: BaseException) -> BaseException:
    """Return the first error of a group, of its groups, and so on; any other error is its own."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error

"""What went wrong, where several things went wrong at once."""

from typing import cast


def causes(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, of its groups, and so on, the first one first; any other is its own."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inner = cast("BaseExceptionGroup[BaseException]", error)
    return [cause for one in inner.exceptions for cause in causes(one)]

"""Long work, done without its threads."""

from typing import TypeVar

from edge_agent.long_work import Steps

ValueT = TypeVar("ValueT")


def done_at_once(steps: Steps[ValueT]) -> ValueT:
    """Do all steps here and now."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            value: ValueT = done.value
            return value

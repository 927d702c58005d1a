"""The link from an agent to what its machine says of itself."""

from typing import Protocol

from shoal.node_facts import NO_FACTS, NodeFacts


class FactsMeter(Protocol):
    """Reads what a machine is and how it stands."""

    async def read(self, *, window_seconds: float = 0.0) -> NodeFacts:
        """What there is to know now; the cores are watched for so long, 0 for since the last time."""
        ...


class NoFacts:
    """A machine that says nothing of itself."""

    async def read(self, *, window_seconds: float = 0.0) -> NodeFacts:  # noqa: ARG002 - as of FactsMeter
        """Nothing."""
        return NO_FACTS

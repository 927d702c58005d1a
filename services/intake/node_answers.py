"""What answers the questions about nodes that messages ask."""

from typing import Protocol

from services.intake.message import NodeQuestion


class NodeAnswers(Protocol):
    """Answers questions about nodes where the dashboard listens."""

    async def answer(self, question: NodeQuestion) -> None:
        """Answer one.

        Raises:
            ServerAwayError: the controller or the broker is away.
            RequestRefusedError: it cannot be answered.
        """
        ...

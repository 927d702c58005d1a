"""Where programs run that are not the agent's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class ProgramRoom(Protocol):
    """A user, variables and folders for programs."""

    async def run(
        self,
        argv: Sequence[str],
        timeout_seconds: float,
        folder: Path | None = None,
        *,
        old_pip: bool = False,
    ) -> str:
        """Run a program to its end and everything that it started; return what it printed.

        Raises:
            CommandFailedError: it could not be started, failed, or took too long.
        """
        ...

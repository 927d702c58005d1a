"""The link from an agent to what the programs of its attempts print."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from edge_agent.secrets.secret_mask import NO_MASK, SecretMask
from shoal.names import AttemptRef
from shoal.session.log_piece import LogPiece


class AttemptLogs(Protocol):
    """Ships what programs print while a session stands; `edge_agent.logs` has the rules."""

    def follow(
        self,
        ref: AttemptRef,
        folder: Path | str,
        mask: SecretMask = NO_MASK,
        *,
        ended: bool = False,
    ) -> None:
        """Ship what an attempt prints, now and later, with its secrets hidden; or printed until it `ended`."""
        ...

    def unfollow(self, ref: AttemptRef) -> None:
        """Ship nothing more of an attempt."""
        ...

    def last_words(self, folder: Path, mask: SecretMask = NO_MASK) -> str:
        """The end of what an attempt complained about, with its secrets hidden."""
        ...

    def session_opened(self) -> None:
        """A session stands."""
        ...

    def session_closed(self) -> None:
        """The session is over; what was not confirmed is sent again later."""
        ...

    def confirm(self, piece: LogPiece) -> None:
        """The controller has committed a piece."""
        ...

    def is_finished(self, ref: AttemptRef) -> bool:
        """Say whether all of an attempt that has ended is with the controller; nothing more is shipped of it then."""
        ...

    async def finish(self, ref: AttemptRef, deadline_seconds: float) -> bool:
        """Wait until all of an attempt that has ended is with the controller; say whether it is."""
        ...

    async def run(self) -> None:
        """Ship until cancelled."""
        ...


LogsOpener: TypeAlias = Callable[[Callable[[LogPiece], Awaitable[None]]], AttemptLogs]
"""Makes the logs of a node; it is given what hands a piece to the session."""

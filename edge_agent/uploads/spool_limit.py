"""How much may wait on a board for the archive before it takes no new work: decided here.

Results that no archive takes stay on the board, for as long as that is: nothing of them is given up.
So what has to end is new work, before the disk is full of results. Example: of a disk of 50 GB 10 GB
may wait; with 10.2 GB waiting the node refuses, and takes work again once 7.5 GB are left.
"""

from typing import Final

from edge_agent.disk_watch import size_text

_SHARE: Final = 5
_AGAIN: Final = 0.75


class SpoolLimit:
    """Decides whether a node takes new work.

    Args:
        limit_bytes: how much may wait; None for a fifth of the disk, 0 for any amount.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes
        self.refusal = ""
        """Why nothing new is taken; empty while it is."""

    def measured(self, waiting_bytes: int, attempts: int, disk_bytes: int) -> None:
        """Take how much waits, of how many attempts, and how large the disk is."""
        limit = disk_bytes // _SHARE if self._limit_bytes is None else self._limit_bytes
        again = int(limit * _AGAIN)
        if not limit or waiting_bytes < (again if self.refusal else limit):
            self.refusal = ""
        elif not self.refusal:
            self.refusal = (
                f"its upload spool is full: {size_text(waiting_bytes)} of {attempts} attempts wait for "
                f"the archive, and {size_text(limit)} may (--spool-limit); it takes work again below "
                f"{size_text(again)}, and loses nothing"
            )

"""Counts by reason, and at most one log line a minute for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from services.membership.refusal import DropReason

if TYPE_CHECKING:
    import logging

_LINE_EVERY_SECONDS: Final = 60.0


class Counters:
    """What was sent, received and dropped.

    Args:
        log: Where drops are mentioned.
        name: The member's own name, for the log.
    """

    def __init__(self, log: logging.Logger, name: str) -> None:
        self._log = log
        self._name = name
        self._counts: dict[str, int] = {}
        self._mentioned: dict[str, float] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """Counts by name; drops are named `dropped_<reason>`."""
        return dict(self._counts)

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        self._counts[name] = self._counts.get(name, 0) + count

    def drop(self, reason: DropReason | str, detail: str, now: float) -> None:
        """Count a drop, and mention it if the last mention is a minute ago."""
        name = f"dropped_{reason}"
        self.add(name)
        if now - self._mentioned.get(name, float("-inf")) >= _LINE_EVERY_SECONDS:
            self._mentioned[name] = now
            self._log.warning(
                "%s dropped input, %s: %s (%d so far)",
                self._name,
                reason,
                detail,
                self._counts[name],
            )

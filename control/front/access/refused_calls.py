"""Refused calls, counted per caller until they are told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

CALLERS_MAX: Final = 1000
"""Callers that are counted one by one between two tellings; the rest are one."""

OTHERS: Final = "others"


@dataclass(slots=True)
class RefusedCalls:
    """What of one caller was refused.

    Attributes:
        reasons: how often, by reason.
        method: the last method.
        address: where the last call came from.
    """

    reasons: Counter[str] = field(default_factory=Counter[str])
    method: str = ""
    address: str = ""


class RefusalCount:
    """Counts refused calls of a bounded number of callers."""

    def __init__(self) -> None:
        self._callers: dict[str, RefusedCalls] = {}

    def count(self, caller: str, method: str, address: str, reason: str) -> None:
        """Count a call that was refused."""
        if caller not in self._callers and len(self._callers) >= CALLERS_MAX:
            caller = OTHERS
        calls = self._callers.setdefault(caller, RefusedCalls())
        calls.reasons[reason] += 1
        calls.method, calls.address = method, address

    def take(self) -> dict[str, RefusedCalls]:
        """Return what was counted, by caller, and begin anew."""
        taken, self._callers = self._callers, {}
        return taken

    def put_back(self, taken: dict[str, RefusedCalls]) -> None:
        """Count again what could not be told."""
        for caller, calls in taken.items():
            for reason, times in calls.reasons.items():
                self.count(caller, calls.method, calls.address, reason)
                known = self._callers.get(caller) or self._callers[OTHERS]
                known.reasons[reason] += times - 1

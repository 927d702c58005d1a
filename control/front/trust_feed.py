"""What of the cluster's trust the control plane decides: which certificates are revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from control.core.effects import Effect, TrustChanged
from control.core.errors import ControlError
from control.core.machine import ControlMachine

_BEFORE: Final = 2
"""Where among effects it is said that trust changed: at the beginning, behind what is to be recorded."""


class TrustFeed:
    """Serial numbers of revoked certificates, as they were committed last (a `Projection`).

    They outlast a machine that is built anew: what was revoked is refused meanwhile, too.

    Attributes:
        revoked: serial numbers, hexadecimal.
    """

    def __init__(self) -> None:
        self.revoked: tuple[str, ...] = ()
        self._known: frozenset[str] = frozenset()
        self._followers: set[asyncio.Event] = set()

    def is_revoked(self, serial: int) -> bool:
        """Whether a certificate with this serial number is believed no more."""
        return f"{serial:x}" in self._known

    def begin(self, machine: ControlMachine) -> None:
        """Begin anew with a machine that was built from the store; called in a thread."""
        self._take(machine)

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Take what a commit revoked."""
        if any(type(effect) is TrustChanged for effect in effects[:_BEFORE]):
            self._take(machine)
            self.say()

    def cut_off(self, error: ControlError) -> None:
        """Nothing: what is revoked stays so."""

    def say(self) -> None:
        """Let followers know that the trust of the cluster is another one now."""
        for changed in self._followers:
            changed.set()

    async def follow(self) -> AsyncGenerator[None, None]:
        """Yield at once, and then whenever the trust has changed; changes are coalesced."""
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            while True:
                yield
                # No deadline: nothing may change for months; the caller's cancellation ends it.
                await changed.wait()
                changed.clear()
        finally:
            self._followers.discard(changed)

    def _take(self, machine: ControlMachine) -> None:
        self.revoked = machine.identities.revoked()
        self._known = frozenset(self.revoked)

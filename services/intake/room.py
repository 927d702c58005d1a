"""How many messages of one source may be under way."""

import asyncio
from dataclasses import dataclass, field


@dataclass(eq=False)
class DeliveryRoom:
    """Places for messages; one task takes them, and any gives them back.

    Args:
        free: how many there are.
    """

    free: int
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def wait(self) -> int:
        """Wait until there is a place, and return how many there are."""
        while self.free <= 0:
            self._changed.clear()
            await self._changed.wait()
        return self.free

    async def take(self) -> None:
        """Take a place, once there is one."""
        await self.wait()
        self.free -= 1

    def give_back(self) -> None:
        """Give a place back."""
        self.free += 1
        self._changed.set()

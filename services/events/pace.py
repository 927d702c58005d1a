"""How fast messages may leave: so many, and so many bytes, a second."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Says for each message how long it waits; the first one leaves at once.

    `messages_a_second` and `bytes_a_second` are bounds over any time; 0 for none.
    """

    messages_a_second: float
    bytes_a_second: float
    _free_at: float = 0.0

    def wait_seconds(self, size_bytes: int, now: float) -> float:
        """Take a place for a message, and return how long it has to wait for it."""
        begins = max(now, self._free_at)
        takes = 1 / self.messages_a_second if self.messages_a_second else 0.0
        if self.bytes_a_second:
            takes = max(takes, size_bytes / self.bytes_a_second)
        self._free_at = begins + takes
        return begins - now

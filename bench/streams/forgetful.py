"""P11's other side: a stream worker that keeps nothing and acknowledges nothing, for measuring only.

It is the product's worker with two short cuts: a producer lets go of a block as soon as it is sent,
and a consumer says how far it is only where the producer would run out of credit, which any bounded
stream has to tell. A record that is lost on the way is lost for ever, so that nothing but a benchmark
may use it.
"""

from __future__ import annotations

import sys

from services.streams.block_index import RetainedBlock
from services.streams.effects import SendBlock
from services.streams.receiver import ReceiveLane
from services.streams.sender import SendLane
from services.streams.worker.__main__ import main


class ForgetfulSender(SendLane):
    """Lets go of what it sends."""

    def _block(self, call: int, retained: RetainedBlock, body: bytes | memoryview) -> SendBlock:
        effect = super()._block(call, retained, body)
        self.released = max(self.released, retained.end)
        return effect


class SilentReceiver(ReceiveLane):
    """Tells nothing but what flow control needs."""

    @property
    def unacknowledged(self) -> bool:
        """Only when credit runs low."""
        return self.urgent


def shorten() -> None:
    """Put the short cuts into this process."""
    for name, shortcut in (("attempt_output", ForgetfulSender), ("machine", SilentReceiver)):
        module = sys.modules[f"services.streams.{name}"]
        setattr(module, shortcut.__bases__[0].__name__, shortcut)


if __name__ == "__main__":
    shorten()
    sys.exit(main())

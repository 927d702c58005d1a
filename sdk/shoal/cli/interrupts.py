"""Ctrl-C, as an event of the loop."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_interrupt(pressed: Callable[[], None]) -> Iterator[None]:
    """Call this at every Ctrl-C; where signals cannot be had at all, Python's own way stays.

    asyncio.run's own handler does not wake the event loop: a signal that comes just before the loop
    begins to wait is not seen until something else happens, and while watching nothing may. One
    that is added to the loop wakes it (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
    """
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, pressed)
    except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def interrupts() -> Iterator[asyncio.Queue[None]]:
    """Give a queue with an item for each Ctrl-C from now on; at most eight wait in it."""
    pressed: asyncio.Queue[None] = asyncio.Queue(8)

    def press() -> None:
        with contextlib.suppress(asyncio.QueueFull):
            pressed.put_nowait(None)

    with on_interrupt(press):
        yield pressed

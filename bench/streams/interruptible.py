"""Runs a benchmark so that SIGTERM ends it as Ctrl-C does: with everything that it started."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end; a signal cancels it, so that clusters, boards and namespaces are removed.

    Raises:
        SystemExit: It was asked to end before.
    """
    try:
        return asyncio.run(_cancelled_by_signals(main))
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


async def _cancelled_by_signals(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task

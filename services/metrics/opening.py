"""Opens the page of a process's figures, if its operator wants one."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from services.metrics.figure import Readings
from services.metrics.reader_proof import ReaderProof
from services.runtime.address import host_port, joined
from services.runtime.outward import on_loopback
from services.runtime.process import StartRefusedError


@contextlib.asynccontextmanager
async def open_metrics(
    address: str,
    read: Callable[[], Awaitable[Readings]],
    *,
    clock: Callable[[], float],
    proof: ReaderProof | None,
) -> AsyncIterator[str]:
    """Serve figures at `host:port`; yields where that really is, an empty string where `address` is.

    Args:
        address: where; port 0 is any free one.
        read: reads the figures.
        clock: seconds on a monotonic clock.
        proof: what is proved beyond loopback; None in a cluster without identity.

    Raises:
        StartRefusedError: the address cannot be had.
    """
    if not address:
        yield ""
        return
    # Its web server takes longer to load than all else of figures.
    from services.metrics.page import MetricsPage  # noqa: PLC0415

    host, port = host_port(address)
    page = MetricsPage(
        read, clock=clock, host=host, port=port, proof=None if on_loopback(address) else proof
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(page)
        except OSError as error:
            raise StartRefusedError(
                f"metrics cannot be served at {address}: {error.strerror or error}; choose another address for "
                "--metrics"
            ) from error
        yield joined(host, page.port)

"""Waiting for the end of a pipeline: its progress, its logs, and what Ctrl-C means meanwhile."""

import asyncio
import contextlib

from shoal.cli.display import Display
from shoal.cli.interrupts import interrupts
from shoal.cli.log_printer import LogPrinter
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.local_run import LocalRun
from shoal.view import PipelineView

DECIDE_SECONDS = 5.0
"""How long the user has to press Ctrl-C again."""

_LAST_LOGS_SECONDS = 20.0
"""How long nothing may come of what is still to be printed."""


async def wait_for_end(
    client: Client,
    pipeline: PipelineView,
    display: Display,
    printer: LogPrinter | None,
    *,
    beside: LocalRun | None = None,
) -> PipelineView | None:
    """Show a pipeline until it has ended, or until the user leaves; then there is no result.

    Args:
        client: an open client.
        pipeline: how it stands at first.
        display: where its progress is shown.
        printer: where its logs go; None leaves them out.
        beside: its local jobs, without which it cannot go on.

    Raises:
        ShoalError: the controller stayed away.
    """
    with interrupts() as pressed:
        async with asyncio.TaskGroup() as group:
            logs = None
            if printer is not None:
                logs = group.create_task(_print_logs(client, pipeline.id, printer))
            watching = group.create_task(shown_to_end(client, pipeline, display))
            leave = _leave if beside is None else _leave_local
            leaving = group.create_task(leave(client, pipeline.id, display, pressed))
            local = None
            if beside is not None:
                local = group.create_task(_run_local(client, pipeline.id, display, beside))
            await asyncio.wait({watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
            left = not watching.done()
            leaving.cancel()
            if local is not None:
                local.cancel()
            if left:
                watching.cancel()
            if logs is not None:
                if printer is not None and not left:
                    await _last_logs(logs, printer, pressed)
                logs.cancel()
    return None if watching.cancelled() else watching.result()


async def shown_to_end(client: Client, pipeline: PipelineView, display: Display) -> PipelineView:
    """Show a pipeline until it has ended.

    Raises:
        ShoalError: the controller stayed away.
    """

    def shown(now: PipelineView) -> bool:
        display.show(now)
        return now.state.terminal

    display.show(pipeline)
    return await client.when(pipeline.id, shown)


async def _print_logs(client: Client, name: str, printer: LogPrinter) -> None:
    try:
        async with contextlib.aclosing(client.logs(name, follow=True)) as chunks:
            async for chunk in chunks:
                printer.write(chunk)
    except ShoalError as error:
        printer.incomplete = error.message
    finally:
        printer.close()


async def _last_logs(
    logs: "asyncio.Task[None]", printer: LogPrinter, pressed: "asyncio.Queue[None]"
) -> None:
    """Wait for what is still to be printed, as long as it comes and Ctrl-C is not pressed."""
    pressing = asyncio.ensure_future(pressed.get())
    try:
        while not logs.done():
            before = printer.printed_bytes
            await asyncio.wait(
                {logs, pressing},
                timeout=_LAST_LOGS_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if pressing.done():
                printer.incomplete = "it was interrupted"
                return
            if not logs.done() and printer.printed_bytes == before:
                printer.incomplete = f"nothing came for {_LAST_LOGS_SECONDS:g} s"
                return
    finally:
        pressing.cancel()


async def _run_local(client: Client, name: str, display: Display, beside: LocalRun) -> None:
    """Run local jobs; where one fails, the pipeline is cancelled."""
    try:
        await beside.run()
    except ShoalError as error:
        display.say(error.message)
        await client.cancel(name, error.message)


async def _leave_local(
    client: Client, name: str, display: Display, pressed: "asyncio.Queue[None]"
) -> None:
    """Cancel with the first Ctrl-C, since local jobs end with this command; leave with the second."""
    await pressed.get()
    display.say(
        f"cancelling {name}, whose local jobs run here; press Ctrl-C again to leave at once"
    )
    await client.cancel(name, "Ctrl-C in the terminal that its local jobs run in")
    await pressed.get()


async def _leave(
    client: Client, name: str, display: Display, pressed: "asyncio.Queue[None]"
) -> None:
    """Return when the user has left; the first Ctrl-C detaches, a second one cancels instead."""
    await pressed.get()
    display.say(
        f"leaving {name} to run on its own; press Ctrl-C again within {DECIDE_SECONDS:g} s "
        "to cancel it"
    )
    try:
        async with asyncio.timeout(DECIDE_SECONDS):
            await pressed.get()
    except TimeoutError:
        return
    display.say(f"cancelling {name}")
    await client.cancel(name, "Ctrl-C in the terminal that started it")
    await pressed.get()

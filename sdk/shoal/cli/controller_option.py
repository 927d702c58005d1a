"""Which controller a command talks to, and in which namespace: the options that they all share."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from shoal.cause import causes
from shoal.cli.interrupts import on_interrupt

if TYPE_CHECKING:
    from shoal.client import Client

T = TypeVar("T")
CommandT = TypeVar("CommandT", bound=Callable[..., Any])

INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, as shells have it."""

DEFAULT_ADDRESS = "127.0.0.1:7470"
"""Where a controller listens by default."""


@dataclass(frozen=True, slots=True)
class Target:
    """A controller's address, and the namespace that is meant."""

    address: str
    namespace: str

    def client(self) -> "Client":
        """Make a client of it, to be used with `async with`."""
        from shoal.client import Client

        return Client(self.address, namespace=self.namespace)


def controller_options(command: CommandT) -> CommandT:
    """Give a command --controller and --namespace, and pass it a `target`; a coroutine is run to its end."""

    def targeted(**values: Any) -> Any:
        address = values.pop("controller") or default_address()
        result = command(target=Target(address, values.pop("namespace")), **values)
        return run_async(result) if asyncio.iscoroutine(result) else result

    targeted.__doc__ = command.__doc__
    targeted.__name__ = command.__name__
    # The decorators of click above and below keep their parameters on the function.
    targeted.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    for option in (
        click.option(
            "--namespace",
            envvar="SHOAL_NAMESPACE",
            default="default",
            show_default=True,
            help="Whose pipelines are meant.",
        ),
        click.option(
            "--controller",
            envvar="SHOAL_CONTROLLER",
            metavar="HOST:PORT",
            help="Where the controller listens.  [default: the cluster of `shoal up`, or "
            f"{DEFAULT_ADDRESS}]",
        ),
    ):
        targeted = option(targeted)
    return cast("CommandT", targeted)


def pointer_path() -> Path:
    """Where `shoal up` says how its cluster is reached; see the XDG Base Directory Specification."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "shoal" / "up.json"


def default_address() -> str:
    """Read the address that `shoal up` left, or fall back to the usual one."""
    try:
        found = json.loads(pointer_path().read_text("utf-8"))
    except (OSError, ValueError):
        return DEFAULT_ADDRESS
    address = (
        cast("dict[str, object]", found).get("controller") if isinstance(found, dict) else None
    )
    return address if isinstance(address, str) else DEFAULT_ADDRESS


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; one error of ours comes out of a group as itself."""
    from shoal.errors import ShoalError

    try:
        return asyncio.run(_until_interrupted(main))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(INTERRUPTED_STATUS) from None
    except BaseExceptionGroup as group:
        found = causes(group)
        # A pipe that is not read any more is for click, which ends quietly then.
        if all(isinstance(cause, ShoalError | BrokenPipeError) for cause in found):
            raise found[0] from group
        raise


async def _until_interrupted(main: Coroutine[Any, Any, T]) -> T:
    """Run it, and let Ctrl-C cancel it."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait
        task.cancel()

    with on_interrupt(interrupt):
        return await task

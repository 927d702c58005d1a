"""Which controller a command talks to, and in which namespace: the options that they all share."""

import asyncio
import datetime as dt
import functools
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from shoal.cause import causes
from shoal.cli import name_completion
from shoal.cli.cluster_record import ClusterRecord, running_clusters
from shoal.cli.identity_folder import credentials_in, identity_folder
from shoal.cli.interrupts import on_interrupt
from shoal.errors import ShoalError

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
    """A controller's address, the namespace that is meant, and the folder of what is proved there.

    `identity` is None where nothing is proved, as to a controller with --insecure.
    """

    address: str
    namespace: str
    identity: Path | None = None

    def client(self, *, deadline_seconds: float = 30.0) -> "Client":
        """Make a client of it, to be used with `async with`.

        Raises:
            ShoalError: the folder has no credentials that can be used.
        """
        from shoal.client import Client

        proved = None if self.identity is None else credentials_in(self.identity)
        return Client(
            self.address,
            namespace=self.namespace,
            credentials=proved,
            deadline_seconds=deadline_seconds,
        )


def controller_options(command: CommandT) -> CommandT:
    """Give a command the options that say which controller is meant, and pass it a `target`.

    A command that is a coroutine is run to its end. A group does nothing of its own where one of its
    commands is asked for.
    """

    @click.option(
        "--controller",
        envvar="SHOAL_CONTROLLER",
        metavar="HOST:PORT",
        help="Where the controller listens.  [default: the cluster of `shoal up`, or "
        f"{DEFAULT_ADDRESS}]",
    )
    @click.option(
        "--cluster",
        envvar="SHOAL_CLUSTER",
        metavar="NAME",
        shell_complete=name_completion.clusters,
        help="Which cluster of `shoal up` on this machine, where several run.",
    )
    @click.option(
        "--namespace",
        envvar="SHOAL_NAMESPACE",
        default="default",
        show_default=True,
        help="Whose pipelines are meant.",
    )
    @click.option(
        "--identity",
        envvar="SHOAL_IDENTITY",
        default="",
        metavar="FOLDER",
        help="Credentials to prove.  [default: those of the cluster of `shoal up`, or of `shoal login`]",
    )
    @functools.wraps(command)  # with its parameters, which click keeps on it
    def targeted(**values: Any) -> Any:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            _refuse_before(context, context.invoked_subcommand)
            return None
        options = (values.pop(name) for name in ("controller", "cluster", "namespace", "identity"))
        target = chosen_target(*options)
        result = command(target=target, **values)
        return run_async(_renewed(target, result)) if asyncio.iscoroutine(result) else result

    return cast("CommandT", targeted)


async def _renewed(target: Target, command: Coroutine[Any, Any, T]) -> T:
    """Do a command's work, with a certificate that is good for a while yet."""
    if target.identity is not None:
        from shoal.cli.renewal import renew_if_due

        await renew_if_due(target.identity, target.address, dt.datetime.now(dt.UTC))
    return await command


def chosen_target(
    controller: str | None, cluster: str | None, namespace: str | None, identity: str | None
) -> Target:
    """Return what the shared options say; see `chosen_address` and `identity_folder`.

    Raises:
        click.UsageError: they do not say which controller is meant.
    """
    address = chosen_address(controller, cluster)
    return Target(address, namespace or "default", identity_folder(identity or "", address))


def chosen_address(controller: str | None, cluster: str | None) -> str:
    """Return the address of the controller that is meant; what stands nearer wins.

    That is an option before a variable, and any of them before the cluster that runs here.

    Args:
        controller: of --controller or SHOAL_CONTROLLER.
        cluster: of --cluster or SHOAL_CLUSTER.

    Raises:
        click.UsageError: two are named alike, several clusters run and none is named, or the named
            one does not run.
    """
    if controller and cluster:
        near = {name for name in ("controller", "cluster") if on_command_line(name)}
        if len(near) != 1:
            both = "--controller and --cluster" if near else "SHOAL_CONTROLLER and SHOAL_CLUSTER"
            raise click.UsageError(
                f"{both} both say which controller is meant ({controller}, {cluster}): leave one out"
            )
        controller, cluster = (controller, None) if "controller" in near else (None, cluster)
    if controller:
        return controller
    running = [record for record in running_clusters() if record.controller]
    if cluster:
        return chosen_cluster(cluster, running).controller
    if len(running) > 1:
        raise click.UsageError(
            f"{len(running)} clusters of `shoal up` run here: "
            f"{'; '.join(record.described for record in running)}. "
            "Choose one with --cluster NAME, or with the variable SHOAL_CLUSTER"
        )
    return running[0].controller if running else DEFAULT_ADDRESS


def chosen_cluster(name: str, running: Sequence[ClusterRecord]) -> ClusterRecord:
    """Find a cluster that runs by its name.

    Raises:
        click.UsageError: it does not run.
    """
    for record in running:
        if record.name == name:
            return record
    others = ", ".join(record.name for record in running)
    raise click.UsageError(
        f"no cluster {name!r} runs here; "
        + (f"those that run: {others}" if others else f"start it with: shoal up --name {name}")
    )


def _refuse_before(context: click.Context, command: str) -> None:
    """Refuse options of a group that is asked for one of its commands: they would say nothing to that."""
    for parameter in context.command.params:
        if parameter.name and on_command_line(parameter.name):
            option = max(parameter.opts, key=len)
            raise click.UsageError(
                f"{option} has no effect before {command!r}: write it behind, if that takes it, as in "
                f"`{context.command_path} {command} {option} …`, or leave it out"
            )


def on_command_line(parameter: str) -> bool:
    """Say whether a parameter of the command that runs stands on its line."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; one error of ours comes out of a group as itself."""
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

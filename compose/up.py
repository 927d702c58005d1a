"""`shoal up`: a local cluster for a user's own work."""

import asyncio
import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from compose.child import ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import OwnSandbox, own_sandbox
from edge_agent.config import AUTO, SANDBOXES, parse_sandbox
from services.events.broker_url import BrokerUrlError, parse_url
from services.runtime.log import setup
from services.runtime.process import StartRefusedError, run
from shoal.cli.cluster_record import DEFAULT_NAME, ClusterRecord, ClusterRunsError, holding
from shoal.cli.state_home import state_home
from shoal.names import InvalidNameError, check_id

_PORT: Final = 7470
_BROKER_SECONDS: Final = 5.0
"""How long the controller has to say whether its broker answers."""


def _checked_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    try:
        return check_id("cluster", name)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from None


def _checked_broker(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    if url not in {"auto", "none"}:
        try:
            parse_url(url)
        except BrokerUrlError as error:
            raise click.BadParameter(f"{error}; or auto, or none") from None
    return url


@click.command("up", short_help="Start a cluster on this machine.")
@click.option(
    "--name",
    default=DEFAULT_NAME,
    show_default=True,
    callback=_checked_name,
    help="What the cluster is called, where several run: shoal status --cluster NAME.",
)
@click.option("--detach", "-d", is_flag=True, help="Return once it is ready; `shoal down` ends it.")
@click.option(
    "--agents", default=3, show_default=True, type=click.IntRange(1, 64), help="How many."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the cluster's files. [default: shoal/up in the user's state folder, and "
    "shoal/clusters/NAME for another name]",
)
@click.option(
    "--port",
    default=None,
    type=click.IntRange(0, 65535),
    help="Port of the gRPC API; 0 takes any. [default: 7470, and any for another name]",
)
@click.option(
    "--archive",
    default="",
    help="file:///folder or s3://bucket/prefix?endpoint=…; [default: archive/ in the state folder]",
)
@click.option(
    "--mqtt",
    envvar="SHOAL_UP_MQTT",
    default="auto",
    show_default=True,
    callback=_checked_broker,
    help="mqtt://host:port, auto (mosquitto if installed), or none; one with a password rather as the "
    "variable SHOAL_UP_MQTT.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let every process on this machine do everything, without an identity.",
)
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOXES),
    default=AUTO,
    show_default=True,
    help="How far jobs are kept from this machine: user, confined or none (shoal agent --sandbox); auto: the best "
    "that can be had here, also if that is none.",
)
@click.option(
    "--cpus", default=0.0, help="Cores that each agent says it has. [default: at least 2]"
)
def up(*, name: str, detach: bool, state: Path | None, **given: Any) -> None:
    """Start a controller, agents and, where mosquitto is installed, a broker, and keep them running.

    Leave it in a terminal of its own, or give --detach; other terminals find it by themselves:

    \b
        shoal up
        shoal run -- sh -c 'echo hello > results/x'
        shoal up --detach --name second
        shoal down second

    Ctrl-C, `shoal down` and a closed terminal end everything, jobs too, and so does the end of this
    process, however it comes. What was recorded and archived stays in the state folder, and the next
    `shoal up` goes on from there. Where several clusters run, commands want to know which one is
    meant: --cluster NAME, or the variable SHOAL_CLUSTER.

    The cluster has an identity of its own: commands of this user prove by themselves that they are its
    operator, and other users of the machine are refused.
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    setup("up", level="WARNING")
    state_home()  # where other commands are told of it; says so where there is none
    if given["port"] is None:
        given["port"] = _PORT if name == DEFAULT_NAME else 0
    folder = (state or _default_state(name)).absolute()
    if detach:
        from compose.detached import start_detached  # noqa: PLC0415 - for a quick --help

        sys.exit(run(lambda: start_detached(name, folder, given)))
    own = own_sandbox(folder, parse_sandbox(given["sandbox"]))
    config = LocalClusterConfig(
        state=folder,
        agents=given["agents"],
        mqtt=given["mqtt"],
        archive=given["archive"],
        grpc_port=given["port"],
        cpus=given["cpus"],
        stop_jobs=True,
        insecure=given["insecure"],
        sandbox=own.level,
    )
    sys.exit(run(lambda: _serve(name, config, own)))


def _default_state(name: str) -> Path:
    return state_home() / "up" if name == DEFAULT_NAME else state_home() / "clusters" / name


async def _serve(name: str, config: LocalClusterConfig, own: OwnSandbox) -> None:
    async with contextlib.AsyncExitStack() as stack:
        record = ClusterRecord(name, os.getpid(), str(config.state))
        try:
            held = await asyncio.to_thread(stack.enter_context, holding(name))
            held.write(record)
        except ClusterRunsError as error:
            raise StartRefusedError(
                f"a cluster runs already under this name: {error.running.described}. Use that one, "
                f"end it with `shoal down {name}`, or give this one another --name"
            ) from None
        except OSError as error:
            raise StartRefusedError(
                f"other commands cannot be told of this cluster: {error.filename or state_home()}: "
                f"{error.strerror}; let this user write there, or set XDG_STATE_HOME to a folder "
                "where it can"
            ) from error
        try:
            cluster = await stack.enter_async_context(LocalCluster(config))
        except (ChildEndedError, TimeoutError) as error:
            raise StartRefusedError(str(error)) from error
        events = parse_url(cluster.broker_url).shown if cluster.broker_url else ""
        click.echo(f"cluster     {name}")
        click.echo(f"controller  {cluster.controller_address}")
        click.echo(f"agents      {', '.join(cluster.agents)}")
        click.echo(f"events      {await _events_line(cluster, events)}")
        click.echo(f"files       {config.state}")
        click.echo(f"sandbox     {own.said}")
        click.echo(
            f"identity    {cluster.identity or 'none: every process here may do everything'}"
        )
        if cluster.newcomers_address:
            click.echo(f"newcomers   {cluster.newcomers_address}, for shoal login --newcomers")
        held.write(
            replace(
                record,
                controller=cluster.controller_address,
                events=events,
                identity=str(cluster.identity or ""),
            )
        )
        click.echo(
            "ready: try  shoal run -- sh -c 'echo hello > results/x'   (Ctrl-C ends everything)"
        )
        await cluster.run()


async def _events_line(cluster: LocalCluster, broker: str) -> str:
    """Say where events go; of a broker that does not answer the controller says why."""
    if not broker:
        return (
            "no broker: they are kept in the outbox until there is one "
            "(apt-get install mosquitto, or --mqtt)"
        )
    said = ""
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(_BROKER_SECONDS),
            cluster.client() as client,
        ):
            while not said or said.startswith("connecting"):
                said = (await client.events(page_size=1)).publisher_state
                await asyncio.sleep(0.05)
    if said.startswith("connected"):
        return broker
    return f"{said}; they are kept until it answers: start it, or name another one with --mqtt"

"""`shoal up`: a local cluster for a user's own work."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import click

from compose.child import ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig
from services.runtime.log import setup
from services.runtime.process import StartRefusedError, run


@click.command("up", short_help="Start a cluster on this machine.")
@click.option(
    "--agents", default=3, show_default=True, type=click.IntRange(1, 64), help="How many."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the cluster's files. [default: shoal/up in the user's state folder]",
)
@click.option(
    "--port",
    default=7470,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the gRPC API; 0 takes any.",
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
    help="mqtt://host:port, auto (mosquitto if installed), or none; one with a password rather as the "
    "variable SHOAL_UP_MQTT.",
)
@click.option(
    "--cpus", default=0.0, help="Cores that each agent says it has. [default: at least 2]"
)
def up(agents: int, state: Path | None, port: int, archive: str, mqtt: str, cpus: float) -> None:
    """Start a controller, agents and, where mosquitto is installed, a broker, and keep them running.

    Leave it in a terminal of its own; other terminals find it by themselves:

    \b
        shoal up
        shoal run -- sh -c 'echo hello > results/x'

    Ctrl-C ends everything. What was recorded and archived stays in the state folder, and the next
    `shoal up` goes on from there.
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    setup("up", level="WARNING")
    config = LocalClusterConfig(
        state=(state or state_home() / "up").absolute(),
        agents=agents,
        mqtt=mqtt,
        archive=archive,
        grpc_port=port,
        cpus=cpus,
    )
    sys.exit(run(lambda: _serve(config)))


def state_home() -> Path:
    """Folder that Shoal keeps its state in for this user; see the XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "shoal"


async def _serve(config: LocalClusterConfig) -> None:
    pointer = state_home() / "up.json"
    try:
        async with LocalCluster(config) as cluster:
            await asyncio.to_thread(_write_pointer, pointer, cluster.controller_address)
            click.echo(f"controller  {cluster.controller_address}")
            click.echo(f"agents      {', '.join(cluster.agents)}")
            click.echo(
                f"events      {cluster.broker_url}"
                if cluster.broker_url
                else "events      no broker: they are kept in the outbox until there is one "
                "(apt-get install mosquitto, or --mqtt)"
            )
            click.echo(f"files       {config.state}")
            click.echo(
                "ready: try  shoal run -- sh -c 'echo hello > results/x'   (Ctrl-C ends everything)"
            )
            try:
                await cluster.run()
            finally:
                await asyncio.to_thread(_drop_pointer, pointer, cluster.controller_address)
    except ChildEndedError as error:
        raise StartRefusedError(str(error)) from error


def _pointer_text(address: str) -> str:
    return json.dumps({"controller": address}) + "\n"


def _write_pointer(pointer: Path, address: str) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(_pointer_text(address))


def _drop_pointer(pointer: Path, address: str) -> None:
    """Remove the pointer, unless another cluster of this user has set its own meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if pointer.read_text() == _pointer_text(address):
            pointer.unlink()

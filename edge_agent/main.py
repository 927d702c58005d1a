"""`shoal agent`: the root of an agent's process; configuration is read here, once."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

import click

from edge_agent import fingerprint
from edge_agent.config import AgentConfig, ConfigError, parse_labels, parse_size
from services.membership.options import gossip_options
from services.runtime import log
from services.runtime.process import ExitCode, run
from services.runtime.secret_option import warn_of_visible
from services.runtime.settings_file import read_settings, use_settings
from shoal.model import Capacity

_DEFAULT_STATE: Final = "~/.local/state/shoal/agent"


def _read_file(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = read_settings(context, path, tables=("labels",))
    labels = values.pop("labels", None)
    if isinstance(labels, dict):
        pairs = cast("dict[str, object]", labels)
        values["label"] = [f"{key}={value}" for key, value in pairs.items()]
    use_settings(context, values)


@click.command(context_settings={"auto_envvar_prefix": "SHOAL_AGENT", "show_default": True})
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_file,
    help="TOML file with the long names below as keys, and a table [labels].",
)
@click.option(
    "--name",
    default="",
    show_default=False,
    help="Name of the node.  [default: made of the host's name]",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DEFAULT_STATE,
    help="Folder for everything that the agent keeps.",
)
@click.option(
    "--controller",
    "controller",
    multiple=True,
    metavar="HOST:PORT",
    help="A controller to dial; may be repeated. Others are found by gossip.",
)
@click.option(
    "--join", multiple=True, metavar="HOST:PORT", help="A gossip member to join; may be repeated."
)
@click.option(
    "--gossip",
    default="0.0.0.0:7946",
    metavar="HOST:PORT",
    help="Where to gossip, over UDP and TCP; 'off' for not at all.",
)
@gossip_options("SHOAL_AGENT")
@click.option(
    "--streams",
    default="0.0.0.0:7947",
    metavar="HOST:PORT",
    help="Where the stream worker listens for other nodes.",
)
@click.option(
    "--advertise",
    default="",
    show_default=False,
    metavar="HOST",
    help="Address that others reach this node under.  [default: that towards --join and "
    "--controller, else that of the default route, else the only one there is]",
)
@click.option(
    "--label",
    multiple=True,
    metavar="KEY=VALUE",
    help="What jobs may ask for with place.require; may be repeated.",
)
@click.option("--cpus", type=float, default=None, help="Cores for jobs.  [default: all]")
@click.option(
    "--memory",
    default="",
    show_default=False,
    help="Memory for jobs, such as 4GiB.  [default: all]",
)
@click.option(
    "--device",
    multiple=True,
    metavar="CLASS",
    help="Device class that jobs may ask for, such as video; may be repeated.  [default: found]",
)
@click.option("--bundle-cache", default="10GiB", help="How much fetched bundles may take.")
@click.option(
    "--input-cache",
    default="10GiB",
    help="How much may be kept of fetched file inputs, beside what jobs have of them.",
)
@click.option(
    "--disk-reserve",
    default="256MiB",
    help="Below so much free room for --state, or a twentieth of a smaller disk, no new work is "
    "taken; below a quarter of it the attempt with the most in its folder is failed.  0: never.",
)
@click.option(
    "--stop-jobs", is_flag=True, help="End all jobs with the agent, instead of letting them go on."
)
@click.option(
    "--down", is_flag=True, help="End the agent of --state, its keeper and all its jobs, and exit."
)
@click.option(
    "--drain",
    is_flag=True,
    help="With --down: take no new work, and wait for what runs, before anything ends.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    help="Lowest level that is logged.",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of log lines."
)
def agent(
    name: str,
    state: Path,
    controller: tuple[str, ...],
    join: tuple[str, ...],
    gossip: str,
    gossip_preset: str,
    gossip_key: tuple[bytes, ...],
    gossip_keyring: Path | None,
    gossip_encryption: str,
    gossip_label: str,
    serf_rpc: str,
    serf_rpc_auth: str,
    members_http: str,
    streams: str,
    advertise: str,
    label: tuple[str, ...],
    cpus: float | None,
    memory: str,
    device: tuple[str, ...],
    bundle_cache: str,
    input_cache: str,
    disk_reserve: str,
    stop_jobs: bool,  # noqa: FBT001 - a flag of the command line
    down: bool,  # noqa: FBT001
    drain: bool,  # noqa: FBT001
    log_level: str,
    log_format: str,
) -> None:
    """Run the agent of this node: it takes jobs from a controller and runs them here.

    The agent dials the controller, so the node may be behind NAT. Jobs run under a keeper of their
    own and survive an agent that is restarted or upgraded; SIGTERM ends the agent alone.

    Every option can also be set by a variable (SHOAL_AGENT_NAME, SHOAL_AGENT_CONTROLLER, several
    values between blanks) or in the file of --config. Flags win over variables, and those over the
    file.

    \b
    Examples:
      shoal agent --controller 10.0.0.1:7900 --join 10.0.0.1:7946
      shoal agent --name camera-1 --label role=camera --cpus 3 --config /etc/shoal/agent.toml
      shoal agent --down --drain --controller 10.0.0.1:7900
    """  # noqa: D301 - click wants the control character
    log.setup("agent", level=log_level, log_format=log.LogFormat(log_format))
    state = state.expanduser().absolute()
    try:
        found = fingerprint.capacity()
        config = AgentConfig(
            name=name or fingerprint.default_name(),
            state=state,
            capacity=Capacity(
                found.cpus if cpus is None else cpus,
                parse_size(memory) if memory else found.memory_bytes,
                device or found.devices,
            ),
            architecture=fingerprint.architecture(),
            controllers=controller,
            seeds=join,
            gossip="" if gossip == "off" else gossip,
            gossip_preset=gossip_preset,
            gossip_keys=gossip_key,
            gossip_keyring=gossip_keyring and gossip_keyring.expanduser().absolute(),
            gossip_encryption=gossip_encryption,
            gossip_label=gossip_label,
            serf_rpc=serf_rpc,
            serf_rpc_auth=serf_rpc_auth,
            members_http=members_http,
            advertise=advertise,
            streams=streams,
            labels=parse_labels(label),
            bundle_bytes_max=parse_size(bundle_cache),
            input_bytes_max=parse_size(input_cache),
            disk_reserve_bytes=parse_size(disk_reserve),
            stop_jobs=stop_jobs,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    instead = {"gossip_key": "--gossip-keyring", "serf_rpc_auth": "SHOAL_AGENT_SERF_RPC_AUTH"}
    warn_of_visible(click.get_current_context(), instead)
    if drain and not down:
        raise click.UsageError("--drain says how to go --down: give both")
    sys.exit(_down(config, drain=drain) if down else _run(config))


def _run(config: AgentConfig) -> int:
    from edge_agent.agent import Agent  # noqa: PLC0415 - so that --help is quick
    from edge_agent.agent_process import AgentProcess  # noqa: PLC0415
    from edge_agent.keeper.boottime import boottime  # noqa: PLC0415
    from edge_agent.network_arrival import run_with_or_without_network  # noqa: PLC0415

    uv = Path(sys.executable).parent / "uv"
    process = AgentProcess(
        environ=MappingProxyType(dict(os.environ)),
        version=metadata.version("shoal-server"),
        python=Path(os.path.realpath(sys.executable)),
        uv=uv if uv.exists() else Path(shutil.which("uv") or "uv"),
        boot_id=fingerprint.boot_id(),
        clock=boottime,
        wall=time.time,
        rng=random.Random(),
        token=lambda: secrets.token_hex(4),
    )
    return run(lambda: run_with_or_without_network(config, lambda now: Agent(now, process).run()))


def _down(config: AgentConfig, *, drain: bool) -> int:
    from edge_agent import shutdown  # noqa: PLC0415 - so that --help is quick

    async def main() -> int:
        if drain:
            await shutdown.drain(config.state, config.name, config.controllers, click.echo)
        await shutdown.shut_down(config.state, click.echo)
        return ExitCode.OK

    return run(main)

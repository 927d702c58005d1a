"""`shoal agent`: the root of an agent's process; configuration is read here, once."""

import asyncio
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import click
from click.core import ParameterSource

from edge_agent import fingerprint
from edge_agent.config import (
    AUTO,
    SANDBOXES,
    STREAMS_SECURITY,
    AgentConfig,
    parse_labels,
    parse_rate,
    parse_sandbox,
    parse_size,
    parse_span,
    parse_users,
)
from edge_agent.settings_text import settings_text
from services.membership.options import gossip_options, gossip_settings
from services.membership.settings import ConfigError
from services.metrics.options import metrics_option
from services.runtime.process import ExitCode, run
from services.runtime.process_options import absolute_path, begin_log, process_options
from services.runtime.secret_option import warn_of_visible
from services.runtime.settings_file import read_settings, use_settings
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.model import Capacity
from shoal.sandbox import SandboxLevel
from shoal.version import VERSION

PREFIX: Final = "SHOAL_AGENT"


def _use_file(context: click.Context, path: Path) -> None:
    values = read_settings(context, path, tables=("labels",))
    labels = values.pop("labels", None)
    if isinstance(labels, dict):
        pairs = cast("dict[str, object]", labels)
        values["label"] = [f"{key}={value}" for key, value in pairs.items()]
    use_settings(context, values)


@click.group(
    cls=SuggestingGroup,
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": PREFIX, "show_default": True},
)
@process_options("~/.local/state/shoal/agent", "the agent", "and a table [labels]", _use_file)
@click.option(
    "--name",
    default="",
    show_default=False,
    help="Name of the node.  [default: made of the host's name]",
)
@click.option(
    "--controller",
    "controller",
    multiple=True,
    metavar="HOST:PORT",
    help="A controller to dial; may be repeated. Others are found by gossip.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    help="File whose first line is the join token of a node that has not joined yet; or set SHOAL_TOKEN. "
    "Once the node has joined, it is not needed any more.",
)
@click.option(
    "--newcomers",
    default="",
    show_default=False,
    metavar="HOST:PORT",
    help="Where a controller takes newcomers.  [default: two ports above --controller]",
)
@click.option(
    "--insecure/--no-insecure",
    default=False,
    help="Believe whatever answers as a controller, and prove nothing, as a controller with "
    "--insecure wants it.",
)
@gossip_options("SHOAL_AGENT", "0.0.0.0:7946", "", "--join and --controller")
@click.option(
    "--streams",
    default="0.0.0.0:7947",
    metavar="HOST:PORT",
    help="Where the stream worker listens for other nodes.",
)
@click.option(
    "--streams-security",
    type=click.Choice(STREAMS_SECURITY),
    default="mutual",
    help="How streams to other nodes are kept from strangers: mutual TLS, or, on a wired network of "
    "one's own, in the clear with tickets alone.  All nodes have to say the same.",
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
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOXES),
    default=AUTO,
    help="How far jobs are kept from this node, and from each other, that ask for no more: each as a user of "
    "its own (user), in namespaces of its own too (confined), or as the user of the agent (none).  auto: user "
    "where it can be had, else confined; where neither can, the agent does not start.",
)
@click.option(
    "--job-users",
    default="",
    show_default=False,
    metavar="FIRST:COUNT",
    help="Users that jobs become that do not run as the user of the agent, each attempt another one: numbers that "
    "no other user of this machine has.  [default: 65536 from 200000 on, above what /etc/passwd and /etc/subuid "
    "give to others]",
)
@click.option(
    "--facts-root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default="/",
    help="Folder that stands for / where the facts of this machine and its devices are looked up: in a "
    "container, where the host's /proc, /sys, /etc and /dev are mounted.",
)
@metrics_option("127.0.0.1:7474")
@click.option("--bundle-cache", default="10GiB", help="How much fetched bundles may take.")
@click.option(
    "--input-cache",
    default="10GiB",
    help="How much may be kept of fetched file inputs, beside what jobs have of them.",
)
@click.option(
    "--environment-cache",
    default="10GiB",
    help="How much environments of jobs may take, with the packages that they are built from; what a job "
    "uses stays, and the oldest of the others goes first.",
)
@click.option(
    "--index-credentials",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    help="File like .netrc (chmod 600) with users and passwords of package indexes, for builds of "
    "environments alone.",
)
@click.option(
    "--disk-reserve",
    default="256MiB",
    help="Below so much free room for --state, or a twentieth of a smaller disk, no new work is "
    "taken; below a quarter of it the attempt with the most in its folder is failed.  0: never.",
)
@click.option(
    "--spool-limit",
    default="",
    show_default=False,
    metavar="SIZE",
    help="How much may wait for the archive before no new work is taken.  0: any amount.  "
    "[default: a fifth of the disk]",
)
@click.option(
    "--upload-rate",
    default="0",
    metavar="RATE",
    help="How fast all uploads of this node together may be, such as 5MB/s.  0: as fast as they can.",
)
@click.option(
    "--keep-failed",
    default="1GiB",
    help="How much room may be taken by what attempts that failed or were cancelled have left; the "
    "oldest goes first, and sooner while the disk is short.  0: nothing is kept.",
)
@click.option(
    "--keep-failed-for",
    default="24h",
    metavar="TIME",
    help="For how long that is kept.",
)
@click.option(
    "--stop-jobs", is_flag=True, help="End all jobs with the agent, instead of letting them go on."
)
@click.option("--down", is_flag=True, help="The same as the command `down`.")
@click.option(
    "--drain",
    is_flag=True,
    help="With --down: take no new work, and wait for what runs, before anything ends.",
)
@click.pass_context
def agent(context: click.Context, /, *, down: bool, drain: bool, **given: Any) -> None:
    """Run the agent of this node: it takes jobs from a controller and runs them here.

    The agent dials the controller, so the node may be behind NAT. Jobs run under a keeper of their
    own and survive an agent that is restarted or upgraded; SIGTERM, or the end of its terminal, ends the
    agent alone.

    Every option can also be set by a variable (SHOAL_AGENT_NAME, SHOAL_AGENT_CONTROLLER, several
    values between blanks) or in the file of --config. Flags win over variables, and those over the
    file.

    \b
    Examples:
      shoal agent --controller 10.0.0.1:7470 --join 10.0.0.1:7946
      shoal agent --name camera-1 --label role=camera --cpus 3 --config /etc/shoal/agent.toml
      shoal agent init                                         asks, and writes such a file
      shoal agent down --drain --controller 10.0.0.1:7470      ends all that is of this node
    """  # noqa: D301 - click wants the control character
    if context.invoked_subcommand is not None:
        return
    begin_log("agent", given)
    config = agent_config(given)
    instead = {"gossip_key": "--gossip-keyring", "serf_rpc_auth": "SHOAL_AGENT_SERF_RPC_AUTH"}
    warn_of_visible(click.get_current_context(), instead)
    if drain and not down:
        raise click.UsageError("--drain says how to go --down: give both")
    sys.exit(go_down(config, drain=drain) if down else _run(config))


def agent_config(given: dict[str, Any]) -> AgentConfig:
    """Make a configuration of what the options say, without those of the log.

    Raises:
        click.UsageError: it cannot be.
    """
    try:
        found = fingerprint.capacity(given["facts_root"])
        cpus, memory = given["cpus"], given["memory"]
        return AgentConfig(
            **gossip_settings(given),
            name=given["name"] or fingerprint.default_name(),
            state=given["state"],
            capacity=Capacity(
                found.cpus if cpus is None else cpus,
                parse_size(memory) if memory else found.memory_bytes,
                given["device"] or found.devices,
            ),
            architecture=fingerprint.architecture(),
            controllers=given["controller"],
            streams=given["streams"],
            streams_security=given["streams_security"],
            labels=parse_labels(given["label"]),
            bundle_bytes_max=parse_size(given["bundle_cache"]),
            input_bytes_max=parse_size(given["input_cache"]),
            environment_bytes_max=parse_size(given["environment_cache"]),
            index_credentials=given["index_credentials"],
            disk_reserve_bytes=parse_size(given["disk_reserve"]),
            spool_bytes_max=parse_size(given["spool_limit"]) if given["spool_limit"] else None,
            upload_rate_bytes=parse_rate(given["upload_rate"]),
            keep_bytes_max=parse_size(given["keep_failed"]),
            keep_seconds=parse_span(given["keep_failed_for"]),
            insecure=given["insecure"],
            newcomers=given["newcomers"],
            token_file=given["token_file"],
            stop_jobs=given["stop_jobs"],
            health_file=given["health_file"],
            metrics=given["metrics"],
            facts_root=given["facts_root"],
            sandbox=parse_sandbox(given["sandbox"]),
            job_users=parse_users(given["job_users"]),
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _run(config: AgentConfig) -> int:
    from edge_agent.agent import Agent  # noqa: PLC0415 - so that --help is quick
    from edge_agent.agent_process import AgentProcess  # noqa: PLC0415
    from edge_agent.keeper.boottime import boottime  # noqa: PLC0415
    from edge_agent.keeper.oom_score import be_taken_last  # noqa: PLC0415
    from edge_agent.network_arrival import run_with_or_without_network  # noqa: PLC0415
    from edge_agent.sandbox.job_users import registry_here  # noqa: PLC0415
    from edge_agent.sandbox.subordinate_users import own_job_users  # noqa: PLC0415

    python = Path(os.path.realpath(sys.executable))
    registry = registry_here()
    if config.sandbox in {None, SandboxLevel.USER}:
        own = own_job_users(config.state, python)
        if own is not None:
            config = replace(config, job_users=own)
            runtime = os.environ.get("XDG_RUNTIME_DIR") or "~/.local/state"
            registry = Path(runtime).expanduser() / "shoal" / "job-users"
    uv = Path(sys.executable).parent / "uv"
    process = AgentProcess(
        environ=MappingProxyType(dict(os.environ)),
        version=VERSION,
        python=python,
        uv=uv if uv.exists() else Path(shutil.which("uv") or "uv"),
        boot_id=fingerprint.boot_id(),
        clock=boottime,
        wall=time.time,
        rng=random.Random(),
        token=lambda: secrets.token_hex(4),
        job_registry=registry,
    )
    be_taken_last()
    return run(
        lambda: run_with_or_without_network(config, lambda now: Agent(now, process).run()),
        uvloop=True,
    )


def go_down(config: AgentConfig, *, drain: bool, move_seconds: float | None = None) -> int:
    """End the agent, its keeper and its jobs; with `drain` after what runs has ended, or was moved.

    Returns:
        The status that the command ends with.
    """
    from edge_agent import shutdown  # noqa: PLC0415 - so that --help is quick
    from edge_agent.node_identity import known_identity  # noqa: PLC0415

    async def main() -> int:
        if drain:
            identity = None if config.insecure else await asyncio.to_thread(known_identity, config)
            await shutdown.drain(
                config.state,
                config.name,
                config.controllers,
                click.echo,
                None if identity is None else identity.current(),
                move_seconds=move_seconds,
            )
        await shutdown.shut_down(config.state, click.echo)
        return ExitCode.OK

    return run(main)


def options_of(words: Sequence[str], outer: click.Context | None) -> click.Context:
    """Read options of the agent that stand behind one of its commands.

    Args:
        words: what stands there.
        outer: the agent's own context, whose options hold where `words` and variables say nothing; None to read
            `words` alone.

    Raises:
        click.UsageError: something of it is no option of the agent, or has a wrong value.
    """
    reader = click.Command("agent", params=agent.params, context_settings=agent.context_settings)
    context = reader.make_context("shoal agent", list(words))
    given = {} if outer is None else outer.params
    for name, value in given.items():
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            context.params[name] = value
    return context


@agent.command("down", context_settings={"ignore_unknown_options": True})
@click.option("--drain", is_flag=True, help="First take no new work, and wait for what runs.")
@click.option(
    "--deadline",
    metavar="TIME",
    help="With --drain: what still runs after so long, such as 10m, goes to other nodes.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION OF THE AGENT]...")
@click.pass_context
def down(
    context: click.Context, *, drain: bool, deadline: str | None, words: tuple[str, ...]
) -> None:
    r"""End the agent of this node, its keeper, its stream worker and all its jobs.

    \b
    Examples:
      shoal agent down --config /etc/shoal/agent.toml
      shoal agent down --drain --deadline 10m --config /etc/shoal/agent.toml

    It takes the options of the agent, above all --config or --state, as the agent was started with. With --drain
    the node gets no new work, also once it is back: take it back with `shoal drain --undo`. What is moved is ended
    here first, and begins anew elsewhere; what is pinned to this node ends with it.
    """
    if deadline and not drain:
        raise click.UsageError("--deadline says for how long to --drain: give both")
    given = options_of(words, context.parent).params
    begin_log("agent", given)
    try:
        seconds = parse_span(deadline) if deadline else None
    except ConfigError as error:
        raise click.UsageError(f"--deadline: {error}") from error
    sys.exit(go_down(agent_config(given), drain=drain, move_seconds=seconds))


_ASKED: Final = (
    ("name", "Name of this node, unique in the cluster"),
    ("controller", "Address of the controller, HOST:PORT"),
    ("join", "A gossip member to join, HOST:PORT (empty: none)"),
    ("token_file", "File with the join token (empty: none is needed any more)"),
    ("label", "Labels, KEY=VALUE with blanks between them, such as location=yard (empty: none)"),
    ("state", "Folder for everything that the agent keeps"),
    ("bundle_cache", "How much fetched bundles may take"),
    ("input_cache", "How much fetched inputs may take"),
    ("environment_cache", "How much environments may take"),
    ("keep_failed", "How much of what failed attempts left may be kept"),
)
"""What `init` asks for, unless it is given."""

_PATHS: Final = frozenset(
    {"state", "token_file", "health_file", "index_credentials", "gossip_keyring", "facts_root"}
)


@agent.command("init", context_settings={"ignore_unknown_options": True})
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("agent.toml"),
    help="File to write.",
)
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: take what is given, and defaults.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--no-check", is_flag=True, help="Write it also if what it says is not so now.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION OF THE AGENT]...")
def init(*, file: Path, yes: bool, force: bool, no_check: bool, words: tuple[str, ...]) -> None:
    r"""Write the settings file of an agent: asks what matters, and says what the rest is.

    \b
    Examples:
      shoal agent init --config /etc/shoal/agent.toml
      shoal agent init --yes --config agent.toml --controller 10.0.0.1:7470 --token-file join.token \
          --name camera-1 --label role=camera --bundle-cache 2GiB
      shoal agent --config agent.toml

    It takes every option of the agent; what is given is not asked for. Before it writes it looks whether the
    controller answers and the token is one. A file that is there stays unless --force is given.
    """
    from edge_agent.settings_check import wrong_settings  # noqa: PLC0415 - so that --help is quick

    if file.exists() and not force:
        raise click.UsageError(f"{file} is there already: name another --config, or add --force")
    context = options_of(words, None)
    named = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    chosen = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) in named
    }
    if secret := sorted({"gossip_key", "serf_rpc_auth"} & chosen.keys()):
        raise click.UsageError(
            f"{', '.join(secret)} is a secret and is not written: use --gossip-keyring FILE or a variable"
        )
    for name, question in () if yes else _ASKED:
        if name not in chosen and not (name == "token_file" and context.params["insecure"]):
            _ask(chosen, name, question, context.params)
    for name in _PATHS & chosen.keys():  # the agent may be started in another folder
        chosen[name] = absolute_path(Path(str(chosen[name])), f"--{name.replace('_', '-')}")
    try:
        text = settings_text(agent.params, context.params, chosen)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    written = _taken(text, file)
    problems = [] if no_check else list(wrong_settings(written))
    for problem in problems:
        click.echo(problem, err=True)
    if problems and (yes or not click.confirm("Write it all the same?", err=True)):
        raise click.ClickException(f"{file} is not written; --no-check writes it all the same")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _put(file, text)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"{file} is written; start the agent with: shoal agent --config {file}")


def _ask(
    chosen: dict[str, object], name: str, question: str, defaults: Mapping[str, object]
) -> None:
    default = fingerprint.default_name() if name == "name" else defaults[name]
    many = isinstance(default, tuple)
    shown = "" if many or default is None else str(default)
    try:
        said = click.prompt(question, default=shown, show_default=bool(shown), err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.ClickException(
            f"{question!r} has no answer, as standard input has ended: give --yes and what matters "
            "as options, such as --controller HOST:PORT and --token-file FILE"
        ) from None
    answer = str(said).strip()
    if answer and (name == "name" or answer != shown):
        chosen[name] = tuple(answer.split()) if many else answer


def _taken(text: str, file: Path) -> AgentConfig:
    """Read the settings as the agent will.

    Raises:
        click.UsageError: the agent would refuse them.
    """
    with tempfile.NamedTemporaryFile("w", suffix=file.suffix, encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        given = options_of(["--config", draft.name], None).params
    for name in ("log_level", "log_format"):
        del given[name]
    return agent_config(given)


def _put(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)

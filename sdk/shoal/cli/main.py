"""The `shoal` command: its own commands, those that other distributions add, and how errors look."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import click

from shoal.cli.suggesting_group import SuggestingGroup
from shoal.errors import ShoalError
from shoal.unloadable_package import explain_unloadable
from shoal.version import described

PLUGIN_GROUP = "shoal.commands"
"""Entry-point group in which a distribution adds commands."""

# Loaded when needed, so that `shoal --help` does not wait for gRPC.
_COMMANDS: Mapping[str, str] = MappingProxyType({
    "archive": "Look after the archive: remove what nothing names.",
    "artifacts": "List the artifacts of a pipeline.",
    "authority": "Let another authority sign.",
    "cancel": "End pipelines early.",
    "completion": "Let a shell complete commands, options and names.",
    "dlq": "List, show and discard dead letters.",
    "down": "End a cluster of this machine.",
    "drain": "Place nothing more on a node.",
    "events": "List the events of pipelines.",
    "explain": "Say why a job is where it is, or waits.",
    "finish": "Let pipelines end with their results.",
    "get": "Download the artifacts of a pipeline.",
    "graph": "Draw a pipeline as Mermaid or SVG.",
    "history": "Show how the cluster went lately.",
    "identities": "List and revoke identities.",
    "jobs": "List jobs of many pipelines.",
    "keys": "Rotate the keys that seal gossip.",
    "login": "Join a cluster as a person, with a token.",
    "logout": "Forget who you are to a controller.",
    "logs": "Show what jobs print.",
    "members": "List the members of the gossip cluster.",
    "new": "Make a folder with a pipeline that runs as it is.",
    "nodes": "List the nodes.",
    "record": "Copy a stream to a file, without a gap.",
    "revive": "Run dead letters again.",
    "run": "Run a pipeline or a command, and wait for its end.",
    "scale": "Change how many replicas of a job run.",
    "secret": "Keep values that jobs get and no specification has.",
    "send": "Send records to a job that waits for them.",
    "status": "Show how pipelines stand.",
    "stored": "Keep specifications under names, and run them.",
    "submit": "Submit pipelines, and return at once.",
    "tap": "Look at the records of a stream while they pass.",
    "token": "Make tokens that let boards and people join.",
    "validate": "Check specification files.",
    "whoami": "Show who you are to a controller.",
})  # fmt: skip

_OF_THE_SERVER = ("agent", "controller", "simulate", "up")


class Commands(SuggestingGroup):
    """Finds commands by name: ours by module, others by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*super().list_commands(ctx), *_COMMANDS, *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; one of a plugin that does not load says so when it is used."""
        if cmd_name in _COMMANDS:
            module = import_module(f"shoal.cli.{cmd_name}")
            return _keeping_lines(getattr(module, cmd_name))
        plugin = _plugins().get(cmd_name)
        if plugin is None:
            return super().get_command(ctx, cmd_name)
        try:
            return _keeping_lines(_command(plugin))
        except Exception as error:  # noqa: BLE001  # code of another distribution; the rest goes on
            return _broken(plugin, error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with one line each."""
        rows: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            if name in _COMMANDS:
                rows.append((name, _COMMANDS[name]))
            elif command := self.get_command(ctx, name):
                rows.append((name, command.get_short_help_str(formatter.width - 20)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which distribution it comes with."""
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name in _OF_THE_SERVER and name not in known:
            ctx.fail(
                f"the command {name!r} comes with the distribution shoal-server; install its wheel "
                "beside that of shoal (docs/packages.md)"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one sentence, not a traceback."""
        try:
            return super().invoke(ctx)
        except ShoalError as error:
            raise click.ClickException(error.message) from error


def _keeping_lines(command: click.Command) -> click.Command:
    """Turn the two characters that a raw docstring has for backspace into click's mark."""
    if command.help:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _keeping_lines(one)
    return command


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _command(plugin: EntryPoint) -> click.Command:
    loaded = plugin.load()
    if not isinstance(loaded, click.Command):
        raise TypeError(f"{plugin.value} is not a command of click")
    return loaded


def _broken(plugin: EntryPoint, error: Exception) -> click.Command:
    """Return a command that says why it cannot be loaded, whatever words follow it, `--help` included."""
    said = f"{plugin.value} cannot be loaded: {type(error).__name__}: {error}"
    package = plugin.module.partition(".")[0]
    found = find_spec(package)
    where = "is not installed"
    if found is not None:
        where = f"lies in {', '.join(found.submodule_search_locations or [str(found.origin)])}"

    unloadable = explain_unloadable(error) if isinstance(error, ImportError) else ""

    def refuse(**_: Any) -> None:
        raise click.ClickException(
            unloadable
            or f"{said}\nThe package {package!r} {where}. If it belongs to another distribution, or "
            "shoal-server is not installed completely, install the wheels of shoal and shoal-server in "
            "an environment of their own (docs/packages.md)"
        )

    return click.Command(
        plugin.name,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        callback=refuse,
        short_help=f"({said})",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`shoal COMMAND --help` explains each command with examples.",
)
@click.version_option(described(), prog_name="shoal")
def cli() -> None:
    r"""Run pipelines of programs on a mesh of edge devices.

    A pipeline is a set of jobs and the streams between them; a single command is a pipeline of one.
    Start a cluster on this machine in one terminal, and use it from another:

    \b
        shoal up
        shoal run -- sh -c 'echo hello > results/x'
        shoal run pipeline.yaml
        shoal status

    Commands find the controller by --controller or --cluster, the variables SHOAL_CONTROLLER or
    SHOAL_CLUSTER, or the cluster that `shoal up` started, in this order.
    """


_keeping_lines(cli)


def main() -> None:
    """Run the command; the entry point."""
    # gRPC's core writes lines of its own to stderr when a connection ends; ours say more.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        # Not click's own ending, which takes a Ctrl-C for a failure.
        status = cli.main(prog_name="shoal", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ImportError as error:
        said = explain_unloadable(error)
        if not said:
            raise
        sys.stderr.write(f"Error: {said}\n")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in `shoal status | head -1`
        sys.stderr.close()
        sys.exit(1)

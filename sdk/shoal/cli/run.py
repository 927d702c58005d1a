"""`shoal run`: submit, wait, and end as the pipeline ended."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from shoal.cli.command_option import refuse_beside_command, refuse_beside_spec, with_options
from shoal.cli.controller_option import INTERRUPTED_STATUS, Target, controller_options, run_async
from shoal.cli.document import print_document
from shoal.cli.log_printer import standard_printer, tell_cut
from shoal.cli.port_file_option import port_file
from shoal.cli.replay_option import refuse_pace_alone, replay_options
from shoal.cli.traceparent import given_traceparent
from shoal.cli.unit_option import unit
from shoal.cli.values_option import refuse_values, values_options
from shoal.errors import ShoalError
from shoal.sandbox import SandboxLevel
from shoal.specfile.units import parse_duration, parse_size


class RunCommand(click.Command):
    """Keeps what follows `--` apart: it is a command to run, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut the arguments at the first `--`; without one, see whether it was forgotten."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta["shoal.command"] = tuple(args[cut + 1 :])
            return super().parse_args(ctx, args[:cut])
        words = self._words(args)
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            if words and not _is_spec(words[0]):
                raise click.UsageError(
                    f"{error.message.rstrip('.')}. {_after_dashes(words)}", ctx
                ) from None
            if len(words) > 1 and not any(word.startswith("-") for word in words):
                raise click.UsageError(
                    f"{error.message.rstrip('.')}. `shoal run` takes one specification; "
                    f"for several: shoal submit {shlex.join(words)}",
                    ctx,
                ) from None
            raise

    def _words(self, args: list[str]) -> list[str]:
        """Return the arguments from the first on that is no option, nor the value of one."""
        valued = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        index = 0
        while index < len(args) and args[index].startswith("-"):
            index += 2 if args[index] in valued else 1
        return args[index:]


def _is_spec(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or Path(word).is_dir()


def _after_dashes(words: Sequence[str]) -> str:
    return f"A command stands after --, as in: shoal run -- {shlex.join(words)}"


def pair(text: str) -> tuple[str, str]:
    """Cut `KEY=VALUE` at the first equals sign.

    Raises:
        click.BadParameter: there is none.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def _check_is_spec(path: Path) -> None:
    """Refuse a program where a specification is wanted.

    Raises:
        click.UsageError: it is no specification, as far as can be seen without reading it.
    """
    if _is_spec(str(path)):
        return
    if not path.exists():
        raise click.UsageError(f"there is no specification {path}. {_after_dashes([str(path)])}")
    if path.suffix in {".py", ".sh"} or os.access(path, os.X_OK):
        raise click.UsageError(
            f"{path} is a program and no specification. A command stands after --, with the folder "
            f"of its files, as in: shoal run --bundle {path.parent} -- {_program(path)}"
        )


def _program(path: Path) -> str:
    interpreter = {".py": "python ", ".sh": "sh "}.get(path.suffix, "./")
    return interpreter + shlex.quote(path.name)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=RunCommand)
@click.argument(
    "spec_path", metavar="[SPEC | -- COMMAND…]", required=False, type=click.Path(path_type=Path)
)
@click.option("--detach", "-d", is_flag=True, help="Do not wait; print the pipeline's name.")
@click.option("--json", "as_json", is_flag=True, help="Print how it ended as JSON on stdout.")
@click.option(
    "--logs/--no-logs",
    "logs",
    default=None,
    help="Show what jobs print.  [default: if there is just one job]",
)
@click.option("--request-id", default="", help="Idempotency key; the same key runs once.")
@click.option(
    "--name",
    default="",
    help="Name of the pipeline.  [default: that of the specification or program]",
)
@click.option(
    "--bundle",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the command gets a copy of and runs in.",
)
@click.option(
    "--stdin",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="File that the command reads as its standard input; - for our own.",
)
@click.option("--requirements", type=_FILE, help="Python packages that the command needs.")
@click.option("--python", default="", help="Version of its Python, such as 3.11.")
@click.option(
    "--env",
    "variables",
    multiple=True,
    type=pair,
    metavar="KEY=VALUE",
    help="Variable of the command, or of every program of the specification.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=unit(parse_duration),
    metavar="DURATION",
    default="0",
    help="How long it may run: 90s, 2m.",
)
@click.option("--retries", type=click.IntRange(0, 1000), default=0, help="How often it may fail.")
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Cores it needs.")
@click.option(
    "--memory",
    "memory_bytes",
    type=unit(parse_size),
    metavar="SIZE",
    default="0",
    help="Memory it needs: 512MiB.",
)
@click.option("--device", "devices", multiple=True, help="Class of device it needs: video.")
@click.option(
    "--sandbox",
    type=click.Choice([level.value for level in SandboxLevel]),
    default=SandboxLevel.NONE.value,
    help="How far it is kept from the rest of its node, at least.  [default: as the node does by itself]",
)
@click.option(
    "--require", multiple=True, type=pair, metavar="KEY=VALUE", help="Label of the node it needs."
)
@click.option(
    "--local-results",
    type=click.Path(file_okay=False, path_type=Path),
    default="results",
    show_default=True,
    help="Folder for what local jobs leave, a folder in it for each.",
)
@replay_options
@click.option(
    "--record",
    multiple=True,
    type=port_file,
    metavar="JOB.PORT=FILE",
    help="Copy what an output sends to a file, as `shoal record` does; several times for several.",
)
@values_options
@click.option("--archive", multiple=True, help="Pattern of files to keep.  [default: results/**]")
@controller_options
@click.pass_context
def run(ctx: click.Context, /, target: Target, spec_path: Path | None, **wishes: Any) -> None:
    r"""Run a pipeline or a single command, and wait for its end.

    \b
        shoal run pipeline.yaml
        shoal run --set limit=20 --values street.toml pipeline.yaml
        shoal run people-counter                        the folder's pipeline.yaml
        shoal run --record camera.frames=frames.records pipeline.yaml
        shoal run -- sh -c 'echo hello > results/x'
        shoal run --stdin README.md -- wc -l
        shoal run --bundle . --requirements requirements.txt -- python main.py

    A command runs in a folder of its own on some node. What it writes below results/ is archived,
    and listed at the end with sizes and SHA-256. What it prints is shown as it comes: its stdout on
    stdout, everything else on stderr.

    Jobs with `local: true` run here, beside this command, with this terminal; what they leave in
    results/ goes to --local-results. They end with the command, so Ctrl-C cancels such a pipeline.

    The exit status is 0 if all jobs succeeded, 1 if not, 2 if the specification is wrong. Ctrl-C
    leaves the pipeline to run on its own; pressed twice, it cancels it. `shoal finish` ends a pipeline
    that would never end by itself, with its results.
    """
    command: tuple[str, ...] | None = ctx.meta.get("shoal.command")
    if spec_path is not None and command is not None:
        raise click.UsageError(
            f"{spec_path} is a specification and {shlex.join(command)!r} stands after --; "
            "leave out one of them"
        )
    if spec_path is None and command is None:
        raise click.UsageError(
            "name a specification file, or write a command after --, as in: shoal run -- ls -l"
        )
    if spec_path is not None:
        _check_is_spec(spec_path)
    if command is not None and len(command) == 1 and _is_spec(command[0]):
        raise click.UsageError(
            f"{command[0]} is a specification, and what stands after -- is run as a program; "
            f"write: shoal run {command[0]}"
        )
    if command == ():
        raise click.UsageError("there is no command after --; write for example: shoal run -- ls")
    if wishes["logs"] and (wishes["as_json"] or wishes["detach"]):
        other = "--json" if wishes["as_json"] else "--detach"
        raise click.UsageError(f"{other} shows no logs; leave out --logs, and see: shoal logs")
    if wishes["record"] and wishes["detach"]:
        raise click.UsageError(
            "--record copies while this command runs, and --detach ends it; leave out one of them, or "
            "see: shoal record"
        )
    if spec_path is not None:
        refuse_beside_spec(ctx, spec_path)
        refuse_pace_alone(ctx)
    else:
        refuse_beside_command(ctx)
    with _prepared(spec_path, command, wishes) as prepared:
        ctx.exit(run_async(_run(target, prepared, wishes)))


@contextlib.contextmanager
def _prepared(
    spec_path: Path | None, command: Sequence[str] | None, wishes: Mapping[str, Any]
) -> Iterator[Any]:
    from shoal import bundle
    from shoal.cli.packing import load_all, packed_entries, packed_file
    from shoal.cli.single_command import Wishes, own_stdin, single_command

    if spec_path is not None:
        (spec_file,) = load_all([spec_path], wishes["given"])
        pipeline = with_options(spec_file.pipeline, wishes["name"], dict(wishes["variables"]))
        spec_file = replace(spec_file, pipeline=pipeline)
        with packed_file(spec_file, wishes["replay"], wishes["pace"]) as prepared:
            yield prepared
        return
    refuse_values(wishes["given"], "name one instead of a command")
    with own_stdin(wishes["stdin"]) as stdin:
        wished = {field.name: wishes[field.name] for field in fields(Wishes)}
        wished["stdin"] = stdin
        try:
            pipeline, entries = single_command(command or (), Wishes(**wished))
        except bundle.BundleError as error:
            raise click.ClickException(str(error)) from None
        except ShoalError as error:
            raise click.UsageError(error.message) from None
        with packed_entries(pipeline, entries) as prepared:
            yield prepared


async def _run(target: Target, prepared: Any, wishes: Mapping[str, Any]) -> int:
    from shoal.cli.copies import check_copies, recording
    from shoal.cli.display import display_for
    from shoal.cli.local_jobs import local_run, refuse_local, typing_job
    from shoal.cli.outcome import exit_status, show_outcome, show_warnings
    from shoal.cli.tables import console
    from shoal.cli.waiting import wait_for_end

    detach, as_json, logs = wishes["detach"], wishes["as_json"], wishes["logs"]
    if detach:
        refuse_local(prepared.pipeline)
    check_copies(prepared.pipeline, wishes["record"], may_go_on=bool(wishes["request_id"]))
    async with target.client() as client:
        if prepared.packed is not None:
            await client.ensure_bundle(prepared.packed)
            # Not needed any more, and left behind if this command is killed.
            prepared.packed.path.unlink(missing_ok=True)
        submitted = (
            await client.submit(
                prepared.pipeline,
                request_id=wishes["request_id"],
                traceparent=given_traceparent(),
            )
        ).pipeline
        beside = local_run(client, submitted, prepared.folder, wishes["local_results"])
        if detach:
            if as_json:
                print_document(submitted)
            else:
                click.echo(submitted.name)
            return 0
        alone = len(submitted.jobs) == 1
        shown = (alone if logs is None else logs) and not as_json
        printer = standard_printer(prefixed=not alone) if shown else None
        if sys.stderr.isatty() or not alone:
            click.echo(f"{submitted.name} on {target.address}", err=True)
        # Local jobs have the terminal; a table that is drawn anew would wipe what they say.
        live = printer is None and beside is None
        typing = typing_job(submitted)
        with display_for(console(stderr=True), live=live, typing=typing) as display:
            async with recording(client, submitted, wishes["record"], display.say) as copies:
                ended = await wait_for_end(client, submitted, display, printer, beside=beside)
                if ended is None:
                    copies.stop()
        for line in copies.complete:
            click.echo(line, err=True)
        if beside is not None and ended is not None:
            beside.forget()
            for left in beside.left():
                click.echo(f"local results are in {left}", err=True)
        if ended is None:
            click.echo(
                f"{submitted.name} goes on; see: shoal status {submitted.id}   "
                f"end it: shoal cancel {submitted.id}   "
                f"end it with its results: shoal finish {submitted.id}",
                err=True,
            )
            return INTERRUPTED_STATUS
        if as_json:
            print_document(ended)
            show_warnings(ended)
        elif printer is None:
            await show_outcome(client, ended, logs_shown=False)
        else:
            await show_outcome(client, ended, logs_shown=True, said_last=printer.said_last)
            if tell_cut(printer, (await client.get(ended.id)).jobs):
                return exit_status(ended) or 1
        return exit_status(ended) or min(copies.failed, 1)

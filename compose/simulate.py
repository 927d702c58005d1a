"""`shoal simulate`: a pipeline on a private cluster, with faults where they are asked for."""

import asyncio
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compose.child import ChildEndedError
from compose.given_secrets import check_given, read_secrets
from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import OwnSandbox, own_sandbox
from compose.simulate_fault import Fault, FaultError, check_boards, check_fault, parse_fault
from compose.simulate_output import OutputFolder, OutputTakenError
from services.runtime.log import setup
from services.runtime.process import ExitCode, run
from shoal import spec
from shoal.cause import causes
from shoal.cli.command_option import with_options
from shoal.cli.display import Display, display_for
from shoal.cli.interrupts import interrupts
from shoal.cli.log_printer import standard_printer
from shoal.cli.outcome import exit_status, show_outcome
from shoal.cli.packing import PackedPipeline, load_all, packed_file
from shoal.cli.replay_option import refuse_pace_alone, replay_options
from shoal.cli.run import pair
from shoal.cli.tables import console
from shoal.cli.values_option import values_options
from shoal.cli.waiting import shown_to_end
from shoal.errors import ShoalError
from shoal.local.local_run import by_hand, may_read_terminal, with_programs
from shoal.local.port_file import PortFile
from shoal.sandbox import ASKS_NOTHING
from shoal.specfile.load import SpecFile
from shoal.specfile.values import GivenValue
from shoal.view import PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

_LEASE_SECONDS = 4.0
_LAST_LOGS_SECONDS = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Simulation:
    """What to run, on how many boards, what goes wrong, and where the files go."""

    prepared: PackedPipeline
    agents: int
    faults: tuple[Fault, ...]
    output: OutputFolder
    state: Path
    sandbox: OwnSandbox
    logs: bool
    secrets: Mapping[str, bytes] = dataclasses.field(repr=False)


def _fault(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> object:
    try:
        return tuple(parse_fault(sentence) for sentence in value)
    except FaultError as error:
        raise click.BadParameter(str(error)) from None


@click.command("simulate", short_help="Run a pipeline on a private cluster, with faults.")
@click.argument("spec_path", metavar="SPEC", type=click.Path(path_type=Path))
@click.option(
    "--agents", default=3, show_default=True, type=click.IntRange(1, 64), help="How many boards."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_fault,
    metavar="FAULT",
    help="What goes wrong: 'kill JOB@3s', 'kill-agent JOB@100 records', 'stop JOB@2s+1s', "
    "'drop JOB-JOB 2s'.",
)
@click.option(
    "--out",
    "-o",
    default="simulated",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files of each job; one of an earlier simulation is replaced.",
)
@click.option(
    "--logs/--no-logs",
    "logs",
    default=None,
    help="Show what jobs print.  [default: if there is just one job]",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the cluster's own files here.  [default: a temporary folder]",
)
@click.option("--name", default="", help="Name of the pipeline.  [default: the file's]")
@click.option(
    "--env",
    "variables",
    multiple=True,
    type=pair,
    metavar="KEY=VALUE",
    help="Variable of every program, instead of one of that name in the file.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    callback=read_secrets,
    metavar="NAME=FILE",
    help="Value of a secret that the file names, byte for byte.",
)
@replay_options
@values_options
def simulate(
    spec_path: Path,
    agents: int,
    name: str,
    variables: tuple[tuple[str, str], ...],
    secrets: Mapping[str, bytes],
    faults: tuple[Fault, ...],
    out: Path,
    logs: bool | None,  # noqa: FBT001  # click passes it by name
    state: Path | None,
    replay: tuple[PortFile, ...],
    pace: str,
    given: dict[str, GivenValue],
) -> None:
    """Run a specification on this machine, on a cluster of its own that ends with the pipeline.

    \b
        shoal simulate pipeline.yaml
        shoal simulate --fault 'kill detector@3s' --agents 4 pipeline.yaml
        shoal simulate --fault 'stop camera@200 records+1s' pipeline.yaml
        shoal simulate --set limit=20 --env DEBUG=1 pipeline.yaml
        shoal simulate --secret lab-token=token.txt pipeline.yaml

    Every board is a set of processes, and jobs run, stream and fail over as on a real mesh. Labels,
    memory and devices that jobs ask for are taken to be there. What each job printed and archived is
    in OUT/JOB afterwards: results/, stdout, stderr.

    \b
        kill JOB@WHEN           the board that runs JOB loses its power, and stays away
        kill-agent JOB@WHEN     its agent is killed and comes back; jobs and streams go on
        stop JOB@WHEN+LONG      its streams stand still for LONG, as on a dead link
        drop A-B@WHEN+LONG      everything between the boards of the jobs A and B is lost for LONG
        drop A-B LONG           the same, as soon as both run
        WHEN                    3s: after the submission; 100 records: once JOB has sent or taken them

    JOB is a job of the specification or one of its replicas, such as detector-1. The exit status is
    that of `shoal run`. The first Ctrl-C finishes the pipeline, as `shoal finish` does: sources end, the
    rest drains, and the files are there; a second one ends everything at once, without them.
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    setup("simulate", level="WARNING")
    refuse_pace_alone(click.get_current_context())
    (spec_file,) = load_all([spec_path], given)
    spec_file = dataclasses.replace(
        spec_file, pipeline=with_options(spec_file.pipeline, name, dict(variables))
    )
    refuse_by_hand(spec_file.pipeline)
    check_given(spec_file.pipeline, secrets)
    for job in with_programs(spec_file.pipeline):
        if may_read_terminal(job):
            click.echo(
                f"{job.name}: nothing is typed into a simulation, so its standard input is empty; "
                "feed it records with --replay",
                err=True,
            )
    try:
        for fault in faults:
            check_fault(fault, spec_file.pipeline)
        check_boards(faults, agents)
    except FaultError as error:
        raise click.UsageError(str(error)) from None
    output = OutputFolder(out.absolute())
    with contextlib.ExitStack() as stack:
        prepared = stack.enter_context(
            packed_file(without_output(spec_file, output.path), replay, pace)
        )
        try:
            output.clear()
        except OutputTakenError as error:
            raise click.ClickException(str(error)) from None
        folder = state or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-simulate-"))
        )
        simulation = Simulation(
            prepared=dataclasses.replace(prepared, pipeline=anywhere(prepared.pipeline)),
            agents=agents,
            faults=faults,
            output=output,
            state=folder.absolute(),
            sandbox=own_sandbox(folder.absolute()),
            logs=len(jobs_of(prepared.pipeline)) == 1 if logs is None else logs,
            secrets=secrets,
        )
        code = run(lambda: _simulate(simulation))
    sys.exit(code)


def without_output(spec_file: SpecFile, output: Path) -> SpecFile:
    """Leave the files of simulations out of the bundle, when they lie in its folder."""
    folder = spec_file.bundle
    if folder is None or not output.resolve().is_relative_to(folder.path.resolve()):
        return spec_file
    inside = output.resolve().relative_to(folder.path.resolve()).as_posix()
    exclude = (*folder.exclude, f"/{inside}/")
    return dataclasses.replace(spec_file, bundle=dataclasses.replace(folder, exclude=exclude))


def refuse_by_hand(pipeline: spec.Pipeline) -> None:
    """Refuse what a simulation cannot run by itself.

    Raises:
        click.UsageError: a job waits for records of a client.
    """
    for job in by_hand(pipeline):
        raise click.UsageError(
            f"{job.name} has no program and waits for `shoal send`, which a simulation cannot do; "
            "give it one with `run`"
        )


def anywhere(pipeline: spec.Pipeline) -> spec.Pipeline:
    """Return the pipeline without what only real boards have: labels, memory, devices, sandboxes.

    Local jobs run on the boards like any other.
    """
    return dataclasses.replace(
        pipeline,
        jobs=tuple(
            dataclasses.replace(
                job,
                place=dataclasses.replace(job.place, require={}),
                resources=spec.Resources(job.resources.cpus),
                sandbox=ASKS_NOTHING,
                stdin="" if job.local and job.stdin == spec.TERMINAL else job.stdin,
                local=False,
            )
            for job in pipeline.jobs
        ),
    )


def jobs_of(pipeline: spec.Pipeline) -> tuple[spec.Job, ...]:
    """Return every job as often as it has replicas."""
    return tuple(job for job in pipeline.jobs for _ in range(job.replicas))


async def _simulate(simulation: Simulation) -> int:
    pipeline = simulation.prepared.pipeline
    config = LocalClusterConfig(
        state=simulation.state,
        sandbox=simulation.sandbox.level,
        agents=simulation.agents,
        mqtt="none",
        # One board could run everything: what is left after a fault always has room.
        cpus=max(1.0, sum(job.resources.cpus for job in jobs_of(pipeline))),
        lease_seconds=_LEASE_SECONDS,
        stop_jobs=True,
    )
    word = "board" if simulation.agents == 1 else "boards"
    click.echo(f"starting {simulation.agents} {word} for {pipeline.name}", err=True)
    click.echo(f"sandbox {simulation.sandbox.said}", err=True)
    async with contextlib.AsyncExitStack() as stack:
        try:
            cluster = await stack.enter_async_context(LocalCluster(config))
        except (ChildEndedError, TimeoutError) as error:
            click.echo(f"Error: the cluster did not start: {error}", err=True)
            return 1
        try:
            client = await stack.enter_async_context(cluster.client())
            return await _run(simulation, cluster, client)
        except* ShoalError as group:
            for cause in causes(group):
                click.echo(f"Error: {cause}", err=True)
    return 1


async def _run(simulation: Simulation, cluster: LocalCluster, client: "Client") -> int:
    from compose.simulate_injector import Injector  # noqa: PLC0415 - for a quick --help

    if simulation.prepared.packed is not None:
        await client.ensure_bundle(simulation.prepared.packed)
    for secret, value in simulation.secrets.items():
        await client.set_secret(secret, value)
    submitted = (await client.submit(simulation.prepared.pipeline)).pipeline
    with display_for(console(stderr=True), live=not simulation.logs) as display:
        injector = Injector(cluster, client, display.say)
        async with asyncio.TaskGroup() as group:
            injecting = group.create_task(injector.run(simulation.faults, submitted.id))
            printing = group.create_task(_print(client, submitted, shown=simulation.logs))
            watching = group.create_task(shown_to_end(client, submitted, display))
            leaving = group.create_task(_finish(client, submitted, display))
            await asyncio.wait({watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            injecting.cancel()
            if watching.done():
                await asyncio.wait({printing}, timeout=_LAST_LOGS_SECONDS)
            watching.cancel()
            printing.cancel()
    if watching.cancelled():
        return ExitCode.INTERRUPTED
    ended = watching.result()
    await simulation.output.fill(client, ended)
    await show_outcome(client, ended, logs_shown=simulation.logs)
    for fault in injector.waiting:
        click.echo(f"{fault.sentence!r} never happened: the pipeline ended before", err=True)
    click.echo(f"files: {simulation.output.path}", err=True)
    return exit_status(ended)


async def _finish(client: "Client", pipeline: PipelineView, display: Display) -> None:
    """Let the pipeline end with its files at the first Ctrl-C; return at the second."""
    with interrupts() as pressed:
        await pressed.get()
        display.say(f"finishing {pipeline.name}; press Ctrl-C again to stop at once")
        await client.finish(pipeline.id)
        await pressed.get()
        display.say("stopping")


async def _print(client: "Client", pipeline: PipelineView, *, shown: bool) -> None:
    if not shown:
        return
    printer = standard_printer(prefixed=len(pipeline.jobs) > 1)
    try:
        async with contextlib.aclosing(client.logs(pipeline.name, follow=True)) as chunks:
            async for chunk in chunks:
                printer.write(chunk)
    finally:
        printer.close()

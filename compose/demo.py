"""`make demo`: a cluster on this machine counts people in a real video, and may lose a board meanwhile."""

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import aiomqtt
import click

from compose.child import ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import OwnSandbox, own_sandbox
from services.runtime.log import setup
from services.runtime.process import StartRefusedError, run
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import LogStream, PipelineView

_EXAMPLE: Final = Path("examples") / "people_counter" / "pipeline.yaml"
_OUTPUT: Final = Path("demo-output")
_DEADLINE_SECONDS: Final = 900.0
_EVENT_SECONDS: Final = 30.0
_KILL_AFTER_RECORDS: Final = 20


@click.command()
@click.option(
    "--kill",
    type=click.Choice(["agent", "controller"]),
    help="What to end with SIGKILL in the middle of the video: a board that runs a detector, or the controller.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the cluster's files here.  [default: a temporary folder]",
)
def demo(kill: str | None, state: Path | None) -> None:
    """Run examples/people_counter on a local cluster of three agents.

    Ends with the manifest, the event and the count table; the artifacts are copied to demo-output/.
    """
    setup("demo", level="WARNING")
    with contextlib.ExitStack() as stack:
        folder = state or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-demo-"))
        )
        own = own_sandbox(folder.absolute())
        code = run(lambda: _demo(kill, folder.absolute(), own))
    sys.exit(code)


async def _demo(kill: str | None, state: Path, own: OwnSandbox) -> int:
    begin = time.monotonic()
    click.echo("starting a controller, three agents and a broker")
    click.echo(f"sandbox {own.said}")
    try:
        config = LocalClusterConfig(state=state, stop_jobs=True, sandbox=own.level)
        async with LocalCluster(config) as cluster:
            click.echo(
                f"the cluster is up: controller {cluster.controller_address}, logs in {state}"
            )
            if not cluster.broker_url:
                click.echo(
                    "mosquitto is not installed: events stay in the outbox (apt-get install mosquitto)"
                )
            async with asyncio.timeout(_DEADLINE_SECONDS), _events(cluster.broker_url) as events:
                async with asyncio.TaskGroup() as group:
                    killing = group.create_task(_kill(cluster, kill))
                    code = await _shoal_run(cluster)
                    if not killing.done():
                        killing.cancel()
                        click.echo(f"the pipeline ended before its {kill} could be killed")
                        code = code or 1
                return code or await _show(cluster, events, begin)
    except ChildEndedError as error:
        raise StartRefusedError(str(error)) from error


async def _shoal_run(cluster: LocalCluster) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal.cli", "run", str(_EXAMPLE)),
        *("--controller", cluster.controller_address),
        *(() if cluster.identity is None else ("--identity", str(cluster.identity))),
    )
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()


async def _kill(cluster: LocalCluster, what: str | None) -> None:
    if what is None:
        return
    async with cluster.client() as client:
        victim = await _board_of_a_detector(client)
    if what == "agent":
        click.echo(
            f"pulling the plug of {victim}: agent, keeper, stream worker and jobs get SIGKILL"
        )
        await cluster.kill_board(victim)
    else:
        click.echo("killing the controller with SIGKILL, and starting it again")
        await cluster.controller.kill()
        await cluster.controller.start()


async def _board_of_a_detector(client: Client) -> str:
    """Wait for the middle of the video; prefer a board that runs nothing but detectors."""
    async with contextlib.aclosing(client.watch()) as changes:
        async for change in changes:
            if not isinstance(change, PipelineView):
                continue
            nodes = {job.id: job.node for job in change.jobs if job.state is JobState.RUNNING}
            counted = sum(
                stream.records
                for job in change.jobs
                if job.spec_name == "counter"
                for stream in job.streams
            )
            detectors = [node for job, node in nodes.items() if job.startswith("detector")]
            if counted >= _KILL_AFTER_RECORDS and detectors:
                others = {node for job, node in nodes.items() if not job.startswith("detector")}
                return min(detectors, key=lambda node: (node in others, node))
    raise RuntimeError("the watch ended before a detector ran")


async def _show(
    cluster: LocalCluster, events: asyncio.Queue[dict[str, object]], begin: float
) -> int:
    async with cluster.client() as client:
        async with contextlib.aclosing(client.list()) as newest_first:
            pipeline = await anext(newest_first)
        for job in pipeline.jobs:
            for artifact in job.artifacts:
                if artifact.path.startswith("results/"):
                    target = _OUTPUT / Path(artifact.path).name
                    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
                    await client.fetch(artifact, target)
        moved = [job.id for job in pipeline.jobs if len(job.attempts) > 1]
        if moved:
            click.echo(f"placed more than once: {', '.join(moved)}")
        click.echo("")
        click.echo(f"Event {pipeline.final_event_id}")
        click.echo(f"      {await _received(events, pipeline, cluster.broker_url)}")
        click.echo("")
        click.echo("People")
        table = [
            chunk.data
            async for chunk in client.logs(f"{pipeline.name}/jobs/counter")
            if chunk.stream is LogStream.STDOUT
        ]
        click.echo(b"".join(table).decode(errors="replace").rstrip())
    click.echo("")
    click.echo(
        f"{_OUTPUT}/ holds people.csv and contact_sheet.jpg; {time.monotonic() - begin:.0f} s in all"
    )
    return 0 if pipeline.state is PipelineState.SUCCEEDED else 1


@contextlib.asynccontextmanager
async def _events(broker_url: str) -> AsyncIterator[asyncio.Queue[dict[str, object]]]:
    """Listen to the broker as any consumer would."""
    received: asyncio.Queue[dict[str, object]] = asyncio.Queue(1000)
    if not broker_url:
        yield received
        return
    host, _, port = broker_url.removeprefix("mqtt://").partition(":")
    async with aiomqtt.Client(host, int(port)) as client, asyncio.TaskGroup() as group:
        await client.subscribe("shoal/#", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                if str(message.topic).endswith("/events"):
                    await received.put(json.loads(message.payload))

        listening = group.create_task(listen())
        yield received
        listening.cancel()


async def _received(
    events: asyncio.Queue[dict[str, object]], pipeline: PipelineView, broker_url: str
) -> str:
    if not broker_url:
        return "kept in the outbox: there is no broker"
    try:
        async with asyncio.timeout(_EVENT_SECONDS):
            while True:
                event = await events.get()
                if event.get("id") == pipeline.final_event_id:
                    return f"received over MQTT: {event.get('type')} about {event.get('subject')}"
    except TimeoutError:
        return f"not received over MQTT within {_EVENT_SECONDS:g} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m compose.demo`."""
    logging.captureWarnings(capture=True)
    demo.main(None if arguments is None else list(arguments), prog_name="demo")


if __name__ == "__main__":
    main()

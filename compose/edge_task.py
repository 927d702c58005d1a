"""`make edge-task`: a task of the edge-analytics dashboard, from its folder in S3 to its results there."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aiomqtt
import click

from compose.broker import find_mosquitto, kept_port
from compose.child import Child, ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import OwnSandbox, own_sandbox
from services.runtime.log import setup
from services.runtime.process import StartRefusedError, run
from shoal.identity import Role

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

_EXAMPLE: Final = Path("examples") / "edge_task"
_ARCHIVE: Final = "archive"
_UPLOADS: Final = "uploads"
_QUEUE: Final = "taskQ1"
_PREFIX: Final = "ada/Classification/task7/"
_MESSAGE: Final[Mapping[str, str]] = {
    "userName": "ada",
    "taskName": "task7",
    "nodeId": "Node-2",
    "actionType": "Classification",
    "isCamera": "false",
}
_UPDATES: Final = "Updates"
_STAGES: Final = 8
_REGION: Final = "us-east-1"
_SECONDS: Final = 300.0
_KEYS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": "edge-task",
    "AWS_SECRET_ACCESS_KEY": "edge-task",
}


@click.command()
@click.option(
    "--ministack",
    default=".venv-ministack/bin/ministack",
    help="Program that serves S3 and SQS.",
    show_default=True,
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the files of all processes here.  [default: a temporary folder]",
)
def edge_task(ministack: str, state: Path | None) -> None:
    """Run examples/edge_task as the dashboard would: upload it, send its message, hear of it, find its results."""
    setup("edge-task", level="ERROR")
    program = shutil.which(ministack)
    if program is None:
        raise click.ClickException(f"{ministack} is not there: `make edge-task` installs it")
    if find_mosquitto() is None:
        raise click.ClickException("mosquitto is not installed: apt-get install mosquitto")
    os.environ.update(_KEYS)
    with contextlib.ExitStack() as stack:
        folder = state or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-edge-"))
        )
        own = own_sandbox(folder.absolute())
        code = run(lambda: _edge_task(program, folder.absolute(), own))
    sys.exit(code)


async def _edge_task(program: str, state: Path, own: OwnSandbox) -> int:
    begin = time.monotonic()
    try:
        async with asyncio.timeout(_SECONDS), _ministack(program, state / "ministack") as endpoint:
            click.echo(f"S3 and SQS  {endpoint}")
            queue = await _prepare(endpoint)
            config = LocalClusterConfig(
                state=state,
                stop_jobs=True,
                sandbox=own.level,
                archive=f"s3://{_ARCHIVE}/shoal?endpoint={endpoint}&region={_REGION}",
                controller_environ={"SHOAL_CONTROLLER_SOURCE_BUCKETS": _UPLOADS},
            )
            async with LocalCluster(config) as cluster:
                click.echo(f"controller  {cluster.controller_address}")
                click.echo(f"sandbox     {own.said}")
                click.echo(f"boards      {', '.join(cluster.agents)}")
                async with _intake(cluster, endpoint, state) as intake, _updates(cluster) as heard:
                    click.echo(f"intake      reads {_QUEUE}, and proves submitter/intake")
                    await _send(endpoint, queue)
                    code = await _show(heard, endpoint, intake)
        click.echo(f"{time.monotonic() - begin:.0f} s in all")
    except ChildEndedError as error:
        raise StartRefusedError(str(error)) from error
    except TimeoutError:
        raise StartRefusedError(
            f"it did not end within {_SECONDS:g} s; logs are in the folder of --state"
        ) from None
    return code


@contextlib.asynccontextmanager
async def _ministack(program: str, folder: Path) -> AsyncIterator[str]:
    """Serve S3 and SQS on loopback."""
    port = await asyncio.to_thread(kept_port, folder)
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3,sqs",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "data"),
    }
    child = Child(
        "ministack", lambda: (program,), folder / "log", environ={**os.environ, **settings}
    )
    await child.start()
    try:
        await _listening(child, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.stop()


async def _listening(child: Child, port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        if not child.running:
            raise ChildEndedError(f"{child.name} ended at once:\n{child.tail()}")
        await asyncio.sleep(0.05)


def _client(service: str, endpoint: str) -> Any:
    # Amazon's libraries are as large as everything else together.
    import aioboto3  # noqa: PLC0415

    session = cast("Any", aioboto3.Session())
    return session.client(service, endpoint_url=endpoint, region_name=_REGION)


async def _prepare(endpoint: str) -> str:
    """Make buckets and queue, and upload the task; returns the address of the queue."""
    async with _client("s3", endpoint) as s3:
        for bucket in (_ARCHIVE, _UPLOADS):
            await s3.create_bucket(Bucket=bucket)
        for path in sorted(_EXAMPLE.glob("*/*")):
            key = f"{_PREFIX}{path.parent.name}/{path.name}"
            await s3.put_object(Bucket=_UPLOADS, Key=key, Body=path.read_bytes())
            click.echo(f"uploaded    s3://{_UPLOADS}/{key}")
        # The form's key for a file that was not chosen.
        await s3.put_object(Bucket=_UPLOADS, Key=f"{_PREFIX}Input/", Body=b"")
        click.echo(f"uploaded    s3://{_UPLOADS}/{_PREFIX}Input/  (empty)")
    async with _client("sqs", endpoint) as sqs:
        return str((await sqs.create_queue(QueueName=_QUEUE))["QueueUrl"])


async def _send(endpoint: str, queue: str) -> None:
    body = json.dumps(_MESSAGE, separators=(",", ":"))
    async with _client("sqs", endpoint) as sqs:
        await sqs.send_message(QueueUrl=queue, MessageBody=body)
    click.echo(f"sent        {body}")


@contextlib.asynccontextmanager
async def _intake(cluster: LocalCluster, endpoint: str, state: Path) -> AsyncIterator[Child]:
    """Run an intake that proves the role of a submitter."""
    identity = state / "intake" / "identity"
    await _join(cluster, identity)
    child = Child(
        "intake",
        lambda: (
            *(sys.executable, "-m", "shoal.cli", "intake"),
            *("--state", str(state / "intake")),
            *("--controller", cluster.controller_address),
            *("--identity", str(identity)),
            *("--task-queue", _QUEUE),
            *("--bucket", _UPLOADS),
            *("--sqs-endpoint", endpoint),
            *("--health-file", str(state / "intake.health")),
        ),
        state / "intake.log",
    )
    await child.start()
    try:
        await child.ready(state / "intake.health", 60)
        yield child
    finally:
        await child.stop()


async def _join(cluster: LocalCluster, folder: Path) -> None:
    """Get credentials of a submitter with a token, as `shoal login` does."""
    from shoal.credentials import write_credentials  # noqa: PLC0415 - for a quick --help
    from shoal.join_token import parse_token  # noqa: PLC0415
    from shoal.joining import join  # noqa: PLC0415

    ready = cluster.config.state / "controller.ready"
    newcomers = json.loads(await asyncio.to_thread(ready.read_text))["newcomers"]
    async with cluster.client() as client:
        word, _ = await client.create_token(
            Role.SUBMITTER, name_pattern="intake", ttl_seconds=600, uses=1
        )
    joined = await asyncio.to_thread(join, newcomers, parse_token(word), "intake", role="person")
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(write_credentials, folder, joined.credentials)


@contextlib.asynccontextmanager
async def _updates(cluster: LocalCluster) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
    """Listen to the topic of the dashboard."""
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1000)
    host, _, port = cluster.broker_url.removeprefix("mqtt://").partition(":")
    async with aiomqtt.Client(host, int(port)) as client, asyncio.TaskGroup() as group:
        await client.subscribe(_UPDATES, qos=1)

        async def listen() -> None:
            async for message in client.messages:
                await heard.put(json.loads(message.payload))

        listening = group.create_task(listen())
        yield heard
        listening.cancel()


async def _show(heard: asyncio.Queue[dict[str, Any]], endpoint: str, intake: Child) -> int:
    """Print what is told of the task until it is done, and then its results."""
    seen: set[str] = set()
    while True:
        told = await _next(heard, intake)
        if told["event_id"] in seen:
            continue
        seen.add(told["event_id"])
        click.echo(f"{_UPDATES}     {told['nodeID']}  {told['time']}  {told['status']}")
        if told["status"].startswith(("Task failed", "Task cancelled")):
            click.echo(str(told.get("reason", "")), err=True)
            return 1
        if told["status"] == "Done":
            break
    async with _client("s3", endpoint) as s3:
        found = [*await _results(s3, _ARCHIVE), *await _results(s3, _UPLOADS)]
    for bucket, key, text in found:
        click.echo(f"in S3       s3://{bucket}/{key}")
        click.echo("".join(f"            {line}\n" for line in text.splitlines()), nl=False)
    return 0 if len(seen) == _STAGES and found else 1


async def _next(heard: asyncio.Queue[dict[str, Any]], intake: Child) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_SECONDS / 2):
            return await heard.get()
    except TimeoutError:
        raise ChildEndedError(f"no more is heard on {_UPDATES}:\n{intake.tail()}") from None


async def _results(s3: "S3Client", bucket: str) -> list[tuple[str, str, str]]:
    """The result files of the task in a bucket, by key."""
    found: list[tuple[str, str, str]] = []
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    async for page in pages:
        for entry in page.get("Contents", []):
            key = entry.get("Key", "")
            if "/Results/" in key:
                answer = await s3.get_object(Bucket=bucket, Key=key)
                found.append((bucket, key, (await answer["Body"].read()).decode(errors="replace")))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m compose.edge_task`."""
    logging.captureWarnings(capture=True)
    edge_task.main(None if arguments is None else list(arguments), prog_name="edge-task")


if __name__ == "__main__":
    main()

"""What an intake submits to a real controller: once for each id, refused or waited for, with its bundle."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from services.archive.s3_server import S3Server
from services.intake.controller_link import ControllerLink, RequestRefusedError
from services.intake.message import PipelineRequest
from services.intake.pipeline_template import PipelineTemplate, read_template
from services.intake.source import ServerAwayError
from shoal.client import Client
from tests.kit.ports import free_port
from tests.kit.running_controller import running_controller
from tests.kit.s3_servers import CREDENTIALS
from tests.kit.until import until

_PLAIN = "name: t\nparameters: {word: {}}\njobs: {a: {run: [echo, '${{ parameters.word }}']}}\n"


def template(folder: Path, text: str, name: str = "t.yaml") -> PipelineTemplate:
    (folder / name).write_text(text)
    return read_template(folder / name, {})


@contextlib.asynccontextmanager
async def linked(address: str) -> AsyncIterator[ControllerLink]:
    link = ControllerLink(address, "default", None, lambda: dt.datetime.now(dt.UTC))
    running = asyncio.create_task(link.run())
    try:
        await until(lambda: link._client is not None, what="a client")
        yield link
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def submit(
    link: ControllerLink,
    form: PipelineTemplate,
    identity: str,
    values: Mapping[str, str],
    *,
    ids_given: bool = True,
) -> tuple[str, ...]:
    request = PipelineRequest(identity, values)
    return await link.submit([request], form, "message m", ids_given=ids_given)


async def test_an_id_makes_one_pipeline_also_under_another_template(tmp_path: Path) -> None:
    """Case E2: a message of SQS is known by its id; of a topic, another message with it is refused."""
    async with (
        running_controller(tmp_path / "c") as controller,
        linked(controller.grpc) as link,
        Client(controller.grpc) as client,
    ):
        form = template(tmp_path, _PLAIN)
        first = await submit(link, form, "m-1", {"word": "x"})
        assert await submit(link, form, "m-1", {"word": "x"}) == first
        changed = template(tmp_path, _PLAIN.replace("echo", "printf"), "other.yaml")
        [told] = await submit(link, changed, "m-1", {"word": "x"})
        assert told == f"{first[0]} of an earlier template"
        with pytest.raises(RequestRefusedError, match="use a new request id"):
            await submit(link, changed, "m-1", {"word": "x"}, ids_given=False)
        with pytest.raises(RequestRefusedError, match=r"message m.*NUL|NUL"):
            await submit(link, form, "m-2", {"word": "\0"})
        assert len([one async for one in client.list()]) == 1


async def test_a_template_brings_its_bundle(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print('hello')\n")
    text = "name: t\nbundle: code\njobs: {a: {run: python main.py}}\n"
    async with (
        running_controller(tmp_path / "c") as controller,
        linked(controller.grpc) as link,
        Client(controller.grpc) as client,
    ):
        [name] = await submit(link, template(tmp_path, text), "m-1", {})
        assert (await client.get(name)).spec.bundle_digest


async def test_what_is_refused_is_told_from_what_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case S11: no controller at all says nothing about a message; a bucket that is not listed does."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    text = (
        "name: t\nparameters: {bucket: {default: uploads}}\njobs:\n  a:\n    run: ls\n    inputs:\n"
        '      f: {prefix: "s3://${{ parameters.bucket }}/a/"}\n'
    )
    form = template(tmp_path, text)
    async with (
        running_controller(
            tmp_path / "c", sources=S3Server("http://127.0.0.1:1"), source_buckets=("uploads",)
        ) as controller,
        linked(controller.grpc) as link,
    ):
        with pytest.raises(RequestRefusedError, match="--source-buckets"):
            await submit(link, form, "m-2", {"bucket": "secrets"})
    async with linked(f"127.0.0.1:{free_port()}") as link:
        with pytest.raises(ServerAwayError, match="no controller answers"):
            await submit(link, form, "m-1", {})

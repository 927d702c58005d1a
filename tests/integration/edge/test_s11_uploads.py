"""Case S11: an upload to S3 starts a pipeline; poison is put aside after five tries, and an outage is no try."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shoal.model import PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import contents, describe
from tests.kit.edge import Edge
from tests.kit.running_intake import QueueGate, RunningIntake, queue_gate
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "scans/field 1/é + 100%.csv"
_TEMPLATE = """
name: ${{ parameters.name }}
parameters: {name: {}, key: {}, source: {}}
jobs:
  scan:
    run: [sh, -c, 'cp in.csv results/out.csv; printf %s "$1" > results/key', sh, "${{ parameters.key }}"]
    inputs: {file: {source: "${{ parameters.source }}", path: in.csv}}
"""


def event(bucket: str, key: str, sequencer: str) -> str:
    """What S3 says of a new object, with its key encoded as S3 does it."""
    return json.dumps(
        {
            "Records": [
                {
                    "eventVersion": "2.1",
                    "eventSource": "aws:s3",
                    "eventTime": "2026-11-30T00:00:00.000Z",
                    "eventName": "ObjectCreated:Put",
                    "s3": {
                        "bucket": {"name": bucket},
                        "object": {"key": key, "size": 5, "eTag": "e", "sequencer": sequencer},
                    },
                }
            ]
        }
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(edge: Edge) -> AsyncIterator[QueueGate]:
    async with queue_gate(edge) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def intake(
    edge: Edge, gate: QueueGate, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIntake]:
    folder = tmp_path_factory.mktemp("intake")
    template = folder / "scan.yaml"
    template.write_text(_TEMPLATE)
    await edge.queue("scans")
    words = ("--upload-queue", f"scans={template}", "--sqs-endpoint", gate.address)
    async with RunningIntake(edge, folder, *words, "--hidden-seconds", "1") as running:
        yield running


async def scans(edge: Edge, name: str) -> list[PipelineView]:
    return [one async for one in edge.client.list() if one.id.startswith(name)]


async def empty(edge: Edge, queue: str) -> None:
    async def none() -> bool:
        return await edge.waiting(queue) == 0

    await until(none, 60, "an empty queue")


async def test_an_upload_is_run_once_however_it_is_told(
    edge: Edge, intake: RunningIntake, tmp_path: Path
) -> None:
    """Case S11: told by S3, told again, and told by SNS; the test of the queue is dropped."""
    queue = (await edge.sqs.get_queue_url(QueueName="scans"))["QueueUrl"]
    await edge.upload({KEY: b"a,b,c"})
    encoded = "scans/field+1/%C3%A9+%2B+100%25.csv"
    told = event(edge.uploads, encoded, "0055AED6DCD90281E5")
    await edge.send(queue, {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})
    for body in (told, told, json.dumps({"Type": "Notification", "Message": told})):
        await edge.send(queue, body)
    await empty(edge, queue)
    [pipeline] = await scans(edge, "task-100-csv")
    ended = await edge.client.wait(pipeline.id, deadline_seconds=60)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert await contents(edge.client, ended, "results/out.csv", tmp_path / "out") == b"a,b,c"
    assert await contents(edge.client, ended, "results/key", tmp_path / "key") == KEY.encode()
    assert intake.letters() == []


async def test_poison_is_put_aside_after_five_tries(edge: Edge, intake: RunningIntake) -> None:
    """Case S11: whatever is wrong with it; with its body, and a reason."""
    queue = (await edge.sqs.get_queue_url(QueueName="scans"))["QueueUrl"]
    poison = {
        "no json": "is not JSON",
        '{"Records":[{"eventName":"ObjectCreated:Put"}]}': "names no object",
        # What the controller refuses: this bucket is not listed.
        event("secrets", "scans/x.csv", "1"): "--source-buckets",
    }
    for body in poison:
        await edge.send(queue, body)
    await empty(edge, queue)
    letters = {letter["body"]: letter for letter in intake.letters()}
    assert letters.keys() == poison.keys()
    for body, words in poison.items():
        assert words in letters[body]["reason"], letters[body]
        assert letters[body]["tries"] == 5
        assert letters[body]["source"] == "sqs:scans"


async def test_an_outage_counts_for_no_try(
    edge: Edge, gate: QueueGate, intake: RunningIntake
) -> None:
    """Case S11: a message that was received six times while the controller was away is as good as new."""
    queue = (await edge.sqs.get_queue_url(QueueName="scans"))["QueueUrl"]
    before = len(intake.letters())
    await edge.upload({"scans/late.csv": b"late"})
    await edge.cluster.controller.kill()
    await edge.send(queue, event(edge.uploads, "scans/late.csv", "2"))
    gate.shut = lambda action: action == "ChangeMessageVisibility"  # so that it is delivered again
    delivered = gate.delivered
    await until(lambda: gate.delivered >= delivered + 6, 60, "six deliveries")
    await until(lambda: "messages wait for a server" in intake.log(), 30, "the outage is told")
    intake.kill()
    await intake.start()
    gate.shut = lambda _action: True  # and SQS is away, too
    await edge.cluster.controller.start()
    await until(lambda: "a queue is away" in intake.log(), 60, "SQS is missed")
    gate.shut = lambda _action: False
    await empty(edge, queue)
    [pipeline] = await scans(edge, "late-csv")
    ended = await edge.client.wait(pipeline.id, deadline_seconds=60)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert len(intake.letters()) == before
    tries = sqlite3.connect(intake.state / "intake.db").execute("SELECT count(*) FROM tries")
    assert tries.fetchone() == (0,)

"""The cluster that the tests of the cases E share: its servers are real, and its boards hold no keys."""

import pytest

from shoal.model import PipelineState
from tests.kit.cluster import contents, describe, submit
from tests.kit.edge import Edge
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SPEC = """
name: servers
bundle: .
jobs:
  look:
    run: sh -c 'cp in.txt results/; env | grep -c AWS_ > results/keys; true'
    inputs: {{file: {{source: "s3://{bucket}/up/in.txt", path: in.txt}}}}
"""


async def test_a_job_reads_what_was_uploaded_and_its_end_is_heard(
    edge: Edge, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Case E2: boards hold no AWS keys."""
    folder = tmp_path_factory.mktemp("spec")
    await edge.upload({"up/in.txt": b"hello"})
    queue = await edge.queue("servers")
    assert await edge.send(queue, {"userName": "ada"})
    assert await edge.waiting(queue) == 1
    async with edge.subscribed("shoal/#") as heard:
        submitted = await submit(edge.client, folder / "s", _SPEC.format(bucket=edge.uploads), {})
        ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert await contents(edge.client, ended, "results/in.txt", folder / "in") == b"hello"
        assert await contents(edge.client, ended, "results/keys", folder / "keys") == b"0\n"
        final = ended.final_event_id.encode()
        await until(
            lambda: any(final in bytes(message.payload) for message in heard), what="the event"
        )
    assert any(key.endswith("results/in.txt") for key in await edge.objects("", edge.archive))

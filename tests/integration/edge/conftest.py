"""A cluster of three agents with real S3, SQS and MQTT servers; one for each file of tests.

A file that uses `edge` says `pytestmark = pytest.mark.asyncio(loop_scope="module")`. One that needs
another cluster enters `tests.kit.edge.running_edge` itself.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.kit.edge import Edge, running_edge
from tests.kit.mosquitto import Mosquitto
from tests.kit.s3_servers import Ministack


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """A server of buckets and queues for the whole run; whoever stops it starts it again."""
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="module")
def edge_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that anybody may use; whoever stops it starts it again."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack, edge_broker: Mosquitto
) -> AsyncIterator[Edge]:
    """Controller and agents node-1 to node-3, whose archive is a bucket."""
    async with running_edge(tmp_path_factory.mktemp("edge"), ministack, edge_broker) as running:
        yield running

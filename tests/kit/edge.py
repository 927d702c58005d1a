"""An edge cluster for a test: ministack (S3, SQS), mosquitto, controller and agents, whose archive is a bucket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aioboto3
import aiomqtt
import pytest

from compose.local_cluster import LocalCluster, LocalClusterConfig
from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from shoal.client import Client
from shoal.sandbox import SandboxLevel
from tests.kit.mosquitto import Mosquitto
from tests.kit.s3_servers import BucketServer, make_bucket

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_sqs.client import SQSClient

REGION: Final = "us-east-1"


@dataclass(eq=False)
class Edge:
    """A cluster that runs, with its servers.

    Attributes:
        cluster: its processes: `cluster.agents["node-1"]`, `cluster.controller`, `cluster.kill_board`.
        client: a client of its controller.
        ministack: the server of both buckets and of all queues; in the lane of radosgw that one, without queues.
        broker: the MQTT broker that the controller publishes to.
        s3: a client of the buckets.
        sqs: a client of the queues.
        archive: the bucket with the archive, under the prefix `archive/`.
        uploads: the bucket that people upload to, which pipelines may read (`--source-buckets`).
    """

    cluster: LocalCluster
    client: Client
    ministack: BucketServer
    broker: Mosquitto
    s3: "S3Client"
    sqs: "SQSClient"
    archive: str
    uploads: str

    async def upload(self, files: Mapping[str, bytes]) -> None:
        """Put files, by their keys, into the bucket of uploads."""
        for key, data in files.items():
            await self.s3.put_object(Bucket=self.uploads, Key=key, Body=data)

    async def objects(self, prefix: str = "", bucket: str = "") -> dict[str, bytes]:
        """What stands under a prefix, by key; in the bucket of uploads unless another one is named."""
        found: dict[str, bytes] = {}
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket or self.uploads, Prefix=prefix
        )
        async for page in pages:
            for entry in page.get("Contents", []):
                key = entry.get("Key", "")
                answer = await self.s3.get_object(Bucket=bucket or self.uploads, Key=key)
                found[key] = await answer["Body"].read()
        return found

    async def queue(self, name: str, **attributes: str) -> str:
        """Make a queue, and return its address; attributes are those of SQS, such as VisibilityTimeout."""
        made = await self.sqs.create_queue(QueueName=name, Attributes=cast("Any", attributes))
        return made["QueueUrl"]

    async def send(self, queue: str, body: object) -> str:
        """Send a message, a text as it is and all else as JSON; returns its MessageId."""
        text = body if isinstance(body, str) else json.dumps(body)
        return (await self.sqs.send_message(QueueUrl=queue, MessageBody=text))["MessageId"]

    async def waiting(self, queue: str) -> int:
        """How many messages a queue holds, those included that somebody has received and not deleted."""
        answer = await self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
        told = cast("Mapping[str, str]", answer["Attributes"])
        return int(told["ApproximateNumberOfMessages"]) + int(
            told["ApproximateNumberOfMessagesNotVisible"]
        )

    @contextlib.asynccontextmanager
    async def subscribed(self, topic: str) -> AsyncIterator[list[aiomqtt.Message]]:
        """Collect what comes on a topic with QoS 1 until the end of the block; the list grows."""
        received: list[aiomqtt.Message] = []
        async with aiomqtt.Client(
            self.broker.host, self.broker.port, protocol=aiomqtt.ProtocolVersion.V5
        ) as listener:
            await listener.subscribe(topic, qos=1)

            async def listen() -> None:
                async for message in listener.messages:
                    received.append(message)  # noqa: PERF401 - one by one, as they come

            listening = asyncio.create_task(listen())
            try:
                yield received
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening


@contextlib.asynccontextmanager
async def running_edge(
    state: Path,
    ministack: BucketServer,
    broker: Mosquitto,
    *,
    agents: int = 3,
    lease_seconds: float = 4.0,
    insecure: bool = True,
    node_prefix: str = "node-",
    controller_environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Edge]:
    """Run a cluster whose archive is a bucket of its own, until the end of the block.

    Args:
        state: folder for its files.
        ministack: a server that runs; the cluster gets buckets of its own there.
        broker: a broker that runs.
        agents: how many; they are called node-1, node-2 and so on, and have no keys of the buckets.
        node_prefix: what they are called in place of `node-`.
        lease_seconds: how long an agent may be silent.
        insecure: whether everybody is believed; else `cluster.identity` is the operator's.
        controller_environ: further variables of the controller.
    """
    with pytest.MonkeyPatch.context() as variables:
        # boto3 of this process and of the controller finds them.
        for name, value in ministack.credentials.items():
            variables.setenv(name, value)
        server = S3Server(ministack.endpoint, REGION)
        archive, uploads = await make_bucket(server), await make_bucket(server)
        config = LocalClusterConfig(
            state=state,
            agents=agents,
            mqtt=f"mqtt://{broker.host}:{broker.port}",
            archive=f"s3://{archive}/archive?endpoint={ministack.endpoint}&region={REGION}",
            lease_seconds=lease_seconds,
            insecure=insecure,
            sandbox=SandboxLevel.NONE,
            node_prefix=node_prefix,
            controller_environ={
                "SHOAL_CONTROLLER_SOURCE_BUCKETS": uploads,
                **(controller_environ or {}),
            },
        )
        async with (
            s3_client(server) as s3,
            sqs_client(ministack.endpoint) as sqs,
            LocalCluster(config) as cluster,
            cluster.client() as client,
        ):
            await (
                client.nodes()
            )  # a client that was answered once waits for a controller that is away
            yield Edge(cluster, client, ministack, broker, s3, sqs, archive, uploads)


def sqs_client(endpoint: str) -> "contextlib.AbstractAsyncContextManager[SQSClient]":
    """Return a client of queues that opens with `async with`."""
    session = cast("Any", aioboto3.Session())
    client = session.client("sqs", endpoint_url=endpoint, region_name=REGION)
    return cast("contextlib.AbstractAsyncContextManager[SQSClient]", client)

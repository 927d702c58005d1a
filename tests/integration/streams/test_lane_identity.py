"""Real stream workers of a cluster with identity: a lane is carried for those that its ticket names alone."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from services.identity.authority import make_authority, serial_of
from services.identity.trust_file import write_trust
from shoal.channel import STREAM, channel_options, open_channel
from shoal.credentials import Credentials, write_credentials
from shoal.identity import Role, dns_name
from shoal.portal_names import output_lane
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.streams_service_pb2_grpc import StreamsServiceStub
from shoal.wire.trust import TRUST
from tests.kit.identities import ProvenCluster
from tests.kit.spoken import SPOKEN_LANES
from tests.kit.stream_worker import (
    Job,
    StreamWorker,
    assignment,
    lane,
    stream_input,
    stream_output,
)
from tests.kit.until import until

OUT, IN = "source.out", "sink.in"
LANE = f"{OUT}/{IN}"
FIRST_BYTES = 1_000_000
CONNECTIONS = 1000
CUT_SECONDS = 10.0
"""It takes less than one where the machine has nothing else to do."""


class Boards:
    """The stream workers of two nodes of a cluster."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.cluster = ProvenCluster()
        self.credentials: dict[str, Credentials] = {}
        self.workers: dict[str, StreamWorker] = {}
        for node in ("cam-1", "cam-2"):
            kept = folder / node / "identity"
            self.credentials[node] = self.cluster.join(kept, node)
            self.workers[node] = StreamWorker(
                folder / node, arguments=["--identity", str(kept), *arguments]
            )

    @property
    def left(self) -> StreamWorker:
        """That of the producer."""
        return self.workers["cam-1"]

    @property
    def right(self) -> StreamWorker:
        """That of the consumer."""
        return self.workers["cam-2"]

    def ticket(self, **changes: Any) -> bytes:
        """Sign a ticket for the lane between both, changed as given."""
        said: dict[str, Any] = {
            "cluster": "c1", "namespace": "default", "pipeline": "p", "lane": LANE,
            "kind": v1.LANE_KIND_JOB, "producer_node": "cam-1", "producer_epoch": 1,
            "consumer_node": "cam-2", "consumer_epoch": 1,
        }  # fmt: skip
        return self.cluster.ticket(v1.LaneTicket(**said | changes))

    def lane_in(self, ticket: bytes, *, producer_epoch: int = 1) -> session.Lane:
        """The consumer's end of the lane."""
        end = lane(OUT, IN, output=False, address=self.left.address, epoch=producer_epoch)
        end.ticket = ticket
        return end

    async def attach_source(self, *, epoch: int = 1) -> Job:
        """Begin the producer."""
        job = await self.left.attach(
            assignment(
                "source",
                epoch=epoch,
                outputs=[stream_output("out")],
                lanes=[lane(OUT, IN, output=True, epoch=1)],
            )
        )
        await job.start("out")
        return job

    async def attach_sink(self, ticket: bytes, *, epoch: int = 1) -> Job:
        """Begin the consumer with a ticket."""
        return await self.right.attach(
            assignment(
                "sink",
                epoch=epoch,
                inputs=[stream_input("in", "source", "out")],
                lanes=[self.lane_in(ticket)],
            )
        )

    async def pull(
        self, credentials: Credentials | None, ticket: bytes, **changes: Any
    ) -> v1.PullResponse:
        """Dial the producer's worker by hand, and return what it says first."""
        async with self.dialled(credentials) as channel:
            call: Any = StreamsServiceStub(channel).Pull()
            await call.write(self.open_request(ticket, **changes))
            answer = await asyncio.wait_for(call.read(), 20)
            assert isinstance(answer, v1.PullResponse), await call.details()
            return answer

    def open_request(self, ticket: bytes, **changes: Any) -> v1.PullRequest:
        """The first message of a consumer."""
        said: dict[str, Any] = {
            "namespace": "default", "pipeline": "p", "lane": LANE, "consumer_epoch": 1,
            "producer_epoch": 1, "want": 0, "credit_bytes": 1 << 20, "ticket": ticket,
            "protocols": SPOKEN_LANES,
        }  # fmt: skip
        return v1.PullRequest(open=v1.PullOpen(**said | changes))

    def dialled(self, credentials: Credentials | None) -> grpc.aio.Channel:
        """Return a channel to the producer's worker."""
        return open_channel(
            self.left.address,
            channel_options(STREAM),
            credentials,
            expect=dns_name("c1", Role.NODE, "cam-1"),
        )

    async def update_trust(self, node: str, *revoked: int) -> None:
        """Tell a worker what the cluster trusts, as its agent does."""
        trust, worker = self.cluster.trust(*revoked), self.workers[node]
        write_trust(worker.folder / "identity", trust)
        request = v1.UpdateTrustRequest(trust=TRUST[0](trust))
        await worker.stub.UpdateTrust(request, timeout=10)


@contextlib.asynccontextmanager
async def boards(folder: Path, *arguments: str) -> AsyncIterator[Boards]:
    """Start the workers of two nodes, and end them afterwards."""
    both = Boards(folder, *arguments)
    with contextlib.ExitStack() as keepers:
        for worker in both.workers.values():
            keepers.enter_context(worker.keeper)
        try:
            await asyncio.gather(*(worker.start() for worker in both.workers.values()))
            yield both
        finally:
            await asyncio.gather(*(worker.stop() for worker in both.workers.values()))
            for worker in both.workers.values():
                worker.close_ends()


def record(number: int) -> bytes:
    return b"record %d" % number


async def some_records(producer: Job, consumer: Job, count: int = 100) -> None:
    """Send records, and see that they arrive."""
    async with asyncio.TaskGroup() as tasks:
        received = tasks.create_task(consumer.all_records("in"))
        await producer.send("out", (record(k) for k in range(count)), together=7)
        await producer.end("out")
    assert received.result() == [record(k) for k in range(count)]


@pytest.mark.parametrize("security", ["mutual", "ticket"])
async def test_records_pass_between_nodes_that_prove_themselves(
    tmp_path: Path, security: str
) -> None:
    async with boards(tmp_path, "--security", security) as both:
        assert both.left.address.startswith("clear://") is (security == "ticket")
        await some_records(await both.attach_source(), await both.attach_sink(both.ticket()))


async def test_what_a_ticket_does_not_say_is_refused_and_said(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        await both.attach_source()
        cam_2 = both.credentials["cam-2"]
        cam_3 = both.cluster.credentials(Role.NODE, "cam-3")
        operator = both.cluster.credentials(Role.OPERATOR, "cam-2")
        controller = both.cluster.credentials(Role.CONTROLLER, "main")
        stranger = ProvenCluster()
        good = both.ticket()
        for credentials, ticket, changes, words in (
            (cam_2, b"", {}, "no ticket was shown"),
            (cam_2, good[:-1], {}, "not signed by a controller"),
            (cam_2, stranger.ticket(v1.LaneTicket.FromString(good[64:])), {}, "not signed by"),
            (cam_2, good, {"lane": "other.out/sink.in"}, "for lane 'source.out/sink.in', and not"),
            (cam_2, good, {"pipeline": "q"}, "for pipeline 'p', and not for 'q'"),
            (cam_2, good, {"namespace": "lab"}, "for namespace 'default', and not for 'lab'"),
            (cam_2, good, {"consumer_epoch": 2}, "for consumer epoch 1, and not for 2"),
            (cam_2, good, {"producer_epoch": 2}, "for producer epoch 1, and not for 2"),
            (cam_2, both.ticket(producer_node="cam-9"), {}, "for node 'cam-9', and not"),
            # Replayed from a session that was captured.
            (cam_3, good, {}, "is for node/cam-2, and node/cam-3 shows it"),
            (operator, good, {}, "is for node/cam-2, and operator/cam-2 shows it"),
            (controller, good, {}, "is for node/cam-2, and controller/main shows it"),
        ):
            answer = await both.pull(credentials, ticket, **changes)
            assert answer.refusal.reason == "TICKET", words
            assert words in answer.refusal.message


async def test_an_epoch_that_is_over_is_fenced_though_its_ticket_is_good(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer = await both.attach_source()
        await producer.update([lane(OUT, IN, output=True, epoch=3)])
        cam_2 = both.credentials["cam-2"]
        answer = await both.pull(cam_2, both.ticket())
        assert answer.refusal.reason == "FENCED"
        old = both.ticket(producer_epoch=9, consumer_epoch=3)
        await both.update_trust("cam-1")
        async with asyncio.timeout(60):
            answer = await both.pull(cam_2, old, producer_epoch=9, consumer_epoch=3)
        assert answer.refusal.reason == "FENCED"


async def test_a_stranger_with_a_high_epoch_does_not_lock_the_consumer_out(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer = await both.attach_source()
        high = 2**63
        cam_3 = both.cluster.credentials(Role.NODE, "cam-3")
        for ticket in (b"", both.ticket(), both.ticket(consumer_epoch=high)):
            answer = await both.pull(cam_3, ticket, consumer_epoch=high)
            assert answer.refusal.reason == "TICKET"
        await some_records(producer, await both.attach_sink(both.ticket()))


async def test_another_clusters_certificate_and_none_at_all_get_no_answer(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        await both.attach_source()
        other = ProvenCluster("c1").credentials(Role.NODE, "cam-2")
        for credentials in (other, None):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await both.pull(credentials, both.ticket())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_consumer_does_not_take_records_of_another_node_than_its_ticket_names(
    tmp_path: Path,
) -> None:
    async with boards(tmp_path) as both:
        producer = await both.attach_source()
        consumer = await both.attach_sink(both.ticket(producer_node="cam-9"))
        await until(
            lambda: "did not prove itself" in both.right.log.read_text(), 30, "a word in the log"
        )
        await consumer.update([both.lane_in(both.ticket())])
        await some_records(producer, consumer)


async def test_a_lane_without_a_ticket_waits_until_it_comes(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer, consumer = await both.attach_source(), await both.attach_sink(b"")
        await until(lambda: "has no ticket" in both.right.log.read_text(), 30, "a word in the log")
        await consumer.update([both.lane_in(both.ticket())])
        await some_records(producer, consumer)


async def test_nodes_that_say_something_else_of_tls_are_told_so(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        await both.attach_source()
        end = both.lane_in(both.ticket())
        end.peer.address = f"clear://{both.left.address}"
        await both.right.attach(
            assignment("sink", inputs=[stream_input("in", "source", "out")], lanes=[end])
        )
        words = "node cam-1 streams with --streams-security ticket, and this node with mutual"
        await until(lambda: words in both.right.log.read_text(), 30, "a word in the log")


async def test_the_lanes_of_a_revoked_node_are_cut_within_a_second(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer, consumer = await both.attach_source(), await both.attach_sink(both.ticket())
        await producer.send("out", [record(0)])
        records = consumer.records("in")
        assert await anext(records) == (0, record(0))
        clock = asyncio.get_running_loop().time
        cut_at = clock()
        await both.update_trust("cam-1", serial_of(both.credentials["cam-2"].certificate))
        await until(
            lambda: "was revoked" in both.right.log.read_text(), 10, "the consumer to be refused"
        )
        assert clock() - cut_at < CUT_SECONDS
        answer = await both.pull(both.credentials["cam-2"], both.ticket())
        assert answer.refusal.message == "the certificate of node/cam-2 was revoked"
        # With a new certificate of the same node its lane goes on, with no record lost.
        write_credentials(
            both.right.folder / "identity", both.cluster.credentials(Role.NODE, "cam-2")
        )
        await both.update_trust("cam-2")
        await producer.send("out", [record(1)])
        assert await asyncio.wait_for(anext(records), 30) == (1, record(1))


async def test_no_record_is_taken_of_a_revoked_producer(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer, consumer = await both.attach_source(), await both.attach_sink(both.ticket())
        await producer.send("out", [record(0)])
        records = consumer.records("in")
        assert await anext(records) == (0, record(0))
        clock = asyncio.get_running_loop().time
        cut_at = clock()
        await both.update_trust("cam-2", serial_of(both.credentials["cam-1"].certificate))
        await until(
            lambda: "certificate of node/cam-1 was revoked" in both.right.log.read_text(),
            10,
            "the producer to be left",
        )
        assert clock() - cut_at < CUT_SECONDS
        await producer.send("out", [record(1)])
        write_credentials(
            both.left.folder / "identity", both.cluster.credentials(Role.NODE, "cam-1")
        )
        following = asyncio.ensure_future(anext(records))
        done, _ = await asyncio.wait({following}, timeout=1.5)
        assert not done, "a record of a revoked node came"
        await both.update_trust("cam-1")
        assert await asyncio.wait_for(following, 30) == (1, record(1))


async def test_the_lanes_of_an_authority_that_is_removed_are_cut(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        producer, consumer = await both.attach_source(), await both.attach_sink(both.ticket())
        await producer.send("out", [record(0)])
        records = consumer.records("in")
        assert await anext(records) == (0, record(0))
        second = make_authority("c1", now=dt.datetime.now(dt.UTC))
        both.cluster.authority = second
        for node in ("cam-1", "cam-2"):  # no certificate of the first is renewed yet
            await both.update_trust(node)
        # Whichever hears of it first cuts the call; then there is nothing left for the other one to cut.
        await until(
            lambda: (
                "a caller is cut" in both.left.log.read_text()
                or "a peer is left" in both.right.log.read_text()
            ),
            30,
            "one end leaves the other",
        )
        for node, worker in both.workers.items():
            write_credentials(worker.folder / "identity", both.cluster.credentials(Role.NODE, node))
            await both.update_trust(node)
        await producer.send("out", [record(1)])
        assert await asyncio.wait_for(anext(records), 30) == (1, record(1))


async def test_only_a_client_says_that_nothing_needs_to_be_kept(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        out = output_lane("gate", "x")
        end = session.Lane(
            id=out, output=True, port="client-x", peer_job="client", peer_port="x", peer_replicas=1
        )
        producer = await both.left.attach(
            assignment("gate", outputs=[stream_output("client-x")], lanes=[end])
        )
        await producer.start("client-x")
        await producer.send("client-x", [record(0)])
        await producer.end("client-x")
        await producer.conclude()
        cam_2 = both.credentials["cam-2"]
        controller = both.cluster.credentials(Role.CONTROLLER, "main")

        async def done(credentials: Credentials, kind: v1.LaneKind.ValueType, node: str) -> str:
            ticket = both.ticket(kind=kind, lane=out, consumer_node=node)
            async with both.dialled(credentials) as channel:
                call: Any = StreamsServiceStub(channel).Pull()
                await call.write(both.open_request(ticket, lane=out))
                await call.write(v1.PullRequest(ack=v1.PullAck(consumed=1, released=1, done=True)))
                await call.done_writing()
                while (answer := await asyncio.wait_for(call.read(), 20)) is not grpc.aio.EOF:
                    if answer.WhichOneof("message") == "refusal":
                        return str(answer.refusal.reason)
                return ""

        assert await done(cam_2, v1.LANE_KIND_JOB, "cam-2") == "NOT_A_CLIENT"
        assert await done(cam_2, v1.LANE_KIND_CLIENT, "") == "TICKET"
        assert await done(controller, v1.LANE_KIND_RECORDER, "") == "TICKET"
        assert not producer.streams.drained
        assert await done(controller, v1.LANE_KIND_CLIENT, "") == ""
        await until(lambda: producer.streams.drained, 20, "the client's word counts")


async def test_a_tap_and_a_feed_need_a_ticket(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        await both.attach_source()
        controller = both.cluster.credentials(Role.CONTROLLER, "main")
        async with both.dialled(controller) as channel:
            stub: Any = StreamsServiceStub(channel)
            asked = v1.TapRequest(
                namespace="default", pipeline="p", job="source", epoch=1, port="out"
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Tap(asked).read()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            asked.ticket = both.ticket(
                kind=v1.LANE_KIND_TAP, lane="source.out", consumer_node="", consumer_epoch=0
            )
            sample = await stub.Tap(asked).read()
            assert sample.sample.port.port == "out"
            feed = stub.Feed()
            opened = v1.FeedOpen(
                namespace="default", pipeline="p", lane="client.x/gate.client-x", consumer_epoch=1
            )
            await feed.write(v1.FeedRequest(open=opened))
            assert (await feed.read()).refusal.reason == "TICKET"


async def test_a_million_random_first_bytes_end_no_worker(tmp_path: Path) -> None:
    chance = random.Random(12)
    async with boards(tmp_path) as both:
        host, _, port = both.left.address.rpartition(":")
        for _ in range(CONNECTIONS):
            with contextlib.suppress(OSError):
                _reader, writer = await asyncio.open_connection(host, int(port))
                data = chance.randbytes(FIRST_BYTES // CONNECTIONS)
                if chance.random() < 0.5:
                    data = b"\x16\x03\x01" + data  # the beginning of a handshake
                writer.write(data)
                await writer.drain()
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                )
                writer.close()
        assert Path(f"/proc/{both.left.pid}").exists()
        assert len(os.listdir(f"/proc/{both.left.pid}/fd")) < CONNECTIONS
        await some_records(await both.attach_source(), await both.attach_sink(both.ticket()))


async def test_the_agents_socket_is_its_users_alone(tmp_path: Path) -> None:
    async with boards(tmp_path) as both:
        mode = (both.left.folder / "w.sock").stat().st_mode
        assert mode & 0o077 == 0

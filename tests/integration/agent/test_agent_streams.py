"""Streams between jobs of one board, through the real keeper and the real stream worker."""

import os
import signal
from dataclasses import replace

from edge_agent.keeper.client import KeeperClient
from edge_agent.links.stream_worker import HELPER
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane, LanePeer
from shoal.spec import Job, Output, PortAttachment, PortBinding, PortFormat, StreamInput
from tests.integration.agent.board import Board
from tests.kit.bundle_archive import tar_of
from tests.kit.until import until

COUNT = 2_000

PRODUCER = f"""
import os, threading
from shoal import job

@job.source
def numbers():
    for number in range({COUNT}):
        if number == {COUNT} // 2:
            open("half", "w").close()
            while not os.path.exists(os.environ["GATE"]):
                threading.Event().wait(0.01)
        yield number
"""

CONSUMER = """
from shoal import job

total = []

@job.main
def add(numbers):
    total.append(numbers)
    with open("results/seen", "a") as out:
        out.write("%d\\n" % numbers)
"""

LANE = "producer.numbers/consumer.numbers"


def pair(board: Board, epoch: int = 1) -> tuple[Assignment, Assignment]:
    """A producer and a consumer on this board, each told where the other is."""
    bundle = tar_of({"producer.py": PRODUCER, "consumer.py": CONSUMER})
    digest, url = board.objects.add(bundle)
    address = board.controller.hellos[-1].stream_address
    sender = AttemptRef("default", "p", "producer", epoch, epoch)
    taker = AttemptRef("default", "p", "consumer", epoch, epoch)
    gate = str(board.agent.state / "gate")
    producer = Assignment(
        sender,
        Job(
            "producer",
            ("python", "producer.py"),
            outputs=(Output("numbers"),),
            variables={"GATE": gate},
        ),
        bundle_digest=digest,
        bundle_url=url,
        lanes=(
            Lane(LANE, True, "numbers", peer=LanePeer(address, taker.name, epoch),
                 peer_port="numbers", peer_job="consumer"),
        ),
    )  # fmt: skip
    consumer = Assignment(
        taker,
        Job(
            "consumer",
            ("python", "consumer.py"),
            streams=(StreamInput("numbers", "producer", "numbers"),),
        ),
        bundle_digest=digest,
        bundle_url=url,
        lanes=(
            Lane(LANE, False, "numbers", peer=LanePeer(address, sender.name, epoch),
                 peer_port="numbers", peer_job="producer"),
        ),
    )  # fmt: skip
    return producer, consumer


def done(assignment: Assignment) -> Assignment:
    """The same, with every consumer committed."""
    lanes = tuple(replace(lane, peer=replace(lane.peer, done=True)) for lane in assignment.lanes)
    return replace(assignment, lanes=lanes)


async def finish(board: Board, producer: Assignment, consumer: Assignment) -> None:
    """Let both come to their ends, and see that every record arrived once and in order."""
    (board.agent.state / "gate").touch()
    await board.state(consumer.ref, JobState.SUCCEEDED)
    await board.state(producer.ref, JobState.DRAINING)
    assert board.controller.state(producer.ref) is JobState.DRAINING
    board.controller.assign(done(producer))
    assert await board.end(producer.ref) is JobState.SUCCEEDED
    seen = board.artifact(consumer.ref, "results/seen").decode().split()
    assert seen == [str(number) for number in range(COUNT)]
    await board.idle()


async def halfway(board: Board, producer: Assignment) -> None:
    folder = board.agent.state / "attempts" / f"default.p.producer.{producer.ref.epoch}-1"
    await until((folder / "work" / "half").exists, 30, "half of the records")


async def test_a_new_controller_hears_of_streams_that_stand_still(board: Board) -> None:
    producer, consumer = pair(board)
    board.controller.assign(producer)
    board.controller.assign(consumer)
    await halfway(board, producer)

    def told() -> dict[str, int]:
        """How many records of each stream are done with, as it was said last."""
        return {
            one.attempt: stream.acknowledged if stream.output else stream.records
            for one in board.controller.progress
            for stream in one.streams
        }

    both = {producer.ref.name: COUNT // 2, consumer.ref.name: COUNT // 2}
    await until(lambda: told() == both, 30, "half of the records, acknowledged")
    await board.controller.stop()
    board.controller.progress.clear()
    await board.controller.start()
    await until(lambda: told() == both, 30, "the same, said again")
    await finish(board, producer, consumer)


async def test_records_go_from_job_to_job_and_the_producer_drains(board: Board) -> None:
    producer, consumer = pair(board)
    board.controller.assign(producer)
    board.controller.assign(consumer)
    await finish(board, producer, consumer)
    ports = {stream.port for progress in board.controller.progress for stream in progress.streams}
    assert ports == {"numbers"}
    last = [
        progress for progress in board.controller.progress if progress.attempt == consumer.ref.name
    ][-1]
    assert last.streams[0].records == COUNT


async def test_streams_go_on_over_a_killed_agent(board: Board) -> None:
    producer, consumer = pair(board)
    board.controller.assign(producer)
    board.controller.assign(consumer)
    await board.state(consumer.ref, JobState.RUNNING)
    await halfway(board, producer)
    address = board.controller.hellos[-1].stream_address
    board.agent.kill()
    board.agent.start()
    await board.connected(2)
    assert board.controller.hellos[-1].stream_address == address
    await finish(board, producer, consumer)


async def test_a_stream_worker_that_dies_costs_its_attempts_and_comes_back(board: Board) -> None:
    producer, consumer = pair(board)
    board.controller.assign(producer)
    board.controller.assign(consumer)
    await board.state(consumer.ref, JobState.RUNNING)
    await halfway(board, producer)
    async with KeeperClient(board.agent.state / "keeper.sock") as keeper:
        worker = next(record for record in await keeper.list() if record.attempt == HELPER)
    os.kill(worker.pid, signal.SIGKILL)
    assert await board.end(producer.ref) is JobState.LOST
    assert await board.end(consumer.ref) is JobState.LOST
    assert "stream worker" in board.controller.reason(producer.ref)[2]
    await board.idle()
    again = pair(board, epoch=2)
    for assignment in again:
        board.controller.assign(assignment)
    await finish(board, *again)


async def test_a_program_that_breaks_the_format_fails_with_stream(board: Board) -> None:
    bundle = tar_of({"a": "1"})
    digest, url = board.objects.add(bundle)
    ref = AttemptRef("default", "p", "noise", 1, 1)
    script = "echo this is no block and says so at some length >&3; sleep 600"
    job = Job("noise", ("sh", "-c", script), outputs=(Output("out"),), grace_seconds=0.2)
    board.controller.assign(Assignment(ref, job, bundle_digest=digest, bundle_url=url))
    assert await board.end(ref) is JobState.FAILED
    assert board.controller.reason(ref)[0] == "STREAM"


async def test_a_producer_that_crashes_says_how_not_that_its_stream_broke(board: Board) -> None:
    ref = AttemptRef("default", "p", "crash", 1, 1)
    lines = Output("out", PortBinding(PortFormat.LINES, PortAttachment.STDIO))
    job = Job("crash", ("sh", "-c", "echo one; echo sorry >&2; exit 3"), outputs=(lines,))
    board.controller.assign(Assignment(ref, job))
    assert await board.end(ref) is JobState.FAILED
    code, number, message = board.controller.reason(ref)
    assert (code, number) == ("EXIT", 3)
    assert "sorry" in message

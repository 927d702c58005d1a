"""T4: no message that decodes makes the control machine raise, or asks for a row no store holds.

Messages of agents, submissions and whatever people ask are made at random with the values at which
numbers, dates and texts break; what the decoders let pass goes through the machine into a real
SQLite, which is loaded again now and then. `SHOAL_HOSTILE_MESSAGES` raises the count (600 a seed, 3,000 in all).
"""

import os
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from random import Random

import pytest

from control.core import events
from control.core.answers import Submission
from control.core.effects import CommitRows
from control.core.machine import ControlMachine
from control.core.machine_config import MachineConfig
from control.core.views import node_view, pipeline_view
from control.front.api import submissions
from control.front.source_rule import SourceRule
from control.store import schema, statements
from services.runtime.rpc import RpcError
from shoal.model import MemberState
from shoal.names import PipelineRef
from shoal.spec import Recovery, Retry
from shoal.v1 import pipelines_service_pb2, session_service_pb2
from shoal.wire.assignment import encode_assignment
from shoal.wire.fields import WireError
from shoal.wire.observation import decode_observation, decode_progress
from shoal.wire.session import decode_hello
from shoal.wire.view import decode_pipeline, encode_node, encode_pipeline
from tests.kit.hostile import Hostile
from tests.unit.control.world import BEGAN, counter, numbered_ids, single

MESSAGES = int(os.environ.get("SHOAL_HOSTILE_MESSAGES", "600"))
SEEDS = 5

v1 = session_service_pb2


class Peers:
    """Everybody who may say something to a controller, and its machine on a real database."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.hostile = Hostile(self.rng, self.names)
        self.now = 0.0
        self.ids = numbered_ids()
        self.calls = count(1)
        self.taken = 0
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema.add_functions(self.connection)
        self.connection.executescript("".join(schema.STEPS))
        self.machine = self.begin()

    def begin(self) -> ControlMachine:
        """Build the machine from what is recorded."""
        statements.count_start(self.connection, lambda: self.ids(16))
        loaded = statements.load(self.connection, 10_000)
        recorded = self.connection.execute("SELECT count(*) FROM pipelines").fetchone()[0]
        assert len(loaded.rows.added) + len(loaded.queued) + len(loaded.ended) == recorded
        assert all(loaded.begin(row) is not None for row in loaded.queued)
        found = statements.find(self.connection, loaded.ended)
        assert len(found.rows.added) == len(loaded.ended), "all can be read"
        return ControlMachine(
            MachineConfig(),
            loaded,
            self.now,
            wall=lambda: BEGAN + timedelta(seconds=self.now),
            ids=self.ids,
        )

    def names(self) -> Sequence[str]:
        """Names of what exists."""
        cluster = self.machine.cluster
        found = [ref.name for node in cluster.nodes.values() for ref in node.attempts]
        found += [ref.name for ref in list(cluster.pipelines)[-5:]]
        return [*found, *list(cluster.nodes)[-3:], "n1", "default", "camera", "frames"]

    def say(self) -> None:
        """Let one of them say something, and record what follows."""
        self.now += self.rng.choice((0.0, 0.01, 0.3, 2.0))
        event = self.rng.choice(
            (
                self.submit,
                self.good,
                self.hello,
                self.observed,
                self.observed,
                self.progress,
                self.ask,
                self.ask,
            )
        )()
        if event is None:
            return
        self.taken += 1
        self.machine.memory.learn(statements.find(self.connection, *self.machine.prepare([event])))
        self.act(self.machine.handle(event, self.now))
        while (deadline := self.machine.deadline()) is not None and deadline <= self.now:
            self.act(self.machine.tick(self.now))

    def act(self, effects: Sequence[object]) -> None:
        """Record, and look at everything as a client would."""
        for effect in effects:
            if isinstance(effect, CommitRows):
                self.connection.execute("BEGIN")
                statements.write(self.connection, effect.rows)
                self.connection.execute("COMMIT")
        cluster = self.machine.cluster
        for pipeline in list(cluster.pipelines.values())[-2:]:
            said = encode_pipeline(pipeline_view(pipeline))
            decode_pipeline(type(said).FromString(said.SerializeToString()))
        for name, node in list(cluster.nodes.items())[-2:]:
            encode_node(node_view(cluster, node)).SerializeToString()
            for assignment in self.machine.desired(name).values():
                encode_assignment(assignment).SerializeToString()

    # ---- who says what

    def submit(self) -> events.Event | None:
        request = self.hostile.message(pipelines_service_pb2.SubmitPipelineRequest)
        read = submissions._read(request, SourceRule())
        return None if isinstance(read, RpcError) else events.Submit(next(self.calls), read)

    def good(self) -> events.Event:
        spec = self.rng.choice(
            (
                single(retry=Retry(3, 315_360_000.0, 315_360_000.0)),
                counter(recovery=Recovery.RESUME),
            )
        )
        return events.Submit(next(self.calls), Submission("default", "", spec))

    def hello(self) -> events.Event | None:
        message = self.hostile.message(v1.Hello)
        if self.rng.random() < 0.7:
            message.node = self.rng.choice(("n1", "n2"))
            message.capacity.cpus = 4
        try:
            hello = decode_hello(message, lambda _name, _error: None)
        except WireError:
            return None
        return events.HelloReceived(next(self.calls), hello, f"s{next(self.calls)}")

    def observed(self) -> events.Event | None:
        message = self.hostile.message(v1.AttemptObserved)
        node = self.rng.choice((*list(self.machine.cluster.nodes)[:3], "n1"))
        known = (
            list(self.machine.cluster.nodes[node].attempts)
            if node in self.machine.cluster.nodes
            else []
        )
        if known and self.rng.random() < 0.9:
            ref = self.rng.choice(known)
            message.attempt, message.namespace, message.epoch = ref.name, ref.namespace, ref.epoch
            for hold in message.holds:
                hold.port, hold.hold = "frames", 1
        try:
            observation = decode_observation(message)
        except WireError:
            return None
        return events.Observed(next(self.calls), node, self.machine.session(node), (observation,))

    def progress(self) -> events.Event | None:
        message = self.hostile.message(v1.AttemptProgress)
        node = self.rng.choice((*list(self.machine.cluster.nodes)[:3], "n1"))
        known = (
            list(self.machine.cluster.nodes[node].attempts)
            if node in self.machine.cluster.nodes
            else []
        )
        if known:
            ref = self.rng.choice(known)
            message.attempt, message.namespace, message.epoch = ref.name, ref.namespace, ref.epoch
            for stream in message.streams:
                stream.port, stream.output = "frames", True
        try:
            progress = decode_progress(message)
        except WireError:
            return None
        return events.Progressed(node, self.machine.session(node), progress)

    def ask(self) -> events.Event | None:
        rng, call = self.rng, next(self.calls)
        known = [*self.machine.cluster.pipelines, PipelineRef("default", "nothing")]
        ref = rng.choice(known[-6:])
        node = rng.choice((*list(self.machine.cluster.nodes)[:3], "n1"))
        return rng.choice(
            (
                events.Cancel(call, ref, "x" * rng.randrange(1000)),
                events.Scale(
                    call,
                    ref,
                    rng.choice(("detector", "camera", "x")),
                    rng.choice((0, 1, 3, 2**32 - 1)),
                ),
                events.Drain(call, node, rng.random() < 0.3),
                events.ForgetNode(call, node),
                events.SessionClosed(call, node, self.machine.session(node)),
                events.StreamWorkerGone(call, node),
                events.MemberVerdict(node, rng.choice(list(MemberState))),
            )
        )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_t4_no_decoded_message_makes_the_machine_or_a_row_raise(seed: int) -> None:
    peers = Peers(seed)
    for number in range(MESSAGES):
        peers.say()
        if number % 200 == 199:
            peers.machine = peers.begin()
    assert peers.taken > MESSAGES / 4

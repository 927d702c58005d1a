"""The world of streams, whose controller also changes the replicas of jobs, as the real one decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from control import scaling
from control.lanes import topology
from control.state import AttemptRecord, JobRecord, PipelineRecord
from control.store.rows import PipelineAdded, ScaleRow
from services.streams.attempt import Stage
from services.streams.event import LanesChanged
from services.streams.plan import AttemptPlan, Budget, InputPlan, OutputPlan
from shoal.model import JobState, ScaleState
from shoal.names import AttemptRef, PipelineRef
from shoal.session.lane import Lane
from shoal.session.port_hold import PortHold
from shoal.spec import Distribute, Job, Output, Pipeline, PortBinding, Recovery, StreamInput
from tests.simulation.streams.world import Edge, JobShape, Node, Shape, World

_AT = datetime(2026, 1, 1, tzinfo=UTC)


class ScalingWorld(World):
    """Replicas are counted through all generations of a job; streams are cut as `control` says."""

    def __init__(self, shape: Shape, seed: int, *, budget: Budget) -> None:
        super().__init__(shape, seed, budget=budget)
        self._wholes: dict[Edge, list[bytes]] = {}
        spec = _spec(shape)
        added = PipelineAdded(PipelineRef("default", "p"), 1, "", spec, _AT)
        self.pipeline = PipelineRecord.begin(added, topology(spec))
        for job in self.pipeline.jobs.values():
            _run(job)

    # ---- names ----------------------------------------------------------------------------------

    def record(self, job: str, number: int) -> JobRecord:
        """Return what the controller knows of a replica."""
        first = self.shape.job(job).replicas
        return self.pipeline.jobs[job if number == 0 and first == 1 else f"{job}-{number}"]

    def key(self, record: JobRecord) -> tuple[str, int]:
        """Return the replica that a record is about."""
        name = record.spec.name
        _, _, number = record.ref.job.rpartition(f"{name}-")
        return (name, 0 if record.ref.job == name else int(number))

    # ---- what is told ---------------------------------------------------------------------------

    def lanes(self, job: str, replica: int) -> tuple[Lane, ...]:
        record = self.record(job, replica)
        return self.pipeline.topology.lanes(
            record.ref.job,
            lambda peer: self.peer(*self.key(self.pipeline.jobs[peer])),
            self.pipeline.holds(record),
        )

    def readers(self, job: str, replica: int) -> list[tuple[str, int]]:
        ends = self.pipeline.topology.ends[self.record(job, replica).ref.job]
        return [self.key(self.pipeline.jobs[end.peer]) for end in ends if end.lane.output]

    def plan(self, job: JobShape, replica: int, epoch: int, *, replacement: bool) -> AttemptPlan:
        record, lanes = self.record(job.name, replica), self.lanes(job.name, replica)
        return AttemptPlan(
            epoch, job.resume, replacement, record.replica, record.spec.replicas,
            tuple(
                InputPlan(
                    edge.into,
                    PortBinding(),
                    tuple(one for one in lanes if not one.output and one.port == edge.into),
                    edge.block_count,
                )
                for edge in self.shape.inputs(job.name)
            ),
            tuple(
                OutputPlan(
                    port,
                    PortBinding(),
                    tuple(one for one in lanes if one.output and one.port == port),
                )
                for port in self.shape.ports(job.name)
            ),
        )  # fmt: skip

    def tell(self, node: Node, name: str, replica: int) -> None:
        def say() -> None:
            if node.machine.stage not in {Stage.NEW, Stage.GONE}:
                node.post(LanesChanged(self.lanes(name, replica)))
            elif node.machine.stage is Stage.NEW:
                self.at(self.now + 0.01, say)

        self.at(self.now + self.random.uniform(0.001, 0.02), say)

    def place(self, job: JobShape, replica: int) -> None:
        attempt = self.record(job.name, replica).attempt
        if attempt is not None:
            attempt.holds = ()
        super().place(job, replica)

    # ---- scaling --------------------------------------------------------------------------------

    def scale(self, job: str, replicas: int) -> None:
        """Ask for another number of replicas; what the controller refuses is counted."""
        for key in self.done:
            self.record(*key).state = JobState.SUCCEEDED
        if len(self.pipeline.newest(job)) == replicas:
            return
        refused = scaling.refusal(self.pipeline, job, replicas)
        if refused is not None:
            self.count(refused.reason)
            return
        number = len(self.pipeline.scales) + 1
        row = ScaleRow(self.pipeline.ref, number, job, replicas, ScaleState.HOLDING, _AT)
        self.pipeline.scales.append(row)
        self.tell_all()
        self.at(self.now + 0.01, lambda: self.listen(number))

    def listen(self, number: int) -> None:
        """Hear how far everybody is, a little late, until the scale is settled or abandoned."""
        scale = self.pipeline.scales[number - 1]
        if scale.state is not ScaleState.HOLDING:
            return
        for (name, replica), node in self.current.items():
            if node.alive and node.machine.stage is not Stage.NEW:
                self.hear(node, name, replica, node.machine.holds)
        self.at(self.now + 0.01, lambda: self.listen(number))

    def hear(self, node: Node, name: str, replica: int, said: tuple[PortHold, ...]) -> None:
        def arrive() -> None:
            attempt = self.record(name, replica).attempt
            if self.current[name, replica] is node and attempt is not None:
                attempt.holds = said
                scale = self.pipeline.holding
                if scale is not None:
                    self.settle(scale)

        self.at(self.now + self.random.uniform(0.001, 0.02), arrive)

    def settle(self, scale: ScaleRow) -> None:
        for key in self.done:
            self.record(*key).state = JobState.SUCCEEDED
        if scaling.stopped_by(self.pipeline, scale):
            self.end(replace(scale, state=ScaleState.ABANDONED))
            return
        rounds = scaling.rounds(self.pipeline, scale)
        if rounds is None:
            return
        then = scaling.after(self.pipeline, scale.job, scale.replicas, rounds, scale.number)
        self.end(replace(scale, state=ScaleState.SETTLED, rounds=rounds))
        for record in self.pipeline.grow(then):
            _run(record)
            key = self.key(record)
            self.processed[key] = []
            shape = replace(self.shape.job(key[0]), replicas=record.spec.replicas)
            self.place(shape, key[1])

    def end(self, scale: ScaleRow) -> None:
        self.pipeline.scales[-1] = scale
        self.count(scale.state.name)
        self.tell_all()

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # ---- what is expected -----------------------------------------------------------------------

    def feed(self, job: str, replica: int, port: str) -> list[bytes]:
        """Return the part of the whole stream that belongs to a replica."""
        record = self.record(job, replica)
        [edge] = [one for one in self.shape.inputs(job) if one.into == port]
        every = self.whole(edge)
        ends = self.pipeline.topology.ends[record.ref.job]
        stretch = next(
            end.lane.stretch for end in ends if not end.lane.output and end.lane.port == port
        )
        mine = every[stretch.consumer_begin : stretch.consumer_end]
        if edge.distribute is Distribute.BROADCAST:
            return mine
        return mine[record.replica :: record.spec.replicas]

    def whole(self, edge: Edge) -> list[bytes]:
        """Return a stream in its first order; all producer replicas send as many records."""
        if edge in self._wholes:
            return self._wholes[edge]
        parts = [
            self.outs[edge.producer, replica, edge.port]
            for replica in range(self.shape.job(edge.producer).replicas)
        ]
        assert len({len(part) for part in parts}) == 1
        found = [record for turn in zip(*parts, strict=True) for record in turn]
        self._wholes[edge] = found
        return found


def _run(job: JobRecord) -> None:
    job.state, job.number = JobState.RUNNING, 1
    ref = AttemptRef(job.ref.namespace, job.ref.pipeline, job.ref.job, 1, 1)
    job.attempt = AttemptRecord(ref, "node", JobState.RUNNING, _AT)


def _spec(shape: Shape) -> Pipeline:
    return Pipeline(
        "p",
        tuple(
            Job(
                job.name,
                ("true",),
                streams=tuple(
                    StreamInput(edge.into, edge.producer, edge.port, block_count=edge.block_count)
                    for edge in shape.inputs(job.name)
                ),
                outputs=tuple(
                    Output(
                        port,
                        distribute=next(
                            edge.distribute
                            for edge in shape.edges
                            if (edge.producer, edge.port) == (job.name, port)
                        ),
                    )
                    for port in shape.ports(job.name)
                ),
                replicas=job.replicas,
                recovery=Recovery.RESUME if job.resume else Recovery.RESTART,
            )
            for job in shape.jobs
        ),
    )

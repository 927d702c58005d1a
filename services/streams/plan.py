"""What an attempt's streams are to be, as plain values: ports with their lanes."""

from dataclasses import dataclass, fields

from services.streams.block import BLOCK_BYTES_MAX
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.spec import Merge, PortBinding, Recovery

RING_UNIT_BYTES = 1024 * 1024
"""Rings are made in multiples of this, which every page size divides."""


@dataclass(frozen=True, slots=True)
class InputPlan:
    """An input port; a round takes `block_count` records of it."""

    name: str
    binding: PortBinding
    lanes: tuple[Lane, ...]
    block_count: int = 1
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """An output port with the lanes to all replicas of all its consumers.

    `key` names the part of a raw record that is its key, where records are spread by key.
    """

    name: str
    binding: PortBinding
    lanes: tuple[Lane, ...]
    key: str = ""


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """The streams of one attempt.

    `replacement` says that an earlier attempt may have sent records. With `resume` the attempt then
    asks its consumers where to go on.
    """

    epoch: int
    resume: bool
    replacement: bool
    replica: int
    replicas: int
    inputs: tuple[InputPlan, ...]
    outputs: tuple[OutputPlan, ...]


def plan_of(assignment: Assignment) -> AttemptPlan:
    """Return the streams of an assignment."""
    job = assignment.job

    def lanes(port: str, *, output: bool) -> tuple[Lane, ...]:
        return tuple(
            lane for lane in assignment.lanes if lane.output == output and lane.port == port
        )

    return AttemptPlan(
        epoch=assignment.ref.epoch,
        resume=job.recovery is Recovery.RESUME,
        replacement=assignment.replacement,
        replica=assignment.replica,
        replicas=assignment.replicas,
        inputs=tuple(
            InputPlan(
                port.name,
                port.binding,
                lanes(port.name, output=False),
                port.block_count,
                port.merge is Merge.ORDERED,
            )
            for port in job.streams
        ),
        outputs=tuple(
            OutputPlan(port.name, port.binding, lanes(port.name, output=True), port.key)
            for port in job.outputs
        ),
    )


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What streams may use: bytes and seconds.

    Raises:
        ValueError: A number is not above 0.
    """

    credit_bytes: int = 4 * 1024 * 1024
    """In flight on one lane; a single larger record may pass when nothing else does."""
    backlog_bytes: int = 1024 * 1024
    """Received from a job and not yet sent on one lane; more than that blocks the job."""
    memory_bytes: int = 64 * 1024 * 1024
    """Retained in memory for one attempt; the rest goes to its spool."""
    spooling_bytes: int = 8 * 1024 * 1024
    """On its way to the spool; more than that blocks the job until the disk has caught up."""
    bulk_bytes: int = 512 * 1024
    """A block as large as this takes its lane to the channel for large ones."""
    block_bytes: int = BLOCK_BYTES_MAX
    """Records are joined up to this size while they wait."""
    segment_bytes: int = 64 * 1024 * 1024
    """A file of the spool is closed when it is as long."""
    ring_bytes: int = 96 * 1024 * 1024
    """Shared with the job of an output for large records; takes only what is used; 0 for none."""
    ack_seconds: float = 0.005
    """An acknowledgement waits at most so long for others to go with it."""
    redial_seconds: float = 0.05
    redial_seconds_max: float = 0.5

    def __post_init__(self) -> None:
        if self.ring_bytes < 0 or self.ring_bytes % RING_UNIT_BYTES:
            raise ValueError(
                f"ring_bytes is {self.ring_bytes}; it has to be a multiple of {RING_UNIT_BYTES}, "
                "or 0 for no rings"
            )
        sizes = {field.name: getattr(self, field.name) for field in fields(self)}
        del sizes["ring_bytes"]
        if min(sizes.values()) <= 0 or self.block_bytes > BLOCK_BYTES_MAX:
            raise ValueError(
                f"{self}: every number has to be above 0, and block_bytes at most {BLOCK_BYTES_MAX}"
            )

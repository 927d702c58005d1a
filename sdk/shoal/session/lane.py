"""A lane, one physical stream between two replicas, as it is seen from one of its ends."""

from dataclasses import dataclass

from shoal.spec import Distribute, PortFormat

WANT_NOTHING = 2**64 - 1
"""A consumer that has finished dials with this: it asks for no record, and releases none."""

WANT_KEPT = 2**64 - 2
"""A consumer that does not know where to go on dials with this: it wants all that is still kept."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where the generations at both ends of a lane begin in the stream, as global indices.

    The producer's replicas have the records from `producer_begin` on; the consumer's have those from
    `consumer_begin` to before `consumer_end`, if that is set. `generation` orders producers.
    """

    generation: int = 0
    producer_begin: int = 0
    consumer_begin: int = 0
    consumer_end: int | None = None


WHOLE = Stretch()
"""Neither end was ever scaled."""


@dataclass(frozen=True, slots=True)
class LanePeer:
    """Where the other end of a lane stands.

    `address` (`host:port`) and `attempt` (`pipelines/{p}/jobs/{j}/attempts/{n}`, in the namespace of
    this end) are empty while it is not placed. `done` means that its job has succeeded: a producer
    need not keep anything for it, and a consumer will get nothing more from it than it has released
    already.
    """

    address: str = ""
    attempt: str = ""
    epoch: int = 0
    done: bool = False


NOWHERE = LanePeer()
"""A peer that is not placed."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One physical stream: one replica of a producer to one replica of a consumer.

    `id` is `{producer job}.{port}/{consumer job}.{port}`, and `output` says whether this end is the
    producer. `peer_job` is the name in the spec; `peer_format` what the program at the other end
    sees. With `keep` above 0 the consumer wants the newest records alone, and so many wait for it.
    With `hold` above 0 the producer stands still at the port, and says how far it is under that
    number. With `end` the producer's port ends after so many records of its own, whatever its
    program goes on to send. `ticket` is what the end that dials shows; empty in a cluster without
    identity.
    """

    id: str
    output: bool
    port: str
    peer_replica: int = 0
    peer_replicas: int = 1
    peer: LanePeer = NOWHERE
    distribute: Distribute = Distribute.ROUND_ROBIN
    peer_port: str = ""
    peer_job: str = ""
    peer_format: PortFormat = PortFormat.BLOCKS
    keep: int = 0
    stretch: Stretch = WHOLE
    hold: int = 0
    end: int | None = None
    ticket: bytes = b""

"""Lanes: the physical streams of each replica, derived from the spec (architecture.md, section 4).

A lane goes from one producer replica to one consumer replica. Its id is made of job ids,
`{producer}.{port}/{consumer}.{port}`. Everything but the peer is fixed by the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from control.core.generations import Generation, apart, first_number, replica_id, sent_by, taken_by
from control.core.portal import portal_of
from control.core.scheduler.plan import Asked
from shoal.portal_names import CLIENT, CLIENT_ADDRESS, client_port, input_lane, output_lane
from shoal.session.lane import NOWHERE, Lane, LanePeer, Stretch
from shoal.spec import Distribute, Job, Output, Pipeline, Promise, StreamInput

_NO_ENDS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Replica:
    """One job as it runs: its id, the job of the spec, and which replica of which generation.

    `job.replicas` is how many there are in its generation.
    """

    id: str
    job: Job
    number: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """One end of a lane, and the job id at the other end; empty for the client of a local job.

    Of the lane all is set that the spec fixes: not its peer's whereabouts, a hold or an end.
    """

    lane: Lane
    peer: str


@dataclass(frozen=True, slots=True)
class Topology:
    """The replicas of a pipeline by id, and how they stream to each other.

    `gangs` names for each replica the connected part of the pipeline that it belongs to, and `members` has
    the replicas of each such part.
    """

    replicas: Mapping[str, Replica]
    ends: Mapping[str, tuple[LaneEnd, ...]]
    neighbours: Mapping[str, tuple[str, ...]]
    gangs: Mapping[str, str]
    members: Mapping[str, tuple[str, ...]]
    asked: dict[str, Asked] = field(default_factory=dict[str, Asked], compare=False, repr=False)
    """What the replicas ask for of which it follows from the specification alone, filled as that is asked."""

    def consumers(self, job: str) -> tuple[str, ...]:
        """Ids of the replicas that get records from this one."""
        return tuple(
            dict.fromkeys(end.peer for end in self.ends[job] if end.lane.output and end.peer)
        )

    def lanes(
        self,
        job: str,
        peer: Callable[[str], LanePeer],
        hold: Callable[[LaneEnd], int] = lambda _: 0,
        ends: Mapping[str, int] = _NO_ENDS,
    ) -> tuple[Lane, ...]:
        """Return the lanes of a replica as they stand now: peers, which ports are to hold, and where they end."""
        return tuple(
            replace(
                end.lane,
                peer=peer(end.peer) if end.peer else _client(end.lane),
                hold=hold(end),
                end=ends.get(end.lane.port) if end.lane.output else None,
            )
            for end in self.ends[job]
        )


def topology(
    spec: Pipeline, scaled: Mapping[str, tuple[Generation, ...]] | None = None
) -> Topology:
    """Derive the lanes of a valid pipeline.

    Args:
        spec: the pipeline.
        scaled: generations of the jobs whose replicas were changed, by the job's name.

    Raises:
        KeyError: A stream names a job or port that does not exist (control.core.admission refuses it).
    """
    grown = {
        job.name: (scaled or {}).get(job.name, (Generation(job.replicas),)) for job in spec.jobs
    }
    of = {job.name: _replicas(job, grown[job.name]) for job in spec.jobs}
    ends: dict[str, list[LaneEnd]] = {
        replica.id: [] for job in spec.jobs for replica in of[job.name]
    }
    for consumer_job in spec.jobs:
        for stream in consumer_job.streams:
            outputs = {output.name: output for output in spec.job(stream.job).outputs}
            output = outputs[stream.port]
            meet = _Meeting(grown[stream.job], grown[consumer_job.name], stream, output.distribute)
            for producer in of[stream.job]:
                for consumer in of[consumer_job.name]:
                    stretch = meet.stretch(producer.generation, consumer.generation)
                    if stretch is None:
                        continue
                    sends, takes = _ends(producer, consumer, stream, output, stretch)
                    ends[producer.id].append(sends)
                    ends[consumer.id].append(takes)
    for job in spec.jobs:
        if job.local:
            ends[job.name] += _client_ends(job)
    neighbours = {
        job: tuple(dict.fromkeys(end.peer for end in found if end.peer))
        for job, found in ends.items()
    }
    gangs = _gangs(neighbours)
    members: dict[str, list[str]] = {}
    for replica, gang in gangs.items():
        members.setdefault(gang, []).append(replica)
    return Topology(
        replicas=MappingProxyType({one.id: one for found in of.values() for one in found}),
        ends=MappingProxyType({job: tuple(found) for job, found in ends.items()}),
        neighbours=MappingProxyType(neighbours),
        gangs=MappingProxyType(gangs),
        members=MappingProxyType({gang: tuple(found) for gang, found in members.items()}),
    )


class _Meeting:
    """Where the generations at both ends of a stream begin and end, as global indices."""

    def __init__(
        self,
        producers: tuple[Generation, ...],
        consumers: tuple[Generation, ...],
        stream: StreamInput,
        distribute: Distribute,
    ) -> None:
        self._producers = producers
        self._consumers = consumers
        self._sent = [sent_by(producers[:one]) for one in range(len(producers))]
        self._taken = [
            taken_by(consumers[:one], stream, distribute) for one in range(len(consumers))
        ]

    def stretch(self, producer: int, consumer: int) -> Stretch | None:
        """Return what lanes between two generations carry; None if there are no such lanes."""
        sent, taken = self._sent, self._taken
        begin, end = sent[producer], _after(sent, producer)
        first, last = taken[consumer], _after(taken, consumer)
        one, other = self._producers[producer], self._consumers[consumer]
        if apart(one, end, other, first) or apart(other, last, one, begin):
            return None
        return Stretch(producer, begin, first, last)


def _after(begins: list[int], generation: int) -> int | None:
    return begins[generation + 1] if generation + 1 < len(begins) else None


def _replicas(job: Job, grown: tuple[Generation, ...]) -> tuple[Replica, ...]:
    """Return every replica of a job; the numbers in their ids go on from generation to generation."""
    found: list[Replica] = []
    for generation, one in enumerate(grown):
        first = first_number(grown[:generation])
        spec = job if one.replicas == job.replicas else replace(job, replicas=one.replicas)
        if job.local:
            spec = portal_of(job)
        found += [
            Replica(
                replica_id(job.name, first + number) if generation else job.replica_id(number),
                *(spec, number, generation),
            )
            for number in range(one.replicas)
        ]
    return tuple(found)


def _client_ends(job: Job) -> list[LaneEnd]:
    """The lanes between the portal of a local job and its client."""
    return [
        *(
            _client_end(output_lane(job.name, one.name), one.name, output=True)
            for one in job.streams
        ),
        *(
            _client_end(input_lane(job.name, one.name), one.name, output=False)
            for one in job.outputs
        ),
    ]


def _client_end(lane: str, port: str, *, output: bool) -> LaneEnd:
    return LaneEnd(
        Lane(id=lane, output=output, port=client_port(port), peer_job=CLIENT, peer_port=port), ""
    )


def _client(lane: Lane) -> LanePeer:
    """A client has no place: it dials the controller, which relays."""
    return NOWHERE if lane.output else LanePeer(CLIENT_ADDRESS)


def _ends(
    producer: Replica, consumer: Replica, stream: StreamInput, output: Output, stretch: Stretch
) -> tuple[LaneEnd, LaneEnd]:
    """The lane between two replicas, as its producer and as its consumer see it."""
    sending = Lane(
        id=f"{producer.id}.{stream.port}/{consumer.id}.{stream.name}",
        output=True,
        port=stream.port,
        peer_job=consumer.job.name,
        peer_port=stream.name,
        peer_replica=consumer.number,
        peer_replicas=consumer.job.replicas,
        peer_format=stream.binding.format,
        distribute=output.distribute,
        stretch=stretch,
        keep=stream.keep if stream.promise is Promise.LATEST else 0,
    )
    taking = replace(
        sending,
        output=False,
        port=stream.name,
        peer_job=producer.job.name,
        peer_port=stream.port,
        peer_replica=producer.number,
        peer_replicas=producer.job.replicas,
        peer_format=output.binding.format,
    )
    return LaneEnd(sending, consumer.id), LaneEnd(taking, producer.id)


def _gangs(neighbours: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Name each connected part by its first job."""
    gangs: dict[str, str] = {}
    for first in neighbours:
        found = [] if first in gangs else [first]
        while found:
            job = found.pop()
            if job not in gangs:
                gangs[job] = first
                found.extend(neighbours[job])
    return gangs

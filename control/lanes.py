"""Lanes: the physical streams of each replica, derived from the spec (architecture.md, section 4).

A lane goes from one producer replica to one consumer replica. Its id is made of job ids,
`{producer}.{port}/{consumer}.{port}`. Everything but the peer is fixed by the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from control.desired import Lane, LanePeer
from shoal.spec import Distribute, Job, Pipeline, PortFormat, Promise

NOWHERE = LanePeer()
"""A peer that is not placed."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One job as it runs: its id, the job of the spec, and which replica it is."""

    id: str
    job: Job
    number: int


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """One end of a lane without its peer's whereabouts; `peer` is the job id at the other end."""

    id: str
    output: bool
    port: str
    peer: str
    peer_job: str
    peer_port: str
    peer_replica: int
    peer_replicas: int
    peer_format: PortFormat
    distribute: Distribute
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Topology:
    """The replicas of a pipeline by id, and how they stream to each other.

    `gangs` names for each replica the connected part of the pipeline that it belongs to.
    """

    replicas: Mapping[str, Replica]
    ends: Mapping[str, tuple[LaneEnd, ...]]
    neighbours: Mapping[str, tuple[str, ...]]
    gangs: Mapping[str, str]

    def consumers(self, job: str) -> tuple[str, ...]:
        """Ids of the replicas that get records from this one."""
        return tuple(dict.fromkeys(end.peer for end in self.ends[job] if end.output))

    def lanes(self, job: str, peer: Callable[[str], LanePeer]) -> tuple[Lane, ...]:
        """Return the lanes of a replica with their peers as they stand now."""
        return tuple(
            Lane(
                id=end.id,
                output=end.output,
                port=end.port,
                peer_job=end.peer_job,
                peer_port=end.peer_port,
                peer_replica=end.peer_replica,
                peer_replicas=end.peer_replicas,
                peer_format=end.peer_format,
                distribute=end.distribute,
                keep=end.keep,
                peer=peer(end.peer),
            )
            for end in self.ends[job]
        )


def replicas(spec: Pipeline) -> tuple[Replica, ...]:
    """Return every replica of every job, in the order of the spec."""
    return tuple(
        Replica(job.replica_id(number), job, number)
        for job in spec.jobs
        for number in range(job.replicas)
    )


def topology(spec: Pipeline) -> Topology:
    """Derive the lanes of a valid pipeline.

    Raises:
        KeyError: A stream names a job or port that does not exist (control.admission refuses it).
    """
    every = replicas(spec)
    of: dict[str, list[Replica]] = {job.name: [] for job in spec.jobs}
    for replica in every:
        of[replica.job.name].append(replica)
    ends: dict[str, list[LaneEnd]] = {replica.id: [] for replica in every}
    for consumer_job in spec.jobs:
        for stream in consumer_job.streams:
            outputs = {output.name: output for output in spec.job(stream.job).outputs}
            output = outputs[stream.port]
            keep = stream.keep if stream.promise is Promise.LATEST else 0
            for producer in of[stream.job]:
                for consumer in of[consumer_job.name]:
                    lane = f"{producer.id}.{stream.port}/{consumer.id}.{stream.name}"
                    ends[producer.id].append(
                        _end(
                            *(lane, stream.port, consumer, stream.name),
                            *(stream.binding.format, output.distribute, keep),
                            output=True,
                        )
                    )
                    ends[consumer.id].append(
                        _end(
                            *(lane, stream.name, producer, stream.port),
                            *(output.binding.format, output.distribute, keep),
                            output=False,
                        )
                    )
    neighbours = {
        job: tuple(dict.fromkeys(end.peer for end in found)) for job, found in ends.items()
    }
    return Topology(
        replicas=MappingProxyType({replica.id: replica for replica in every}),
        ends=MappingProxyType({job: tuple(found) for job, found in ends.items()}),
        neighbours=MappingProxyType(neighbours),
        gangs=MappingProxyType(_gangs(neighbours)),
    )


def _end(
    lane: str,
    port: str,
    peer: Replica,
    peer_port: str,
    peer_format: PortFormat,
    distribute: Distribute,
    keep: int,
    *,
    output: bool,
) -> LaneEnd:
    return LaneEnd(
        id=lane,
        output=output,
        port=port,
        peer=peer.id,
        peer_job=peer.job.name,
        peer_port=peer_port,
        peer_replica=peer.number,
        peer_replicas=peer.job.replicas,
        peer_format=peer_format,
        distribute=distribute,
        keep=keep,
    )


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

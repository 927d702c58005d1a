"""Pipelines of streams for simulations, and what each of their ports carries when nothing goes wrong.

A record says where it was made and depends on what went into it, so that every record of every port
is known beforehand: whatever else comes was lost, repeated, put out of order or made up.
"""

from __future__ import annotations

import enum
import json
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from services.streams.block import HEADED
from services.streams.lane_slice import lane_slice
from shoal.spec import Distribute, Job, Merge, Output, Pipeline, Promise, Recovery, StreamInput


@dataclass(frozen=True)
class Edge:
    """An output port of one job that feeds an input port of another."""

    producer: str
    port: str
    consumer: str
    into: str
    distribute: Distribute = Distribute.ROUND_ROBIN
    block_count: int = 1
    ordered: bool = True
    """Whether producer replicas take turns; else the consumer has to be a sink."""
    keep: int = 0
    """If above 0, the consumer wants the newest records alone; it has to be a sink."""


@dataclass(frozen=True)
class JobShape:
    """One job of the pipeline; a source makes `records` records, others one a round."""

    name: str
    replicas: int = 1
    resume: bool = False
    records: int = 0
    record_bytes: int = 20
    headers: bool = False
    """Every third record has headers."""
    keys: int = 0
    """If above 0, every record has a header `key` with one of so many values."""
    pace: float = 0.0
    """Its next round does not begin before so many seconds have passed for each one before."""
    plain: bool = False
    """What it sends depends on nothing but what it gets: not on the replica, nor on the round."""
    crash: int = -1
    """Its first attempt ends at this round."""
    signal: int = 0
    """What that attempt ends by; 0 for exit status 1."""
    stubborn: bool = False
    """It does not heed SIGTERM."""
    burst: int = 8
    """At most so many records leave together."""

    def argv(self) -> tuple[str, ...]:
        """What the job runs, in words: `rounds`, and what is not as usual."""
        usual = JobShape(self.name, self.replicas, self.resume)
        return (
            "rounds",
            *(
                f"{field.name}={getattr(self, field.name)}"
                for field in fields(self)
                if getattr(self, field.name) != getattr(usual, field.name)
            ),
        )

    @classmethod
    def parse(cls, name: str, words: Sequence[str]) -> JobShape:
        """Read `argv` of a job.

        Raises:
            AttributeError: a word names nothing that a job has.
        """
        return cls(name, **_fields(cls, words))


@dataclass(frozen=True)
class Shape:
    """A pipeline; producers come before their consumers."""

    jobs: tuple[JobShape, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def parse(cls, *lines: str) -> Shape:
        """Read one job from each line: `map in<source.out,block_count=3 resume=True`.

        Behind the job's name stand its inputs (`port<job.port`, then fields of `Edge`) and the words
        of `JobShape.parse`.
        """
        jobs: list[JobShape] = []
        edges: list[Edge] = []
        for name, *words in map(str.split, lines):
            jobs.append(JobShape.parse(name, [word for word in words if "<" not in word]))
            for word in words:
                if "<" in word:
                    (stream, *given) = word.split(",")
                    (into, producer, port) = stream.replace("<", ".").split(".")
                    edges.append(Edge(producer, port, name, into, **_fields(Edge, given)))
        return cls(tuple(jobs), tuple(edges))

    def job(self, name: str) -> JobShape:
        """The job of that name."""
        return next(job for job in self.jobs if job.name == name)

    def inputs(self, job: str) -> list[Edge]:
        """What streams into a job."""
        return [edge for edge in self.edges if edge.consumer == job]

    def ports(self, job: str) -> list[str]:
        """The output ports of a job."""
        return list(dict.fromkeys(edge.port for edge in self.edges if edge.producer == job))

    def pipeline(self, name: str, bundle_digest: str = "") -> Pipeline:
        """The pipeline as it is submitted."""
        return Pipeline(name, tuple(map(self._job, self.jobs)), bundle_digest)

    def _job(self, job: JobShape) -> Job:
        ways = {
            edge.port: edge.distribute for edge in reversed(self.edges) if edge.producer == job.name
        }
        return Job(
            job.name,
            job.argv(),
            streams=tuple(
                StreamInput(
                    edge.into,
                    edge.producer,
                    edge.port,
                    block_count=edge.block_count,
                    merge=Merge.ORDERED if edge.ordered else Merge.ARRIVAL,
                    promise=Promise.LATEST if edge.keep else Promise.AT_LEAST_ONCE,
                    keep=edge.keep or 1,
                )
                for edge in self.inputs(job.name)
            ),
            outputs=tuple(Output(port, distribute=ways[port]) for port in self.ports(job.name)),
            replicas=job.replicas,
            recovery=Recovery.RESUME if job.resume else Recovery.RESTART,
        )


def _fields(owner: type, words: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` words, each as the type of that field's default."""
    given: dict[str, Any] = {}
    for key, _, value in (word.partition("=") for word in words):
        usual = getattr(owner, key)
        if isinstance(usual, bool):
            given[key] = value == "True"
        else:
            given[key] = type(usual)[value] if isinstance(usual, enum.Enum) else type(usual)(value)
    return given


Canon = dict[tuple[str, int, str], list[bytes]]
"""What every port carries when nothing goes wrong: (job, replica, port) -> records."""


def canonical(shape: Shape) -> tuple[Canon, Canon]:
    """Run the pipeline without streams and return what goes into and out of every port."""
    ins: Canon = {}
    outs: Canon = {}
    for job in shape.jobs:
        for replica in range(job.replicas):
            columns: list[list[list[bytes]]] = []
            for edge in shape.inputs(job.name):
                feed = _merge(shape, outs, edge, replica)
                ins[job.name, replica, edge.into] = feed
                size = edge.block_count
                columns.append([feed[at : at + size] for at in range(0, len(feed), size)])
            count = min((len(column) for column in columns), default=job.records)
            for port in shape.ports(job.name):
                outs[job.name, replica, port] = [
                    record_of(job, replica, port, number, [column[number] for column in columns])
                    for number in range(count)
                ]
    return ins, outs


def record_of(
    job: JobShape, replica: int, port: str, number: int, inputs: Sequence[Sequence[bytes]]
) -> bytes:
    """Return what a job sends in one round: a function of what it gets."""
    text = f"{job.name}{replica}.{port}#{number}:".encode()
    digest = sum(
        sum(record) * (index + 1) for group in inputs for index, record in enumerate(group)
    )
    if job.plain:
        every = b"".join(record for group in inputs for record in group)
        text, digest = f"{job.name}.{port}:".encode(), zlib.crc32(every)
    record = (text + str(digest).encode()).ljust(job.record_bytes, b".")
    headers: dict[str, object] = {}
    if job.keys:
        headers["key"] = f"key {number * number % job.keys}"
    elif not job.headers or number % 3:
        return record
    text = json.dumps(headers).encode()
    return len(text).to_bytes(2, "little") + text + record


def entry_of(record: bytes) -> int:
    """Return what the table of a block has to say of a record; here, none begins with a name `..{`."""
    return len(record) | (HEADED if record[2:3] == b"{" else 0)


def key_of(record: bytes) -> bytes:
    """Return the key of a record, as the contract has it."""
    if not entry_of(record) & HEADED:
        return record
    size = 2 + int.from_bytes(record[:2], "little")
    key: str = json.loads(record[2:size])["key"]
    return key.encode()


def feeds_of(shape: Shape, outs: Canon, edge: Edge, replica: int) -> list[list[bytes]]:
    """Return what each producer replica has for one consumer replica."""
    producers = shape.job(edge.producer).replicas
    consumers = shape.job(edge.consumer).replicas
    feeds: list[list[bytes]] = []
    for producer in range(producers):
        records = outs[edge.producer, producer, edge.port]
        if edge.distribute is Distribute.KEY:
            mine = [one for one in records if zlib.crc32(key_of(one)) % consumers == replica]
            feeds.append(mine)
            continue
        broadcast = edge.distribute is Distribute.BROADCAST
        part = lane_slice(producer, producers, replica, consumers, broadcast=broadcast)
        feeds.append([] if part.empty else records[part.first :: part.step])
    return feeds


def _merge(shape: Shape, outs: Canon, edge: Edge, replica: int) -> list[bytes]:
    producers = shape.job(edge.producer).replicas
    consumers = shape.job(edge.consumer).replicas
    feeds = [deque(feed) for feed in feeds_of(shape, outs, edge, replica)]
    merged: list[bytes] = []
    turn = 0
    while any(feeds):
        rotates = edge.distribute is Distribute.ROUND_ROBIN or consumers == 1
        index = turn * consumers + replica if rotates else turn
        feed = feeds[index % producers]
        if feed:
            merged.append(feed.popleft())
        turn += 1
    return merged

"""Rows to and from the tables of the SQLite store."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar, cast

from google.protobuf.message import DecodeError

from control.core.errors import TermOverError
from control.core.rows import (
    AttemptRow,
    Forgotten,
    FoundRows,
    JobRow,
    KnownRequest,
    Loaded,
    ManifestRow,
    NodeRow,
    OutboxKind,
    OutboxRow,
    PipelineAdded,
    PipelineRow,
    PipelineRows,
    Queued,
    RequestKey,
    Row,
    ScaleRow,
    StartRow,
)
from services.runtime.log import fields
from shoal.model import (
    NO_CAPACITY,
    Artifact,
    Capacity,
    JobState,
    PipelineState,
    Reason,
    ReasonCode,
    ScaleState,
)
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.port_hold import PortHold
from shoal.spec import Pipeline
from shoal.v1 import spec_pb2
from shoal.view import Event
from shoal.wire.fields import WireError
from shoal.wire.spec import bring_within_limits, decode_pipeline_spec, encode_pipeline_spec

LOG = logging.getLogger(__name__)

RowT = TypeVar("RowT")

Values = tuple[Any, ...]
"""What is bound to the question marks of one statement, or one row of an answer."""

REQUESTS_KEPT = timedelta(days=15)
"""How long a request id makes nothing new, also after its pipeline is forgotten: a queue such as SQS may
deliver a message again for 14 days."""

STARTS_KEPT = 100_000
"""Starts that are remembered; an agent that followed an earlier one last is quarantined."""

_TERM = "SELECT value FROM meta WHERE name = 'generation'"  # the name that the first schema gave it

_SPECS_SHARED = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def write(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write rows, whatever their kinds, in the order in which they may depend on each other."""
    kinds: dict[type[Row], list[Any]] = {}
    for row in rows:
        kinds.setdefault(type(row), []).append(row)
    for kind, statements in _STATEMENTS.items():
        found = kinds.get(kind)
        if found:
            for statement, values in statements:
                connection.executemany(statement, values(found))


def load(connection: sqlite3.Connection) -> Loaded:
    """Read what the control machine starts from, in the order that `Loaded` promises.

    A pipeline of which a row cannot be read is left out as a whole and logged; its rows stay.
    """
    rows = _pipeline_rows(connection, _UNDER_WAY)
    nodes = {
        node.name: node
        for node in _read_all(connection, "SELECT * FROM nodes ORDER BY name", _node, set())
    }
    for (
        attempt
    ) in rows.attempts:  # an attempt without its node has a node of which nothing is known
        nodes.setdefault(attempt.node, NodeRow(attempt.node, "", NO_CAPACITY))
    # Most of a long queue asks for the same: equal specs and kinds are kept once.
    words: dict[str, str] = {}
    specs: dict[bytes, bytes] = {}
    return Loaded(
        added=rows.added,
        pipelines=rows.pipelines,
        jobs=rows.jobs,
        scales=rows.scales,
        attempts=rows.attempts,
        manifests=rows.manifests,
        cluster_id=connection.execute("SELECT id FROM cluster").fetchone()[0],
        starts=tuple(
            StartRow(*values)
            for values in connection.execute("SELECT term, id, commits FROM starts ORDER BY term")
        ),
        next_sequence=_next(connection, "outbox"),
        next_position=_next(connection, "pipelines"),
        queued=tuple(
            Queued(
                PipelineRef(words.setdefault(namespace, namespace), pipeline),
                position,
                request_id,
                specs.setdefault(data, data),
                create_time,
                words.setdefault(kind, kind),
            )
            for namespace, pipeline, position, request_id, data, create_time, kind in (
                connection.execute(f"{_ADDED} WHERE {_UNTOUCHED} ORDER BY position")
            )
        ),
        begin=_Decoder().begin,
        ended=tuple(
            PipelineRef(*values)
            for values in connection.execute(
                f"SELECT namespace, id FROM pipelines WHERE state >= {_TERMINAL} "
                "ORDER BY coalesce(end_time, create_time), position"
            )
        ),
        nodes=tuple(nodes[name] for name in sorted(nodes)),
    )


def find(
    connection: sqlite3.Connection,
    refs: Sequence[PipelineRef],
    requests: Sequence[RequestKey] = (),
) -> FoundRows:
    """Read pipelines and requests by their keys; what is not there or cannot be read is left out."""
    rows = [
        _pipeline_rows(
            connection,
            f"(namespace, id) IN (VALUES {', '.join(['(?, ?)'] * len(part))})",
            [value for ref in part for value in (ref.namespace, ref.pipeline)],
        )
        for part in _parts(refs)
    ]
    decoder = _Decoder()
    known: dict[RequestKey, KnownRequest] = {}
    for part in _parts(requests):
        for namespace, request_id, pipeline, digest, ended, data in connection.execute(
            _FIND_REQUESTS.format(", ".join(["(?, ?)"] * len(part))),
            [value for key in part for value in key],
        ):
            ref = PipelineRef(namespace, pipeline)
            spec = None if data is None else decoder.spec(ref, data)
            known[namespace, request_id] = KnownRequest(
                ref, digest, spec, None if ended is None else PipelineState(ended)
            )
    return FoundRows(
        added=tuple(row for one in rows for row in one.added),
        pipelines=tuple(row for one in rows for row in one.pipelines),
        jobs=tuple(row for one in rows for row in one.jobs),
        scales=tuple(row for one in rows for row in one.scales),
        attempts=tuple(row for one in rows for row in one.attempts),
        manifests=tuple(row for one in rows for row in one.manifests),
        requests=known,
    )


def page(
    connection: sqlite3.Connection,
    namespace: str,
    states: Collection[PipelineState],
    limit: int,
    *,
    before: int = 0,
    after: int = 0,
) -> tuple[tuple[int, PipelineRef], ...]:
    """Read positions and names of pipelines: newest first below `before`, or oldest first from `after` on."""
    oldest = "AND position > ? ORDER BY position"
    newest = "AND position < ? ORDER BY position DESC"
    found = connection.execute(
        "SELECT position, id FROM pipelines WHERE namespace = ? "
        f"AND state IN ({', '.join(str(int(state)) for state in states)}) "
        f"{newest if before else oldest} LIMIT ?",
        (namespace, before or after, limit),
    )
    return tuple((position, PipelineRef(namespace, pipeline)) for position, pipeline in found)


def check_term(connection: sqlite3.Connection, term: int) -> None:
    """Fence a transaction: it goes on only while no later start has opened the store.

    Call it first in a transaction that has the right to write, so that no start comes in between.

    Raises:
        TermOverError: A later start has.
    """
    now = _one(connection, _TERM)
    if now != term:
        raise TermOverError(
            f"another controller has opened this store in term {now}, so term {term} of this one is "
            "over and nothing more of it is recorded: let the other one work, and start this one "
            "again only once that has ended"
        )


def count_start(connection: sqlite3.Connection, new_id: Callable[[], str]) -> int:
    """Begin a term and return it; a new store becomes a cluster of its own."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")
    term = _one(connection, _TERM)
    connection.execute("INSERT INTO starts VALUES (?, ?, 0)", (term, new_id()))
    connection.execute("DELETE FROM starts WHERE term <= ?", (term - STARTS_KEPT,))
    connection.execute(
        "INSERT INTO cluster SELECT ? WHERE NOT EXISTS (SELECT * FROM cluster)", (new_id(),)
    )
    return term


def outbox(connection: sqlite3.Connection, after: int, limit: int) -> tuple[OutboxRow, ...]:
    """Read what has not left yet."""
    found = connection.execute(
        "SELECT sequence, kind, namespace, subject, id, time, data, type, key FROM outbox "
        "WHERE published = 0 AND sequence > ? ORDER BY sequence LIMIT ?",
        (after, limit),
    )
    return tuple(
        OutboxRow(
            sequence=sequence,
            kind=OutboxKind(kind),
            namespace=namespace,
            subject=subject,
            id=row_id,
            time=_moment(time),
            data=data,
            type=row_type,
            key=key,
        )
        for sequence, kind, namespace, subject, row_id, time, data, row_type, key in found
    )


def events(
    connection: sqlite3.Connection, namespace: str, pipeline: str, after: int, limit: int
) -> tuple[Event, ...]:
    """Read events of a namespace, or of one pipeline in it."""
    found = connection.execute(
        "SELECT id, type, subject, time, data, sequence, published, problem FROM outbox "
        "WHERE kind = 'event' AND namespace = ? AND (? = '' OR pipeline = ?) AND sequence > ? "
        "ORDER BY sequence LIMIT ?",
        (namespace, pipeline, pipeline, after, limit),
    )
    return tuple(
        Event(
            id=row_id,
            type=row_type,
            subject=subject,
            time=_moment(time),
            data_json=data,
            sequence=sequence,
            published=bool(published) and not problem,
            problem=problem,
        )
        for row_id, row_type, subject, time, data, sequence, published, problem in found
    )


def mark_published(
    connection: sqlite3.Connection,
    sequences: Sequence[int],
    aside: Mapping[int, str],
    events_kept: int,
) -> None:
    """Manifests that have left are deleted, events stay readable until newer ones push them out."""
    numbers = [(sequence,) for sequence in sequences]
    connection.executemany("DELETE FROM outbox WHERE sequence = ? AND kind = 'manifest'", numbers)
    connection.executemany("UPDATE outbox SET published = 1 WHERE sequence = ?", numbers)
    problems = [(why, sequence) for sequence, why in aside.items()]
    connection.executemany("UPDATE outbox SET problem = ? WHERE sequence = ?", problems)
    connection.execute(
        "DELETE FROM outbox WHERE published = 1 "
        "AND sequence <= (SELECT seq FROM sqlite_sequence WHERE name = 'outbox') - ?",
        (events_kept,),
    )


# --- writing

_ADD_PIPELINE = (
    "INSERT INTO pipelines (position, namespace, id, request_id, spec, create_time, state, kind) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_REQUEST = "INSERT INTO requests VALUES (?, ?, ?, ?, ?, NULL)"
_DROP_REQUESTS = (
    "DELETE FROM requests WHERE (namespace, request_id) IN "
    "(SELECT namespace, request_id FROM requests WHERE time < ? ORDER BY time LIMIT ?)"
)
_SET_PIPELINE = (
    "UPDATE pipelines SET state = ?, reason_code = ?, reason_number = ?, reason_message = ?, "
    "stopped = ?, stop_code = ?, stop_number = ?, stop_message = ?, end_time = ?, "
    "final_event_id = ?, finish_time = ? WHERE namespace = ? AND id = ?"
)
_SET_JOB = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SET_SCALE = "INSERT OR REPLACE INTO scales VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SET_ATTEMPT = (
    "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_MANIFEST = "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SET_NODE = "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SET_START = "UPDATE starts SET commits = ? WHERE term = ?"
_ADD_OUTBOX = (
    "INSERT INTO outbox (sequence, kind, namespace, pipeline, subject, id, type, time, key, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _added_values(rows: Sequence[PipelineAdded]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.position,
            row.ref.namespace,
            row.ref.pipeline,
            row.request_id,
            row.data or encode_pipeline_spec(row.spec).SerializeToString(deterministic=True),
            _micros(row.create_time),
            int(PipelineState.QUEUED),
            row.kind,
        )


def _request_values(rows: Sequence[PipelineAdded]) -> Iterator[Values]:
    for row in rows:
        if row.request_id:
            time = _micros(row.create_time)
            yield (row.ref.namespace, row.request_id, row.ref.pipeline, row.digest, time)


def _expired_values(rows: Sequence[PipelineAdded]) -> Iterator[Values]:
    # As many as come, and one more, so that what is over does not pile up.
    latest = max(row.create_time for row in rows)
    yield (_micros(latest - REQUESTS_KEPT), len(rows) + 1)


def _pipeline_values(rows: Sequence[PipelineRow]) -> Iterator[Values]:
    for row in rows:
        stop = row.stop or Reason()
        yield (
            int(row.state),
            *_reason_values(row.reason),
            int(row.stop is not None),
            *_reason_values(stop),
            _micros(row.end_time),
            row.final_event_id,
            _micros(row.finish_time),
            row.ref.namespace,
            row.ref.pipeline,
        )


def _job_values(rows: Sequence[JobRow]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.ref.namespace,
            row.ref.pipeline,
            row.ref.job,
            int(row.state),
            *_reason_values(row.reason),
            row.epoch,
            row.number,
            row.failures,
            row.losses,
            _micros(row.retry_time),
            row.pinned_node,
            _json(row.avoid),
            None if row.ends is None else _json(dict(row.ends)),
        )


def _scale_values(rows: Sequence[ScaleRow]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.ref.namespace,
            row.ref.pipeline,
            row.number,
            row.job,
            row.replicas,
            int(row.state),
            _micros(row.create_time),
            row.rounds,
            row.message,
            _micros(row.end_time),
        )


def _attempt_values(rows: Sequence[AttemptRow]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.ref.namespace,
            row.ref.pipeline,
            row.ref.job,
            row.ref.number,
            row.ref.epoch,
            row.node,
            int(row.state),
            *_reason_values(row.reason),
            _micros(row.create_time),
            _micros(row.start_time),
            _micros(row.end_time),
            _json([[one.port, one.number, one.held_at, one.ended] for one in row.holds]),
            _json(row.ended_inputs),
        )


def _manifest_values(rows: Sequence[ManifestRow]) -> Iterator[Values]:
    for row in rows:
        artifacts = [[one.path, one.size_bytes, one.sha256, one.key] for one in row.artifacts]
        yield (
            row.attempt.namespace,
            row.attempt.pipeline,
            row.attempt.job,
            row.attempt.number,
            row.attempt.epoch,
            row.key,
            _json(artifacts),
            _micros(row.commit_time),
        )


def _node_values(rows: Sequence[NodeRow]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.name,
            row.agent_id,
            row.capacity.cpus,
            row.capacity.memory_bytes,
            _json(row.capacity.devices),
            _json(dict(row.labels)),
            row.architecture,
            row.stream_address,
            row.agent_version,
            row.member_name,
            int(row.drained),
            _micros(row.last_seen_time),
            row.instance_id,
        )


def _start_values(rows: Sequence[StartRow]) -> Iterator[Values]:
    yield (rows[-1].commits, rows[-1].term)  # of several in one transaction the last one counts


def _outbox_values(rows: Sequence[OutboxRow]) -> Iterator[Values]:
    for row in rows:
        yield (
            row.sequence,
            str(row.kind),
            row.namespace,
            row.subject.split("/")[1],
            row.subject,
            row.id,
            row.type,
            _micros(row.time),
            row.key,
            row.data,
        )


def _forgotten_values(rows: Sequence[Forgotten]) -> Iterator[Values]:
    for row in rows:
        yield (row.ref.namespace, row.ref.pipeline)


_KEEP_STATE = (
    "UPDATE requests SET ended = gone.state FROM pipelines AS gone "
    "WHERE gone.namespace = ? AND gone.id = ? "
    "AND requests.namespace = gone.namespace AND requests.request_id = gone.request_id"
)
_FORGET = (
    (_KEEP_STATE, _forgotten_values),
    ("DELETE FROM pipelines WHERE namespace = ? AND id = ?", _forgotten_values),
    ("DELETE FROM scales WHERE namespace = ? AND pipeline = ?", _forgotten_values),
    ("DELETE FROM jobs WHERE namespace = ? AND pipeline = ?", _forgotten_values),
    ("DELETE FROM attempts WHERE namespace = ? AND pipeline = ?", _forgotten_values),
    ("DELETE FROM manifests WHERE namespace = ? AND pipeline = ?", _forgotten_values),
)

_Statement = tuple[str, Callable[[Any], Iterator[Values]]]

_STATEMENTS: Mapping[type[Row], tuple[_Statement, ...]] = MappingProxyType(
    {
        PipelineAdded: (
            (_ADD_PIPELINE, _added_values),
            (_ADD_REQUEST, _request_values),
            (_DROP_REQUESTS, _expired_values),
        ),
        PipelineRow: ((_SET_PIPELINE, _pipeline_values),),
        JobRow: ((_SET_JOB, _job_values),),
        ScaleRow: ((_SET_SCALE, _scale_values),),
        AttemptRow: ((_SET_ATTEMPT, _attempt_values),),
        NodeRow: ((_SET_NODE, _node_values),),
        StartRow: ((_SET_START, _start_values),),
        ManifestRow: ((_ADD_MANIFEST, _manifest_values),),
        OutboxRow: ((_ADD_OUTBOX, _outbox_values),),
        Forgotten: _FORGET,
    }
)

# --- reading

_ADDED = "SELECT namespace, id, position, request_id, spec, create_time, kind FROM pipelines"
_PIPELINES = (
    "SELECT namespace, id, state, reason_code, reason_number, reason_message, "
    "stopped, stop_code, stop_number, stop_message, end_time, final_event_id, "
    "finish_time FROM pipelines"
)
_TERMINAL = int(min(state for state in PipelineState if state.terminal))

_UNTOUCHED = (
    f"state = {int(PipelineState.QUEUED)} AND kind <> '' AND NOT stopped AND finish_time IS NULL "
    "AND NOT EXISTS (SELECT * FROM jobs "
    "WHERE jobs.namespace = pipelines.namespace AND jobs.pipeline = pipelines.id)"
)
"""Pipelines of which nothing but the submission is recorded."""

_UNDER_WAY = f"state < {_TERMINAL} AND NOT ({_UNTOUCHED})"

_FIND_REQUESTS = (
    "SELECT requests.namespace, requests.request_id, requests.pipeline, digest, ended, spec "
    "FROM requests "
    "LEFT JOIN pipelines ON pipelines.namespace = requests.namespace "
    "AND pipelines.id = requests.pipeline "
    "WHERE (requests.namespace, requests.request_id) IN (VALUES {})"
)
_KEYS_AT_ONCE = 1000

KeyT = TypeVar("KeyT")


def _parts(keys: Sequence[KeyT]) -> Iterator[Sequence[KeyT]]:
    for begin in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[begin : begin + _KEYS_AT_ONCE]


def _pipeline_rows(
    connection: sqlite3.Connection, which: str, values: Sequence[object] = ()
) -> PipelineRows:
    """Read all rows of the pipelines for which a condition holds."""
    theirs = f"WHERE (namespace, pipeline) IN (SELECT namespace, id FROM pipelines WHERE {which})"
    unreadable: set[PipelineRef] = set()

    def read(statement: str, make: Callable[[Values], RowT]) -> list[RowT]:
        return _read_all(connection, statement, make, unreadable, values)

    added = _all_added(
        connection.execute(f"{_ADDED} WHERE {which} ORDER BY position", values), unreadable
    )
    pipelines = read(f"{_PIPELINES} WHERE {which} ORDER BY position", _pipeline)
    jobs = read(f"SELECT * FROM jobs {theirs}", _job)
    attempts = read(
        f"SELECT * FROM attempts {theirs} ORDER BY namespace, pipeline, job, number", _attempt
    )
    scales = read(f"SELECT * FROM scales {theirs} ORDER BY namespace, pipeline, number", _scale)
    manifests = read(f"SELECT * FROM manifests {theirs}", _manifest)
    return PipelineRows(
        added=tuple(one for one in added if one.ref not in unreadable),
        pipelines=tuple(one for one in pipelines if one.ref not in unreadable),
        jobs=tuple(one for one in jobs if one.ref.pipeline_ref not in unreadable),
        attempts=tuple(one for one in attempts if one.ref.job_ref.pipeline_ref not in unreadable),
        scales=tuple(one for one in scales if one.ref not in unreadable),
        manifests=tuple(
            one for one in manifests if one.attempt.job_ref.pipeline_ref not in unreadable
        ),
    )


def _one(connection: sqlite3.Connection, statement: str) -> int:
    found = connection.execute(statement).fetchone()
    return 0 if found is None else int(found[0])


def _next(connection: sqlite3.Connection, table: str) -> int:
    found = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
    ).fetchone()
    return 1 if found is None else int(found[0]) + 1


_UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, DecodeError)


def _read_all(
    connection: sqlite3.Connection,
    statement: str,
    read: Callable[[Values], RowT],
    unreadable: set[PipelineRef],
    bound: Sequence[object] = (),
) -> list[RowT]:
    found: list[RowT] = []
    for values in connection.execute(statement, bound):
        try:
            found.append(read(values))
        except _UNREADABLE as error:
            LOG.exception("a row cannot be read", extra=fields(begins=values[:3], why=error))
            unreadable.add(PipelineRef(str(values[0]), str(values[1])))
    return found


def _read_spec(data: bytes) -> Pipeline:
    message = spec_pb2.PipelineSpec.FromString(data)
    try:
        return decode_pipeline_spec(message)
    except WireError as error:
        LOG.warning("a spec is brought within the limits", extra=fields(why=error))
        bring_within_limits(message)
        return decode_pipeline_spec(message)


class _Decoder:
    """Decodes specs; equal ones, of which a queue may have many, are one object."""

    def __init__(self) -> None:
        self._specs: dict[bytes, Pipeline] = {}

    def spec(self, ref: PipelineRef, data: bytes) -> Pipeline | None:
        """Decode a spec; None if it cannot be read, which is logged."""
        spec = self._specs.get(data)
        if spec is None:
            try:
                spec = _read_spec(data)
            except _UNREADABLE as error:
                LOG.exception(
                    "a pipeline cannot be read", extra=fields(pipeline=ref.name, why=error)
                )
                return None
            if len(self._specs) >= _SPECS_SHARED:
                self._specs.clear()
            self._specs[data] = spec
        return spec

    def begin(self, row: Queued) -> PipelineAdded | None:
        """Decode a pipeline of the queue."""
        spec = self.spec(row.ref, row.data)
        if spec is None:
            return None
        created = _moment(row.create_micros)
        return PipelineAdded(row.ref, row.position, row.request_id, spec, created, row.kind)


def _all_added(found: Iterable[Values], unreadable: set[PipelineRef]) -> tuple[PipelineAdded, ...]:
    decoder = _Decoder()
    added: list[PipelineAdded] = []
    for namespace, pipeline, *rest in found:
        ref = PipelineRef(namespace, pipeline)
        try:
            row = decoder.begin(Queued(ref, *rest))
        except _UNREADABLE as error:
            LOG.exception("a pipeline cannot be read", extra=fields(pipeline=ref.name, why=error))
            row = None
        if row is None:
            unreadable.add(ref)
        else:
            added.append(row)
    return tuple(added)


def _pipeline(values: Values) -> PipelineRow:
    namespace, pipeline, state, *rest = values
    stopped, end_time, final_event_id = rest[3], rest[7], rest[8]
    return PipelineRow(
        ref=PipelineRef(namespace, pipeline),
        state=PipelineState(state),
        reason=_reason(rest[0:3]),
        stop=_reason(rest[4:7]) if stopped else None,
        end_time=_moment_or_none(end_time),
        final_event_id=final_event_id,
        finish_time=_moment_or_none(rest[9]),
    )


def _job(values: Values) -> JobRow:
    namespace, pipeline, job, state, *rest = values
    epoch, number, failures, losses, retry_time, pinned_node, avoid, ends = rest[3:]
    return JobRow(
        ref=JobRef(namespace, pipeline, job),
        state=JobState(state),
        reason=_reason(rest[0:3]),
        epoch=epoch,
        number=number,
        failures=failures,
        losses=losses,
        retry_time=_moment_or_none(retry_time),
        pinned_node=pinned_node,
        avoid=tuple(json.loads(avoid)),
        ends=None if ends is None else MappingProxyType(json.loads(ends)),
    )


def _scale(values: Values) -> ScaleRow:
    namespace, pipeline, number, job, replicas, state, create_time, *rest = values
    rounds, message, end_time = rest
    return ScaleRow(
        ref=PipelineRef(namespace, pipeline),
        number=number,
        job=job,
        replicas=replicas,
        state=ScaleState(state),
        create_time=_moment(create_time),
        rounds=rounds,
        message=message,
        end_time=_moment_or_none(end_time),
    )


def _attempt(values: Values) -> AttemptRow:
    namespace, pipeline, job, number, epoch, node, state, *rest = values
    create_time, start_time, end_time, holds, ended_inputs = rest[3:]
    return AttemptRow(
        ref=AttemptRef(namespace, pipeline, job, number, epoch),
        node=node,
        state=JobState(state),
        create_time=_moment(create_time),
        reason=_reason(rest[0:3]),
        start_time=_moment_or_none(start_time),
        end_time=_moment_or_none(end_time),
        holds=tuple(PortHold(*one) for one in json.loads(holds)),
        ended_inputs=tuple(json.loads(ended_inputs)),
    )


def _manifest(values: Values) -> ManifestRow:
    namespace, pipeline, job, number, epoch, key, artifacts, commit_time = values
    return ManifestRow(
        key=key,
        attempt=AttemptRef(namespace, pipeline, job, number, epoch),
        artifacts=tuple(Artifact(*one) for one in json.loads(artifacts)),
        commit_time=_moment(commit_time),
    )


def _node(values: Values) -> NodeRow:
    name, agent_id, cpus, memory_bytes, devices, labels, *rest = values
    architecture, stream_address, agent_version, member_name, drained, *rest = rest
    last_seen_time, instance_id = rest
    return NodeRow(
        name=name,
        agent_id=agent_id,
        capacity=Capacity(cpus, memory_bytes, tuple(json.loads(devices))),
        labels=MappingProxyType(json.loads(labels)),
        architecture=architecture,
        stream_address=stream_address,
        agent_version=agent_version,
        member_name=member_name,
        drained=bool(drained),
        last_seen_time=_moment_or_none(last_seen_time),
        instance_id=instance_id,
    )


def _reason(values: Sequence[Any]) -> Reason:
    code, number, message = values
    return Reason(ReasonCode(code), number, message)


def _reason_values(reason: Reason) -> Values:
    return (str(reason.code), reason.number, reason.message)


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _moment_or_none(micros: int | None) -> datetime | None:
    return None if micros is None else _moment(micros)


def _json(value: object) -> str:
    return json.dumps(cast("Any", value), separators=(",", ":"), ensure_ascii=False)

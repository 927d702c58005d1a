"""Rows to and from the tables of the SQLite store."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from control.core import rows
from control.core.errors import TermOverError
from control.core.presence import Presence
from control.core.standing import JobCounts, Standing
from control.store import table
from control.store.spec_columns import job_counts_of, labels_of
from control.store.store import OUTBOX_BYTES
from services.runtime.log import fields
from shoal.identity import Role
from shoal.model import (
    NO_CAPACITY,
    Artifact,
    DeadLetter,
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
from shoal.view import PipelineSummary
from shoal.wire.fields import WireError
from shoal.wire.spec import bring_within_limits, decode_pipeline_spec, encode_pipeline_spec

LOG = logging.getLogger(__name__)

RowT = TypeVar("RowT")

REQUESTS_KEPT = timedelta(days=15)
"""How long a request id makes nothing new, also after its pipeline is forgotten: a queue such as SQS may
deliver a message again for 14 days."""

STARTS_KEPT = 100_000
"""Starts that are remembered; an agent that followed an earlier one last is quarantined."""

_TERM = "SELECT value FROM meta WHERE name = 'generation'"  # the name that the first schema gave it

_SPECS_SHARED = 10_000

_PASSED_OVER_MAX = 100_000
"""How much of the outbox is looked at for what waits for the archive before another reader has its turn."""

_WAITING_MAX = 10_000
"""Rows of the outbox that are counted of those that wait."""


def write(connection: sqlite3.Connection, written: Iterable[rows.Row]) -> None:
    """Write rows, whatever their kinds, in the order in which they may depend on each other."""
    kinds: dict[type[rows.Row], list[Any]] = {}
    for row in written:
        if isinstance(row, rows.NodeForgotten):
            # Those are carried out first; a row that comes later is that of a new node.
            known = kinds.get(rows.NodeRow, [])
            kinds[rows.NodeRow] = [node for node in known if node.name != row.name]
        kinds.setdefault(type(row), []).append(row)
    for kind, statements in _STATEMENTS.items():
        found = kinds.get(kind)
        if found:
            for statement, values in statements:
                if isinstance(statement, table.Many):
                    statement.run(connection, values(found))
                else:
                    connection.executemany(statement, values(found))


def load(connection: sqlite3.Connection, queue_page: int) -> rows.Loaded:
    """Read what the control machine starts from, with the first `queue_page` of the queue.

    A pipeline of which a row cannot be read is left out as a whole and logged; its rows stay.
    """
    under_way = connection.execute(_UNDER_WAY)
    recorded = _pipeline_rows(connection, [PipelineRef(*values) for values in under_way])
    nodes = {
        node.name: node
        for node in _read_all(connection, f"{_NODES.select} ORDER BY name", _NODES, set())
    }
    for attempt in recorded.attempts:
        # An attempt without its node has a node of which nothing is known; one that is over needs none.
        if attempt.state.terminal:
            continue
        nodes.setdefault(attempt.node, rows.NodeRow(attempt.node, "", NO_CAPACITY))
    return rows.Loaded(
        rows=recorded,
        cluster_id=connection.execute("SELECT id FROM cluster").fetchone()[0],
        starts=tuple(
            rows.StartRow(*values)
            for values in connection.execute("SELECT term, id, commits FROM starts ORDER BY term")
        ),
        next_sequence=_next(connection, "outbox"),
        next_position=_next(connection, "pipelines"),
        queued=queued(connection, 0, queue_page),
        begin=_Decoder().begin,
        open_of=_open_of(connection),
        ended=tuple(
            PipelineRef(*values)
            for values in connection.execute(
                f"SELECT namespace, id FROM pipelines WHERE state >= {_TERMINAL} "
                f"AND dead_letter <> {int(DeadLetter.KEPT)} "
                "ORDER BY coalesce(end_time, create_time), position"
            )
        ),
        dead=tuple(
            (PipelineRef(namespace, pipeline), table.moment_of(time))
            for namespace, pipeline, time in connection.execute(
                "SELECT namespace, id, coalesce(end_time, create_time) FROM pipelines "
                f"WHERE dead_letter = {int(DeadLetter.KEPT)} ORDER BY 3, position"
            )
        ),
        standings=_standings(connection),
        nodes=tuple(nodes[name] for name in sorted(nodes)),
        tokens=tuple(map(_TOKENS.row, connection.execute(_TOKENS.select))),
        certificates=tuple(map(_CERTIFICATES.row, connection.execute(_CERTIFICATES.select))),
        secrets=tuple(map(_SECRETS.row, connection.execute(_SECRETS.select))),
        stored=tuple(_heads(connection)),
    )


def _heads(connection: sqlite3.Connection) -> Iterator[rows.StoredHead]:
    """Read how far stored pipelines have come; those that were deleted first stand first among their kind."""
    for namespace, name, newest in connection.execute(
        "SELECT namespace, name, newest FROM deleted_stored_pipelines"
    ):
        yield rows.StoredHead(namespace, name, newest)
    kept = connection.execute(
        "SELECT namespace, name, version, length(content), digest FROM stored_pipelines ORDER BY 1, 2, 3"
    )
    for (namespace, name), versions in groupby(kept, itemgetter(0, 1)):
        found = list(versions)
        _, _, newest, _, digest = found[-1]
        sizes = tuple(size for _, _, _, size, _ in found)
        yield rows.StoredHead(namespace, name, newest, sizes, digest)


def stored(
    connection: sqlite3.Connection, keys: Iterable[tuple[str, str, int]], *, content: bool
) -> tuple[rows.StoredVersionRow, ...]:
    """Read versions of stored pipelines by namespace, name and number; what is not there is left out."""
    select = _STORED.select if content else _STORED.select.replace(", content ", ", x'' ")
    found = (
        connection.execute(f"{select} WHERE namespace = ? AND name = ? AND version = ?", key)
        for key in keys
    )
    return tuple(_STORED.row(values) for one in found for values in one)


def queued(connection: sqlite3.Connection, after: int, limit: int) -> tuple[rows.Queued, ...]:
    """Read pipelines of which no job was ever placed, above a position, in order."""
    # Most of a long queue asks for the same: equal specs and kinds are kept once.
    words: dict[str, str] = {}
    specs: dict[bytes, bytes] = {}
    return tuple(
        rows.Queued(
            PipelineRef(words.setdefault(namespace, namespace), pipeline),
            position,
            request_id,
            specs.setdefault(data, data),
            create_time,
            words.setdefault(kind, kind),
            words.setdefault(creator, creator),
            revived_from,
            words.setdefault(listings, listings),
            traceparent,
            words.setdefault(stored, stored),
        )
        for (
            namespace,
            pipeline,
            position,
            request_id,
            data,
            create_time,
            kind,
            creator,
            revived_from,
            listings,
            traceparent,
            stored,
        ) in (
            connection.execute(
                f"{_ADDED} WHERE position > ? AND {_UNTOUCHED} ORDER BY position LIMIT ?",
                (after, limit),
            )
        )
    )


def _standings(connection: sqlite3.Connection) -> Mapping[PipelineRef, Standing]:
    """Read how all pipelines stand; equal standings are one object."""
    # Few differ, so each is read from its words once.
    known: dict[str, Standing] = {}
    found: dict[PipelineRef, Standing] = {}
    for namespace, pipeline, words in connection.execute(_STANDINGS):
        standing = known.get(words)
        if standing is None:
            state, dead_letter, counts, creator = words.split(" ", 3)
            standing = known[words] = Standing(
                creator,
                PipelineState(int(state)),
                DeadLetter(int(dead_letter)),
                _counts(json.loads(counts)),
            )
        found[PipelineRef(namespace, pipeline)] = standing
    return found


_STANDINGS = "SELECT namespace, id, state || ' ' || dead_letter || ' ' || job_counts || ' ' || creator FROM pipelines"


def summaries(
    connection: sqlite3.Connection, refs: Sequence[PipelineRef], revision: int = 0
) -> tuple[PipelineSummary, ...]:
    """Sum up pipelines that have ended or of which no job was ever placed; what is not there is left out."""
    return tuple(
        [
            PipelineSummary(
                pipeline,
                namespace,
                PipelineState(state),
                name,
                _labels(labels),
                _counts_of(counts),
                _reason(code, number, message),
                table.moment_of(created),
                table.moment_of(ended),
                revision,
                final_event_id,
                table.moment_of(finish),
                creator,
                DeadLetter(dead_letter),
                revived_from,
                revived_by,
                stored,
            )
            for part in _parts(refs)
            for (
                namespace,
                pipeline,
                state,
                name,
                labels,
                counts,
                code,
                number,
                message,
                created,
                ended,
                final_event_id,
                finish,
                creator,
                dead_letter,
                revived_from,
                revived_by,
                stored,
            ) in connection.execute(_wanted(_SUMMED, "id", len(part)), _values_of(part))
        ]
    )


# Of many pipelines these are alike.
@lru_cache(1024)
def _labels(text: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(text))


@lru_cache(1024)
def _counts_of(text: str) -> Mapping[JobState, int]:
    return MappingProxyType(dict(_counts(json.loads(text))))


@lru_cache(256)
def _reason(code: str, number: int, message: str) -> Reason:
    return Reason(ReasonCode(code), number, message)


_SUMMED = (
    "SELECT namespace, id, state, name, labels, job_counts, reason_code, reason_number, reason_message, "
    "create_time, end_time, final_event_id, finish_time, creator, dead_letter, revived_from, revived_by, stored "
    "FROM pipelines"
)


def _open_of(connection: sqlite3.Connection) -> Mapping[str, int]:
    """Count the pipelines that have not ended of each creator."""
    found = connection.execute(
        "SELECT creator, count(*) FROM pipelines "
        f"WHERE creator <> '' AND state < {_TERMINAL} GROUP BY creator"
    )
    return dict(found.fetchall())


def find(
    connection: sqlite3.Connection,
    refs: Sequence[PipelineRef],
    requests: Sequence[rows.RequestKey] = (),
) -> rows.FoundRows:
    """Read pipelines and requests by their keys; what is not there or cannot be read is left out."""
    recorded = _pipeline_rows(connection, refs)
    decoder = _Decoder()
    known: dict[rows.RequestKey, rows.KnownRequest] = {}
    for part in _parts(requests):
        for namespace, request_id, pipeline, digest, ended in connection.execute(
            _wanted(_FIND_REQUESTS, "request_id", len(part)),
            [value for key in part for value in key],
        ):
            ref = PipelineRef(namespace, pipeline)
            data = connection.execute(_FIND_SPEC, (namespace, pipeline)).fetchone()
            known[namespace, request_id] = rows.KnownRequest(
                ref,
                digest,
                None if data is None else decoder.spec(ref, data[0]),
                None if ended is None else PipelineState(ended),
            )
    return rows.FoundRows(recorded, known)


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


def outbox(
    connection: sqlite3.Connection, after: int, limit: int, bytes_max: int = OUTBOX_BYTES
) -> tuple[rows.OutboxRow, ...]:
    """Read what has not left yet; fewer than asked for only where no more is there, or it is large."""
    found: list[rows.OutboxRow] = []
    left = bytes_max
    for values in connection.execute(
        f"{_OUTBOX.select} WHERE published = 0 AND sequence > ? ORDER BY sequence LIMIT ?",
        (after, limit),
    ):
        row = _OUTBOX.row(values)
        found.append(row)
        left -= len(row.data)
        if left <= 0:
            break
    return tuple(found)


def objects_waiting(
    connection: sqlite3.Connection, after: int, limit: int, bytes_max: int = OUTBOX_BYTES
) -> rows.ObjectsWaiting:
    """Read what waits for the archive; events between are passed over, but only so many at once."""
    [newest] = connection.execute(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'"
    ).fetchone()
    newest = newest or 0
    through = min(newest, after + _PASSED_OVER_MAX)
    found: list[rows.OutboxRow] = []
    left = bytes_max
    for values in connection.execute(
        f"{_OUTBOX.select} WHERE published = 0 AND sequence > ? AND sequence <= ? "
        "AND kind IN ('manifest', 'copies') ORDER BY sequence",
        (after, through),
    ):
        row = _OUTBOX.row(values)
        found.append(row)
        left -= len(row.data)
        if left <= 0 or len(found) >= limit:
            through = row.sequence
            break
    return rows.ObjectsWaiting(found, max(after, through), through < newest)


def outbox_waiting(connection: sqlite3.Connection) -> rows.OutboxWaiting:
    """Count what has not left yet, up to `_WAITING_MAX`: the count reads the index alone."""
    (count,) = connection.execute(
        "SELECT count(*) FROM (SELECT sequence FROM outbox WHERE published = 0 LIMIT ?)",
        (_WAITING_MAX,),
    ).fetchone()
    first = connection.execute(
        "SELECT time FROM outbox WHERE published = 0 ORDER BY sequence LIMIT 1"
    ).fetchone()
    return rows.OutboxWaiting(count, table.moment_of(first[0]) if first else None)


def kept_names(connection: sqlite3.Connection) -> rows.KeptNames:
    """Read what pipelines that are remembered name in the archive, and which manifests are on their way."""
    spared: set[tuple[str, str]] = set()
    bundles: set[str] = set()
    listings: set[str] = set()
    for namespace, pipeline, state, dead_letter, spec, found in connection.execute(
        "SELECT namespace, id, state, dead_letter, spec, listings FROM pipelines"
    ):
        if state < _TERMINAL or dead_letter == DeadLetter.KEPT:
            spared.add((namespace, pipeline))
        try:
            bundles.add(spec_pb2.PipelineSpec.FromString(spec).bundle_digest)
        except DecodeError as error:
            # What it names is not known: nothing can be said to be named by none.
            raise sqlite3.DataError(f"the spec of {pipeline} cannot be read: {error}") from error
        listings.update(json.loads(found).values())
    bundles.update(
        digest for (digest,) in connection.execute("SELECT bundle_digest FROM stored_pipelines")
    )
    awaited = connection.execute(
        "SELECT key FROM outbox WHERE published = 0 AND kind IN ('manifest', 'copies')"
    )
    return rows.KeptNames(
        frozenset(spared),
        frozenset(bundles),
        frozenset(listings),
        frozenset(key for (key,) in awaited),
    )


def mark_published(
    connection: sqlite3.Connection,
    sequences: Sequence[int],
    aside: Mapping[int, str],
    events_kept: int,
    trimmed: int,
) -> int:
    """Manifests that have left are deleted, events stay readable until newer ones push them out.

    Nothing is looked at twice: of what stands at most at `trimmed`, only what is marked here can have left since.
    Returns up to where that holds now.
    """
    [newest] = connection.execute(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'"
    ).fetchone()
    pushed_out = max(trimmed, (newest or 0) - events_kept)
    marked = "sequence IN (SELECT value FROM json_each(?))"
    numbers = table.as_json(list(sequences))
    connection.execute(
        f"DELETE FROM outbox WHERE {marked} AND (kind IN ('manifest', 'copies') OR sequence <= ?)",
        (numbers, pushed_out),
    )
    connection.execute(f"UPDATE outbox SET published = 1 WHERE {marked}", (numbers,))
    problems = [(why, sequence) for sequence, why in aside.items()]
    connection.executemany("UPDATE outbox SET problem = ? WHERE sequence = ?", problems)
    connection.execute(
        "DELETE FROM outbox WHERE published = 1 AND sequence > ? AND sequence <= ?",
        (trimmed, pushed_out),
    )
    return pushed_out


def spans(connection: sqlite3.Connection, limit: int) -> tuple[rows.SpansRow, ...]:
    """Read the spans that have not left yet, the oldest first."""
    found = connection.execute(
        "SELECT data, sequence FROM spans ORDER BY sequence LIMIT ?", (limit,)
    )
    return tuple(rows.SpansRow(*values) for values in found)


def drop_spans(connection: sqlite3.Connection, through: int, kept: int) -> int:
    """Drop spans up to a sequence, and the oldest beyond so many rows; returns how many spans those had."""
    connection.execute("DELETE FROM spans WHERE sequence <= ?", (through,))
    beyond = connection.execute(
        "SELECT sequence FROM spans ORDER BY sequence DESC LIMIT 1 OFFSET ?", (kept,)
    ).fetchone()
    if beyond is None:
        return 0
    lost = connection.execute(
        "SELECT sum(CASE WHEN json_valid(data) THEN json_array_length(data) ELSE 1 END) FROM spans "
        "WHERE sequence <= ?",
        beyond,
    ).fetchone()
    connection.execute("DELETE FROM spans WHERE sequence <= ?", beyond)
    return int(lost[0])


# --- writing

_ADD_PIPELINE = table.Many(
    "INSERT INTO pipelines (position, namespace, id, request_id, spec, create_time, state, kind, "
    "creator, revived_from, listings, name, labels, job_counts, traceparent, stored) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
)
_ADD_REQUEST = table.Many("INSERT INTO requests VALUES ", "(?, ?, ?, ?, ?, NULL)")
_DROP_REQUESTS = (
    "DELETE FROM requests WHERE (namespace, request_id) IN "
    "(SELECT namespace, request_id FROM requests WHERE time < ? ORDER BY time LIMIT ?)"
)
_DROP_OLDER = (
    "DELETE FROM outbox "
    "WHERE published = 0 AND kind = 'state' AND namespace = ? AND subject = ? AND sequence < ?"
)
_SPANS_ADD = table.Many("INSERT INTO spans (data) VALUES ", "(?)")
_SET_START = "UPDATE starts SET commits = ? WHERE term = ?"


_ADD_TO_OUTBOX = table.Many(
    "INSERT INTO outbox (sequence, kind, namespace, pipeline, position, subject, id, type, time, key, data) VALUES ",
    "(?, ?, ?, ?, (SELECT position FROM pipelines WHERE namespace = ? AND id = ?), ?, ?, ?, ?, ?, ?)",
)


def _outbox_values(added: Sequence[rows.OutboxRow]) -> Iterator[table.Values]:
    for row in added:
        namespace, subject = row.namespace, row.subject
        pipeline = subject.split("/", 2)[1]
        yield (
            row.sequence,
            str(row.kind),
            namespace,
            pipeline,
            namespace,
            pipeline,
            subject,
            row.id,
            row.type,
            table.micros(row.time),
            row.key,
            row.data,
        )


def _older_values(added: Sequence[rows.OutboxRow]) -> Iterator[table.Values]:
    """What a state of a subject takes the place of, if that has not left yet."""
    for row in added:
        if row.kind is rows.OutboxKind.STATE:
            yield (row.namespace, row.subject, row.sequence)


def _added_values(added: Sequence[rows.PipelineAdded]) -> Iterator[table.Values]:
    for row in added:
        yield (
            row.position,
            row.ref.namespace,
            row.ref.pipeline,
            row.request_id,
            row.data or encode_pipeline_spec(row.spec).SerializeToString(deterministic=True),
            table.micros(row.create_time),
            int(PipelineState.QUEUED),
            row.kind,
            row.creator,
            row.revived_from,
            json.dumps(dict(row.listings)) if row.listings else "{}",
            row.spec.name,
            labels_of(row.spec.labels),
            job_counts_of([job.replicas for job in row.spec.jobs]),
            row.traceparent,
            row.stored,
        )


def _request_values(added: Sequence[rows.PipelineAdded]) -> Iterator[table.Values]:
    for row in added:
        if row.request_id:
            time = table.micros(row.create_time)
            yield (row.ref.namespace, row.request_id, row.ref.pipeline, row.digest, time)


def _expired_values(added: Sequence[rows.PipelineAdded]) -> Iterator[table.Values]:
    # As many as come, and one more, so that what is over does not pile up.
    latest = max(row.create_time for row in added)
    yield (table.micros(latest - REQUESTS_KEPT), len(added) + 1)


def _spans_values(added: Sequence[rows.SpansRow]) -> Iterator[table.Values]:
    return ((row.data,) for row in added)


def _start_values(starts: Sequence[rows.StartRow]) -> Iterator[table.Values]:
    yield (starts[-1].commits, starts[-1].term)  # of several in one transaction the last one counts


def _forgotten_values(forgotten: Sequence[rows.PipelineForgotten]) -> Iterator[table.Values]:
    yield (table.as_json([(row.ref.namespace, row.ref.pipeline) for row in forgotten]),)


_FORGOTTEN = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
_KEEP_STATE = (
    "UPDATE requests SET ended = gone.state FROM pipelines AS gone "
    f"WHERE (gone.namespace, gone.id) IN {_FORGOTTEN} "
    "AND requests.namespace = gone.namespace AND requests.request_id = gone.request_id"
)
_FORGET = (
    (_KEEP_STATE, _forgotten_values),
    (f"DELETE FROM pipelines WHERE (namespace, id) IN {_FORGOTTEN}", _forgotten_values),
    *(
        (f"DELETE FROM {table} WHERE (namespace, pipeline) IN {_FORGOTTEN}", _forgotten_values)
        for table in ("scales", "jobs", "attempts", "manifests")
    ),
)

_Statement = tuple[str | table.Many, Callable[[Any], Iterator[table.Values]]]

_ARTIFACTS = table.listed(
    "artifacts",
    lambda artifacts: tuple(Artifact(*one) for one in artifacts),
    lambda artifacts: [[one.path, one.size_bytes, one.sha256, one.key] for one in artifacts],
)


def _counts(found: Iterable[tuple[int, int]]) -> JobCounts:
    return tuple((JobState(state), count) for state, count in found)


_PIPELINES = table.Table(
    "pipelines",
    rows.PipelineRow,
    table.pipeline_name("id"),
    table.number("state", PipelineState),
    table.REASON,
    table.STOP,
    *table.moment("end_time"),
    *table.plain("final_event_id"),
    *table.moment("finish_time"),
    table.number("dead_letter", DeadLetter),
    *table.plain("revived_by"),
    table.listed("job_counts", _counts),
)
_JOBS = table.Table(
    "jobs",
    rows.JobRow,
    table.name_of("ref", JobRef, *table.JOB),
    table.number("state", JobState),
    table.REASON,
    *table.plain("epoch", "number", "failures", "losses"),
    *table.moment("retry_time"),
    *table.plain("pinned_node"),
    table.listed("avoid", tuple),
    table.listed("ends", MappingProxyType, dict),
)
_SCALES = table.Table(
    "scales",
    rows.ScaleRow,
    table.pipeline_name("pipeline"),
    *table.plain("number", "job", "replicas"),
    table.number("state", ScaleState),
    *table.moment("create_time"),
    *table.plain("rounds", "message"),
    *table.moment("end_time"),
)
_ATTEMPTS = table.Table(
    "attempts",
    rows.AttemptRow,
    table.name_of("ref", AttemptRef, *table.JOB, "number", "epoch"),
    *table.plain("node"),
    table.number("state", JobState),
    table.REASON,
    *table.moment("create_time", "start_time", "end_time"),
    table.listed(
        "holds",
        lambda holds: tuple(PortHold(*one) for one in holds),
        lambda holds: [[one.port, one.number, one.held_at, one.ended] for one in holds],
    ),
    table.listed("ended_inputs", tuple),
    _ARTIFACTS,
    table.listed("still", tuple),
    *table.plain("updates"),
)
_MANIFESTS = table.Table(
    "manifests",
    rows.ManifestRow,
    table.name_of("attempt", AttemptRef, *table.JOB, "number", "epoch"),
    *table.plain("key"),
    _ARTIFACTS,
    *table.moment("commit_time"),
)
_NODES = table.Table(
    "nodes",
    rows.NodeRow,
    *table.plain("name", "agent_id"),
    table.CAPACITY,
    table.listed("labels", MappingProxyType, dict),
    *table.plain("architecture", "stream_address", "agent_version", "member_name"),
    table.number("drained", bool),
    *table.moment("last_seen_time"),
    *table.plain("instance_id"),
    table.word("presence", Presence),
    *table.moment("move_time"),
)

_TOKENS = table.Table(
    "tokens",
    rows.TokenRow,
    *table.plain("id", "secret_hash"),
    table.word("role", Role),
    *table.plain("name_pattern", "namespace"),
    *table.moment("create_time", "expire_time"),
    *table.plain("uses_left", "creator"),
)

_CERTIFICATES = table.Table(
    "certificates",
    rows.CertificateRow,
    *table.plain("serial"),
    table.word("role", Role),
    *table.plain("name", "namespace"),
    *table.moment("issue_time", "expire_time"),
    *table.plain("key_hash", "authority", "pem", "token_id"),
    *table.moment("revoke_time"),
    *table.plain("replaced_by"),
)

_SECRETS = table.Table(
    "secrets",
    rows.SecretRow,
    *table.plain("namespace", "name", "version", "key_id", "sealed"),
    table.number("text", bool),
    *table.moment("create_time", "update_time"),
    *table.plain("creator"),
)

_STORED = table.Table(
    "stored_pipelines",
    rows.StoredVersionRow,
    *table.plain("namespace", "name", "version", "description", "digest", "bundle_digest"),
    *table.moment("create_time"),
    *table.plain("creator", "content"),
)

_OUTBOX = table.Table(
    "outbox",
    rows.OutboxRow,
    *table.plain("sequence"),
    table.word("kind", rows.OutboxKind),
    *table.plain("namespace"),
    table.SUBJECT,
    *table.plain("id", "type"),
    *table.moment("time"),
    *table.plain("key", "data"),
)

_STATEMENTS: Mapping[type[rows.Row], tuple[_Statement, ...]] = MappingProxyType(
    {
        rows.PipelineAdded: (
            (_ADD_PIPELINE, _added_values),
            (_ADD_REQUEST, _request_values),
            (_DROP_REQUESTS, _expired_values),
        ),
        rows.PipelineRow: ((_PIPELINES.update, _PIPELINES.values),),
        rows.JobRow: ((_JOBS.put, _JOBS.values),),
        rows.ScaleRow: ((_SCALES.put, _SCALES.values),),
        rows.AttemptRow: ((_ATTEMPTS.put, _ATTEMPTS.values),),
        rows.NodeForgotten: (
            ("DELETE FROM nodes WHERE name = ?", lambda gone: iter([(row.name,) for row in gone])),
        ),
        rows.NodeRow: ((_NODES.put, _NODES.values),),
        rows.StartRow: ((_SET_START, _start_values),),
        rows.ManifestRow: ((_MANIFESTS.add, _MANIFESTS.values),),
        rows.OutboxRow: ((_ADD_TO_OUTBOX, _outbox_values), (_DROP_OLDER, _older_values)),
        rows.SpansRow: ((_SPANS_ADD, _spans_values),),
        rows.PipelineForgotten: _FORGET,
        rows.TokenRow: ((_TOKENS.put, _TOKENS.values),),
        rows.TokenForgotten: (
            ("DELETE FROM tokens WHERE id = ?", lambda gone: iter([(row.id,) for row in gone])),
        ),
        rows.CertificateRow: ((_CERTIFICATES.put, _CERTIFICATES.values),),
        rows.CertificateForgotten: (
            (
                "DELETE FROM certificates WHERE serial = ?",
                lambda gone: iter([(row.serial,) for row in gone]),
            ),
        ),
        rows.SecretRow: ((_SECRETS.put, _SECRETS.values),),
        rows.SecretForgotten: (
            (
                "DELETE FROM secrets WHERE namespace = ? AND name = ?",
                lambda gone: iter([(row.namespace, row.name) for row in gone]),
            ),
        ),
        rows.StoredVersionRow: ((_STORED.put, _STORED.values),),
        rows.StoredVersionForgotten: (
            (
                "DELETE FROM stored_pipelines WHERE namespace = ? AND name = ? AND version = ?",
                lambda gone: iter([(row.namespace, row.name, row.version) for row in gone]),
            ),
        ),
        rows.StoredDeleted: (
            (
                "INSERT OR REPLACE INTO deleted_stored_pipelines VALUES (?, ?, ?)",
                lambda gone: iter([(row.namespace, row.name, row.newest) for row in gone]),
            ),
            (
                "DELETE FROM deleted_stored_pipelines WHERE newest = 0 AND namespace = ? AND name = ?",
                lambda gone: iter([(row.namespace, row.name) for row in gone]),
            ),
        ),
    }
)

# --- reading

_ADDED = (
    "SELECT namespace, id, position, request_id, spec, create_time, kind, creator, revived_from, "
    "listings, traceparent, stored FROM pipelines"
)
_TERMINAL = int(min(state for state in PipelineState if state.terminal))

_UNCHANGED = (
    f"state = {int(PipelineState.QUEUED)} AND kind <> '' AND NOT stopped AND finish_time IS NULL"
)
_UNTOUCHED = (
    f"{_UNCHANGED} AND NOT EXISTS (SELECT * FROM jobs "
    "WHERE jobs.namespace = pipelines.namespace AND jobs.pipeline = pipelines.id) "
    "AND NOT EXISTS (SELECT * FROM attempts "
    "WHERE attempts.namespace = pipelines.namespace AND attempts.pipeline = pipelines.id)"
)
"""Pipelines of which nothing but the submission is recorded."""

_UNDER_WAY = (
    f"SELECT namespace, id FROM pipelines WHERE state < {_TERMINAL} AND NOT ({_UNCHANGED}) "
    "UNION SELECT pipelines.namespace, id FROM "
    "(SELECT namespace, pipeline FROM jobs UNION SELECT namespace, pipeline FROM attempts) AS placed "
    "JOIN pipelines ON pipelines.namespace = placed.namespace AND id = placed.pipeline "
    f"WHERE state < {_TERMINAL}"
)
"""The others that have not ended; from jobs and attempts, or it would look for the jobs of the whole queue."""

_FIND_REQUESTS = "SELECT requests.namespace, request_id, pipeline, digest, ended FROM requests"
_FIND_SPEC = "SELECT spec FROM pipelines WHERE namespace = ? AND id = ?"
_KEYS_AT_ONCE = 1000

KeyT = TypeVar("KeyT")


def _wanted(select: str, column: str, count: int) -> str:
    """Let a SELECT return the rows of so many pairs of a namespace and a name in this column.

    As a join, since SQLite looks at all rows for `(…) IN (VALUES …)`.
    """
    columns, _, table = select.rpartition(" FROM ")
    pairs = ", ".join(["(?, ?)"] * count)
    return (
        f"WITH wanted (its_namespace, its_name) AS (VALUES {pairs}) {columns} "
        f"FROM wanted CROSS JOIN {table} ON {table}.namespace = its_namespace "
        f"AND {table}.{column} = its_name"
    )


def _values_of(part: Sequence[PipelineRef]) -> list[str]:
    return [value for ref in part for value in (ref.namespace, ref.pipeline)]


def _parts(keys: Sequence[KeyT]) -> Iterator[Sequence[KeyT]]:
    for begin in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[begin : begin + _KEYS_AT_ONCE]


def _pipeline_rows(
    connection: sqlite3.Connection, refs: Sequence[PipelineRef]
) -> rows.PipelineRows:
    """Read all rows of pipelines, by position, but for those of which a row cannot be read."""
    unreadable: set[PipelineRef] = set()

    def read(source: table.Table[RowT], column: str, order: str = "") -> tuple[RowT, ...]:
        return tuple(
            row
            for part in _parts(refs)
            for row in _read_all(
                connection,
                f"{_wanted(source.select, column, len(part))} {order}",
                source,
                unreadable,
                part,
            )
        )

    found = [
        row
        for part in _parts(refs)
        for row in _all_added(
            connection.execute(_wanted(_ADDED, "id", len(part)), _values_of(part)), unreadable
        )
    ]
    added = tuple(sorted(found, key=lambda row: row.position))
    pipelines = read(_PIPELINES, "id")
    jobs = read(_JOBS, "pipeline")
    attempts = read(_ATTEMPTS, "pipeline", "ORDER BY namespace, pipeline, job, number")
    scales = read(_SCALES, "pipeline", "ORDER BY namespace, pipeline, number")
    manifests = read(_MANIFESTS, "pipeline")
    readable = [ref for ref in refs if ref not in unreadable]
    if len(readable) < len(refs):
        return _pipeline_rows(connection, readable)
    return rows.PipelineRows(added, pipelines, jobs, scales, attempts, manifests)


def _one(connection: sqlite3.Connection, statement: str) -> int:
    found = connection.execute(statement).fetchone()
    return 0 if found is None else int(found[0])


def _next(connection: sqlite3.Connection, table: str) -> int:
    return 1 + _one(connection, f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'")


_UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, DecodeError)


def _read_all(
    connection: sqlite3.Connection,
    statement: str,
    source: table.Table[RowT],
    unreadable: set[PipelineRef],
    part: Sequence[PipelineRef] = (),
) -> list[RowT]:
    found: list[RowT] = []
    for values in connection.execute(statement, _values_of(part)):
        try:
            found.append(source.row(values))
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

    def begin(self, row: rows.Queued) -> rows.PipelineAdded | None:
        """Decode a pipeline of the queue; None if it cannot be read, which is logged."""
        spec = self.spec(row.ref, row.data)
        if spec is None:
            return None
        created = table.moment_of(row.create_micros)
        return rows.PipelineAdded(
            row.ref,
            row.position,
            row.request_id,
            spec,
            created,
            row.kind,
            creator=row.creator,
            revived_from=row.revived_from,
            listings=json.loads(row.listings),
            traceparent=row.traceparent,
            stored=row.stored,
        )


def _all_added(
    found: Iterable[table.Values], unreadable: set[PipelineRef]
) -> tuple[rows.PipelineAdded, ...]:
    decoder = _Decoder()
    added: list[rows.PipelineAdded] = []
    for namespace, pipeline, *rest in found:
        ref = PipelineRef(namespace, pipeline)
        try:
            row = decoder.begin(rows.Queued(ref, *rest))
        except _UNREADABLE as error:
            LOG.exception("a pipeline cannot be read", extra=fields(pipeline=ref.name, why=error))
            row = None
        if row is None:
            unreadable.add(ref)
        else:
            added.append(row)
    return tuple(added)

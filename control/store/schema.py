"""The tables of the SQLite store, and their version.

Times are microseconds since 1970 in UTC; lists and mappings are JSON; a spec is a `PipelineSpec`.

Each step is one version's statements. A new file takes all of them, and one of an earlier version takes
those that it lacks, so a table is told once: what it began as, and what it got later. `add_functions` gives a
connection the functions that steps call.
"""

import sqlite3

from google.protobuf.message import DecodeError

from control.store.spec_columns import job_counts_of, labels_of
from shoal.model import PipelineState
from shoal.v1 import spec_pb2

_FIRST = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE pipelines (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL DEFAULT '',
    reason_number INTEGER NOT NULL DEFAULT 0,
    reason_message TEXT NOT NULL DEFAULT '',
    stopped INTEGER NOT NULL DEFAULT 0,
    stop_code TEXT NOT NULL DEFAULT '',
    stop_number INTEGER NOT NULL DEFAULT 0,
    stop_message TEXT NOT NULL DEFAULT '',
    end_time INTEGER,
    final_event_id TEXT NOT NULL DEFAULT '',
    UNIQUE (namespace, id)
);

CREATE TABLE requests (
    namespace TEXT NOT NULL,
    request_id TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    PRIMARY KEY (namespace, request_id)
) WITHOUT ROWID;

CREATE TABLE jobs (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    reason_number INTEGER NOT NULL,
    reason_message TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    retry_time INTEGER,
    pinned_node TEXT NOT NULL,
    avoid TEXT NOT NULL,
    PRIMARY KEY (namespace, pipeline, job)
) WITHOUT ROWID;

CREATE TABLE attempts (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    node TEXT NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    reason_number INTEGER NOT NULL,
    reason_message TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    start_time INTEGER,
    end_time INTEGER,
    PRIMARY KEY (namespace, pipeline, job, number)
) WITHOUT ROWID;

CREATE TABLE manifests (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    key TEXT NOT NULL,
    artifacts TEXT NOT NULL,
    commit_time INTEGER NOT NULL,
    PRIMARY KEY (namespace, pipeline, job)
) WITHOUT ROWID;

CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    cpus REAL NOT NULL,
    memory_bytes INTEGER NOT NULL,
    devices TEXT NOT NULL,
    labels TEXT NOT NULL,
    architecture TEXT NOT NULL,
    stream_address TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    member_name TEXT NOT NULL,
    drained INTEGER NOT NULL,
    last_seen_time INTEGER
) WITHOUT ROWID;

CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    subject TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    time INTEGER NOT NULL,
    key TEXT NOT NULL,
    data TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX requests_by_pipeline ON requests (namespace, pipeline);
CREATE INDEX outbox_waiting ON outbox (sequence) WHERE published = 0;
CREATE INDEX outbox_by_pipeline ON outbox (namespace, pipeline, sequence);

INSERT INTO meta VALUES ('generation', 0);
"""

_SCALES = """
CREATE TABLE scales (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    number INTEGER NOT NULL,
    job TEXT NOT NULL,
    replicas INTEGER NOT NULL,
    state INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    rounds INTEGER NOT NULL,
    message TEXT NOT NULL,
    end_time INTEGER,
    PRIMARY KEY (namespace, pipeline, number)
) WITHOUT ROWID;
"""

_STARTS = """
CREATE TABLE cluster (id TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE starts (
    term INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    commits INTEGER NOT NULL
);
"""

_PROBLEMS = """
ALTER TABLE outbox ADD COLUMN problem TEXT NOT NULL DEFAULT '';
"""

_INSTANCES = """
ALTER TABLE nodes ADD COLUMN instance_id TEXT NOT NULL DEFAULT '';
"""

_FINISHING = """
ALTER TABLE pipelines ADD COLUMN finish_time INTEGER;
ALTER TABLE jobs ADD COLUMN ends TEXT;
"""

_HOLDS = """
ALTER TABLE attempts ADD COLUMN holds TEXT NOT NULL DEFAULT '[]';
"""

_ENDED_INPUTS = """
ALTER TABLE attempts ADD COLUMN ended_inputs TEXT NOT NULL DEFAULT '[]';
"""

_KINDS = """
ALTER TABLE pipelines ADD COLUMN kind TEXT NOT NULL DEFAULT '';
"""

_REQUESTS = """
ALTER TABLE requests ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN ended INTEGER;
UPDATE requests SET time = coalesce((
    SELECT create_time FROM pipelines
    WHERE pipelines.namespace = requests.namespace AND pipelines.id = requests.pipeline
), 0);
DROP INDEX requests_by_pipeline;
CREATE INDEX requests_by_time ON requests (time);
"""

_NEWEST = """
CREATE INDEX outbox_newest ON outbox (namespace, subject) WHERE published = 0 AND kind = 'state';
"""

_PRESENCES = """
ALTER TABLE nodes ADD COLUMN presence TEXT NOT NULL DEFAULT '';
UPDATE nodes SET presence = 'up';
"""

_ARTIFACTS = """
ALTER TABLE attempts ADD COLUMN artifacts TEXT NOT NULL DEFAULT '[]';
"""

_STILL = """
ALTER TABLE attempts ADD COLUMN still TEXT NOT NULL DEFAULT '[]';
"""

_IDENTITIES = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    name_pattern TEXT NOT NULL,
    namespace TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    creator TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    issue_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    key_hash TEXT NOT NULL,
    authority TEXT NOT NULL,
    pem BLOB NOT NULL,
    token_id TEXT NOT NULL,
    revoke_time INTEGER,
    replaced_by TEXT NOT NULL
) WITHOUT ROWID;
"""

_CREATORS = """
ALTER TABLE pipelines ADD COLUMN creator TEXT NOT NULL DEFAULT '';
CREATE INDEX pipelines_by_creator ON pipelines (creator, state) WHERE creator <> '';
"""

_UPDATES = """
ALTER TABLE attempts ADD COLUMN updates INTEGER NOT NULL DEFAULT 0;
"""

_DEAD_LETTERS = """
ALTER TABLE pipelines ADD COLUMN dead_letter INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pipelines ADD COLUMN revived_by TEXT NOT NULL DEFAULT '';
ALTER TABLE pipelines ADD COLUMN revived_from TEXT NOT NULL DEFAULT '';
CREATE INDEX dead_letters ON pipelines (namespace, position) WHERE dead_letter = 1;
"""

_LISTINGS = """
ALTER TABLE pipelines ADD COLUMN listings TEXT NOT NULL DEFAULT '{}';
"""

_MOVES = """
ALTER TABLE nodes ADD COLUMN move_time INTEGER;
"""

_SECRETS = """
CREATE TABLE secrets (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    text INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    creator TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
"""

# An index on a name, which is as good as random, costs a commit a page for each row, and one on what grows next to
# nothing. So events of a pipeline are found by its position, and that ids are unique is for the machine to see to.
_POSITIONS_OF_EVENTS = """
CREATE TABLE new_outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    time INTEGER NOT NULL,
    key TEXT NOT NULL,
    data TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    position INTEGER
);
INSERT INTO new_outbox
    SELECT outbox.sequence, outbox.kind, outbox.namespace, pipeline, subject, outbox.id, type, time, key, data,
        published, problem, pipelines.position
    FROM outbox LEFT JOIN pipelines ON pipelines.namespace = outbox.namespace AND pipelines.id = outbox.pipeline
    ORDER BY outbox.sequence;
DELETE FROM sqlite_sequence WHERE name = 'new_outbox';
INSERT INTO sqlite_sequence SELECT 'new_outbox', seq FROM sqlite_sequence WHERE name = 'outbox';
DROP TABLE outbox;
ALTER TABLE new_outbox RENAME TO outbox;
CREATE INDEX outbox_waiting ON outbox (sequence) WHERE published = 0;
CREATE INDEX outbox_newest ON outbox (namespace, subject) WHERE published = 0 AND kind = 'state';
CREATE INDEX outbox_by_position ON outbox (position, sequence) WHERE position IS NOT NULL;
"""

_SUMMARIES = f"""
ALTER TABLE pipelines ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE pipelines ADD COLUMN labels TEXT NOT NULL DEFAULT '{{}}';
ALTER TABLE pipelines ADD COLUMN job_counts TEXT NOT NULL DEFAULT '[]';
UPDATE pipelines SET
    name = spec_name(spec),
    labels = spec_labels(spec),
    job_counts = CASE WHEN state < {int(PipelineState.SUCCEEDED)} THEN spec_job_counts(spec) ELSE (
        SELECT json_group_array(json_array(state, count)) FROM (
            SELECT jobs.state, count(*) AS count FROM jobs
            WHERE jobs.namespace = pipelines.namespace AND jobs.pipeline = pipelines.id
            GROUP BY jobs.state ORDER BY jobs.state
        )
    ) END;
CREATE INDEX pipelines_by_end ON pipelines (namespace, end_time, position) WHERE end_time IS NOT NULL;
"""

_TRACES = """
ALTER TABLE pipelines ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
CREATE TABLE spans (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    data TEXT NOT NULL
);
"""

# What a version holds stands last, so that the rest is read without it.
_STORED = """
CREATE TABLE stored_pipelines (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    description TEXT NOT NULL,
    digest TEXT NOT NULL,
    bundle_digest TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    creator TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (namespace, name, version)
);

CREATE TABLE deleted_stored_pipelines (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    newest INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;

ALTER TABLE pipelines ADD COLUMN stored TEXT NOT NULL DEFAULT '';
"""

STEPS = (
    _FIRST,
    _SCALES,
    _STARTS + _INSTANCES,
    _FINISHING,
    _PROBLEMS,
    _HOLDS,
    _ENDED_INPUTS,
    _KINDS + _REQUESTS,
    _NEWEST + _PRESENCES,
    _ARTIFACTS,
    _STILL,
    _IDENTITIES,
    _CREATORS,
    _UPDATES,
    _DEAD_LETTERS,
    _LISTINGS,
    _MOVES,
    _SECRETS,
    _POSITIONS_OF_EVENTS,
    _SUMMARIES,
    _TRACES,
    _STORED,
)
"""The statements that lead from each version to the next one; an empty file has version 0."""

VERSION = len(STEPS)
"""Kept in `PRAGMA user_version`."""


def add_functions(connection: sqlite3.Connection) -> None:
    """Let a connection read encoded specifications; one that cannot be read has no name, labels or jobs."""
    connection.create_function("spec_name", 1, _name_of)
    connection.create_function("spec_labels", 1, _labels_of)
    connection.create_function("spec_job_counts", 1, _job_counts_of)


def _name_of(data: bytes) -> str:
    return _read(data).name


def _labels_of(data: bytes) -> str:
    return labels_of(_read(data).labels)


def _job_counts_of(data: bytes) -> str:
    return job_counts_of(job.replicas for job in _read(data).jobs)


def _read(data: bytes) -> spec_pb2.PipelineSpec:
    try:
        return spec_pb2.PipelineSpec.FromString(data)
    except (DecodeError, TypeError):  # damaged, or not even bytes
        return spec_pb2.PipelineSpec()

"""What clients see, between `shoal.view` and the contract."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from shoal import limits, model, names, view
from shoal.v1 import keys_service_pb2, nodes_service_pb2, pipeline_pb2, pipelines_service_pb2
from shoal.wire import fields, state
from shoal.wire.codec import (
    FieldCodec,
    checked,
    codec,
    count,
    each,
    elsewhere,
    given_of,
    identifier,
    maybe,
    one,
    spread,
)
from shoal.wire.fields import WireError
from shoal.wire.kept_folder import KEPT_FOLDER
from shoal.wire.known_jobs import JOBS_MIN, KnownJobs
from shoal.wire.known_specs import KNOWN_SPEC
from shoal.wire.node_facts import NODE_FACTS
from shoal.wire.sandbox import NODE_SANDBOX

_ID = names.ID_PATTERN.pattern
# As nearly all names are; what another one is, or what is wrong with it, is found out at length.
_PLAIN_JOB = re.compile(rf"pipelines/{_ID}/jobs/{_ID}")
_PLAIN_ATTEMPT = re.compile(rf"pipelines/{_ID}/jobs/{_ID}/attempts/[0-9]{{1,9}}")


def _attempt_name(name: str, path: str) -> str:
    if _PLAIN_ATTEMPT.fullmatch(name) is None:
        fields.attempt_ref(name, "default", 0, path)
    return name


def _job_name(name: str, path: str) -> str:
    if _PLAIN_JOB.fullmatch(name) is not None:
        return name
    try:
        names.parse_job(name)
    except names.InvalidNameError as error:
        raise WireError(path, str(error)) from None
    return name


_ATTEMPT_NAME = checked(_attempt_name)
_EPOCH = count(limits.INTEGER_MAX)

MANIFEST = encode_manifest, decode_manifest = codec(
    view.Manifest,
    pipeline_pb2.Manifest,
    "manifest",
    attempt=_ATTEMPT_NAME,
    epoch=_EPOCH,
    artifacts=each(state.ARTIFACT),
)
encode_log_chunk, decode_log_chunk = codec(
    view.LogChunk,
    pipelines_service_pb2.LogChunk,
    "chunk",
    attempt=_ATTEMPT_NAME,
    stream=one(state.LOG_STREAM),
    epoch=_EPOCH,
)
ATTEMPT = encode_attempt, decode_attempt = codec(
    view.AttemptView,
    pipeline_pb2.Attempt,
    "attempt",
    name=_ATTEMPT_NAME,
    epoch=_EPOCH,
    state=one(state.JOB_STATE),
    reason=one(state.REASON),
    manifest=maybe(MANIFEST),
)
encode_job, decode_job = codec(
    view.JobView,
    pipeline_pb2.Job,
    "job",
    name=checked(_job_name),
    spec_name=identifier("job"),
    state=one(state.JOB_STATE),
    reason=one(state.REASON),
    attempts=each(ATTEMPT),
    streams=each(state.STREAM_COUNTERS),
    manifest=maybe(MANIFEST),
)
_KNOWN_JOBS = KnownJobs(encode_job, decode_job)


def _write_jobs(views: Sequence[view.JobView]) -> Sequence[object]:
    given = given_of(encode_job)
    return [given(one) for one in views] if len(views) < JOBS_MIN else _KNOWN_JOBS.write(views)


def _read_jobs(message: pipeline_pb2.Pipeline, path: str, name: str) -> tuple[view.JobView, ...]:
    where = fields.at(path, name)
    if len(message.jobs) < JOBS_MIN:
        return fields.each(message.jobs, where, decode_job)
    return _KNOWN_JOBS.read(message.id, message.jobs, where)


_SCALE = codec(
    view.ScaleView, pipeline_pb2.Scale, job=identifier("job"), state=one(state.SCALE_STATE)
)
_PREFETCH = codec(view.PrefetchView, pipeline_pb2.Prefetch)
# The message says its name, too, which is made of the id.
_PIPELINE_ID = spread(
    lambda value: (value, f"pipelines/{value}"),
    lambda message, path: fields.identifier("pipeline", message.id, fields.at(path, "id")),
    *("id", "name"),
)
encode_pipeline, decode_pipeline = codec(
    view.PipelineView,
    pipeline_pb2.Pipeline,
    "pipeline",
    unread=("spec_name", "labels", "job_counts", "unlisted"),
    id=_PIPELINE_ID,
    namespace=identifier("namespace"),
    spec=one(KNOWN_SPEC),
    state=one(state.PIPELINE_STATE),
    reason=one(state.REASON),
    jobs=FieldCodec(_read_jobs, _write_jobs),
    scales=each(_SCALE),
    dead_letter=one(state.DEAD_LETTER),
    prefetch=maybe(_PREFETCH),
    traceparent=checked(fields.traceparent),
)


def _read_counts(items: Iterable[pipeline_pb2.JobCount], path: str) -> Mapping[model.JobState, int]:
    counts: dict[model.JobState, int] = {}
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        counts[state.JOB_STATE.decode(item.state, fields.at(where, "state"))] = item.count
    return MappingProxyType(counts)


def _write_counts(counts: Mapping[model.JobState, int]) -> Sequence[object]:
    return [{"state": state, "count": count} for state, count in counts.items()]


encode_summary, decode_light = codec(
    view.PipelineSummary,
    pipeline_pb2.Pipeline,
    "pipeline",
    unread=("spec", "jobs", "scales", "prefetch", "unlisted", "traceparent"),
    id=_PIPELINE_ID,
    namespace=identifier("namespace"),
    state=one(state.PIPELINE_STATE),
    reason=one(state.REASON),
    dead_letter=one(state.DEAD_LETTER),
    job_counts=checked(_read_counts, _write_counts),
)


def decode_summary(
    message: pipeline_pb2.Pipeline, path: str = "pipeline"
) -> view.PipelineSummary | view.Unlisted:
    """Read a light picture; one that a controller of before sends in its place, which knows no other, is summed up.

    Raises:
        WireError: A field breaks the contract.
    """
    if message.unlisted:
        return view.Unlisted(message.id, message.namespace)
    if message.HasField("spec"):
        return view.PipelineSummary.of(decode_pipeline(message, path))
    return decode_light(message, path)


encode_node, decode_node = codec(
    view.NodeView,
    nodes_service_pb2.Node,
    "node",
    name=identifier("node"),
    member_state=one(state.MEMBER_STATE),
    capacity=one(state.CAPACITY),
    claimed=one(state.CAPACITY),
    kept=each(KEPT_FOLDER),
    facts=maybe(NODE_FACTS),
    sandbox=maybe(NODE_SANDBOX),
)
# The name of a member is the gossip's, and follows no pattern of ours.
encode_member, decode_member = codec(
    view.MemberView, nodes_service_pb2.Member, "member", state=one(state.MEMBER_STATE)
)
encode_event, decode_event = codec(view.Event, pipeline_pb2.Event, "event")
encode_verdict, decode_verdict = codec(view.NodeVerdict, pipelines_service_pb2.NodeVerdict)
_HOLDERS = codec(view.KeyHolders, keys_service_pb2.KeyHolders)
_REPORT = codec(view.KeysReport, keys_service_pb2.KeysReport, keys=elsewhere(()))


def decode_keys_report(
    report: keys_service_pb2.KeysReport, keys: Iterable[keys_service_pb2.KeyHolders] = ()
) -> view.KeysReport:
    """Read what the members said about their keys."""
    return replace(_REPORT.decode(report), keys=fields.each(keys, "keys", _HOLDERS.decode))

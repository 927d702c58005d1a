"""Facts that leave: events with stable ids, and manifests, as rows of the outbox.

An id is `{namespace}/{subject}/{state}/{epoch}`. A pipeline has no epoch; its events say 1. A node has
no namespace, and neither has its id. The change set gives each row its sequence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Final, NamedTuple

from control.core.call_note import CallNote
from control.core.rows import Holder, ManifestRow, OutboxKind, OutboxRow, ScaleRow
from control.core.state import JobRecord, NodeRecord, PipelineRecord
from services.archive.manifest import manifest_text
from shoal.compat import Compat
from shoal.limits import cut
from shoal.model import NO_REASON, Artifact, JobState, PipelineState, Reason
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.trace_context import TraceContext

UPDATES_TOPIC: Final = "Updates"
"""The topic on which dashboards read of their tasks."""

_REASON_CHARACTERS: Final = 500

PIPELINE_EPOCH = 1
"""What stands for an epoch in the ids of a pipeline's events."""


def job_event(job: JobRecord, what: str, time: datetime, *, traceparent: str = "") -> OutboxRow:
    """An event about a job; `what` is `running`, `retry`, `succeeded`, `failed` or `cancelled`.

    A `retry` says when the next attempt may begin, and how many there were and may be. `traceparent` is that of its
    pipeline.
    """
    ref, last = job.ref, job.attempts[-1] if job.attempts else None
    node, attempt = ("", "") if last is None else (last.node, last.ref.name)
    failures, losses, manifest, next_time = "", "", "", ""
    if job.manifest is not None:
        artifacts = _listed(map(_artifact, job.manifest.artifacts))
        manifest = f'"manifest":{{"artifacts":{artifacts},"key":{_text(job.manifest.key)}}},'
    if what == "retry":
        failures = f'"failures":{job.failures},"failures_max":{job.spec.retry.attempts},'
        losses = f'"losses":{job.losses},'
        next_time = f'"next_time":{_text(_moment(job.retry_time or time))},'
    data = (
        f'{{"attempt":"{attempt}","epoch":{job.epoch},{failures}"job":"{ref.job}",{losses}{manifest}'
        f'"namespace":"{ref.namespace}",{next_time}"node":{_text(node)},"pipeline":"{ref.pipeline}",'
        f'"reason":{_reason_text(job.reason)},"state":"{what}"'
        f"{_traced(traceparent, ref, what, job.epoch)}}}"
    )
    return _event(ref, "job", what, job.epoch, time, data)


UPDATE_TEXTS: Final = (
    "Downloading files...",
    "Download complete",
    "Installing dependencies....",
    "Dependencies successfully installed",
    "Task started",
    "Task Completed.",
    "Results uploaded",
    "Done",
)
"""What the topic `Updates` says of an attempt that succeeds, spelt as its readers know it."""

_KEPT_UPDATES: Final = frozenset({3, 8})
"""The numbers, from 1, of those that the broker keeps for readers that come later."""

_UPDATES: Final = (
    "downloading",
    "downloaded",
    "installing",
    "installed",
    "started",
    "completed",
    "uploaded",
    "done",
)
"""What the same texts are called in ids and types."""


def update_message(
    compat: Compat, attempt: AttemptRef, node: str, number: int, at: datetime, time: datetime
) -> OutboxRow:
    """Say one of the texts, by its number from 1, of something that happened at a moment."""
    what, text = _UPDATES[number - 1], UPDATE_TEXTS[number - 1]
    return _update(
        compat,
        attempt.job_ref,
        _Update(
            what, text, number, node, attempt.name, attempt.epoch, kept=number in _KEPT_UPDATES
        ),
        at,
        time,
    )


def end_message(
    compat: Compat, job: JobRecord, what: str, text: str, time: datetime, *, kept: bool
) -> OutboxRow:
    """Say of a job on the same topic that it did not succeed; `what` is `retry`, `failed` or `cancelled`."""
    last = job.attempts[-1] if job.attempts else None
    node, name = ("", "") if last is None else (last.node, last.ref.name)
    said = job.reason.message.split("\n", 1)[0]
    update = _Update(what, text, 0, node, name, job.epoch, cut(said, _REASON_CHARACTERS), kept)
    return _update(compat, job.ref, update, time, time)


class _Update(NamedTuple):
    what: str
    text: str
    number: int
    node: str
    attempt: str
    epoch: int
    reason: str = ""
    kept: bool = False


def _update(
    compat: Compat, job: JobRef, update: _Update, at: datetime, time: datetime
) -> OutboxRow:
    """A message with the fields of the original, and those that tell a repetition from news.

    Its subject is its own: a broker that refuses this topic holds up no other event of the job.
    """
    row_id = _id(job, f"updates/{update.what}", update.epoch)
    data: dict[str, object] = {
        "nodeID": update.node,
        "userName": compat.user,
        "taskName": compat.task,
        "status": update.text,
        "time": at.astimezone(UTC).ctime(),
        "event_id": row_id,
        "stage": update.number,
        "namespace": job.namespace,
        "attempt": update.attempt,
    }
    if update.reason:
        data["reason"] = update.reason
    return OutboxRow(
        kind=OutboxKind.KEPT_MESSAGE if update.kept else OutboxKind.MESSAGE,
        namespace=job.namespace,
        subject=f"{job.name}/updates",
        id=row_id,
        type=f"shoal.update.{update.what}",
        time=time,
        data=_json(data),
        key=UPDATES_TOPIC,
    )


def job_state(
    job: JobRecord, what: str, reason: Reason, time: datetime, still: Iterable[str] | None = None
) -> OutboxRow:
    """How a job is for a while: `unplaced`, `placed`, `still` or `flows`.

    `still` are the names of its ports that stand still, all of them each time.
    """
    data = _job(job, reason)
    if still is not None:
        data["streams"] = [
            {"port": one.port, "output": one.output, "records": one.records}
            for one in job.streams
            if port_name(one.port, output=one.output) in still
        ]
    row = _event(job.ref, "job", what, job.epoch, time, _about(job.ref, what, data))
    return replace(row, kind=OutboxKind.STATE)


def port_name(port: str, *, output: bool) -> str:
    """Name a port of a job for people; an input and an output may have the same name."""
    return f"{'output' if output else 'input'} {port}"


def node_event(node: NodeRecord, what: str, reason: Reason, time: datetime) -> OutboxRow:
    """The state of a node, as a whole: what is last told of it and all that there is to say.

    So one that takes the place of another that has not left loses nothing.
    """
    subject = f"nodes/{node.name}"
    data: dict[str, object] = {
        "node": node.name,
        "state": what,
        "presence": str(node.presence),
        "drained": node.drained,
        "quarantine": node.quarantine,
        "reason": _reason(reason),
    }
    return OutboxRow(
        kind=OutboxKind.STATE,
        namespace="",
        subject=subject,
        id=f"{subject}/{what}",
        type=f"shoal.node.{what}",
        time=time,
        data=_json(data),
    )


def identity_event(
    holder: Holder, what: str, number: str, data: Mapping[str, object], time: datetime
) -> OutboxRow:
    """An event about an identity: it `joined`, or was `revoked`.

    `number` is the serial of a certificate to which that happens once.
    """
    subject = f"identities/{holder.described}"
    about: dict[str, object] = {
        "role": str(holder.role),
        "name": holder.name,
        "role_namespace": holder.namespace,
        "state": what,
    }
    return OutboxRow(
        kind=OutboxKind.EVENT,
        namespace="",
        subject=subject,
        id=f"{subject}/{what}/{number}",
        type=f"shoal.identity.{what}",
        time=time,
        data=_json(about | dict(data)),
    )


def pipeline_event(pipeline: PipelineRecord, time: datetime) -> OutboxRow:
    """An event about a pipeline: it runs, or it has ended, then with all its artifacts.

    `finished` says that its sources were asked to end; `manifests` where all its artifacts are
    listed, whatever becomes of the event on its way; `mismatches` are inputs that mix what two runs
    of a producer sent (docs/guarantees.md).
    """
    ref, what, jobs = pipeline.ref, _PIPELINE_WORDS[pipeline.state], pipeline.jobs
    states = ",".join([f'"{name}":"{_JOB_WORDS[jobs[name].state]}"' for name in sorted(jobs)])
    artifacts, found = "", ""
    if pipeline.state.terminal:
        artifacts = _listed(
            {"job": name, **_artifact(artifact)}
            for name, job in jobs.items()
            if job.manifest is not None
            for artifact in job.manifest.artifacts
        )
        mismatches = _listed(
            {"job": name, "port": stream.port, "lanes": stream.mismatches}
            for name, job in jobs.items()
            for stream in job.streams
            if stream.mismatches
        )
        finished = "false" if pipeline.finish_time is None else "true"
        artifacts = f'"artifacts":{artifacts},"finished":{finished},'
        manifests = f"{ref.namespace}/{ref.name}/jobs/*/manifest.json"
        found = f'"manifests":{_text(manifests)},"mismatches":{mismatches},'
    data = (
        f'{{{artifacts}"jobs":{{{states}}},{found}"namespace":"{ref.namespace}",'
        f'"pipeline":"{ref.pipeline}","reason":{_reason_text(pipeline.reason)},'
        f'"revived_from":{_text(pipeline.revived_from)},"state":"{what}"'
        f"{_traced(pipeline.traceparent, ref, what, PIPELINE_EPOCH)}}}"
    )
    return _event(ref, "pipeline", what, PIPELINE_EPOCH, time, data)


def letter_discarded(ref: PipelineRef, why: str, time: datetime) -> OutboxRow:
    """An event that says that a dead letter is not kept any longer, and why.

    Its subject is the letter: the last event of the pipeline stays its final one.
    """
    data = _about(ref, "discarded", {"message": why})
    row = _event(ref, "pipeline", "discarded", PIPELINE_EPOCH, time, data)
    return replace(row, subject=f"{ref.name}/dead-letter")


def scale_event(scale: ScaleRow, time: datetime) -> OutboxRow:
    """An event that says that a job has another number of replicas from some round on."""
    data: dict[str, object] = {
        "job": scale.job,
        "replicas": scale.replicas,
        "rounds": scale.rounds,
        "number": scale.number,
    }
    about = _about(scale.ref, "scaled", data)
    return _event(scale.ref, "pipeline", "scaled", scale.number, time, about)


def caller_called(note: CallNote, namespace: str, name: str, time: datetime) -> OutboxRow:
    """An event about a call that changed something, by the name of what it changed."""
    data = (
        f'{{"address":{_text(note.address)},"caller":{_text(note.caller)},"method":{_text(note.method)},'
        f'"name":{_text(name)},"namespace":{_text(namespace)},"state":"called","user":{_text(note.user)}}}'
    )
    return _caller(note.caller, "called", data, time)


def caller_refused(
    caller: str, reasons: Mapping[str, int], method: str, address: str, time: datetime
) -> OutboxRow:
    """An event about calls of one caller that were refused; method and address are the last one's."""
    data: dict[str, object] = {
        "calls": sum(reasons.values()),
        "reasons": dict(reasons),
        "method": method,
        "address": address,
    }
    about = _json({"caller": caller, "state": "refused", **data})
    return _caller(caller, "refused", about, time)


def _caller(caller: str, what: str, data: str, time: datetime) -> OutboxRow:
    """Callers belong to no namespace, so that a caller that is bound to one does not see what others do."""
    subject = f"callers/{caller}"
    return OutboxRow(
        kind=OutboxKind.NOTE,
        namespace="",
        subject=subject,
        id=f"{subject}/{what}",
        type=f"shoal.caller.{what}",
        time=time,
        data=data,
    )


def manifest_object(manifest: ManifestRow, time: datetime) -> OutboxRow:
    """The manifest as it is put into the archive, before the success is published."""
    attempt = manifest.attempt
    subject = attempt.job_ref.name
    return OutboxRow(
        kind=OutboxKind.MANIFEST,
        namespace=attempt.namespace,
        subject=subject,
        id=f"{attempt.namespace}/{subject}/manifest/{attempt.epoch}",
        time=time,
        data=manifest_text(attempt, manifest.artifacts, manifest.commit_time),
        key=manifest.key,
    )


def result_copies(
    compat: Compat | None, manifest: ManifestRow, time: datetime
) -> Iterable[OutboxRow]:
    """The copies of results for readers that know a task by its names, if they are asked for."""
    if compat is None or not compat.legacy_results:
        return ()
    attempt = manifest.attempt
    row = OutboxRow(
        kind=OutboxKind.COPIES,
        namespace=attempt.namespace,
        subject=attempt.job_ref.name,
        id=_id(attempt.job_ref, "copies", attempt.epoch),
        time=time,
        data=_json({"prefix": compat.results_prefix}),
        key=manifest.key,
    )
    return (row,)


def first_failure(jobs: Iterable[JobRecord]) -> Reason | None:
    """Why a pipeline failed: the reason of its job that failed, with the job's name."""
    for job in jobs:
        if job.state is JobState.FAILED:
            said = job.reason
            return Reason(
                said.code, said.number, f"job {job.ref.job} failed ({said.short}): {said.message}"
            )
    return None


def _event(
    ref: PipelineRef | JobRef,
    kind: str,
    what: str,
    number: int,
    time: datetime,
    data: str,
) -> OutboxRow:
    subject = ref.name
    return OutboxRow(
        kind=OutboxKind.EVENT,
        namespace=ref.namespace,
        subject=subject,
        id=f"{ref.namespace}/{subject}/{what}/{number}",
        type=f"shoal.{kind}.{what}",
        time=time,
        data=data,
    )


def _traced(traceparent: str, ref: PipelineRef | JobRef, what: str, number: int) -> str:
    """The span of an event, under which its consumers may begin others."""
    if not traceparent:
        return ""
    span = TraceContext.of(traceparent).span_of(ref.namespace, ref.name, what, str(number))
    return f',"traceparent":"{span}"'


def _about(ref: PipelineRef | JobRef, what: str, data: dict[str, object]) -> str:
    """The data of an event that does not come with each job."""
    return _json({"namespace": ref.namespace, "pipeline": ref.pipeline, "state": what, **data})


def _id(ref: PipelineRef | JobRef, what: str, number: int) -> str:
    return f"{ref.namespace}/{ref.name}/{what}/{number}"


def _job(job: JobRecord, reason: Reason) -> dict[str, object]:
    attempt = job.attempts[-1] if job.attempts else None
    return {
        "job": job.ref.job,
        "epoch": job.epoch,
        "attempt": attempt.ref.name if attempt else "",
        "node": attempt.node if attempt else "",
        "reason": _reason(reason),
    }


_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
"""One encoder for all: `json.dumps` makes one for each text that is not as it writes it by itself.

The events that come with each job are written without it, with the same names in the same order, as that costs them
seven times as much. Ids stand there as they are: no letter of one needs another form (`shoal.names.ID_PATTERN`).
"""

_text = encode_basestring
"""A text as the encoder writes it."""

_JOB_WORDS: Final = {state: state.name.lower() for state in JobState}
_PIPELINE_WORDS: Final = {state: state.name.lower() for state in PipelineState}


def _json(data: dict[str, object]) -> str:
    return _JSON.encode(data)


def _moment(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _reason(reason: Reason) -> dict[str, object]:
    return {"code": str(reason.code), "number": reason.number, "message": reason.message}


def _reason_text(reason: Reason) -> str:
    if reason is NO_REASON:
        return _NO_REASON_TEXT
    code, message = _text(str(reason.code)), _text(reason.message)
    return f'{{"code":{code},"message":{message},"number":{reason.number}}}'


_NO_REASON_TEXT: Final = '{"code":"","message":"","number":0}'


def _listed(found: Iterable[dict[str, object]]) -> str:
    objects = list(found)
    return _JSON.encode(objects) if objects else "[]"


def _artifact(artifact: Artifact) -> dict[str, object]:
    return {
        "path": artifact.path,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "key": artifact.key,
    }

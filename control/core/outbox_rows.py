"""Facts that leave: events with stable ids, and manifests, as rows of the outbox.

An id is `{namespace}/{subject}/{state}/{epoch}`. A pipeline has no epoch; its events say 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from control.core.rows import ManifestRow, OutboxKind, OutboxRow, ScaleRow
from control.core.state import JobRecord, PipelineRecord
from services.archive.manifest import ArchivedManifest, encode
from shoal.model import Artifact, JobState, PipelineState, Reason

PIPELINE_EPOCH = 1
"""What stands for an epoch in the ids of a pipeline's events."""


def job_event(
    sequence: int, job: JobRecord, what: str, reason: Reason, time: datetime
) -> OutboxRow:
    """An event about a job; `what` is `running`, `retry`, `succeeded`, `failed` or `cancelled`."""
    attempt = job.attempts[-1] if job.attempts else None
    data: dict[str, object] = {
        "namespace": job.ref.namespace,
        "pipeline": job.ref.pipeline,
        "job": job.ref.job,
        "state": what,
        "epoch": job.epoch,
        "attempt": attempt.ref.name if attempt else "",
        "node": attempt.node if attempt else "",
        "reason": _reason(reason),
    }
    if job.manifest is not None:
        data["manifest"] = {
            "key": job.manifest.key,
            "artifacts": [_artifact(one) for one in job.manifest.artifacts],
        }
    return OutboxRow(
        sequence=sequence,
        kind=OutboxKind.EVENT,
        namespace=job.ref.namespace,
        subject=job.ref.name,
        id=f"{job.ref.namespace}/{job.ref.name}/{what}/{job.epoch}",
        type=f"shoal.job.{what}",
        time=time,
        data=_json(data),
    )


def pipeline_event(
    sequence: int, pipeline: PipelineRecord, state: PipelineState, reason: Reason, time: datetime
) -> OutboxRow:
    """An event about a pipeline: it runs, or it has ended, then with all its artifacts.

    `finished` says that its sources were asked to end; `manifests` where all its artifacts are
    listed, whatever becomes of the event on its way; `mismatches` are inputs that mix what two runs
    of a producer sent (docs/guarantees.md).
    """
    what = state.name.lower()
    data: dict[str, object] = {
        "namespace": pipeline.ref.namespace,
        "pipeline": pipeline.ref.pipeline,
        "state": what,
        "reason": _reason(reason),
        "jobs": {job_id: job.state.name.lower() for job_id, job in pipeline.jobs.items()},
    }
    if state.terminal:
        data["artifacts"] = [
            {"job": job_id, **_artifact(artifact)}
            for job_id, job in pipeline.jobs.items()
            if job.manifest is not None
            for artifact in job.manifest.artifacts
        ]
        data["finished"] = pipeline.finish_time is not None
        data["manifests"] = f"{pipeline.ref.namespace}/{pipeline.ref.name}/jobs/*/manifest.json"
        data["mismatches"] = [
            {"job": job_id, "port": stream.port, "lanes": stream.mismatches}
            for job_id, job in pipeline.jobs.items()
            for stream in job.streams
            if stream.mismatches
        ]
    return OutboxRow(
        sequence=sequence,
        kind=OutboxKind.EVENT,
        namespace=pipeline.ref.namespace,
        subject=pipeline.ref.name,
        id=pipeline_event_id(pipeline, state),
        type=f"shoal.pipeline.{what}",
        time=time,
        data=_json(data),
    )


def scale_event(sequence: int, scale: ScaleRow, time: datetime) -> OutboxRow:
    """An event that says that a job has another number of replicas from some round on."""
    data: dict[str, object] = {
        "namespace": scale.ref.namespace,
        "pipeline": scale.ref.pipeline,
        "state": "scaled",
        "job": scale.job,
        "replicas": scale.replicas,
        "rounds": scale.rounds,
        "number": scale.number,
    }
    return OutboxRow(
        sequence=sequence,
        kind=OutboxKind.EVENT,
        namespace=scale.ref.namespace,
        subject=scale.ref.name,
        id=f"{scale.ref.namespace}/{scale.ref.name}/scaled/{scale.number}",
        type="shoal.pipeline.scaled",
        time=time,
        data=_json(data),
    )


def pipeline_event_id(pipeline: PipelineRecord, state: PipelineState) -> str:
    """The stable id of the event that says that a pipeline came to a state."""
    ref = pipeline.ref
    return f"{ref.namespace}/{ref.name}/{state.name.lower()}/{PIPELINE_EPOCH}"


def manifest_object(sequence: int, manifest: ManifestRow, time: datetime) -> OutboxRow:
    """The manifest as it is put into the archive, before the success is published."""
    attempt = manifest.attempt
    entry = ArchivedManifest(attempt, manifest.artifacts, manifest.commit_time)
    return OutboxRow(
        sequence=sequence,
        kind=OutboxKind.MANIFEST,
        namespace=attempt.namespace,
        subject=attempt.job_ref.name,
        id=f"{attempt.namespace}/{attempt.job_ref.name}/manifest/{attempt.epoch}",
        time=time,
        data=encode(entry).decode(),
        key=manifest.key,
    )


def first_failure(jobs: Iterable[JobRecord]) -> Reason | None:
    """Why a pipeline failed: the reason of its job that failed, with the job's name."""
    for job in jobs:
        if job.state is JobState.FAILED:
            said = job.reason
            return Reason(
                said.code, said.number, f"job {job.ref.job} failed ({said.short}): {said.message}"
            )
    return None


def _reason(reason: Reason) -> dict[str, object]:
    return {"code": str(reason.code), "number": reason.number, "message": reason.message}


def _artifact(artifact: Artifact) -> dict[str, object]:
    return {
        "path": artifact.path,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "key": artifact.key,
    }


def _json(data: dict[str, object]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

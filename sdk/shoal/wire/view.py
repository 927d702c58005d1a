"""What clients see, between `shoal.view` and the contract."""

from __future__ import annotations

from collections.abc import Iterable

from shoal import names, view
from shoal.v1 import keys_service_pb2, nodes_service_pb2, pipeline_pb2, pipelines_service_pb2
from shoal.wire import fields
from shoal.wire.fields import WireError, encode_time
from shoal.wire.spec import decode_pipeline_spec, encode_pipeline_spec
from shoal.wire.state import (
    decode_artifact,
    decode_capacity,
    decode_job_state,
    decode_log_stream,
    decode_member_state,
    decode_pipeline_state,
    decode_reason,
    decode_scale_state,
    decode_stream_counters,
    encode_artifact,
    encode_capacity,
    encode_job_state,
    encode_log_stream,
    encode_member_state,
    encode_pipeline_state,
    encode_reason,
    encode_scale_state,
    encode_stream_counters,
)


def encode_manifest(manifest: view.Manifest) -> pipeline_pb2.Manifest:
    """Write the committed list of a job's artifacts."""
    return pipeline_pb2.Manifest(
        key=manifest.key,
        attempt=manifest.attempt,
        epoch=manifest.epoch,
        artifacts=[encode_artifact(artifact) for artifact in manifest.artifacts],
        commit_time=encode_time(manifest.commit_time),
        left_out=manifest.left_out,
    )


def decode_manifest(message: pipeline_pb2.Manifest, path: str = "manifest") -> view.Manifest:
    """Read the committed list of a job's artifacts.

    Raises:
        WireError: an artifact or the attempt's name breaks the contract.
    """
    fields.attempt_ref(message.attempt, "default", message.epoch, fields.at(path, "attempt"))
    return view.Manifest(
        key=message.key,
        attempt=message.attempt,
        epoch=message.epoch,
        artifacts=fields.each(message.artifacts, fields.at(path, "artifacts"), decode_artifact),
        commit_time=fields.moment(message, "commit_time", path),
        left_out=message.left_out,
    )


def encode_log_chunk(chunk: view.LogChunk) -> pipelines_service_pb2.LogChunk:
    """Write a piece of a log."""
    return pipelines_service_pb2.LogChunk(
        attempt=chunk.attempt,
        stream=encode_log_stream(chunk.stream),
        offset=chunk.offset,
        data=chunk.data,
        epoch=chunk.epoch,
    )


def decode_log_chunk(message: pipelines_service_pb2.LogChunk, path: str = "chunk") -> view.LogChunk:
    """Read a piece of a log.

    Raises:
        WireError: the attempt's name is malformed, or the output is unset or unknown.
    """
    fields.attempt_ref(message.attempt, "default", message.epoch, fields.at(path, "attempt"))
    return view.LogChunk(
        attempt=message.attempt,
        stream=decode_log_stream(message.stream, fields.at(path, "stream")),
        offset=message.offset,
        data=message.data,
        epoch=message.epoch,
    )


def encode_attempt(attempt: view.AttemptView) -> pipeline_pb2.Attempt:
    """Write one try of a job."""
    return pipeline_pb2.Attempt(
        name=attempt.name,
        number=attempt.number,
        epoch=attempt.epoch,
        node=attempt.node,
        state=encode_job_state(attempt.state),
        reason=encode_reason(attempt.reason),
        create_time=encode_time(attempt.create_time),
        start_time=encode_time(attempt.start_time),
        end_time=encode_time(attempt.end_time),
    )


def decode_attempt(message: pipeline_pb2.Attempt, path: str = "attempt") -> view.AttemptView:
    """Read one try of a job.

    Raises:
        WireError: a field breaks the contract.
    """
    fields.attempt_ref(message.name, "default", message.epoch, fields.at(path, "name"))
    return view.AttemptView(
        name=message.name,
        number=message.number,
        epoch=message.epoch,
        node=message.node,
        state=decode_job_state(message.state, fields.at(path, "state")),
        reason=decode_reason(message.reason, fields.at(path, "reason")),
        create_time=fields.moment(message, "create_time", path),
        start_time=fields.moment(message, "start_time", path),
        end_time=fields.moment(message, "end_time", path),
    )


def encode_job(job: view.JobView) -> pipeline_pb2.Job:
    """Write one job (one replica)."""
    return pipeline_pb2.Job(
        name=job.name,
        spec_name=job.spec_name,
        replica=job.replica,
        state=encode_job_state(job.state),
        reason=encode_reason(job.reason),
        node=job.node,
        epoch=job.epoch,
        attempts=[encode_attempt(attempt) for attempt in job.attempts],
        streams=[encode_stream_counters(counters) for counters in job.streams],
        manifest=None if job.manifest is None else encode_manifest(job.manifest),
        progress=job.progress,
        waiting_for=job.waiting_for,
        generation=job.generation,
    )


def decode_job(message: pipeline_pb2.Job, path: str = "job") -> view.JobView:
    """Read one job (one replica).

    Raises:
        WireError: a field breaks the contract.
    """
    try:
        names.parse_job(message.name)
    except names.InvalidNameError as error:
        raise WireError(fields.at(path, "name"), str(error)) from None
    return view.JobView(
        name=message.name,
        spec_name=fields.identifier("job", message.spec_name, fields.at(path, "spec_name")),
        replica=message.replica,
        state=decode_job_state(message.state, fields.at(path, "state")),
        reason=decode_reason(message.reason, fields.at(path, "reason")),
        node=message.node,
        epoch=message.epoch,
        attempts=fields.each(message.attempts, fields.at(path, "attempts"), decode_attempt),
        streams=fields.each(message.streams, fields.at(path, "streams"), decode_stream_counters),
        manifest=(
            decode_manifest(message.manifest, fields.at(path, "manifest"))
            if message.HasField("manifest")
            else None
        ),
        progress=message.progress,
        waiting_for=message.waiting_for,
        generation=message.generation,
    )


def encode_pipeline(pipeline: view.PipelineView) -> pipeline_pb2.Pipeline:
    """Write a submitted pipeline."""
    return pipeline_pb2.Pipeline(
        name=pipeline.name,
        namespace=pipeline.namespace,
        id=pipeline.id,
        spec=encode_pipeline_spec(pipeline.spec),
        state=encode_pipeline_state(pipeline.state),
        reason=encode_reason(pipeline.reason),
        create_time=encode_time(pipeline.create_time),
        end_time=encode_time(pipeline.end_time),
        jobs=[encode_job(job) for job in pipeline.jobs],
        revision=pipeline.revision,
        final_event_id=pipeline.final_event_id,
        scales=[_encode_scale(scale) for scale in pipeline.scales],
        finish_time=encode_time(pipeline.finish_time),
    )


def decode_pipeline(message: pipeline_pb2.Pipeline, path: str = "pipeline") -> view.PipelineView:
    """Read a submitted pipeline.

    Raises:
        WireError: a field breaks the contract.
    """
    return view.PipelineView(
        id=fields.identifier("pipeline", message.id, fields.at(path, "id")),
        namespace=fields.identifier("namespace", message.namespace, fields.at(path, "namespace")),
        spec=decode_pipeline_spec(message.spec, fields.at(path, "spec")),
        state=decode_pipeline_state(message.state, fields.at(path, "state")),
        reason=decode_reason(message.reason, fields.at(path, "reason")),
        create_time=fields.moment(message, "create_time", path),
        end_time=fields.moment(message, "end_time", path),
        jobs=fields.each(message.jobs, fields.at(path, "jobs"), decode_job),
        revision=message.revision,
        final_event_id=message.final_event_id,
        scales=fields.each(message.scales, fields.at(path, "scales"), _decode_scale),
        finish_time=fields.moment(message, "finish_time", path),
    )


def _encode_scale(scale: view.ScaleView) -> pipeline_pb2.Scale:
    return pipeline_pb2.Scale(
        number=scale.number,
        job=scale.job,
        replicas=scale.replicas,
        state=encode_scale_state(scale.state),
        rounds=scale.rounds,
        message=scale.message,
        create_time=encode_time(scale.create_time),
        end_time=encode_time(scale.end_time),
    )


def _decode_scale(message: pipeline_pb2.Scale, path: str) -> view.ScaleView:
    return view.ScaleView(
        number=message.number,
        job=fields.identifier("job", message.job, fields.at(path, "job")),
        replicas=message.replicas,
        state=decode_scale_state(message.state, fields.at(path, "state")),
        rounds=message.rounds,
        message=message.message,
        create_time=fields.moment(message, "create_time", path),
        end_time=fields.moment(message, "end_time", path),
    )


def encode_node(node: view.NodeView) -> nodes_service_pb2.Node:
    """Write a node."""
    return nodes_service_pb2.Node(
        name=node.name,
        connected=node.connected,
        drained=node.drained,
        member_state=encode_member_state(node.member_state),
        capacity=encode_capacity(node.capacity),
        claimed=encode_capacity(node.claimed),
        labels=dict(node.labels),
        attempts=node.attempts,
        agent_version=node.agent_version,
        architecture=node.architecture,
        stream_address=node.stream_address,
        last_seen_time=encode_time(node.last_seen_time),
        revision=node.revision,
        quarantine=node.quarantine,
        conflict=node.conflict,
        refuses=node.refuses,
    )


def decode_node(message: nodes_service_pb2.Node, path: str = "node") -> view.NodeView:
    """Read a node.

    Raises:
        WireError: a field breaks the contract.
    """
    return view.NodeView(
        name=fields.identifier("node", message.name, fields.at(path, "name")),
        connected=message.connected,
        drained=message.drained,
        member_state=decode_member_state(message.member_state, fields.at(path, "member_state")),
        capacity=decode_capacity(message.capacity, fields.at(path, "capacity")),
        claimed=decode_capacity(message.claimed, fields.at(path, "claimed")),
        labels=fields.strings(message.labels),
        attempts=tuple(message.attempts),
        agent_version=message.agent_version,
        architecture=message.architecture,
        stream_address=message.stream_address,
        last_seen_time=fields.moment(message, "last_seen_time", path),
        revision=message.revision,
        quarantine=message.quarantine,
        conflict=message.conflict,
        refuses=message.refuses,
    )


def encode_member(member: view.MemberView) -> nodes_service_pb2.Member:
    """Write a member."""
    return nodes_service_pb2.Member(
        name=member.name,
        address=member.address,
        port=member.port,
        tags=dict(member.tags),
        state=encode_member_state(member.state),
        incarnation=member.incarnation,
        state_time=encode_time(member.state_time),
    )


def decode_member(message: nodes_service_pb2.Member, path: str = "member") -> view.MemberView:
    """Read a member; its name is gossip's and follows no pattern of ours.

    Raises:
        WireError: its state is unknown or its time is out of range.
    """
    return view.MemberView(
        name=message.name,
        address=message.address,
        port=message.port,
        tags=fields.strings(message.tags),
        state=decode_member_state(message.state, fields.at(path, "state")),
        incarnation=message.incarnation,
        state_time=fields.moment(message, "state_time", path),
    )


def decode_keys_report(
    report: keys_service_pb2.KeysReport, keys: Iterable[keys_service_pb2.KeyHolders] = ()
) -> view.KeysReport:
    """Read what the members said about their keys."""
    return view.KeysReport(
        members=report.members,
        answered=report.answered,
        failed=report.failed,
        messages=fields.strings(report.messages),
        keys=tuple(view.KeyHolders(key.id, key.installed, key.primary) for key in keys),
    )


def encode_event(event: view.Event) -> pipeline_pb2.Event:
    """Write an event."""
    return pipeline_pb2.Event(
        id=event.id,
        type=event.type,
        subject=event.subject,
        time=encode_time(event.time),
        data_json=event.data_json,
        sequence=event.sequence,
        published=event.published,
        problem=event.problem,
    )


def decode_event(message: pipeline_pb2.Event, path: str = "event") -> view.Event:
    """Read an event.

    Raises:
        WireError: its time is out of range.
    """
    return view.Event(
        id=message.id,
        type=message.type,
        subject=message.subject,
        time=fields.moment(message, "time", path),
        data_json=message.data_json,
        sequence=message.sequence,
        published=message.published,
        problem=message.problem,
    )


def encode_verdict(verdict: view.NodeVerdict) -> pipelines_service_pb2.NodeVerdict:
    """Write what the scheduler thinks of one node."""
    return pipelines_service_pb2.NodeVerdict(
        node=verdict.node,
        feasible=verdict.feasible,
        sentence=verdict.sentence,
        score=verdict.score,
    )


def decode_verdict(message: pipelines_service_pb2.NodeVerdict) -> view.NodeVerdict:
    """Read what the scheduler thinks of one node."""
    return view.NodeVerdict(message.node, message.feasible, message.sentence, message.score)

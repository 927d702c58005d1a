"""The only translator between our values and the messages of the contract.

`encode_x` writes every default out in full. `decode_x` reads what a peer sent, so it trusts
nothing: an unset number or enumeration becomes the default of `shoal.spec`, and whatever the
contract does not allow raises `WireError` with the path of the field. Decoding looks at one value
at a time; what holds between values (unknown ports, cycles) is the business of `shoal.check`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from shoal import limits, names, spec, view
from shoal.model import (
    Artifact,
    Capacity,
    Followed,
    JobState,
    MemberState,
    PipelineState,
    Reason,
    ReasonCode,
    ScaleState,
    StreamCounters,
)
from shoal.v1 import (
    keys_service_pb2,
    nodes_service_pb2,
    pipeline_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    session_service_pb2,
    spec_pb2,
)

RECORD_BYTES_MAX = 256 * 1024 * 1024
"""Largest record of a stream (docs/architecture.md, section 3)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

M = TypeVar("M")
W = TypeVar("W", bound=int)
T = TypeVar("T")
V = TypeVar("V")


class WireError(ValueError):
    """A message that breaks the contract.

    Attributes:
        path: the field, such as `jobs[1].inputs[0].name`; empty for the message itself.
        problem: what is wrong with it and what would be right, one sentence.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Table(Generic[M, W]):
    """One enumeration on both sides; without a default, the contract's 0 is refused."""

    what: str
    numbers: Mapping[M, W]
    default: M | None = None

    def encode(self, member: M) -> W:
        return self.numbers[member]

    def decode(self, number: int, path: str) -> M:
        if number == 0 and self.default is not None:
            return self.default
        for member, candidate in self.numbers.items():
            if candidate == number:
                return member
        known = ", ".join(str(int(value)) for value in self.numbers.values())
        raise WireError(path, f"{number} is not a {self.what}; this version knows {known}")


_LAYOUT = _Table(
    "layout",
    {
        spec.Layout.TREE: spec_pb2.LAYOUT_TREE,
        spec.Layout.FLAT: spec_pb2.LAYOUT_FLAT,
    },
    spec.Layout.TREE,
)
_RECOVERY = _Table(
    "recovery",
    {
        spec.Recovery.RESTART: spec_pb2.RECOVERY_RESTART,
        spec.Recovery.RESUME: spec_pb2.RECOVERY_RESUME,
    },
    spec.Recovery.RESTART,
)
_PLACEMENT = _Table(
    "placement",
    {
        spec.Placement.AT_LEAST_ONCE: spec_pb2.PLACEMENT_AT_LEAST_ONCE,
        spec.Placement.AT_MOST_ONE_RUNNING: spec_pb2.PLACEMENT_AT_MOST_ONE_RUNNING,
        spec.Placement.PINNED: spec_pb2.PLACEMENT_PINNED,
    },
    spec.Placement.AT_LEAST_ONCE,
)
_STRATEGY = _Table(
    "strategy",
    {
        spec.Strategy.SPREAD: spec_pb2.STRATEGY_SPREAD,
        spec.Strategy.PACK: spec_pb2.STRATEGY_PACK,
    },
    spec.Strategy.SPREAD,
)
_MERGE = _Table(
    "merge",
    {
        spec.Merge.ORDERED: spec_pb2.MERGE_ORDERED,
        spec.Merge.ARRIVAL: spec_pb2.MERGE_ARRIVAL,
    },
    spec.Merge.ORDERED,
)
_PROMISE = _Table(
    "promise",
    {
        spec.Promise.AT_LEAST_ONCE: spec_pb2.PROMISE_AT_LEAST_ONCE,
        spec.Promise.LATEST: spec_pb2.PROMISE_LATEST,
    },
    spec.Promise.AT_LEAST_ONCE,
)
_DROP = _Table(
    "way to drop",
    {spec.Drop.OLDEST: spec_pb2.DROP_OLDEST, spec.Drop.NEWEST: spec_pb2.DROP_NEWEST},
    spec.Drop.OLDEST,
)
_DISTRIBUTE = _Table(
    "way to distribute",
    {
        spec.Distribute.ROUND_ROBIN: spec_pb2.DISTRIBUTE_ROUND_ROBIN,
        spec.Distribute.BROADCAST: spec_pb2.DISTRIBUTE_BROADCAST,
        spec.Distribute.KEY: spec_pb2.DISTRIBUTE_KEY,
    },
    spec.Distribute.ROUND_ROBIN,
)
_FORMAT = _Table(
    "port format",
    {
        spec.PortFormat.BLOCKS: spec_pb2.PORT_FORMAT_BLOCKS,
        spec.PortFormat.LINES: spec_pb2.PORT_FORMAT_LINES,
        spec.PortFormat.JSONL: spec_pb2.PORT_FORMAT_JSONL,
        spec.PortFormat.U32: spec_pb2.PORT_FORMAT_U32,
        spec.PortFormat.BYTES: spec_pb2.PORT_FORMAT_BYTES,
    },
    spec.PortFormat.BLOCKS,
)
_ATTACHMENT = _Table(
    "port attachment",
    {
        spec.PortAttachment.FD: spec_pb2.PORT_ATTACHMENT_FD,
        spec.PortAttachment.STDIO: spec_pb2.PORT_ATTACHMENT_STDIO,
        spec.PortAttachment.FIFO: spec_pb2.PORT_ATTACHMENT_FIFO,
    },
    spec.PortAttachment.FD,
)
_JOB_STATE = _Table(
    "job state",
    {
        JobState.QUEUED: pipeline_pb2.JOB_STATE_QUEUED,
        JobState.ASSIGNED: pipeline_pb2.JOB_STATE_ASSIGNED,
        JobState.PREPARING: pipeline_pb2.JOB_STATE_PREPARING,
        JobState.RUNNING: pipeline_pb2.JOB_STATE_RUNNING,
        JobState.DRAINING: pipeline_pb2.JOB_STATE_DRAINING,
        JobState.ARCHIVING: pipeline_pb2.JOB_STATE_ARCHIVING,
        JobState.SUCCEEDED: pipeline_pb2.JOB_STATE_SUCCEEDED,
        JobState.FAILED: pipeline_pb2.JOB_STATE_FAILED,
        JobState.CANCELLED: pipeline_pb2.JOB_STATE_CANCELLED,
        JobState.LOST: pipeline_pb2.JOB_STATE_LOST,
        JobState.RETRY_WAIT: pipeline_pb2.JOB_STATE_RETRY_WAIT,
    },
)
_SCALE_STATE = _Table(
    "state of a scale",
    {
        ScaleState.HOLDING: pipeline_pb2.SCALE_STATE_HOLDING,
        ScaleState.SETTLED: pipeline_pb2.SCALE_STATE_SETTLED,
        ScaleState.ABANDONED: pipeline_pb2.SCALE_STATE_ABANDONED,
    },
)
_PIPELINE_STATE = _Table(
    "pipeline state",
    {
        PipelineState.QUEUED: pipeline_pb2.PIPELINE_STATE_QUEUED,
        PipelineState.RUNNING: pipeline_pb2.PIPELINE_STATE_RUNNING,
        PipelineState.SUCCEEDED: pipeline_pb2.PIPELINE_STATE_SUCCEEDED,
        PipelineState.FAILED: pipeline_pb2.PIPELINE_STATE_FAILED,
        PipelineState.CANCELLED: pipeline_pb2.PIPELINE_STATE_CANCELLED,
    },
)
_MEMBER_STATE = _Table(
    "member state",
    {
        MemberState.UNKNOWN: nodes_service_pb2.MEMBER_STATE_UNSPECIFIED,
        MemberState.ALIVE: nodes_service_pb2.MEMBER_STATE_ALIVE,
        MemberState.SUSPECT: nodes_service_pb2.MEMBER_STATE_SUSPECT,
        MemberState.DEAD: nodes_service_pb2.MEMBER_STATE_DEAD,
        MemberState.LEFT: nodes_service_pb2.MEMBER_STATE_LEFT,
    },
    MemberState.UNKNOWN,
)
_LOG_STREAM = _Table(
    "log stream",
    {
        view.LogStream.STDOUT: pipelines_service_pb2.LOG_STREAM_STDOUT,
        view.LogStream.STDERR: pipelines_service_pb2.LOG_STREAM_STDERR,
    },
)


# ---- the specification --------------------------------------------------------------------------


def encode_pipeline_spec(pipeline: spec.Pipeline) -> spec_pb2.PipelineSpec:
    """Write a specification with all its defaults."""
    return spec_pb2.PipelineSpec(
        name=pipeline.name,
        bundle_digest=pipeline.bundle_digest,
        jobs=[encode_job_spec(job) for job in pipeline.jobs],
        labels=dict(pipeline.labels),
    )


def decode_pipeline_spec(message: spec_pb2.PipelineSpec, path: str = "") -> spec.Pipeline:
    """Read a specification.

    Raises:
        WireError: a field breaks the contract.
    """
    return spec.Pipeline(
        name=_id("pipeline", message.name, _at(path, "name")),
        jobs=_each(message.jobs, _at(path, "jobs"), decode_job_spec),
        bundle_digest=_sha256(message.bundle_digest, _at(path, "bundle_digest")),
        labels=_strings(message.labels),
    )


def bring_within_limits(message: spec_pb2.PipelineSpec) -> None:
    """Lower the numbers of a specification that an older version took and this one would refuse."""
    for job in message.jobs:
        job.timeout_seconds = _at_most(job.timeout_seconds)
        job.grace_seconds = _at_most(job.grace_seconds)
        job.retry.backoff_seconds = _at_most(job.retry.backoff_seconds)
        job.retry.backoff_limit_seconds = _at_most(job.retry.backoff_limit_seconds)
        job.retry.attempts = min(job.retry.attempts, limits.RETRY_ATTEMPTS_MAX)
        job.resources.cpus = min(job.resources.cpus, limits.CPUS_MAX)
        job.resources.memory_bytes = min(job.resources.memory_bytes, limits.INTEGER_MAX)
        for item in job.inputs:
            if item.HasField("stream"):
                stream = item.stream
                stream.block_count = min(stream.block_count, limits.BLOCK_COUNT_MAX)
                stream.keep = min(stream.keep, limits.KEEP_MAX)
                if stream.HasField("optional"):
                    stream.optional.buffer = min(stream.optional.buffer, limits.BUFFER_MAX)


def _at_most(seconds: float) -> float:
    return min(seconds, limits.DURATION_SECONDS_MAX)


def encode_job_spec(job: spec.Job) -> spec_pb2.JobSpec:
    """Write a job of a specification with all its defaults."""
    return spec_pb2.JobSpec(
        name=job.name,
        run=job.run,
        environment=encode_environment(job.environment),
        inputs=[
            *(_encode_stream_input(stream) for stream in job.streams),
            *(_encode_file_input(file) for file in job.files),
        ],
        outputs=[encode_output(output) for output in job.outputs],
        replicas=job.replicas,
        resources=encode_resources(job.resources),
        place=encode_place(job.place),
        archive=job.archive,
        retry=encode_retry(job.retry),
        timeout_seconds=job.timeout_seconds,
        variables=dict(job.variables),
        stdin=job.stdin,
        recovery=_RECOVERY.encode(job.recovery),
        placement=_PLACEMENT.encode(job.placement),
        grace_seconds=job.grace_seconds,
        layout=_LAYOUT.encode(job.layout),
        local=job.local,
    )


def decode_job_spec(message: spec_pb2.JobSpec, path: str = "") -> spec.Job:
    """Read a job of a specification.

    Raises:
        WireError: a field breaks the contract.
    """
    streams: list[spec.StreamInput] = []
    files: list[spec.FileInput] = []
    for index, item in enumerate(message.inputs):
        at = f"{_at(path, 'inputs')}[{index}]"
        match decode_input(item, at):
            case spec.StreamInput() as stream:
                streams.append(stream)
            case spec.FileInput() as file:
                files.append(file)
    return spec.Job(
        name=_id("job", message.name, _at(path, "name")),
        # A local job may have no program: its records are sent by hand.
        run=() if message.local and not message.run else _run(message.run, _at(path, "run")),
        environment=decode_environment(message.environment, _at(path, "environment")),
        streams=tuple(streams),
        files=tuple(files),
        outputs=_each(message.outputs, _at(path, "outputs"), decode_output),
        replicas=message.replicas or 1,
        resources=decode_resources(message.resources, _at(path, "resources")),
        place=decode_place(message.place, _at(path, "place")),
        archive=_patterns(message.archive, _at(path, "archive")),
        retry=decode_retry(message.retry, _at(path, "retry")),
        timeout_seconds=_duration(message.timeout_seconds, 0.0, _at(path, "timeout_seconds")),
        variables=_variables(message.variables, _at(path, "variables")),
        stdin=_relative(message.stdin, _at(path, "stdin")) if message.stdin else "",
        recovery=_RECOVERY.decode(message.recovery, _at(path, "recovery")),
        placement=_PLACEMENT.decode(message.placement, _at(path, "placement")),
        grace_seconds=_duration(message.grace_seconds, 5.0, _at(path, "grace_seconds")),
        layout=_LAYOUT.decode(message.layout, _at(path, "layout")),
        local=message.local,
    )


def encode_environment(environment: spec.Environment) -> spec_pb2.EnvironmentSpec:
    """Write the recipe of an environment."""
    return spec_pb2.EnvironmentSpec(
        python=environment.python,
        steps=[_encode_step(step) for step in environment.steps],
        system_site_packages=environment.system_site_packages,
    )


def decode_environment(message: spec_pb2.EnvironmentSpec, path: str = "") -> spec.Environment:
    """Read the recipe of an environment.

    Raises:
        WireError: a step is empty, leaves the bundle or has a malformed hash.
    """
    return spec.Environment(
        python=_text(message.python, _at(path, "python")),
        steps=_each(message.steps, _at(path, "steps"), _decode_step),
        system_site_packages=message.system_site_packages,
    )


def _encode_step(step: spec.EnvironmentStep) -> spec_pb2.EnvironmentStep:
    match step:
        case spec.RequirementsStep(path):
            return spec_pb2.EnvironmentStep(requirements=path)
        case spec.UrlStep(url, sha256):
            return spec_pb2.EnvironmentStep(url=spec_pb2.PackageUrl(url=url, sha256=sha256))
        case spec.WheelStep(path):
            return spec_pb2.EnvironmentStep(wheel=path)
        case spec.PipStep(arguments):
            return spec_pb2.EnvironmentStep(pip=spec_pb2.PipArguments(arguments=arguments))
        case spec.ConstraintsStep(path):
            return spec_pb2.EnvironmentStep(constraints=path)


def _decode_step(message: spec_pb2.EnvironmentStep, path: str) -> spec.EnvironmentStep:
    match message.WhichOneof("step"):
        case "requirements":
            return spec.RequirementsStep(_relative(message.requirements, f"{path}.requirements"))
        case "url":
            url = _text(message.url.url, f"{path}.url.url")
            if not url.startswith(("https://", "http://")):
                raise WireError(f"{path}.url.url", f"{url!r} is not an http:// or https:// address")
            return spec.UrlStep(url, _sha256(message.url.sha256, f"{path}.url.sha256"))
        case "wheel":
            return spec.WheelStep(_relative(message.wheel, f"{path}.wheel"))
        case "pip":
            at = f"{path}.pip.arguments"
            if not message.pip.arguments:
                raise WireError(at, "the list is empty; give the installer's arguments")
            return spec.PipStep(
                tuple(_text(word, f"{at}[{n}]") for n, word in enumerate(message.pip.arguments))
            )
        case "constraints":
            return spec.ConstraintsStep(_relative(message.constraints, f"{path}.constraints"))
        case None:
            raise WireError(path, "the step is empty or of a kind that this version does not know")


def _encode_stream_input(stream: spec.StreamInput) -> spec_pb2.InputSpec:
    return spec_pb2.InputSpec(
        name=stream.name,
        stream=spec_pb2.StreamSource(
            job=stream.job,
            port=stream.port,
            binding=encode_binding(stream.binding),
            block_count=stream.block_count,
            merge=_MERGE.encode(stream.merge),
            optional=None if stream.optional is None else _encode_stand_in(stream.optional),
            promise=_PROMISE.encode(stream.promise),
            keep=stream.keep,
        ),
    )


def _encode_stand_in(stand_in: spec.StandIn) -> spec_pb2.StandIn:
    return spec_pb2.StandIn(
        default_json=stand_in.default_json,
        repeat=stand_in.repeat,
        buffer=stand_in.buffer,
        drop=_DROP.encode(stand_in.drop),
    )


def _decode_stand_in(message: spec_pb2.StandIn, path: str) -> spec.StandIn:
    default_json = _text(message.default_json, f"{path}.default_json") or "null"
    if problem := json_problem(default_json):
        raise WireError(f"{path}.default_json", f"{default_json[:40]!r} {problem}")
    return spec.StandIn(
        default_json=default_json,
        repeat=message.repeat,
        buffer=_count(message.buffer, limits.BUFFER_MAX, f"{path}.buffer"),
        drop=_DROP.decode(message.drop, f"{path}.drop"),
    )


def _encode_file_input(file: spec.FileInput) -> spec_pb2.InputSpec:
    return spec_pb2.InputSpec(
        name=file.name,
        file=spec_pb2.FileSource(source=file.source, path=file.path, sha256=file.sha256),
    )


def encode_input(item: spec.StreamInput | spec.FileInput) -> spec_pb2.InputSpec:
    """Write an input of either kind."""
    match item:
        case spec.StreamInput():
            return _encode_stream_input(item)
        case spec.FileInput():
            return _encode_file_input(item)


def decode_input(message: spec_pb2.InputSpec, path: str = "") -> spec.StreamInput | spec.FileInput:
    """Read an input of either kind.

    Raises:
        WireError: it has no source, or a field breaks the contract.
    """
    name = _id("input", message.name, _at(path, "name"))
    match message.WhichOneof("source"):
        case "stream":
            at = _at(path, "stream")
            return spec.StreamInput(
                name=name,
                job=_id("job", message.stream.job, f"{at}.job"),
                port=_id("port", message.stream.port, f"{at}.port"),
                binding=decode_binding(message.stream.binding, f"{at}.binding"),
                block_count=_count(
                    message.stream.block_count or 1, limits.BLOCK_COUNT_MAX, f"{at}.block_count"
                ),
                merge=_MERGE.decode(message.stream.merge, f"{at}.merge"),
                optional=_decode_stand_in(message.stream.optional, f"{at}.optional")
                if message.stream.HasField("optional")
                else None,
                promise=_PROMISE.decode(message.stream.promise, f"{at}.promise"),
                keep=_count(message.stream.keep or 1, limits.KEEP_MAX, f"{at}.keep"),
            )
        case "file":
            at = _at(path, "file")
            source = _text(message.file.source, f"{at}.source")
            if not source:
                raise WireError(f"{at}.source", "it is empty; name an address or an archive key")
            return spec.FileInput(
                name=name,
                source=source,
                path=_relative(message.file.path, f"{at}.path"),
                sha256=_sha256(message.file.sha256, f"{at}.sha256"),
            )
        case None:
            raise WireError(path, f"input {name} has no source; set `stream` or `file`")


def encode_output(output: spec.Output) -> spec_pb2.OutputSpec:
    """Write an output port."""
    return spec_pb2.OutputSpec(
        name=output.name,
        binding=encode_binding(output.binding),
        distribute=_DISTRIBUTE.encode(output.distribute),
        key=output.key,
    )


def decode_output(message: spec_pb2.OutputSpec, path: str = "") -> spec.Output:
    """Read an output port.

    Raises:
        WireError: a field breaks the contract.
    """
    return spec.Output(
        name=_id("output", message.name, _at(path, "name")),
        binding=decode_binding(message.binding, _at(path, "binding")),
        distribute=_DISTRIBUTE.decode(message.distribute, _at(path, "distribute")),
        key=_text(message.key, _at(path, "key")),
    )


def encode_binding(binding: spec.PortBinding) -> spec_pb2.PortBinding:
    """Write how a program holds a port."""
    return spec_pb2.PortBinding(
        format=_FORMAT.encode(binding.format),
        attachment=_ATTACHMENT.encode(binding.attachment),
        record_bytes=binding.record_bytes,
    )


def decode_binding(message: spec_pb2.PortBinding, path: str = "") -> spec.PortBinding:
    """Read how a program holds a port.

    Raises:
        WireError: unknown format or attachment, or a record size that does not fit the format.
    """
    port_format = _FORMAT.decode(message.format, _at(path, "format"))
    if port_format is spec.PortFormat.BYTES:
        if not 1 <= message.record_bytes <= RECORD_BYTES_MAX:
            raise WireError(
                _at(path, "record_bytes"),
                f"{message.record_bytes} is not the size of a record; "
                f"the format bytes:N takes 1 to {RECORD_BYTES_MAX}",
            )
    elif message.record_bytes:
        raise WireError(
            _at(path, "record_bytes"),
            f"format {port_format.value} has no record size; leave it 0 or use bytes:N",
        )
    return spec.PortBinding(
        format=port_format,
        attachment=_ATTACHMENT.decode(message.attachment, _at(path, "attachment")),
        record_bytes=message.record_bytes,
    )


def encode_resources(resources: spec.Resources) -> spec_pb2.ResourcesSpec:
    """Write what one replica needs of a node."""
    return spec_pb2.ResourcesSpec(
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        devices=resources.devices,
    )


def decode_resources(message: spec_pb2.ResourcesSpec, path: str = "") -> spec.Resources:
    """Read what one replica needs of a node.

    Raises:
        WireError: a number is negative or not finite, or a device has no name.
    """
    return spec.Resources(
        cpus=_number(message.cpus, limits.CPUS_MAX, _at(path, "cpus")) or 1.0,
        memory_bytes=_count(message.memory_bytes, limits.INTEGER_MAX, _at(path, "memory_bytes")),
        devices=_words(message.devices, _at(path, "devices")),
    )


def encode_place(place: spec.Place) -> spec_pb2.PlaceSpec:
    """Write where a job may or would rather run."""
    return spec_pb2.PlaceSpec(
        require=dict(place.require),
        prefer=place.prefer,
        strategy=_STRATEGY.encode(place.strategy),
    )


def decode_place(message: spec_pb2.PlaceSpec, path: str = "") -> spec.Place:
    """Read where a job may or would rather run.

    Raises:
        WireError: unknown strategy, or a preferred node without a name.
    """
    return spec.Place(
        require=_strings(message.require),
        prefer=_words(message.prefer, _at(path, "prefer")),
        strategy=_STRATEGY.decode(message.strategy, _at(path, "strategy")),
    )


def encode_retry(retry: spec.Retry) -> spec_pb2.RetrySpec:
    """Write what happens when the program fails."""
    return spec_pb2.RetrySpec(
        attempts=retry.attempts,
        backoff_seconds=retry.backoff_seconds,
        backoff_limit_seconds=retry.backoff_limit_seconds,
    )


def decode_retry(message: spec_pb2.RetrySpec, path: str = "") -> spec.Retry:
    """Read what happens when the program fails.

    Raises:
        WireError: a number is negative or not finite.
    """
    return spec.Retry(
        attempts=_count(message.attempts or 1, limits.RETRY_ATTEMPTS_MAX, _at(path, "attempts")),
        backoff_seconds=_duration(message.backoff_seconds, 1.0, _at(path, "backoff_seconds")),
        backoff_limit_seconds=_duration(
            message.backoff_limit_seconds, 60.0, _at(path, "backoff_limit_seconds")
        ),
    )


# ---- states, reasons, stored things -------------------------------------------------------------


def encode_job_state(state: JobState) -> pipeline_pb2.JobState.ValueType:
    """Write the state of a job or an attempt."""
    return _JOB_STATE.encode(state)


def decode_job_state(number: int, path: str = "state") -> JobState:
    """Read the state of a job or an attempt.

    Raises:
        WireError: it is unset or unknown.
    """
    return _JOB_STATE.decode(number, path)


def encode_pipeline_state(state: PipelineState) -> pipeline_pb2.PipelineState.ValueType:
    """Write the state of a pipeline."""
    return _PIPELINE_STATE.encode(state)


def decode_pipeline_state(number: int, path: str = "state") -> PipelineState:
    """Read the state of a pipeline.

    Raises:
        WireError: it is unset or unknown.
    """
    return _PIPELINE_STATE.decode(number, path)


def encode_member_state(state: MemberState) -> nodes_service_pb2.MemberState.ValueType:
    """Write the state of a member; UNKNOWN is the contract's 0."""
    return _MEMBER_STATE.encode(state)


def decode_member_state(number: int, path: str = "state") -> MemberState:
    """Read the state of a member; unset is UNKNOWN.

    Raises:
        WireError: it is unknown.
    """
    return _MEMBER_STATE.decode(number, path)


def encode_log_stream(stream: view.LogStream) -> pipelines_service_pb2.LogStream.ValueType:
    """Write which output of a program."""
    return _LOG_STREAM.encode(stream)


def decode_log_stream(number: int, path: str = "stream") -> view.LogStream:
    """Read which output of a program.

    Raises:
        WireError: it is unset or unknown.
    """
    return _LOG_STREAM.decode(number, path)


def encode_distribute(distribute: spec.Distribute) -> spec_pb2.Distribute.ValueType:
    """Write how records are spread over replicas."""
    return _DISTRIBUTE.encode(distribute)


def encode_port_format(port_format: spec.PortFormat) -> spec_pb2.PortFormat.ValueType:
    """Write what bytes a program sees on a port."""
    return _FORMAT.encode(port_format)


def decode_port_format(number: int, path: str = "format") -> spec.PortFormat:
    """Read what bytes a program sees on a port; unset is blocks.

    Raises:
        WireError: it is unknown.
    """
    return _FORMAT.decode(number, path)


def decode_distribute(number: int, path: str = "distribute") -> spec.Distribute:
    """Read how records are spread over replicas; unset is round-robin.

    Raises:
        WireError: it is unknown.
    """
    return _DISTRIBUTE.decode(number, path)


def encode_reason(reason: Reason) -> pipeline_pb2.Reason:
    """Write why something ended."""
    return pipeline_pb2.Reason(
        code=reason.code.value,
        number=reason.number,
        message=limits.cut(reason.message, limits.SENTENCE_CHARACTERS_MAX),
    )


def decode_reason(message: pipeline_pb2.Reason, path: str = "reason") -> Reason:
    """Read why something ended; an unset message is the empty reason.

    Raises:
        WireError: the code is unknown.
    """
    try:
        code = ReasonCode(message.code)
    except ValueError:
        known = ", ".join(item.value for item in ReasonCode if item.value)
        raise WireError(
            _at(path, "code"), f"{message.code!r} is not a reason; this version knows {known}"
        ) from None
    return Reason(code, message.number, limits.cut(message.message, limits.SENTENCE_CHARACTERS_MAX))


def encode_artifact(artifact: Artifact) -> pipeline_pb2.Artifact:
    """Write one stored object."""
    return pipeline_pb2.Artifact(
        path=artifact.path,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        key=artifact.key,
    )


def decode_artifact(message: pipeline_pb2.Artifact, path: str = "artifact") -> Artifact:
    """Read one stored object.

    Raises:
        WireError: its path leaves the job's folder, or its hash is not a SHA-256 in hex.
    """
    if not message.sha256:
        raise WireError(_at(path, "sha256"), "it is empty; an artifact carries its SHA-256")
    return Artifact(
        path=_relative(message.path, _at(path, "path")),
        size_bytes=_count(message.size_bytes, limits.INTEGER_MAX, _at(path, "size_bytes")),
        sha256=_sha256(message.sha256, _at(path, "sha256")),
        key=_text(message.key, _at(path, "key")),
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
    _attempt(message.attempt, "default", message.epoch, _at(path, "attempt"))
    return view.Manifest(
        key=message.key,
        attempt=message.attempt,
        epoch=message.epoch,
        artifacts=_each(message.artifacts, _at(path, "artifacts"), decode_artifact),
        commit_time=_time(message, "commit_time", path),
        left_out=message.left_out,
    )


def encode_attempt_ref(ref: names.AttemptRef) -> session_service_pb2.AttemptRef:
    """Write which attempt."""
    return session_service_pb2.AttemptRef(
        attempt=ref.name, namespace=ref.namespace, epoch=ref.epoch
    )


def decode_attempt_ref(
    message: session_service_pb2.AttemptRef, path: str = "ref"
) -> names.AttemptRef:
    """Read which attempt.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    return decode_attempt_name(message.attempt, message.namespace, message.epoch, path)


def decode_attempt_name(
    attempt: str, namespace: str, epoch: int, path: str = ""
) -> names.AttemptRef:
    """Read the three fields that name an attempt in messages that carry them side by side.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    return _attempt(attempt, namespace, epoch, _at(path, "attempt"))


def encode_capacity(capacity: Capacity) -> nodes_service_pb2.NodeCapacity:
    """Write what a node has, or what is claimed of it."""
    return nodes_service_pb2.NodeCapacity(
        cpus=capacity.cpus,
        memory_bytes=capacity.memory_bytes,
        devices=capacity.devices,
    )


def decode_capacity(message: nodes_service_pb2.NodeCapacity, path: str = "capacity") -> Capacity:
    """Read what a node has, or what is claimed of it.

    Raises:
        WireError: the cores are negative or not finite, or a device has no name.
    """
    return Capacity(
        cpus=_number(message.cpus, limits.CPUS_MAX, _at(path, "cpus")),
        memory_bytes=_count(message.memory_bytes, limits.INTEGER_MAX, _at(path, "memory_bytes")),
        devices=_words(message.devices, _at(path, "devices")),
    )


def encode_followed(followed: Followed) -> session_service_pb2.Followed:
    """Write how much an agent knows of a controller."""
    return session_service_pb2.Followed(
        cluster_id=followed.cluster_id,
        term=followed.term,
        start_id=followed.start_id,
        commit=followed.commit,
    )


def decode_followed(message: session_service_pb2.Followed) -> Followed:
    """Read how much an agent knows of a controller; it is only compared."""
    return Followed(message.cluster_id, message.term, message.start_id, message.commit)


def encode_stream_counters(counters: StreamCounters) -> pipeline_pb2.StreamProgress:
    """Write the counters of one port."""
    return pipeline_pb2.StreamProgress(
        port=counters.port,
        output=counters.output,
        records=counters.records,
        bytes=counters.bytes,
        acknowledged=counters.acknowledged,
        retained_bytes=counters.retained_bytes,
        blocked_seconds=counters.blocked_seconds,
        duplicates=counters.duplicates,
        ended=counters.ended,
        hold=counters.hold,
        held_at=counters.held_at,
        dropped=counters.dropped,
        refused=counters.refused,
        broken=counters.broken,
        mismatches=counters.mismatches,
        repeating=counters.repeating,
    )


def decode_stream_counters(
    message: pipeline_pb2.StreamProgress, path: str = "streams"
) -> StreamCounters:
    """Read the counters of one port.

    Raises:
        WireError: the port's name is malformed, or the time is negative or not finite.
    """
    return StreamCounters(
        port=_id("port", message.port, _at(path, "port")),
        output=message.output,
        records=message.records,
        bytes=message.bytes,
        acknowledged=message.acknowledged,
        retained_bytes=message.retained_bytes,
        blocked_seconds=_duration(message.blocked_seconds, 0.0, _at(path, "blocked_seconds")),
        duplicates=message.duplicates,
        ended=message.ended,
        hold=message.hold,
        held_at=_count(message.held_at, limits.RECORDS_MAX, _at(path, "held_at")),
        dropped=message.dropped,
        refused=message.refused,
        broken=message.broken,
        mismatches=message.mismatches,
        repeating=message.repeating,
    )


def encode_log_chunk(chunk: view.LogChunk) -> pipelines_service_pb2.LogChunk:
    """Write a piece of a log."""
    return pipelines_service_pb2.LogChunk(
        attempt=chunk.attempt,
        stream=_LOG_STREAM.encode(chunk.stream),
        offset=chunk.offset,
        data=chunk.data,
        epoch=chunk.epoch,
    )


def decode_log_chunk(message: pipelines_service_pb2.LogChunk, path: str = "chunk") -> view.LogChunk:
    """Read a piece of a log.

    Raises:
        WireError: the attempt's name is malformed, or the output is unset or unknown.
    """
    _attempt(message.attempt, "default", message.epoch, _at(path, "attempt"))
    return view.LogChunk(
        attempt=message.attempt,
        stream=_LOG_STREAM.decode(message.stream, _at(path, "stream")),
        offset=message.offset,
        data=message.data,
        epoch=message.epoch,
    )


# ---- what clients see ---------------------------------------------------------------------------


def encode_attempt(attempt: view.AttemptView) -> pipeline_pb2.Attempt:
    """Write one try of a job."""
    return pipeline_pb2.Attempt(
        name=attempt.name,
        number=attempt.number,
        epoch=attempt.epoch,
        node=attempt.node,
        state=_JOB_STATE.encode(attempt.state),
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
    _attempt(message.name, "default", message.epoch, _at(path, "name"))
    return view.AttemptView(
        name=message.name,
        number=message.number,
        epoch=message.epoch,
        node=message.node,
        state=_JOB_STATE.decode(message.state, _at(path, "state")),
        reason=decode_reason(message.reason, _at(path, "reason")),
        create_time=_time(message, "create_time", path),
        start_time=_time(message, "start_time", path),
        end_time=_time(message, "end_time", path),
    )


def encode_job(job: view.JobView) -> pipeline_pb2.Job:
    """Write one job (one replica)."""
    return pipeline_pb2.Job(
        name=job.name,
        spec_name=job.spec_name,
        replica=job.replica,
        state=_JOB_STATE.encode(job.state),
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
        raise WireError(_at(path, "name"), str(error)) from None
    return view.JobView(
        name=message.name,
        spec_name=_id("job", message.spec_name, _at(path, "spec_name")),
        replica=message.replica,
        state=_JOB_STATE.decode(message.state, _at(path, "state")),
        reason=decode_reason(message.reason, _at(path, "reason")),
        node=message.node,
        epoch=message.epoch,
        attempts=_each(message.attempts, _at(path, "attempts"), decode_attempt),
        streams=_each(message.streams, _at(path, "streams"), decode_stream_counters),
        manifest=(
            decode_manifest(message.manifest, _at(path, "manifest"))
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
        state=_PIPELINE_STATE.encode(pipeline.state),
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
        id=_id("pipeline", message.id, _at(path, "id")),
        namespace=_id("namespace", message.namespace, _at(path, "namespace")),
        spec=decode_pipeline_spec(message.spec, _at(path, "spec")),
        state=_PIPELINE_STATE.decode(message.state, _at(path, "state")),
        reason=decode_reason(message.reason, _at(path, "reason")),
        create_time=_time(message, "create_time", path),
        end_time=_time(message, "end_time", path),
        jobs=_each(message.jobs, _at(path, "jobs"), decode_job),
        revision=message.revision,
        final_event_id=message.final_event_id,
        scales=_each(message.scales, _at(path, "scales"), _decode_scale),
        finish_time=_time(message, "finish_time", path),
    )


def _encode_scale(scale: view.ScaleView) -> pipeline_pb2.Scale:
    return pipeline_pb2.Scale(
        number=scale.number,
        job=scale.job,
        replicas=scale.replicas,
        state=_SCALE_STATE.encode(scale.state),
        rounds=scale.rounds,
        message=scale.message,
        create_time=encode_time(scale.create_time),
        end_time=encode_time(scale.end_time),
    )


def _decode_scale(message: pipeline_pb2.Scale, path: str) -> view.ScaleView:
    return view.ScaleView(
        number=message.number,
        job=_id("job", message.job, _at(path, "job")),
        replicas=message.replicas,
        state=_SCALE_STATE.decode(message.state, _at(path, "state")),
        rounds=message.rounds,
        message=message.message,
        create_time=_time(message, "create_time", path),
        end_time=_time(message, "end_time", path),
    )


def encode_node(node: view.NodeView) -> nodes_service_pb2.Node:
    """Write a node."""
    return nodes_service_pb2.Node(
        name=node.name,
        connected=node.connected,
        drained=node.drained,
        member_state=_MEMBER_STATE.encode(node.member_state),
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
        name=_id("node", message.name, _at(path, "name")),
        connected=message.connected,
        drained=message.drained,
        member_state=_MEMBER_STATE.decode(message.member_state, _at(path, "member_state")),
        capacity=decode_capacity(message.capacity, _at(path, "capacity")),
        claimed=decode_capacity(message.claimed, _at(path, "claimed")),
        labels=_strings(message.labels),
        attempts=tuple(message.attempts),
        agent_version=message.agent_version,
        architecture=message.architecture,
        stream_address=message.stream_address,
        last_seen_time=_time(message, "last_seen_time", path),
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
        state=_MEMBER_STATE.encode(member.state),
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
        tags=_strings(message.tags),
        state=_MEMBER_STATE.decode(message.state, _at(path, "state")),
        incarnation=message.incarnation,
        state_time=_time(message, "state_time", path),
    )


def decode_keys_report(
    report: keys_service_pb2.KeysReport, keys: Iterable[keys_service_pb2.KeyHolders] = ()
) -> view.KeysReport:
    """Read what the members said about their keys."""
    return view.KeysReport(
        members=report.members,
        answered=report.answered,
        failed=report.failed,
        messages=_strings(report.messages),
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
        time=_time(message, "time", path),
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


def encode_time(moment: datetime | None) -> Timestamp | None:
    """Write a moment; None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def decode_time(stamp: Timestamp, path: str = "time") -> datetime:
    """Read a moment as an aware datetime in UTC, to the microsecond.

    Raises:
        WireError: it is outside the years 1970 to 9998, so that it is a date in every time zone.
    """
    if not 0 <= stamp.seconds < limits.MOMENT_SECONDS_MAX:
        raise WireError(path, f"{stamp.seconds} s is not a moment of the years 1970 to 9998")
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise WireError(path, f"{stamp.seconds} s is not a moment ({error})") from None


# ---- one field at a time ------------------------------------------------------------------------


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _each(items: Iterable[T], path: str, decode: Callable[[T, str], V]) -> tuple[V, ...]:
    return tuple(decode(item, f"{path}[{index}]") for index, item in enumerate(items))


def _id(what: str, value: str, path: str) -> str:
    try:
        return names.check_id(what, value)
    except names.InvalidNameError as error:
        raise WireError(path, str(error)) from None


def _attempt(attempt: str, namespace: str, epoch: int, path: str) -> names.AttemptRef:
    _count(epoch, limits.INTEGER_MAX, path)
    try:
        return names.parse_attempt(attempt, namespace or "default", epoch)
    except names.InvalidNameError as error:
        raise WireError(path, str(error)) from None


def _strings(items: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(sorted(items.items())))


def _variables(items: Mapping[str, str], path: str) -> Mapping[str, str]:
    for key, value in items.items():
        if _VARIABLE.fullmatch(key) is None:
            raise WireError(
                path, f"{key!r} is not the name of a variable; use letters, digits and underscores"
            )
        _text(value, f"{path}[{key}]")
    return _strings(items)


def _text(value: str, path: str) -> str:
    if "\0" in value:
        raise WireError(path, "it holds a NUL character, which no program can be given")
    return value


def _words(values: Iterable[str], path: str) -> tuple[str, ...]:
    words = tuple(values)
    for index, word in enumerate(words):
        if not word:
            raise WireError(f"{path}[{index}]", "it is empty; name it or leave it out")
        _text(word, f"{path}[{index}]")
    return words


def _run(values: Iterable[str], path: str) -> tuple[str, ...]:
    words = tuple(_text(word, f"{path}[{index}]") for index, word in enumerate(values))
    if not words or not words[0]:
        raise WireError(path, "there is no program; give the words of the command")
    return words


def _patterns(values: Iterable[str], path: str) -> tuple[str, ...]:
    patterns = tuple(_relative(pattern, f"{path}[{index}]") for index, pattern in enumerate(values))
    return patterns or ("results/**",)


def _relative(value: str, path: str) -> str:
    _text(value, path)
    problem = relative_path_problem(value)
    if problem:
        raise WireError(path, f"{value!r} {problem}")
    return value


def relative_path_problem(value: str) -> str:
    """Say why `value` does not name something inside a folder; empty when it does.

    The words complete a sentence that begins with the value.
    """
    pure = PurePosixPath(value)
    if not value or not pure.parts:
        return "is not a path; name a file below the job's folder"
    if pure.is_absolute():
        return "is an absolute path; name it relative to the job's folder"
    if ".." in pure.parts:
        return "has '..' in it; name something inside the job's folder"
    return ""


def _sha256(value: str, path: str) -> str:
    if value and _SHA256.fullmatch(value) is None:
        raise WireError(path, f"{value!r} is not a SHA-256; write 64 lower-case hex digits")
    return value


def json_problem(text: str) -> str:
    """Say why `text` is no JSON that a program can be given; empty when it is.

    The words complete a sentence that begins with the text.
    """
    if len(text.encode("utf-8", "surrogatepass")) > limits.DEFAULT_JSON_BYTES_MAX:
        return f"… is longer than {limits.DEFAULT_JSON_BYTES_MAX} bytes; send it in a file"
    if limits.json_depth(text) > limits.JSON_DEPTH_MAX:
        return f"lies deeper than {limits.JSON_DEPTH_MAX} lists or objects; write it flatter"
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return "is no JSON"
    return ""


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number as JSON has it")


def _duration(value: float, default: float, path: str) -> float:
    if problem := limits.duration_problem(value):
        raise WireError(path, f"{value} {problem}")
    return value or default


def _number(value: float, most: float, path: str) -> float:
    if problem := limits.count_problem(value, most):
        raise WireError(path, f"{value} {problem}")
    return value


def _count(value: int, most: int, path: str) -> int:
    if not 0 <= value <= most:
        raise WireError(path, f"{value} {limits.count_problem(value, most)}")
    return value


def _time(
    message: pipeline_pb2.Attempt
    | pipeline_pb2.Event
    | pipeline_pb2.Manifest
    | pipeline_pb2.Pipeline
    | pipeline_pb2.Scale
    | nodes_service_pb2.Member
    | nodes_service_pb2.Node,
    field: str,
    path: str,
) -> datetime | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return None
    return decode_time(getattr(message, field), _at(path, field))


def encode_tap_wish(wish: view.TapWish) -> records_service_pb2.TapWish:
    """Write how much of a stream is wanted."""
    return records_service_pb2.TapWish(
        every=wish.every,
        records_per_second=wish.records_per_second,
        bytes_per_second=wish.bytes_per_second,
        record_bytes=wish.record_bytes,
    )


def decode_tap_news(
    message: records_service_pb2.TapPortResponse, path: str = "tap"
) -> view.TapNews:
    """Read what a tap has to say.

    Raises:
        WireError: a name is malformed.
    """
    job = _id("job", message.job, _at(path, "job"))
    if not message.HasField("sample"):
        return view.TapNews(job, message.epoch, message.sentence)
    sample = message.sample
    return view.TapNews(
        job=job,
        epoch=message.epoch,
        sentence=message.sentence,
        records=tuple(
            view.TapRecord(record.sequence, record.size_bytes, record.data, record.headers)
            for record in sample.records
        ),
        dropped=sample.dropped,
        port=decode_stream_counters(sample.port, _at(path, "port")),
        consumers=tuple(
            view.TapConsumer(
                consumer.lane, consumer.behind_records, consumer.behind_bytes, consumer.done
            )
            for consumer in sample.consumers
        ),
        ended=sample.ended,
    )

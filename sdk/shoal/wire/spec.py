"""The specification of a pipeline between `shoal.spec` and the contract."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from shoal import limits, spec
from shoal.compat import Compat, compat_name_problem
from shoal.parameter import ParameterValue, name_problem, value_problem
from shoal.secret import JOB_SECRETS_MAX, SecretForm, SecretUse, secret_name_problem
from shoal.v1 import spec_pb2
from shoal.wire import fields
from shoal.wire.codec import (
    Encode,
    FieldCodec,
    NounCodec,
    alike,
    checked,
    codec,
    count,
    duration,
    each,
    elsewhere,
    enumeration,
    given_of,
    identifier,
    maybe,
    number,
    one,
)
from shoal.wire.fields import WireError
from shoal.wire.sandbox import SANDBOX

DISTRIBUTE = enumeration(spec.Distribute, spec_pb2.Distribute, "distribute", "way to distribute")
LAYOUT = enumeration(spec.Layout, spec_pb2.Layout, "layout")
PORT_FORMAT = enumeration(spec.PortFormat, spec_pb2.PortFormat, "format")

# ---- environments -------------------------------------------------------------------------------


def _decode_address(url: str, path: str) -> str:
    fields.text(url, path)
    if not url.startswith(("https://", "http://")):
        raise WireError(path, f"{url!r} is not an http:// or https:// address")
    return url


def _decode_arguments(words: Sequence[str], path: str) -> tuple[str, ...]:
    if not words:
        raise WireError(path, "the list is empty; give the installer's arguments")
    return fields.each(words, path, fields.text)


_URL = codec(
    spec.UrlStep, spec_pb2.PackageUrl, url=checked(_decode_address), sha256=checked(fields.sha256)
)
_PIP = codec(spec.PipStep, spec_pb2.PipArguments, arguments=checked(_decode_arguments))


def _encode_step(step: spec.EnvironmentStep) -> spec_pb2.EnvironmentStep:
    match step:
        case spec.UrlStep():
            return spec_pb2.EnvironmentStep(url=_URL.encode(step))
        case spec.PipStep():
            return spec_pb2.EnvironmentStep(pip=_PIP.encode(step))
        case spec.RequirementsStep(path):
            return spec_pb2.EnvironmentStep(requirements=path)
        case spec.WheelStep(path):
            return spec_pb2.EnvironmentStep(wheel=path)
        case spec.ConstraintsStep(path):
            return spec_pb2.EnvironmentStep(constraints=path)


def _decode_step(message: spec_pb2.EnvironmentStep, path: str = "") -> spec.EnvironmentStep:
    match message.WhichOneof("step"):
        case "url":
            return _URL.decode(message.url, f"{path}.url")
        case "pip":
            return _PIP.decode(message.pip, f"{path}.pip")
        case None:
            raise WireError(path, "the step is empty or of a kind that this version does not know")
        case kind:
            name = fields.relative(getattr(message, kind), f"{path}.{kind}")
            return spec.FILE_STEPS[kind](name)


_ENVIRONMENT = codec(
    spec.Environment,
    spec_pb2.EnvironmentSpec,
    python=checked(fields.text),
    steps=each(NounCodec(_encode_step, _decode_step)),
)

# ---- ports --------------------------------------------------------------------------------------


def _decode_record_bytes(message: spec_pb2.PortBinding, path: str, name: str) -> int:
    """Read the size of a record, which the format bytes:N has and no other."""
    size, at = message.record_bytes, fields.at(path, name)
    port_format = PORT_FORMAT.decode(message.format, fields.at(path, "format"))
    if port_format is spec.PortFormat.BYTES:
        if not 1 <= size <= limits.RECORD_BYTES_MAX:
            raise WireError(
                at,
                f"{size} is not the size of a record; "
                f"the format bytes:N takes 1 to {limits.RECORD_BYTES_MAX}",
            )
    elif size:
        raise WireError(
            at, f"format {port_format.value} has no record size; leave it 0 or use bytes:N"
        )
    return size


_BINDING = codec(
    spec.PortBinding,
    spec_pb2.PortBinding,
    format=one(PORT_FORMAT),
    attachment=one(enumeration(spec.PortAttachment, spec_pb2.PortAttachment, "attachment")),
    record_bytes=FieldCodec(_decode_record_bytes),
)
OUTPUT = codec(
    spec.Output,
    spec_pb2.OutputSpec,
    name=identifier("output"),
    binding=one(_BINDING),
    distribute=one(DISTRIBUTE),
    key=checked(fields.text),
)


def _decode_default_json(text: str, path: str) -> str:
    text = fields.text(text, path) or "null"
    if problem := fields.json_problem(text):
        raise WireError(path, f"{text[:40]!r} {problem}")
    return text


_STAND_IN = codec(
    spec.StandIn,
    spec_pb2.StandIn,
    default_json=checked(_decode_default_json),
    buffer=count(limits.BUFFER_MAX),
    drop=one(enumeration(spec.Drop, spec_pb2.Drop, "drop", "way to drop")),
)
_STREAM = codec(
    spec.StreamInput,
    spec_pb2.StreamSource,
    name=elsewhere(""),
    job=identifier("job"),
    port=identifier("port"),
    binding=one(_BINDING),
    block_count=count(limits.BLOCK_COUNT_MAX, 1),
    merge=one(enumeration(spec.Merge, spec_pb2.Merge, "merge")),
    optional=maybe(_STAND_IN),
    promise=one(enumeration(spec.Promise, spec_pb2.Promise, "promise")),
    keep=count(limits.KEEP_MAX, 1),
)


def _decode_source(source: str, path: str) -> str:
    if not fields.text(source, path):
        raise WireError(path, "it is empty; name an address or an archive key")
    return source


_FILE = codec(
    spec.FileInput,
    spec_pb2.FileSource,
    name=elsewhere(""),
    source=checked(_decode_source),
    path=checked(fields.relative),
    sha256=checked(fields.sha256),
)


def _decode_folder_path(value: str, path: str) -> str:
    return "." if value in {"", "."} else fields.relative(value, path)


def _decode_patterns(values: Sequence[str], path: str) -> tuple[str, ...]:
    return fields.each(values, path, fields.relative)


_FOLDER_FIELDS = codec(
    spec.FolderInput,
    spec_pb2.FolderSpec,
    name=identifier("input"),
    prefix=checked(fields.text),
    artifacts=checked(fields.text),
    path=checked(_decode_folder_path),
    layout=one(LAYOUT),
    patterns=checked(_decode_patterns),
    entry=checked(lambda value, path: fields.relative(value, path) if value else ""),
)


def _decode_folder(message: spec_pb2.FolderSpec, path: str = "") -> spec.FolderInput:
    if bool(message.prefix) == bool(message.artifacts):
        raise WireError(path, "it has to name either `prefix` or `artifacts`")
    return _FOLDER_FIELDS.decode(message, path)


_FOLDER = NounCodec(_FOLDER_FIELDS.encode, _decode_folder)


def encode_input(item: spec.StreamInput | spec.FileInput) -> spec_pb2.InputSpec:
    """Write an input of either kind."""
    return spec_pb2.InputSpec(**_given_input(item))


def _given_input(item: spec.StreamInput | spec.FileInput) -> dict[str, Any]:
    match item:
        case spec.StreamInput():
            return {"name": item.name, "stream": given_of(_STREAM.encode)(item)}
        case spec.FileInput():
            return {"name": item.name, "file": given_of(_FILE.encode)(item)}


def decode_input(message: spec_pb2.InputSpec, path: str = "") -> spec.StreamInput | spec.FileInput:
    """Read an input of either kind.

    Raises:
        WireError: it has no source, or a field breaks the contract.
    """
    name = fields.identifier("input", message.name, fields.at(path, "name"))
    match message.WhichOneof("source"):
        case "stream":
            return replace(_STREAM.decode(message.stream, fields.at(path, "stream")), name=name)
        case "file":
            return replace(_FILE.decode(message.file, fields.at(path, "file")), name=name)
        case None:
            raise WireError(path, f"input {name} has no source; set `stream` or `file`")


def _inputs_of(kind: str) -> Callable[[spec_pb2.JobSpec, str, str], tuple[Any, ...]]:
    """Return what reads the inputs of one kind."""

    def read(message: spec_pb2.JobSpec, path: str, _name: str) -> tuple[Any, ...]:
        return tuple(
            decode_input(item, fields.at(path, f"inputs[{index}]"))
            for index, item in enumerate(message.inputs)
            if item.WhichOneof("source") in {kind, None}
        )

    return read


# ---- jobs and pipelines -------------------------------------------------------------------------


def _decode_run(message: spec_pb2.JobSpec, path: str, name: str) -> tuple[str, ...]:
    """Read the command; a local job may have none: its records are sent by hand."""
    if message.local and not message.run:
        return ()
    return fields.run(message.run, fields.at(path, name))


_RESOURCES = codec(
    spec.Resources,
    spec_pb2.ResourcesSpec,
    cpus=number(limits.CPUS_MAX, 1.0),
    memory_bytes=count(limits.INTEGER_MAX),
    devices=checked(fields.words),
    processes=count(limits.PROCESSES_MAX),
    disk_bytes=count(limits.INTEGER_MAX),
)
_PLACE = codec(
    spec.Place,
    spec_pb2.PlaceSpec,
    prefer=checked(fields.words),
    strategy=one(enumeration(spec.Strategy, spec_pb2.Strategy, "strategy")),
)
_RETRY = codec(
    spec.Retry,
    spec_pb2.RetrySpec,
    attempts=count(limits.RETRY_ATTEMPTS_MAX, 1),
    backoff_seconds=duration(1.0),
    backoff_limit_seconds=duration(60.0),
)


def _decode_secret_name(name: str, path: str) -> str:
    if problem := secret_name_problem(name):
        raise WireError(path, problem)
    return name


_SECRET_USE = codec(
    SecretUse,
    spec_pb2.SecretUse,
    variable=checked(fields.variable),
    name=checked(_decode_secret_name),
    form=one(enumeration(SecretForm, spec_pb2.SecretForm, "form", "form of a secret")),
)


def _decode_secrets(messages: Sequence[spec_pb2.SecretUse], path: str) -> tuple[SecretUse, ...]:
    if len(messages) > JOB_SECRETS_MAX:
        raise WireError(path, f"there are {len(messages)}, {JOB_SECRETS_MAX} at most")
    return fields.each(messages, path, _SECRET_USE.decode)


_JOB = codec(
    spec.Job,
    spec_pb2.JobSpec,
    name=identifier("job"),
    run=FieldCodec(_decode_run),
    environment=one(alike(_ENVIRONMENT, spec_pb2.EnvironmentSpec)),
    streams=FieldCodec(_inputs_of("stream"), None, ("inputs",)),
    files=FieldCodec(_inputs_of("file"), None, ("inputs",)),
    folders=each(_FOLDER),
    outputs=each(OUTPUT),
    replicas=checked(lambda value, _path: value or 1),
    resources=one(alike(_RESOURCES, spec_pb2.ResourcesSpec)),
    place=one(alike(_PLACE, spec_pb2.PlaceSpec)),
    archive=checked(fields.patterns),
    retry=one(alike(_RETRY, spec_pb2.RetrySpec)),
    timeout_seconds=duration(),
    variables=checked(fields.variables, dict),
    stdin=checked(lambda value, path: fields.relative(value, path) if value else ""),
    recovery=one(enumeration(spec.Recovery, spec_pb2.Recovery, "recovery")),
    placement=one(enumeration(spec.Placement, spec_pb2.Placement, "placement")),
    grace_seconds=duration(5.0),
    layout=one(LAYOUT),
    archive_on=one(
        enumeration(spec.ArchiveOn, spec_pb2.ArchiveOn, "archive_on", "time to archive")
    ),
    secrets=checked(_decode_secrets, lambda uses: [_SECRET_USE.encode(use) for use in uses]),
    sandbox=one(SANDBOX),
)


def _given_job(job: spec.Job) -> dict[str, Any]:
    given: dict[str, Any] = given_of(_JOB.encode)(job)
    if job.streams or job.files:
        streams, files = map(_given_input, job.streams), map(_given_input, job.files)
        given["inputs"] = [*streams, *files]
    return given


_encode_job_spec: Encode[spec_pb2.JobSpec] = Encode(spec_pb2.JobSpec, _given_job)


def encode_job_spec(job: spec.Job) -> spec_pb2.JobSpec:
    """Write a job of a specification with all its defaults; streams come before files."""
    return _encode_job_spec(job)


def decode_job_spec(message: spec_pb2.JobSpec, path: str = "") -> spec.Job:
    """Read a job of a specification.

    Raises:
        WireError: a field breaks the contract.
    """
    return _JOB.decode(message, path)


def _encode_parameters(values: Mapping[str, ParameterValue]) -> list[spec_pb2.Parameter]:
    return [_encode_parameter(name, value) for name, value in values.items()]


def _encode_parameter(name: str, value: ParameterValue) -> spec_pb2.Parameter:
    match value:
        case bool():
            return spec_pb2.Parameter(name=name, boolean=value)
        case int():
            return spec_pb2.Parameter(name=name, integer=value)
        case float():
            return spec_pb2.Parameter(name=name, number=value)
        case str():
            return spec_pb2.Parameter(name=name, text=value)


def _decode_parameters(
    messages: Sequence[spec_pb2.Parameter], path: str
) -> Mapping[str, ParameterValue]:
    if len(messages) > limits.PARAMETERS_MAX:
        raise WireError(path, f"there are {len(messages)}, {limits.PARAMETERS_MAX} at most")
    found: dict[str, ParameterValue] = {}
    for name, value in fields.each(messages, path, _decode_parameter):
        if name in found:
            raise WireError(path, f"{name!r} stands there twice; give it one value")
        found[name] = value
    return MappingProxyType(found)


def _decode_parameter(message: spec_pb2.Parameter, path: str) -> tuple[str, ParameterValue]:
    if problem := name_problem(message.name):
        raise WireError(fields.at(path, "name"), f"{message.name!r} {problem}")
    kind = message.WhichOneof("value")
    if kind is None:
        raise WireError(
            path, f"{message.name!r} has no value, or one of a type that this version does not know"
        )
    value: ParameterValue = getattr(message, kind)
    if problem := value_problem(value):
        raise WireError(fields.at(path, kind), f"the value of {message.name!r} {problem}")
    return message.name, value


def _decode_compat_name(name: str, path: str) -> str:
    if problem := compat_name_problem(name):
        raise WireError(path, f"{name[:40]!r} {problem}")
    return name


_COMPAT = codec(
    Compat,
    spec_pb2.CompatSpec,
    user=checked(_decode_compat_name),
    action=checked(_decode_compat_name),
    task=checked(_decode_compat_name),
)
JOB_SPEC = alike(NounCodec(_encode_job_spec, decode_job_spec), spec_pb2.JobSpec)
encode_pipeline_spec, decode_pipeline_spec = codec(
    spec.Pipeline,
    spec_pb2.PipelineSpec,
    name=identifier("pipeline"),
    jobs=each(JOB_SPEC),
    bundle_digest=checked(fields.sha256),
    parameters=checked(_decode_parameters, _encode_parameters),
    compat=maybe(_COMPAT),
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

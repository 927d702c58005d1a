"""The specification of a pipeline between `shoal.spec` and the contract."""

from __future__ import annotations

from shoal import limits, spec
from shoal.v1 import spec_pb2
from shoal.wire import fields
from shoal.wire.fields import Table, WireError

_LAYOUT = Table(
    "layout",
    {
        spec.Layout.TREE: spec_pb2.LAYOUT_TREE,
        spec.Layout.FLAT: spec_pb2.LAYOUT_FLAT,
    },
    spec.Layout.TREE,
)


_RECOVERY = Table(
    "recovery",
    {
        spec.Recovery.RESTART: spec_pb2.RECOVERY_RESTART,
        spec.Recovery.RESUME: spec_pb2.RECOVERY_RESUME,
    },
    spec.Recovery.RESTART,
)


_PLACEMENT = Table(
    "placement",
    {
        spec.Placement.AT_LEAST_ONCE: spec_pb2.PLACEMENT_AT_LEAST_ONCE,
        spec.Placement.AT_MOST_ONE_RUNNING: spec_pb2.PLACEMENT_AT_MOST_ONE_RUNNING,
        spec.Placement.PINNED: spec_pb2.PLACEMENT_PINNED,
    },
    spec.Placement.AT_LEAST_ONCE,
)


_STRATEGY = Table(
    "strategy",
    {
        spec.Strategy.SPREAD: spec_pb2.STRATEGY_SPREAD,
        spec.Strategy.PACK: spec_pb2.STRATEGY_PACK,
    },
    spec.Strategy.SPREAD,
)


_MERGE = Table(
    "merge",
    {
        spec.Merge.ORDERED: spec_pb2.MERGE_ORDERED,
        spec.Merge.ARRIVAL: spec_pb2.MERGE_ARRIVAL,
    },
    spec.Merge.ORDERED,
)


_PROMISE = Table(
    "promise",
    {
        spec.Promise.AT_LEAST_ONCE: spec_pb2.PROMISE_AT_LEAST_ONCE,
        spec.Promise.LATEST: spec_pb2.PROMISE_LATEST,
    },
    spec.Promise.AT_LEAST_ONCE,
)


_DROP = Table(
    "way to drop",
    {spec.Drop.OLDEST: spec_pb2.DROP_OLDEST, spec.Drop.NEWEST: spec_pb2.DROP_NEWEST},
    spec.Drop.OLDEST,
)


_DISTRIBUTE = Table(
    "way to distribute",
    {
        spec.Distribute.ROUND_ROBIN: spec_pb2.DISTRIBUTE_ROUND_ROBIN,
        spec.Distribute.BROADCAST: spec_pb2.DISTRIBUTE_BROADCAST,
        spec.Distribute.KEY: spec_pb2.DISTRIBUTE_KEY,
    },
    spec.Distribute.ROUND_ROBIN,
)


_FORMAT = Table(
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


_ATTACHMENT = Table(
    "port attachment",
    {
        spec.PortAttachment.FD: spec_pb2.PORT_ATTACHMENT_FD,
        spec.PortAttachment.STDIO: spec_pb2.PORT_ATTACHMENT_STDIO,
        spec.PortAttachment.FIFO: spec_pb2.PORT_ATTACHMENT_FIFO,
    },
    spec.PortAttachment.FD,
)


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
        name=fields.identifier("pipeline", message.name, fields.at(path, "name")),
        jobs=fields.each(message.jobs, fields.at(path, "jobs"), decode_job_spec),
        bundle_digest=fields.sha256(message.bundle_digest, fields.at(path, "bundle_digest")),
        labels=fields.strings(message.labels),
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
        at = f"{fields.at(path, 'inputs')}[{index}]"
        match decode_input(item, at):
            case spec.StreamInput() as stream:
                streams.append(stream)
            case spec.FileInput() as file:
                files.append(file)
    return spec.Job(
        name=fields.identifier("job", message.name, fields.at(path, "name")),
        # A local job may have no program: its records are sent by hand.
        run=()
        if message.local and not message.run
        else fields.run(message.run, fields.at(path, "run")),
        environment=decode_environment(message.environment, fields.at(path, "environment")),
        streams=tuple(streams),
        files=tuple(files),
        outputs=fields.each(message.outputs, fields.at(path, "outputs"), decode_output),
        replicas=message.replicas or 1,
        resources=decode_resources(message.resources, fields.at(path, "resources")),
        place=decode_place(message.place, fields.at(path, "place")),
        archive=fields.patterns(message.archive, fields.at(path, "archive")),
        retry=decode_retry(message.retry, fields.at(path, "retry")),
        timeout_seconds=fields.duration(
            message.timeout_seconds, 0.0, fields.at(path, "timeout_seconds")
        ),
        variables=fields.variables(message.variables, fields.at(path, "variables")),
        stdin=fields.relative(message.stdin, fields.at(path, "stdin")) if message.stdin else "",
        recovery=_RECOVERY.decode(message.recovery, fields.at(path, "recovery")),
        placement=_PLACEMENT.decode(message.placement, fields.at(path, "placement")),
        grace_seconds=fields.duration(message.grace_seconds, 5.0, fields.at(path, "grace_seconds")),
        layout=_LAYOUT.decode(message.layout, fields.at(path, "layout")),
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
        python=fields.text(message.python, fields.at(path, "python")),
        steps=fields.each(message.steps, fields.at(path, "steps"), _decode_step),
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
            return spec.RequirementsStep(
                fields.relative(message.requirements, f"{path}.requirements")
            )
        case "url":
            url = fields.text(message.url.url, f"{path}.url.url")
            if not url.startswith(("https://", "http://")):
                raise WireError(f"{path}.url.url", f"{url!r} is not an http:// or https:// address")
            return spec.UrlStep(url, fields.sha256(message.url.sha256, f"{path}.url.sha256"))
        case "wheel":
            return spec.WheelStep(fields.relative(message.wheel, f"{path}.wheel"))
        case "pip":
            at = f"{path}.pip.arguments"
            if not message.pip.arguments:
                raise WireError(at, "the list is empty; give the installer's arguments")
            return spec.PipStep(
                tuple(
                    fields.text(word, f"{at}[{n}]") for n, word in enumerate(message.pip.arguments)
                )
            )
        case "constraints":
            return spec.ConstraintsStep(fields.relative(message.constraints, f"{path}.constraints"))
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
    default_json = fields.text(message.default_json, f"{path}.default_json") or "null"
    if problem := fields.json_problem(default_json):
        raise WireError(f"{path}.default_json", f"{default_json[:40]!r} {problem}")
    return spec.StandIn(
        default_json=default_json,
        repeat=message.repeat,
        buffer=fields.count(message.buffer, limits.BUFFER_MAX, f"{path}.buffer"),
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
    name = fields.identifier("input", message.name, fields.at(path, "name"))
    match message.WhichOneof("source"):
        case "stream":
            at = fields.at(path, "stream")
            return spec.StreamInput(
                name=name,
                job=fields.identifier("job", message.stream.job, f"{at}.job"),
                port=fields.identifier("port", message.stream.port, f"{at}.port"),
                binding=decode_binding(message.stream.binding, f"{at}.binding"),
                block_count=fields.count(
                    message.stream.block_count or 1, limits.BLOCK_COUNT_MAX, f"{at}.block_count"
                ),
                merge=_MERGE.decode(message.stream.merge, f"{at}.merge"),
                optional=_decode_stand_in(message.stream.optional, f"{at}.optional")
                if message.stream.HasField("optional")
                else None,
                promise=_PROMISE.decode(message.stream.promise, f"{at}.promise"),
                keep=fields.count(message.stream.keep or 1, limits.KEEP_MAX, f"{at}.keep"),
            )
        case "file":
            at = fields.at(path, "file")
            source = fields.text(message.file.source, f"{at}.source")
            if not source:
                raise WireError(f"{at}.source", "it is empty; name an address or an archive key")
            return spec.FileInput(
                name=name,
                source=source,
                path=fields.relative(message.file.path, f"{at}.path"),
                sha256=fields.sha256(message.file.sha256, f"{at}.sha256"),
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
        name=fields.identifier("output", message.name, fields.at(path, "name")),
        binding=decode_binding(message.binding, fields.at(path, "binding")),
        distribute=_DISTRIBUTE.decode(message.distribute, fields.at(path, "distribute")),
        key=fields.text(message.key, fields.at(path, "key")),
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
    port_format = _FORMAT.decode(message.format, fields.at(path, "format"))
    if port_format is spec.PortFormat.BYTES:
        if not 1 <= message.record_bytes <= limits.RECORD_BYTES_MAX:
            raise WireError(
                fields.at(path, "record_bytes"),
                f"{message.record_bytes} is not the size of a record; "
                f"the format bytes:N takes 1 to {limits.RECORD_BYTES_MAX}",
            )
    elif message.record_bytes:
        raise WireError(
            fields.at(path, "record_bytes"),
            f"format {port_format.value} has no record size; leave it 0 or use bytes:N",
        )
    return spec.PortBinding(
        format=port_format,
        attachment=_ATTACHMENT.decode(message.attachment, fields.at(path, "attachment")),
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
        cpus=fields.number(message.cpus, limits.CPUS_MAX, fields.at(path, "cpus")) or 1.0,
        memory_bytes=fields.count(
            message.memory_bytes, limits.INTEGER_MAX, fields.at(path, "memory_bytes")
        ),
        devices=fields.words(message.devices, fields.at(path, "devices")),
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
        require=fields.strings(message.require),
        prefer=fields.words(message.prefer, fields.at(path, "prefer")),
        strategy=_STRATEGY.decode(message.strategy, fields.at(path, "strategy")),
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
        attempts=fields.count(
            message.attempts or 1, limits.RETRY_ATTEMPTS_MAX, fields.at(path, "attempts")
        ),
        backoff_seconds=fields.duration(
            message.backoff_seconds, 1.0, fields.at(path, "backoff_seconds")
        ),
        backoff_limit_seconds=fields.duration(
            message.backoff_limit_seconds, 60.0, fields.at(path, "backoff_limit_seconds")
        ),
    )


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

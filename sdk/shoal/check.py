"""What has to hold between the parts of a specification: every violation at once, each with a remedy.

Pure but for lists of requirements, which are read from the bundle that it is given. The command uses it
before it submits, the controller before it records.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from shoal import limits, names, spec
from shoal.limits import COMMAND_BYTES_MAX, JOBS_MAX, KEEP_MAX, LANES_MAX, PORTS_MAX
from shoal.portal import CLIENT
from shoal.recipe import BundleFiles, ingredients
from shoal.redaction import redacted
from shoal.suggestion import did_you_mean
from shoal.wire.fields import json_problem, relative_path_problem
from shoal.wire.spec import encode_job_spec, encode_pipeline_spec

_LOCAL_PORT_CHARACTERS = 56

Path = tuple[str, ...]
"""Where something stands, as in the specification file: `("jobs", "camera", "timeout")`."""

_PLACEHOLDER = re.compile(r"\{(inputs|outputs)\.([^{}.]*)\.(fd|path)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Problem:
    """One violation: where it is, and what is wrong with it and what would be right, without secrets."""

    path: Path
    message: str

    def __post_init__(self) -> None:
        """Leave secrets of addresses out of the message, which may quote what was written."""
        object.__setattr__(self, "message", redacted(self.message))

    def __str__(self) -> str:
        """`jobs.camera.timeout: …`."""
        return f"{'.'.join(self.path)}: {self.message}" if self.path else self.message


def check_pipeline(
    pipeline: spec.Pipeline,
    bundle_files: Collection[str] | None = None,
    contents: Mapping[spec.Layout, BundleFiles] | None = None,
) -> tuple[Problem, ...]:
    """Look for everything in a specification that cannot work.

    Args:
        pipeline: what was asked for.
        bundle_files: paths of the files and links in the bundle, relative to it; None when nobody
            knows them here, which leaves out the checks that need them.
        contents: the bundle as each layout lays it out; None as above.

    Returns:
        The problems in the order of the specification; none when it can be submitted.
    """
    problems = tuple(_problems(pipeline, bundle_files, contents or {}))
    # What cannot be cannot be measured either.
    return problems or tuple(_sizes(pipeline))


def _problems(
    pipeline: spec.Pipeline,
    bundle_files: Collection[str] | None,
    contents: Mapping[spec.Layout, BundleFiles],
) -> Iterator[Problem]:
    yield from _id(("name",), "pipeline", pipeline.name)
    yield from _labels(("labels",), pipeline.labels)
    if not pipeline.jobs:
        yield Problem(("jobs",), "there are none; a pipeline has at least one job")
    yield from _names_of_jobs(pipeline)
    for job in pipeline.jobs:
        at = ("jobs", job.name)
        yield from _local(job, at)
        yield from _program(job, at)
        yield from _numbers(job, at)
        yield from _ports(job, at)
        yield from _files(job, at)
        yield from _bundle(job, at, bundle_files)
        yield from _recipe(job, at, contents.get(job.layout))
    yield from _terminal(pipeline)
    yield from _streams(pipeline)
    yield from _unread_outputs(pipeline)
    yield from _cycles(pipeline)


def _sizes(pipeline: spec.Pipeline) -> Iterator[Problem]:
    """Check that a pipeline, and each of its jobs, fits into a message."""
    for job in pipeline.jobs:
        try:
            size = encode_job_spec(job).ByteSize()
        except UnicodeEncodeError as error:
            yield Problem(
                ("jobs", job.name),
                f"{error.object[:40]!r} holds half of a surrogate pair, which is no text; "
                "write the character itself",
            )
            return
        if size > limits.JOB_BYTES_MAX:
            yield Problem(
                ("jobs", job.name),
                f"it has {size} bytes, {limits.JOB_BYTES_MAX} at most; "
                "put what is long into a file of the bundle",
            )
    try:
        size = encode_pipeline_spec(pipeline).ByteSize()
    except UnicodeEncodeError as error:
        yield Problem(("labels",), f"{error.object[:40]!r} holds half of a surrogate pair")
        return
    if size > limits.SPEC_BYTES_MAX:
        yield Problem(
            ("jobs",),
            f"they have {size} bytes together, {limits.SPEC_BYTES_MAX} at most; "
            "put what is long into files of the bundle",
        )


def _labels(path: Path, labels: Mapping[str, str]) -> Iterator[Problem]:
    if len(labels) > limits.LABELS_MAX:
        yield Problem(path, f"there are {len(labels)}, {limits.LABELS_MAX} at most; leave some out")
    for key, value in labels.items():
        longest = max(len(key), len(value))
        if longest > limits.LABEL_CHARACTERS_MAX:
            yield Problem(
                (*path, key[:40]),
                f"it has {longest} characters, {limits.LABEL_CHARACTERS_MAX} at most; shorten it",
            )


# ---- one job ------------------------------------------------------------------------------------


def _id(path: Path, what: str, value: str) -> Iterator[Problem]:
    try:
        names.check_id(what, value)
    except names.InvalidNameError as error:
        yield Problem(path, str(error))


def _names_of_jobs(pipeline: spec.Pipeline) -> Iterator[Problem]:
    for name, count in Counter(job.name for job in pipeline.jobs).items():
        if count > 1:
            yield Problem(("jobs", name), f"{count} jobs have this name; give each its own")
    total = sum(max(1, job.replicas) for job in pipeline.jobs)
    if total > JOBS_MAX:
        yield Problem(
            ("jobs",),
            f"there are {total} jobs with their replicas; a pipeline has at most {JOBS_MAX}",
        )
        return
    owners: dict[str, str] = {}
    for job in pipeline.jobs:
        yield from _id(("jobs", job.name), "job", job.name)
        if job.name == CLIENT:
            yield Problem(
                ("jobs", job.name),
                f"{CLIENT!r} is the other end of the streams of local jobs; give it another name",
            )
        for replica in range(max(1, job.replicas)):
            replica_id = job.replica_id(replica)
            owner = owners.setdefault(replica_id, job.name)
            if owner != job.name:
                yield Problem(
                    ("jobs", job.name),
                    f"its replica {replica_id!r} has the name of a job or replica of {owner!r}; "
                    "rename one of the two",
                )
                break
        last = job.replica_id(max(0, job.replicas - 1))
        if names.ID_PATTERN.fullmatch(job.name) and not names.ID_PATTERN.fullmatch(last):
            yield Problem(
                ("jobs", job.name),
                f"its replica {last!r} has {len(last)} characters, 63 at most; shorten the name",
            )


def _local(job: spec.Job, at: Path) -> Iterator[Problem]:
    """Check what only a job beside the client has, or must not have."""
    if not job.local:
        return
    if not job.streams and not job.outputs:
        yield Problem(
            (*at, "local"),
            "a local job exchanges records with the pipeline, and this one has neither inputs nor "
            "outputs; give it one, or run the program yourself",
        )
    if not job.run and (job.streams or len(job.outputs) != 1):
        yield Problem(
            (*at, "run"),
            "a local job without `run` is fed by `shoal send`, so it has one output and no input; "
            "give it a program to run",
        )
    plain = spec.Job(job.name, job.run)
    for key, held in (
        ("replicas", job.replicas != plain.replicas),
        ("environment", job.environment != plain.environment),
        ("place", job.place != plain.place),
        ("resources", job.resources != plain.resources),
        ("retry", job.retry != plain.retry),
        ("timeout", job.timeout_seconds != plain.timeout_seconds),
        ("placement", job.placement != plain.placement),
        ("archive", job.archive != plain.archive),
        ("layout", job.layout != plain.layout),
        ("inputs", bool(job.files)),
        ("inputs", any(one.promise is spec.Promise.LATEST for one in job.streams)),
    ):
        if held:
            what = "file inputs and `promise: latest`" if key == "inputs" else f"`{key}`"
            yield Problem(
                (*at, key),
                f"a local job runs once, where the client is and as the client has it; "
                f"leave out {what}",
            )
    for kind, names_of in (("inputs", job.streams), ("outputs", job.outputs)):
        for port in names_of:
            if port.name.startswith("client-") or len(port.name) > _LOCAL_PORT_CHARACTERS:
                yield Problem(
                    (*at, kind, port.name),
                    "a port of a local job does not begin with client- and has at most "
                    f"{_LOCAL_PORT_CHARACTERS} characters; rename it",
                )


def _program(job: spec.Job, at: Path) -> Iterator[Problem]:
    if job.local and not job.run:
        return
    if not job.run or not job.run[0]:
        yield Problem((*at, "run"), "there is no program; write for example: run: python main.py")
    if any("\0" in word for word in job.run):
        yield Problem((*at, "run"), "it holds a NUL character, which no program can be given")
    size = len(json.dumps([job.run, dict(job.variables)]))
    if size > COMMAND_BYTES_MAX:
        yield Problem(
            (*at, "run"),
            f"the command and its variables have {size} bytes, {COMMAND_BYTES_MAX} at most; "
            "put the text into a file of the bundle",
        )
    yield from _placeholders(job, at)
    for variable, value in job.variables.items():
        if _VARIABLE.fullmatch(variable) is None:
            yield Problem(
                (*at, "variables", variable),
                f"{variable!r} is not the name of a variable; use letters, digits and underscores",
            )
        elif variable.startswith("SHOAL_"):
            yield Problem(
                (*at, "variables", variable),
                "names that begin with SHOAL_ are set by the system; choose another one",
            )
        if "\0" in value:
            yield Problem((*at, "variables", variable), "its value holds a NUL character")
    yield from _optional(job, at)
    yield from _latest(job, at)
    if job.recovery is spec.Recovery.RESUME:
        for stream in job.streams:
            if stream.merge is spec.Merge.ARRIVAL:
                yield Problem(
                    (*at, "inputs", stream.name, "merge"),
                    "a job with `recovery: resume` goes on at a round, and records that are "
                    "merged as they arrive have none; use `merge: ordered` or `recovery: restart`",
                )


def _optional(job: spec.Job, at: Path) -> Iterator[Problem]:
    optional = [stream for stream in job.streams if stream.optional is not None]
    if optional and len(optional) == len(job.streams):
        yield Problem(
            (*at, "inputs"),
            "rounds follow the inputs that are not optional, and there is none; leave out "
            "`optional: true` at one of them",
        )
    for stream in optional:
        path = (*at, "inputs", stream.name)
        if stream.binding != spec.PortBinding():
            yield Problem(
                (*path, "format"),
                "rounds are made by shoal.job, so an optional input has no other format and is "
                "not stdin; leave out `format` and `as`, or `optional: true`",
            )
        if stream.block_count > 1:
            yield Problem(
                (*path, "block_count"),
                "an optional input gives one record a round; leave out `block_count`",
            )
        if job.recovery is spec.Recovery.RESUME:
            yield Problem(
                (*path, "optional"),
                "which round an optional record came to is not known to a replacement; use "
                "`recovery: restart`",
            )


def _latest(job: spec.Job, at: Path) -> Iterator[Problem]:
    latest = [item for item in job.streams if item.promise is spec.Promise.LATEST]
    for stream in latest:
        path = (*at, "inputs", stream.name)
        if len(job.streams) > 1 and stream.optional is None:
            yield Problem(
                (*path, "promise"),
                "records of several inputs are paired by their number, and here some are dropped; "
                "add `optional: true`, or leave it the job's only stream",
            )
        if stream.block_count > 1:
            yield Problem(
                (*path, "block_count"),
                "between the records of a list some may have been dropped; leave out `block_count`",
            )
        if not 1 <= stream.keep <= KEEP_MAX:
            yield Problem(
                (*path, "keep"), f"{stream.keep} records cannot wait; write 1 to {KEEP_MAX}"
            )
        if job.recovery is spec.Recovery.RESUME and stream.optional is None:
            yield Problem(
                (*path, "promise"),
                "records that were dropped are not there for a replacement that goes on at a "
                "round; use `recovery: restart`",
            )


def _numbers(job: spec.Job, at: Path) -> Iterator[Problem]:
    resources, retry, longest = job.resources, job.retry, limits.DURATION_SECONDS_MAX
    # Too many replicas, or a `keep` out of range, are said of the whole pipeline and of `latest`.
    yield from _number((*at, "replicas"), job.replicas, math.inf, least=1)
    yield from _number((*at, "timeout"), job.timeout_seconds, longest)
    yield from _number((*at, "grace"), job.grace_seconds, longest, above=True)
    yield from _number((*at, "resources", "cpus"), resources.cpus, limits.CPUS_MAX, above=True)
    yield from _number((*at, "resources", "memory"), resources.memory_bytes, limits.INTEGER_MAX)
    if len(resources.devices) > limits.DEVICES_MAX:
        yield Problem(
            (*at, "resources", "devices"),
            f"there are {len(resources.devices)}, {limits.DEVICES_MAX} at most; leave some out",
        )
    path = (*at, "retry")
    yield from _number((*path, "attempts"), retry.attempts, limits.RETRY_ATTEMPTS_MAX, least=1)
    yield from _number((*path, "backoff"), retry.backoff_seconds, longest, above=True)
    yield from _number((*path, "backoff_limit"), retry.backoff_limit_seconds, longest, above=True)
    for stream in job.streams:
        path = (*at, "inputs", stream.name)
        most = limits.BLOCK_COUNT_MAX
        yield from _number((*path, "block_count"), stream.block_count, most, least=1)
        if stream.optional is not None:
            yield from _number((*path, "buffer"), stream.optional.buffer, limits.BUFFER_MAX)
            if problem := json_problem(stream.optional.default_json):
                yield Problem(
                    (*path, "default"), f"{stream.optional.default_json[:40]!r} {problem}"
                )


def _number(
    path: Path, value: float, most: float, *, least: int = 0, above: bool = False
) -> Iterator[Problem]:
    if math.isfinite(value) and least <= value <= most and (value > 0 or not above):
        return
    low = "more than 0" if above else f"{least} or more"
    # Years of seconds, or bytes without end, are hard to read.
    high = "" if most == math.inf else f" and {most:.0f} at most"
    yield Problem(path, f"{value} is not allowed; it has to be {low}{high}")


def _ports(job: spec.Job, at: Path) -> Iterator[Problem]:
    inputs = [*(item.name for item in job.streams), *(item.name for item in job.files)]
    outputs = [item.name for item in job.outputs]
    for kind, found in (("inputs", inputs), ("outputs", outputs)):
        for name, count in Counter(found).items():
            yield from _id((*at, kind, name), "port", name)
            if count > 1:
                yield Problem(
                    (*at, kind, name), f"{count} {kind} have this name; give each its own"
                )
    fifo = spec.PortAttachment.FIFO
    paths = {item.name for item in job.streams if item.binding.attachment is fifo}
    for output in job.outputs:
        if output.binding.attachment is fifo and output.name in paths:
            yield Problem(
                (*at, "outputs", output.name),
                f"an input of the job is called {output.name!r}, too, and both are FIFOs of that "
                f"name; give the output another one, such as {f'{output.name}-out'!r}",
            )
    bindings = [
        *(((*at, "inputs", item.name), item.binding) for item in job.streams),
        *(((*at, "outputs", item.name), item.binding) for item in job.outputs),
    ]
    for path, binding in bindings:
        yield from _binding((*path, "format"), binding)
    for output in job.outputs:
        yield from _key((*at, "outputs", output.name, "key"), output)
    most = PORTS_MAX // 2 if job.local else PORTS_MAX
    if len(bindings) > most:
        yield Problem(
            at,
            f"{'a local job' if job.local else 'a job'} has at most {most} ports, and this one has "
            f"{len(bindings)}; send several kinds of records through one port, or split the job",
        )
    yield from _stdio(job, at)


def _placeholders(job: spec.Job, at: Path) -> Iterator[Problem]:
    ports = {
        "inputs": {stream.name: stream.binding for stream in job.streams},
        "outputs": {output.name: output.binding for output in job.outputs},
    }
    for direction, port, kind in (
        found for word in job.run for found in _PLACEHOLDER.findall(word)
    ):
        binding = ports[direction].get(port)
        mark = f"{{{direction}.{port}.{kind}}}"
        if binding is None:
            yield Problem(
                (*at, "run"),
                f"{mark} names no port of the job's {direction}; "
                f"{did_you_mean(port, ports[direction])}",
            )
        elif (binding.attachment is spec.PortAttachment.FIFO) != (kind == "path"):
            other = "path" if kind == "fd" else "fd"
            yield Problem(
                (*at, "run"),
                f"{mark} does not fit, because the port is {'a FIFO' if kind == 'fd' else 'no FIFO'}; "
                f"write {{{direction}.{port}.{other}}}, or give the port "
                f"`as: {'fd' if kind == 'fd' else 'fifo'}`",
            )


def _binding(path: Path, binding: spec.PortBinding) -> Iterator[Problem]:
    if binding.format is spec.PortFormat.BYTES:
        if not 1 <= binding.record_bytes <= limits.RECORD_BYTES_MAX:
            yield Problem(
                path,
                f"a record of bytes:{binding.record_bytes} is not possible; "
                f"use 1 to {limits.RECORD_BYTES_MAX} bytes",
            )
    elif binding.record_bytes:
        yield Problem(path, f"{binding.format.value} has no record size; use bytes:N")
    if binding.attachment is spec.PortAttachment.FIFO and binding.format is spec.PortFormat.BLOCKS:
        yield Problem(
            path,
            "blocks go both ways, and a FIFO carries plain bytes in one; give the port a format: "
            "lines, jsonl, u32 or bytes:N",
        )


def _key(path: Path, output: spec.Output) -> Iterator[Problem]:
    if not output.key:
        return
    if output.distribute is not spec.Distribute.KEY:
        yield Problem(path, "only `distribute: key` spreads records by a key; add it")
    match output.binding.format:
        case spec.PortFormat.JSONL:
            pass
        case spec.PortFormat.LINES:
            if not (output.key.isascii() and output.key.isdecimal() and int(output.key)):
                yield Problem(
                    path,
                    f"{output.key!r} is no field of a line; write its number, from 1, "
                    "or leave it out for the whole line",
                )
        case spec.PortFormat.BLOCKS:
            yield Problem(
                path,
                "agents do not look into records; send with a key, as in "
                '`port.send(value, key="cam-3")`, and leave this out',
            )
        case _:
            yield Problem(path, "such a record has no parts, so all of it is the key; leave it out")


def _stdio(job: spec.Job, at: Path) -> Iterator[Problem]:
    stdio = spec.PortAttachment.STDIO
    readers = [item.name for item in job.streams if item.binding.attachment is stdio]
    writers = [item.name for item in job.outputs if item.binding.attachment is stdio]
    if len(readers) > 1:
        yield Problem(
            (*at, "inputs", readers[1], "as"),
            f"the inputs {_and(readers)} are all on stdin; leave one, and give the others `as: fd`",
        )
    if readers and job.stdin:
        yield Problem(
            (*at, "stdin"),
            f"the input {readers[0]!r} is on stdin already; "
            "leave `stdin` out, or give the input `as: fd`",
        )
    if len(writers) > 1:
        yield Problem(
            (*at, "outputs", writers[1], "as"),
            f"the outputs {_and(writers)} are all on stdout; "
            "leave one, and give the others `as: fd`",
        )


def _files(job: spec.Job, at: Path) -> Iterator[Problem]:
    taken: dict[PurePosixPath, str] = {}
    for file in job.files:
        path = (*at, "inputs", file.name)
        yield from _relative((*path, "path"), file.path)
        yield from _hash((*path, "sha256"), file.sha256)
        yield from _source((*path, "source"), file.source)
        other = taken.setdefault(PurePosixPath(file.path), file.name)
        if other != file.name:
            yield Problem(
                (*path, "path"),
                f"the input {other!r} is fetched to {file.path!r} too; choose another path",
            )
    if not job.archive:
        yield Problem(
            (*at, "archive"),
            "the list is empty; name what to keep, or leave it out to keep `results/**`",
        )
    for pattern in job.archive:
        yield from _relative((*at, "archive"), pattern)


def _source(path: Path, source: str) -> Iterator[Problem]:
    if not source:
        yield Problem(path, "it is empty; write s3://bucket/key, https://… or a key of the archive")
        return
    if _SCHEME.match(source) is None:
        if problem := relative_path_problem(source):
            yield Problem(path, f"{source!r} {problem}, s3://bucket/key or https://…")
        return
    try:
        parts = urlsplit(source)
    except ValueError as error:
        yield Problem(path, f"{source!r} is not an address: {error}")
        return
    if parts.scheme not in {"s3", "http", "https"}:
        yield Problem(
            path,
            f"{source!r} cannot be fetched; write s3://bucket/key, https://… "
            "or a key of the archive",
        )
    elif not parts.netloc or not parts.path.strip("/"):
        wanted = "s3://bucket/key" if parts.scheme == "s3" else f"{parts.scheme}://host/path"
        yield Problem(path, f"{source!r} is incomplete; write {wanted}")


def _relative(path: Path, value: str) -> Iterator[Problem]:
    if problem := relative_path_problem(value):
        yield Problem(path, f"{value!r} {problem}")


def _hash(path: Path, value: str) -> Iterator[Problem]:
    if value and _SHA256.fullmatch(value) is None:
        yield Problem(path, f"{value!r} is not a SHA-256; write 64 lower-case hex digits")


def _bundle(job: spec.Job, at: Path, files: Collection[str] | None) -> Iterator[Problem]:
    wanted: list[tuple[Path, str]] = []
    for index, step in enumerate(job.environment.steps):
        path = (*at, "environment", "steps", str(index))
        match step:
            case spec.RequirementsStep(name):
                wanted.append(((*path, "requirements"), name))
            case spec.WheelStep(name):
                wanted.append(((*path, "wheel"), name))
            case spec.ConstraintsStep(name):
                wanted.append(((*path, "constraints"), name))
            case spec.UrlStep(url, sha256):
                if not url.startswith(("https://", "http://")):
                    yield Problem((*path, "url"), f"{url!r} is not an http:// or https:// address")
                yield from _hash((*path, "sha256"), sha256)
            case spec.PipStep(arguments):
                if not arguments:
                    yield Problem((*path, "pip"), "the list is empty; give pip's arguments")
    if job.stdin and not (job.local and job.stdin == spec.TERMINAL):
        wanted.append(((*at, "stdin"), job.stdin))
    flat = job.layout is spec.Layout.FLAT
    if files is not None and flat:
        yield from _flat(at, files)
        files = {PurePosixPath(file).name for file in files}
    for path, name in wanted:
        if problem := relative_path_problem(name):
            yield Problem(path, f"{name!r} {problem}")
        elif files is not None and str(PurePosixPath(name)) not in files:
            remedy = did_you_mean(name, files) if files else "set `bundle` to the folder it is in"
            yield Problem(path, f"the bundle has no file {name!r}; {remedy}")


def _recipe(job: spec.Job, at: Path, bundle: BundleFiles | None) -> Iterator[Problem]:
    named = {
        step.path
        for step in job.environment.steps
        if isinstance(step, spec.RequirementsStep | spec.WheelStep | spec.ConstraintsStep)
    }
    for problem in ingredients(job.environment.steps, bundle).problems:
        # What a step itself names was looked for above, with a remedy that knows the other names.
        if problem.name not in named:
            yield Problem((*at, "environment", "steps", str(problem.step)), problem.message)


def _flat(at: Path, files: Iterable[str]) -> Iterator[Problem]:
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        by_name[PurePosixPath(file).name].append(file)
    for same in by_name.values():
        if len(same) > 1:
            yield Problem(
                (*at, "layout"),
                f"{_and(same)} would be one file in a flat folder; rename or exclude all but one",
            )


# ---- between jobs -------------------------------------------------------------------------------


def _terminal(pipeline: spec.Pipeline) -> Iterator[Problem]:
    """Check that one job at most reads the standard input of the client."""
    first = ""
    for job in pipeline.jobs:
        if job.stdin != spec.TERMINAL or not job.local:
            continue
        if first:
            yield Problem(
                ("jobs", job.name, "stdin"),
                f"the job {first!r} reads the terminal already, and there is one; leave one of them",
            )
        first = first or job.name


def _streams(pipeline: spec.Pipeline) -> Iterator[Problem]:
    jobs = {job.name: job for job in pipeline.jobs}
    lanes = 0
    for job in pipeline.jobs:
        for stream in job.streams:
            path = ("jobs", job.name, "inputs", stream.name)
            producer = jobs.get(stream.job)
            if producer is None:
                yield Problem(
                    (*path, "from"),
                    f"there is no job {stream.job!r}; {did_you_mean(stream.job, jobs)}",
                )
                continue
            outputs = {output.name: output for output in producer.outputs}
            output = outputs.get(stream.port)
            if output is None:
                yield Problem(
                    (*path, "from"),
                    f"the job {producer.name!r} has no output {stream.port!r}; "
                    f"{did_you_mean(stream.port, outputs)}",
                )
                continue
            lanes += max(1, producer.replicas) * max(1, job.replicas)
            yield from _formats((*path, "format"), producer, output, stream)
            yield from _by_key(path, producer, output, job, stream)
            if (
                stream.promise is spec.Promise.LATEST
                and producer.replicas > 1
                and stream.merge is spec.Merge.ORDERED
            ):
                yield Problem(
                    (*path, "merge"),
                    f"the {producer.replicas} replicas of {producer.name!r} take no turns where "
                    "records are dropped; use `merge: arrival`",
                )
    if lanes > LANES_MAX:
        yield Problem(
            ("jobs",),
            f"its replicas need {lanes} streams, {LANES_MAX} at most; use fewer replicas",
        )


def _formats(
    path: Path, producer: spec.Job, output: spec.Output, stream: spec.StreamInput
) -> Iterator[Problem]:
    written, read = output.binding.format_name, stream.binding.format_name
    blocks = spec.PortFormat.BLOCKS.value
    if written != read and blocks not in {written, read}:
        yield Problem(
            path,
            f"{producer.name}.{output.name} writes {written} and this input reads {read}; "
            f"use one format at both ends, or {blocks} at one of them",
        )


def _by_key(
    path: Path,
    producer: spec.Job,
    output: spec.Output,
    consumer: spec.Job,
    stream: spec.StreamInput,
) -> Iterator[Problem]:
    if output.distribute is not spec.Distribute.KEY or consumer.replicas <= 1:
        return
    source = f"{producer.name}.{output.name}"
    if producer.recovery is spec.Recovery.RESUME:
        yield Problem(
            ("jobs", producer.name, "recovery"),
            f"{source} is spread by key over {consumer.replicas} replicas of {consumer.name!r}, "
            "which does not tell at which round a replacement would go on; use "
            "`recovery: restart`, or `distribute: round-robin`",
        )
    if producer.replicas > 1 and stream.merge is spec.Merge.ORDERED:
        yield Problem(
            (*path, "merge"),
            f"{source} is spread by key, so its {producer.replicas} replicas take no turns; "
            "use `merge: arrival`, or one replica",
        )


def _unread_outputs(pipeline: spec.Pipeline) -> Iterator[Problem]:
    read = {(stream.job, stream.port) for job in pipeline.jobs for stream in job.streams}
    for job in pipeline.jobs:
        for output in job.outputs:
            if (job.name, output.name) not in read:
                yield Problem(
                    ("jobs", job.name, "outputs", output.name),
                    "no job reads this output; "
                    f"give one an input `from: {job.name}.{output.name}`, or remove it",
                )


def _cycles(pipeline: spec.Pipeline) -> Iterator[Problem]:
    """Find one loop for each group of jobs that wait for each other."""
    jobs = {job.name: job for job in pipeline.jobs}
    readers: dict[str, list[str]] = {name: [] for name in jobs}
    for job in jobs.values():
        for stream in job.streams:
            if stream.job in jobs:
                readers[stream.job].append(job.name)
    for loop in _loops(readers):
        first = jobs[loop[0]]
        stream = next(item for item in first.streams if item.job == loop[-1])
        yield Problem(
            ("jobs", first.name, "inputs", stream.name, "from"),
            f"the jobs wait for each other: {' → '.join([*loop, loop[0]])}; remove one stream",
        )


def _loops(edges: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail: list[str] = [start]
        on_trail = {start}
        rest = [iter(edges[start])]
        while trail:
            following = next(rest[-1], None)
            if following is None:
                rest.pop()
                last = trail.pop()
                on_trail.discard(last)
                done.add(last)
            elif following in on_trail:
                yield trail[trail.index(following) :]
            elif following not in done:
                trail.append(following)
                on_trail.add(following)
                rest.append(iter(edges[following]))


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"

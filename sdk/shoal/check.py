"""What has to hold between the parts of a specification: every violation at once, each with a remedy.

The command uses it before it submits, the controller before it records.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from shoal import limits, names, spec
from shoal.checks.compat import compat_problems
from shoal.checks.job import job_problems
from shoal.checks.ports import port_problems
from shoal.checks.problem import Path, Problem, id_problems
from shoal.limits import JOBS_MAX, LANES_MAX
from shoal.parameter import ParameterValue, name_problem, value_problem
from shoal.portal_names import CLIENT
from shoal.recipe import BundleFiles
from shoal.suggestion import did_you_mean
from shoal.wire.known_specs import encode_known_spec
from shoal.wire.spec import encode_job_spec


def check_pipeline(
    pipeline: spec.Pipeline,
    bundle_files: Collection[str] | None = None,
    contents: Mapping[spec.Layout, BundleFiles] | None = None,
) -> tuple[Problem, ...]:
    """Look for everything in a specification that cannot work.

    Args:
        pipeline: what was asked for.
        bundle_files: paths of the files and links in the bundle, relative to it; None when they are
            not known here, which leaves out the checks that need them.
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
    yield from id_problems(("name",), "pipeline", pipeline.name)
    yield from _labels(("labels",), pipeline.labels)
    yield from _parameters(("parameters",), pipeline.parameters)
    if pipeline.compat is not None:
        yield from compat_problems(pipeline.compat, pipeline.jobs)
    if not pipeline.jobs:
        yield Problem(("jobs",), "there are none; a pipeline has at least one job")
    yield from _names_of_jobs(pipeline)
    for job in pipeline.jobs:
        at = ("jobs", job.name)
        yield from job_problems(job, at, bundle_files, contents.get(job.layout))
        yield from port_problems(job, at)
    yield from _terminal(pipeline)
    yield from _streams(pipeline)
    yield from _unread_outputs(pipeline)
    yield from _cycles(pipeline)


def _sizes(pipeline: spec.Pipeline) -> Iterator[Problem]:
    """Check that a pipeline, and each of its jobs, fits into a message."""
    try:
        message = encode_known_spec(pipeline)
    except UnicodeEncodeError:
        yield from _half_characters(pipeline)
        return
    size = message.ByteSize()
    if size > limits.JOB_BYTES_MAX:  # or no job of it can be larger
        for job in message.jobs:
            if job.ByteSize() > limits.JOB_BYTES_MAX:
                yield Problem(
                    ("jobs", job.name),
                    f"it has {job.ByteSize()} bytes, {limits.JOB_BYTES_MAX} at most; "
                    "put what is long into a file of the bundle",
                )
    if size > limits.SPEC_BYTES_MAX:
        yield Problem(
            ("jobs",),
            f"they have {size} bytes together, {limits.SPEC_BYTES_MAX} at most; "
            "put what is long into files of the bundle",
        )


def _half_characters(pipeline: spec.Pipeline) -> Iterator[Problem]:
    """Say where a text is that no message can carry."""
    for job in pipeline.jobs:
        try:
            encode_job_spec(job)
        except UnicodeEncodeError as error:
            yield Problem(
                ("jobs", job.name),
                f"{error.object[:40]!r} holds half of a surrogate pair, which is no text; "
                "write the character itself",
            )
            return
    try:
        encode_known_spec(pipeline)
    except UnicodeEncodeError as error:
        yield Problem(("labels",), f"{error.object[:40]!r} holds half of a surrogate pair")


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


def _parameters(path: Path, values: Mapping[str, ParameterValue]) -> Iterator[Problem]:
    if len(values) > limits.PARAMETERS_MAX:
        yield Problem(
            path, f"there are {len(values)}, {limits.PARAMETERS_MAX} at most; leave some out"
        )
    for name, value in values.items():
        if problem := name_problem(name):
            yield Problem((*path, name[:40]), f"{name[:40]!r} {problem}")
        if problem := value_problem(value):
            yield Problem((*path, name[:40]), f"its value {problem}")


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
        yield from id_problems(("jobs", job.name), "job", job.name)
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
    if not any(job.streams for job in pipeline.jobs):
        return
    jobs = {job.name: job for job in pipeline.jobs}
    sources = {
        name: [stream.job for stream in job.streams if stream.job in jobs]
        for name, job in jobs.items()
    }
    while loop := _loop(sources):
        first = jobs[loop[0]]
        stream = next(item for item in first.streams if item.job == loop[-1])
        yield Problem(
            ("jobs", first.name, "inputs", stream.name, "from"),
            f"the jobs wait for each other: {' → '.join([*loop, loop[0]])}; remove one stream",
        )
        for name in loop:
            del sources[name]


def _loop(sources: Mapping[str, Sequence[str]]) -> list[str]:
    """Return jobs of which each reads from the one before, and the first from the last."""
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        return list(error.args[1][:-1])
    return []

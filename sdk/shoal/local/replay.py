"""A pipeline in which recordings stand in for the jobs that sent them."""

from collections.abc import Sequence
from dataclasses import replace

from shoal import bundle, spec
from shoal.check import check_pipeline
from shoal.errors import ShoalError
from shoal.local.port_file import PortFile
from shoal.local.record_file import RecordFile, RecordFileError


class ReplayError(ShoalError):
    """A recording that cannot stand in for a job; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__("REPLAY", message)


def replayed(
    pipeline: spec.Pipeline, recordings: Sequence[PortFile], pace: str
) -> tuple[spec.Pipeline, tuple[bundle.Entry, ...]]:
    """Put recordings in the place of jobs, and leave out the jobs that only those read.

    Args:
        pipeline: what was specified.
        recordings: complete recordings, one for each output of a job that is replaced.
        pace: `fast`, or `original` for the pace at which they were recorded.

    Returns:
        The pipeline, and the files that its bundle needs besides.

    Raises:
        ReplayError: A recording is not complete or does not fit, or a job lacks one.
    """
    jobs = {job.name: job for job in pipeline.jobs}
    for recording in recordings:
        _check(jobs, recording)
    wanted = {recording.job for recording in recordings}
    replaced = [
        _source(job, [one for one in recordings if one.job == job.name], pace)
        if job.name in wanted
        else job
        for job in pipeline.jobs
    ]
    left = replace(pipeline, jobs=tuple(_read_by_others(replaced)))
    problems = check_pipeline(left)
    if problems:
        where = ".".join(problems[0].path)
        raise ReplayError(f"with the recordings, {where}: {problems[0].message}")
    entries = tuple(bundle.file_entry(_bundled(one), one.path.resolve()) for one in recordings)
    return left, entries


def _bundled(recording: PortFile) -> str:
    """Name a recording in the bundle."""
    return f"replay-{recording.name}.records"


def _check(jobs: dict[str, spec.Job], recording: PortFile) -> None:
    job = jobs.get(recording.job)
    if job is None or recording.port not in {output.name for output in job.outputs}:
        known = [f"{one.name}.{output.name}" for one in jobs.values() for output in one.outputs]
        raise ReplayError(f"there is no output {recording.name}; there are {', '.join(known)}")
    if job.replicas > 1:
        raise ReplayError(
            f"{job.name} has {job.replicas} replicas, and a recording is of one; give it one replica"
        )
    try:
        file = RecordFile(recording.path, writable=False)
    except RecordFileError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ReplayError(
            f"{recording.path} cannot be read: {error.__cause__.strerror}; make it with: shoal record "
            f"PIPELINE {recording.name} -o {recording.path}"
        ) from error
    file.close()
    if file.total is None:
        raise ReplayError(f"{recording.path} has no end: the recording was not completed")


def _source(job: spec.Job, recordings: Sequence[PortFile], pace: str) -> spec.Job:
    missing = {output.name for output in job.outputs} - {one.port for one in recordings}
    if missing:
        ports = ", ".join(f"{job.name}.{port}" for port in sorted(missing))
        raise ReplayError(f"{job.name} sends {ports} too; replay a recording of that as well")
    return spec.Job(
        name=job.name,
        run=(
            *("python", "-m", "shoal.job.replay", "--pace", pace),
            *(f"{one.port}={_bundled(one)}" for one in recordings),
        ),
        outputs=tuple(
            replace(
                output,
                binding=replace(output.binding, attachment=spec.PortAttachment.FD),
            )
            for output in job.outputs
        ),
        resources=spec.Resources(job.resources.cpus),
    )


def _read_by_others(jobs: Sequence[spec.Job]) -> list[spec.Job]:
    """Leave out jobs whose outputs no job reads any more, and then those that only they read."""
    left = list(jobs)
    while True:
        read = {(stream.job, stream.port) for job in left for stream in job.streams}
        kept = [
            job
            for job in left
            if not job.outputs or any((job.name, output.name) in read for output in job.outputs)
        ]
        if len(kept) == len(left):
            return kept
        left = kept

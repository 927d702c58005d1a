"""What has to hold of folder inputs before it is known which files they have."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from shoal import names, spec
from shoal.checks.problem import Path, Problem
from shoal.placed_folder import FOLDER_PLACE
from shoal.suggestion import did_you_mean
from shoal.wire.fields import relative_path_problem

_PREFIX = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.*)", re.DOTALL)


def folder_problems(job: spec.Job, at: Path) -> Iterator[Problem]:
    """Yield what is wrong with the folder inputs of a job, and with words that name files of them."""
    for folder in job.folders:
        yield from _folder(folder, (*at, "inputs", folder.name))
    yield from _places(job, at)


def _folder(folder: spec.FolderInput, path: Path) -> Iterator[Problem]:
    if bool(folder.prefix) == bool(folder.artifacts):
        yield Problem(path, "it has to name either `prefix` or `artifacts`")
    elif folder.prefix:
        yield from _prefix((*path, "prefix"), folder.prefix)
    else:
        yield from _artifacts((*path, "artifacts"), folder.artifacts)
    if folder.path != "." and (problem := relative_path_problem(folder.path)):
        yield Problem((*path, "path"), f"{folder.path!r} {problem}")
    for pattern in folder.patterns:
        if problem := relative_path_problem(pattern):
            yield Problem((*path, "pattern"), f"{pattern!r} {problem}")
    if folder.entry and (problem := relative_path_problem(folder.entry)):
        yield Problem((*path, "entry"), f"{folder.entry!r} {problem}")


def _prefix(path: Path, prefix: str) -> Iterator[Problem]:
    found = _PREFIX.fullmatch(prefix)
    if found is None:
        yield Problem(path, f"{prefix!r} is no prefix in a bucket; write s3://bucket/folder/")
    elif found[2] and not prefix.endswith("/"):
        yield Problem(
            path,
            f"{prefix!r} would take what only begins like it, too; end it with a slash: "
            f"{prefix + '/'!r}",
        )


def _artifacts(path: Path, artifacts: str) -> Iterator[Problem]:
    pipeline, slash, job = artifacts.partition("/")
    try:
        names.check_id("pipeline", pipeline)
        names.check_id("job", job)
    except names.InvalidNameError as error:
        wanted = "write PIPELINE/JOB such as train-3f9a1c/fit, both as `shoal status` shows them"
        yield Problem(path, f"{artifacts!r}: {error}; {wanted}" if slash else
                      f"{artifacts!r} names no job of a pipeline; {wanted}")  # fmt: skip


def _places(job: spec.Job, at: Path) -> Iterator[Problem]:
    known = [folder.name for folder in job.folders]
    words = [((*at, "run"), word) for word in job.run]
    for index, step in enumerate(job.environment.steps):
        if isinstance(step, spec.RequirementsStep | spec.WheelStep | spec.ConstraintsStep):
            words.append(((*at, "environment", "steps", str(index)), step.path))
    for path, word in words:
        for name, kind in FOLDER_PLACE.findall(word):
            if name not in known:
                yield Problem(
                    path,
                    f"{{inputs.{name}.{kind}}} names no folder input of the job; "
                    + (did_you_mean(name, known) if known else
                       "write one as `inputs: {NAME: {prefix: s3://bucket/folder/}}`"),
                )  # fmt: skip
            elif kind == "requirements" and path[-1] == "run":
                yield Problem(
                    path,
                    f"{{inputs.{name}.requirements}} is for the environment; write it as "
                    f"`environment: {{requirements: '{{inputs.{name}.requirements}}'}}`",
                )


def named_by_place(path: str) -> bool:
    """Whether a step of an environment names a file by what it is to a folder input."""
    return FOLDER_PLACE.search(path) is not None


def may_bring(job: spec.Job, name: str) -> bool:
    """Whether a file of the job's folder is a file input, or may be one of a folder input."""
    pure = PurePosixPath(name)
    if any(pure == PurePosixPath(file.path) for file in job.files):
        return True
    return any(pure.is_relative_to(folder.path) for folder in job.folders)

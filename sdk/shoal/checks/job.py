"""What has to hold of a job: its program, its numbers, its files and the recipe of its environment.

Pure but for lists of requirements, which are read from the bundle that it is given.
"""

import json
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from shoal import limits, spec
from shoal.checks.folders import folder_problems, may_bring, named_by_place
from shoal.checks.problem import Path, Problem, and_, number_problems
from shoal.checks.program_file import program_file
from shoal.limits import COMMAND_BYTES_MAX
from shoal.recipe import BundleFiles, ingredients
from shoal.redaction import HIDDEN, redacted
from shoal.sandbox import Claim, SandboxLevel, SandboxNetwork
from shoal.secret import JOB_SECRETS_MAX, secret_name_problem
from shoal.suggestion import did_you_mean
from shoal.wire.fields import json_problem, relative_path_problem

_LOCAL_PORT_CHARACTERS = 56
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_BOARDS = (
    "replicas",
    "environment",
    "place",
    "resources",
    "retry",
    "timeout_seconds",
    "placement",
    "archive",
    "archive_on",
    "layout",
    "secrets",
    "sandbox",
)
"""Fields of a job that say how it is run on a board."""
_CLAIM_EXAMPLES = {Claim.MEMORY: "512MiB", Claim.PROCESSES: "64", Claim.DISK: "1GiB"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def job_problems(
    job: spec.Job, at: Path, files: Collection[str] | None, bundle: BundleFiles | None
) -> Iterator[Problem]:
    """Yield what is wrong with a job by itself, its ports left out; see `check_pipeline`."""
    yield from _local(job, at)
    yield from _program(job, at)
    yield from _secrets(job, at)
    yield from _numbers(job, at)
    yield from _sandbox(job, at)
    yield from _files(job, at)
    yield from folder_problems(job, at)
    yield from _bundle(job, at, files)
    yield from _recipe(job, at, bundle)


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
    held = [
        (name.removesuffix("_seconds"), f"`{name.removesuffix('_seconds')}`")
        for name in _OF_BOARDS
        if getattr(job, name) != getattr(plain, name)
    ]
    if job.files or job.folders or any(one.promise is spec.Promise.LATEST for one in job.streams):
        held.append(("inputs", "file inputs and `promise: latest`"))
    for key, what in held:
        yield Problem(
            (*at, key),
            f"a local job runs once, where the client is and as the client has it; leave out {what}",
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
    for variable, value in job.variables.items():
        path = (*at, "variables", variable)
        yield from _variable(path, variable)
        if "\0" in value:
            yield Problem(path, "its value holds a NUL character")


def _variable(path: Path, variable: str) -> Iterator[Problem]:
    if _VARIABLE.fullmatch(variable) is None:
        yield Problem(
            path,
            f"{variable!r} is not the name of a variable; use letters, digits and underscores",
        )
    elif variable.startswith("SHOAL_"):
        yield Problem(
            path, "names that begin with SHOAL_ are set by the system; choose another one"
        )


def _secrets(job: spec.Job, at: Path) -> Iterator[Problem]:
    """Check what a job says of its secrets; whether they were set shows at the submission."""
    if len(job.secrets) > JOB_SECRETS_MAX:
        yield Problem(
            (*at, "secrets"),
            f"there are {len(job.secrets)}, {JOB_SECRETS_MAX} at most; put several values into one",
        )
    taken: set[str] = set()
    for use in job.secrets:
        path = (*at, "secrets", use.variable)
        yield from _variable(path, use.variable)
        if problem := secret_name_problem(use.name):
            yield Problem(path, problem)
        if use.variable in job.variables:
            yield Problem(
                path, "`variables` has a value for it, too; leave out one of them, or rename it"
            )
        if use.variable in taken:
            yield Problem(path, "it is there twice; give each secret a variable of its own")
        taken.add(use.variable)


def _numbers(job: spec.Job, at: Path) -> Iterator[Problem]:
    resources, retry, longest = job.resources, job.retry, limits.DURATION_SECONDS_MAX
    # Too many replicas, or a `keep` out of range, are said of the whole pipeline and of `latest`.
    yield from number_problems((*at, "replicas"), job.replicas, math.inf, least=1)
    yield from number_problems((*at, "timeout"), job.timeout_seconds, longest)
    yield from number_problems((*at, "grace"), job.grace_seconds, longest, above=True)
    yield from number_problems(
        (*at, "resources", "cpus"), resources.cpus, limits.CPUS_MAX, above=True
    )
    yield from number_problems(
        (*at, "resources", "memory"), resources.memory_bytes, limits.INTEGER_MAX
    )
    yield from number_problems(
        (*at, "resources", "processes"), resources.processes, limits.PROCESSES_MAX
    )
    yield from number_problems((*at, "resources", "disk"), resources.disk_bytes, limits.INTEGER_MAX)
    if len(resources.devices) > limits.DEVICES_MAX:
        yield Problem(
            (*at, "resources", "devices"),
            f"there are {len(resources.devices)}, {limits.DEVICES_MAX} at most; leave some out",
        )
    path = (*at, "retry")
    yield from number_problems(
        (*path, "attempts"), retry.attempts, limits.RETRY_ATTEMPTS_MAX, least=1
    )
    yield from number_problems((*path, "backoff"), retry.backoff_seconds, longest, above=True)
    yield from number_problems(
        (*path, "backoff_limit"), retry.backoff_limit_seconds, longest, above=True
    )
    for stream in job.streams:
        path = (*at, "inputs", stream.name)
        most = limits.BLOCK_COUNT_MAX
        yield from number_problems((*path, "block_count"), stream.block_count, most, least=1)
        if stream.optional is not None:
            yield from number_problems((*path, "buffer"), stream.optional.buffer, limits.BUFFER_MAX)
            if problem := json_problem(stream.optional.default_json):
                yield Problem(
                    (*path, "default"), f"{stream.optional.default_json[:40]!r} {problem}"
                )


def _sandbox(job: spec.Job, at: Path) -> Iterator[Problem]:
    asked = job.sandbox
    if asked.network is SandboxNetwork.NONE and asked.level is not SandboxLevel.CONFINED:
        yield Problem(
            (*at, "sandbox", "network"),
            "a network of its own needs namespaces of its own; write "
            "`sandbox: {level: confined, network: none}`",
        )
    claimed = {
        Claim.CPUS: True,  # one core, where nothing is said
        Claim.MEMORY: job.resources.memory_bytes,
        Claim.PROCESSES: job.resources.processes,
        Claim.DISK: job.resources.disk_bytes,
    }
    for claim in (one for one in Claim if one in asked.enforce and not claimed[one]):
        yield Problem(
            (*at, "sandbox", "enforce"),
            f"the job claims no {claim.value}, so nothing can bind it; add it to `resources`, such as "
            f"`resources: {{{claim.value}: {_CLAIM_EXAMPLES[claim]}}}`, or leave it out",
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
            case spec.UrlStep(url, sha256):
                if not url.startswith(("https://", "http://")):
                    yield Problem((*path, "url"), f"{url!r} is not an http:// or https:// address")
                yield from _hash((*path, "sha256"), sha256)
            case spec.PipStep(arguments):
                if not arguments:
                    yield Problem((*path, "pip"), "the list is empty; give pip's arguments")
                for word in arguments:
                    if f"{HIDDEN}@" in redacted(word):
                        yield Problem(
                            (*path, "pip"),
                            f"{redacted(word)!r} has a password in it, which would stand in views and "
                            "logs; leave user and password out, and let the operator of the nodes give "
                            "them with --index-credentials",
                        )
            case _:
                wanted += [
                    ((*path, kind), step.path)
                    for kind, known in spec.FILE_STEPS.items()
                    if isinstance(step, known)
                ]
    if job.stdin and not (job.local and job.stdin == spec.TERMINAL):
        wanted.append(((*at, "stdin"), job.stdin))
    flat = job.layout is spec.Layout.FLAT
    if files is not None and flat:
        yield from _flat(at, files)
        files = {PurePosixPath(file).name for file in files}
    if files is not None and not job.local:
        wanted += _script(job, at, files)
    for path, name in wanted:
        if named_by_place(name):
            continue  # which file it is shows at the submission
        if problem := relative_path_problem(name):
            yield Problem(path, f"{name!r} {problem}")
        elif (
            files is not None and str(PurePosixPath(name)) not in files and not may_bring(job, name)
        ):
            remedy = did_you_mean(name, files) if files else "set `bundle` to the folder it is in"
            yield Problem(path, f"the bundle has no file {name!r}; {remedy}")


def _script(job: spec.Job, at: Path, files: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield the program or script of the command, unless it is there by another way."""
    name = program_file(job.run)
    path = posixpath.normpath(name)
    # What lies behind a link to a folder is not among the names of the bundle.
    around = {str(parent) for parent in PurePosixPath(path).parents}
    fetched = {posixpath.normpath(file.path) for file in job.files}
    if name and path not in fetched and around.isdisjoint(files):
        yield (*at, "run"), path


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
                f"{and_(same)} would be one file in a flat folder; rename or exclude all but one",
            )

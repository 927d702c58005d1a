"""One command as a pipeline of one job."""

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shoal import bundle, spec
from shoal.check import check_pipeline
from shoal.checks.program_file import program_file
from shoal.errors import ShoalError
from shoal.sandbox import Sandbox, SandboxLevel

_ID_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `shoal run -- COMMAND` was asked for besides the command."""

    name: str = ""
    folder: Path | None = None
    stdin: Path | None = None
    requirements: Path | None = None
    python: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = 0.0
    retries: int = 0
    archive: tuple[str, ...] = ()
    cpus: float = 1.0
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()
    require: tuple[tuple[str, str], ...] = ()
    sandbox: str = SandboxLevel.NONE.value


def single_command(
    command: Sequence[str], wishes: Wishes
) -> tuple[spec.Pipeline, tuple[bundle.Entry, ...]]:
    """Make a pipeline of one job out of a command.

    Returns:
        The specification without its bundle's digest, and what goes into the bundle.

    Raises:
        ShoalError: the command cannot be run like this; names every reason.
    """
    entries: dict[str, bundle.Entry] = {}
    if wishes.folder is not None:
        found = bundle.scan(bundle.BundleFolder(wishes.folder))
        entries = {entry.name: entry for entry in found}
    stdin = _take(entries, wishes.stdin, wishes.folder)
    requirements = _take(entries, wishes.requirements, wishes.folder)
    name = wishes.name or id_of(command[0])
    steps = (spec.RequirementsStep(requirements),) if requirements else ()
    job = spec.Job(
        name=name,
        run=tuple(command),
        environment=spec.Environment(wishes.python, steps),
        resources=spec.Resources(wishes.cpus, wishes.memory_bytes, wishes.devices),
        place=spec.Place(require=dict(wishes.require)),
        archive=wishes.archive or ("results/**",),
        retry=spec.Retry(attempts=wishes.retries + 1),
        timeout_seconds=wishes.timeout_seconds,
        variables=dict(wishes.variables),
        stdin=stdin,
        sandbox=Sandbox(SandboxLevel(wishes.sandbox)),
    )
    pipeline = spec.Pipeline(name, (job,))
    within = tuple(entries.values())
    names, contents = bundle.file_names(within), bundle.Contents(within)
    script = program_file(job.run)
    if script and wishes.folder is None:
        raise ShoalError(
            "BAD_SPEC",
            f"{script} does not come along by itself, and the command starts in an empty folder; "
            "name the folder that it is in, as in --bundle .",
            code="INVALID_ARGUMENT",
        )
    problems = check_pipeline(pipeline, names, contents.layouts())
    if problems:
        said = "\n".join(
            f"{'.'.join(problem.path[2:]) or 'name'}: {problem.message}" for problem in problems
        )
        raise ShoalError("BAD_SPEC", said, code="INVALID_ARGUMENT")
    return pipeline, tuple(entries.values())


def id_of(program: str) -> str:
    """Make an id out of a program's name: `./My_Tool.py` becomes `my-tool`."""
    stem = PurePosixPath(program).name.split(".")[0].lower()
    text = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:_ID_LENGTH].strip("-")
    return text if text[:1].isalpha() and text[:1].isascii() else f"job-{text}".rstrip("-")


@contextlib.contextmanager
def own_stdin(path: Path | None) -> Iterator[Path | None]:
    """Give the file; `-` stands for our own standard input, as a file that is there until the block ends."""
    if path is None or str(path) != "-":
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="shoal-stdin-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield Path(file.name)


def _take(entries: dict[str, bundle.Entry], file: Path | None, folder: Path | None) -> str:
    """Find a file in the bundle, or take it into it, and return its path there."""
    if file is None:
        return ""
    resolved = file.resolve()
    if folder is not None and resolved.is_relative_to(folder.resolve()):
        name = resolved.relative_to(folder.resolve()).as_posix()
        if name in entries:
            return name
    name = file.name
    while name in entries and entries[name].source.resolve() != resolved:
        name = f"_{name}"
    entries.setdefault(name, bundle.file_entry(name, resolved))
    return name

"""What the user asked for, as frozen values; the system never edits it.

Units: seconds and bytes. Every default here is the default of the system; `shoal.wire` writes them
out in full.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shoal.compat import Compat
from shoal.model import no_strings
from shoal.parameter import ParameterValue, no_values
from shoal.sandbox import ASKS_NOTHING, Sandbox
from shoal.secret import SecretUse


class Layout(enum.Enum):
    """How a bundle is laid out in the job's folder."""

    TREE = "tree"
    FLAT = "flat"


class ArchiveOn(enum.Enum):
    """After which end of an attempt its files are archived; of a success its logs are in any case."""

    SUCCESS = "success"
    FAILURE = "failure"
    """That is a cancellation, too."""
    ALWAYS = "always"

    def takes(self, *, succeeded: bool) -> bool:
        """Whether files are archived after such an end."""
        return self is ArchiveOn.ALWAYS or (self is ArchiveOn.SUCCESS) == succeeded


class Recovery(enum.Enum):
    """What the replacement of a lost attempt does with its inputs."""

    RESTART = "restart"
    """It keeps state: inputs are replayed from record 1; receivers drop outputs they already have."""
    RESUME = "resume"
    """It is stateless, one record out per output and round: it goes on where its consumers are."""


class Placement(enum.Enum):
    """What is promised about attempts that overlap."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONE_RUNNING = "at_most_one_running"
    PINNED = "pinned"


class Strategy(enum.Enum):
    """How the jobs of a pipeline are laid over the nodes."""

    SPREAD = "spread"
    PACK = "pack"


class Merge(enum.Enum):
    """How the streams of several producer replicas become one."""

    ORDERED = "ordered"
    ARRIVAL = "arrival"


class Promise(enum.Enum):
    """What a consumer is promised of a stream."""

    AT_LEAST_ONCE = "at_least_once"
    """Every record, in order; a slow consumer holds up its producer."""
    LATEST = "latest"
    """The newest records; older ones are dropped, and the producer never waits."""


class Drop(enum.Enum):
    """Which record is dropped when more wait at an optional input than may."""

    OLDEST = "oldest"
    NEWEST = "newest"


class Distribute(enum.Enum):
    """How records are spread over a consumer's replicas."""

    ROUND_ROBIN = "round-robin"
    BROADCAST = "broadcast"
    KEY = "key"
    """Records with equal keys go to the same replica."""


class PortFormat(enum.Enum):
    """What bytes a program sees on a port."""

    BLOCKS = "blocks"
    LINES = "lines"
    JSONL = "jsonl"
    U32 = "u32"
    BYTES = "bytes"


class PortAttachment(enum.Enum):
    """How a program gets hold of a port."""

    FD = "fd"
    STDIO = "stdio"
    FIFO = "fifo"


TERMINAL = "terminal"
"""As `stdin` of a local job: it reads the standard input of its client. A file is `./terminal`."""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """How a program holds one of its ports."""

    format: PortFormat = PortFormat.BLOCKS
    attachment: PortAttachment = PortAttachment.FD
    record_bytes: int = 0

    @property
    def format_name(self) -> str:
        """The format as specifications write it: `lines`, `bytes:4`."""
        size = f":{self.record_bytes}" if self.format is PortFormat.BYTES else ""
        return f"{self.format.value}{size}"

    @property
    def record_size(self) -> int:
        """Bytes of each record; 0 where records have no size of their own."""
        match self.format:
            case PortFormat.U32:
                return 4
            case PortFormat.BYTES:
                return self.record_bytes
            case _:
                return 0


@dataclass(frozen=True, slots=True)
class StandIn:
    """What an optional input gives to a round that none of its records has arrived for.

    The default (JSON), or with `repeat` the last record once there was one. With `buffer` above 0,
    at most so many records wait; with 0 the producer waits, and none is dropped.
    """

    default_json: str = "null"
    repeat: bool = False
    buffer: int = 0
    drop: Drop = Drop.OLDEST


@dataclass(frozen=True, slots=True)
class StreamInput:
    """A port that is fed by another job's output port; rounds wait for it unless it is `optional`.

    With `Promise.LATEST`, at most `keep` records wait, and the older ones are dropped.
    """

    name: str
    job: str
    port: str
    binding: PortBinding = PortBinding()
    block_count: int = 1
    merge: Merge = Merge.ORDERED
    optional: StandIn | None = None
    promise: Promise = Promise.AT_LEAST_ONCE
    keep: int = 1


@dataclass(frozen=True, slots=True)
class FileInput:
    """A file that is fetched into the job's folder before the program starts."""

    name: str
    source: str
    path: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class FolderInput:
    """Files that are fetched into a folder of the job before the program starts.

    They are all objects below `prefix` (`s3://bucket/prefix/`), or what a job of another pipeline
    committed (`artifacts`, as `PIPELINE/JOB`): one of the two. Which ones is found as the pipeline is
    submitted, and is the same for every attempt. `patterns` choose among them by their paths below
    the prefix. `entry` is the one of them that `{inputs.NAME.entry}` stands for.
    """

    name: str
    prefix: str = ""
    artifacts: str = ""
    path: str = "."
    layout: Layout = Layout.TREE
    patterns: tuple[str, ...] = ()
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A port that the job writes records to.

    With `Distribute.KEY`, `key` may name a part of a raw record: of jsonl a member, of lines the
    number of a field, from 1. Otherwise the key is the header `key` of a record, or all of it.
    """

    name: str
    binding: PortBinding = PortBinding()
    distribute: Distribute = Distribute.ROUND_ROBIN
    key: str = ""


@dataclass(frozen=True, slots=True)
class RequirementsStep:
    """Install what a requirements file of the bundle names."""

    path: str


@dataclass(frozen=True, slots=True)
class UrlStep:
    """Install a package from its address."""

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class WheelStep:
    """Install a wheel of the bundle."""

    path: str


@dataclass(frozen=True, slots=True)
class PipStep:
    """Pass arguments to the installer as they are."""

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConstraintsStep:
    """Constrain the versions of all later steps by a file of the bundle."""

    path: str


FILE_STEPS: Mapping[str, type[RequirementsStep | WheelStep | ConstraintsStep]] = MappingProxyType({
    "requirements": RequirementsStep,
    "wheel": WheelStep,
    "constraints": ConstraintsStep,
})  # fmt: skip
"""Steps that name a file of the bundle, by what specifications call them."""

EnvironmentStep = RequirementsStep | UrlStep | WheelStep | PipStep | ConstraintsStep
"""One step of an environment's recipe."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Interpreter and packages of a job; an empty `python` means the agent's own version."""

    python: str = ""
    steps: tuple[EnvironmentStep, ...] = ()
    system_site_packages: bool = False


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica needs of a node: cores, bytes of memory, device classes.

    `processes` and `disk_bytes` only bound it, where its node can do that: so many processes and threads
    at once, so many bytes of files in its folder. 0 is no claim.
    """

    cpus: float = 1.0
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()
    processes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job may run (`require`, all labels must match) or would rather (`prefer`, best first)."""

    require: Mapping[str, str] = field(default_factory=no_strings)
    prefer: tuple[str, ...] = ()
    strategy: Strategy = Strategy.SPREAD


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens when the program fails; lost nodes do not count."""

    attempts: int = 1
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """One program of a pipeline; a `local` one runs beside the client, and may have no program."""

    name: str
    run: tuple[str, ...]
    environment: Environment = Environment()
    streams: tuple[StreamInput, ...] = ()
    files: tuple[FileInput, ...] = ()
    folders: tuple[FolderInput, ...] = ()
    outputs: tuple[Output, ...] = ()
    replicas: int = 1
    resources: Resources = Resources()
    place: Place = field(default_factory=Place)
    archive: tuple[str, ...] = ("results/**",)
    retry: Retry = Retry()
    timeout_seconds: float = 0.0
    variables: Mapping[str, str] = field(default_factory=no_strings)
    stdin: str = ""
    recovery: Recovery = Recovery.RESTART
    placement: Placement = Placement.AT_LEAST_ONCE
    grace_seconds: float = 5.0
    layout: Layout = Layout.TREE
    archive_on: ArchiveOn = ArchiveOn.SUCCESS
    local: bool = False
    secrets: tuple[SecretUse, ...] = ()
    sandbox: Sandbox = ASKS_NOTHING

    def replica_id(self, replica: int) -> str:
        """Id of one replica: the job's own name when there is just one, else `{name}-{replica}`."""
        return self.name if self.replicas == 1 else f"{self.name}-{replica}"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A set of jobs and the streams between them; a single job is a pipeline of one."""

    name: str
    jobs: tuple[Job, ...]
    bundle_digest: str = ""
    labels: Mapping[str, str] = field(default_factory=no_strings)
    parameters: Mapping[str, ParameterValue] = field(default_factory=no_values)
    """What was put into the file, by the names of its parameters and in its order; only shown."""
    compat: Compat | None = None
    """What is done for programs that know it as a task of the edge-analytics dashboard."""
    prefetch: bool = False
    """Whether every node where one of its jobs might run gets the bundle before it is needed there."""

    def job(self, name: str) -> Job:
        """The job of that name.

        Raises:
            KeyError: There is none.
        """
        for job in self.jobs:
            if job.name == name:
                return job
        raise KeyError(name)

    def readers(self, job: str, port: str) -> list[tuple[Job, StreamInput]]:
        """The jobs that read an output port, each with its input."""
        return [
            (reader, stream)
            for reader in self.jobs
            for stream in reader.streams
            if (stream.job, stream.port) == (job, port)
        ]

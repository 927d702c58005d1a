"""What `shoal up` says of its cluster to the other commands of this user: a file for each name.

Rule: a record counts for as long as the process that wrote it holds a lock on it (flock(2)). The kernel
lets go of the lock when that process ends, however it ends, so a record that was left behind is never
taken for a cluster, and no process id is guessed from. Readers take the lock for a moment; a writer
therefore asks for it again for a second.

Example: `clusters/local.json` is `{"name": "local", "pid": 4711, "state": "/srv/up",
"controller": "127.0.0.1:7470", "events": "", "identity": "/srv/up/controller/identity/operator"}`.
`controller` is empty until the cluster is ready.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from shoal.cli.state_home import NoHomeError, state_home

DEFAULT_NAME = "local"
"""What a cluster is called that was given no name."""

_WRITER_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_PRIVATE_FILE = 0o600


class ClusterRunsError(Exception):
    """A cluster of that name runs already; its record, as far as it has said, is `running`."""

    def __init__(self, running: "ClusterRecord") -> None:
        super().__init__(running.name)
        self.running = running


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """One cluster of `shoal up` that runs on this machine.

    Attributes:
        name: what it is called.
        pid: the process that ends it at SIGTERM; 0 where it has not said that yet.
        state: folder of its files.
        controller: `host:port` of its controller; empty while it starts.
        events: address of its broker without a password; empty where it has none.
        identity: folder of the credentials that commands prove; empty where it has no identity.
    """

    name: str
    pid: int = 0
    state: str = ""
    controller: str = ""
    events: str = ""
    identity: str = ""

    @property
    def described(self) -> str:
        """Its name and what tells it apart, for a sentence."""
        return f"{self.name} ({self.controller or 'starting'}, files in {self.state})"


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record that this process writes; it counts until `holding` is left."""

    descriptor: int

    def write(self, record: ClusterRecord) -> None:
        """Replace what it says.

        Raises:
            OSError: the disk is full or broken.
        """
        data = json.dumps(asdict(record)).encode() + b"\n"
        os.pwrite(self.descriptor, data, 0)
        os.ftruncate(self.descriptor, len(data))


@contextlib.contextmanager
def holding(name: str) -> Iterator[HeldRecord]:
    """Hold the record of a name, and remove it at the end.

    Raises:
        ClusterRunsError: another process holds it.
        OSError: it cannot be made.
    """
    path = _path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _locked(path)
    if descriptor is None:
        raise ClusterRunsError(_read(path, name) or ClusterRecord(name))
    try:
        os.ftruncate(descriptor, 0)
        yield HeldRecord(descriptor)
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def running_clusters() -> tuple[ClusterRecord, ...]:
    """Read the records of all clusters of this user that run now, by name."""
    try:
        folder = _folder()
    except NoHomeError:  # where none can be recorded, none runs
        return ()
    found = (_running(path) for path in sorted(folder.glob("*.json")))
    return tuple(record for record in found if record is not None)


def running_cluster(name: str) -> ClusterRecord | None:
    """Read the record of one cluster; None if it does not run."""
    return _running(_path(name))


def _folder() -> Path:
    return state_home() / "clusters"


def _path(name: str) -> Path:
    return _folder() / f"{name}.json"


def _locked(path: Path) -> int | None:
    """Open and lock a record for writing; None if another process holds it."""
    give_up_at = time.monotonic() + _WRITER_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= give_up_at:
                return None
            time.sleep(_LOOK_SECONDS)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        # The one that held it may have removed it just before it let go.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _running(path: Path) -> ClusterRecord | None:
    """Read a record that a process holds now."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(path, path.stem) or ClusterRecord(path.stem)
    except OSError:
        pass
    return None


def _read(path: Path, name: str) -> ClusterRecord | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):  # it is not written yet, or gone
        return None
    if not isinstance(found, dict):
        return None
    said = cast("dict[str, object]", found)
    pid = said.get("pid")
    return ClusterRecord(
        name,
        pid=pid if isinstance(pid, int) else 0,
        state=str(said.get("state", "")),
        controller=str(said.get("controller", "")),
        events=str(said.get("events", "")),
        identity=str(said.get("identity", "")),
    )

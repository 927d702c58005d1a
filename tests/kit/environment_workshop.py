"""A cache of environments over an empty folder, with everything that builds for it, as an agent has them."""

import contextlib
import itertools
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from edge_agent.download import Downloader
from edge_agent.environments.build_planning import BuildPlanning
from edge_agent.environments.build_rooms import BuildRooms
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.environments.installer import Installer
from edge_agent.environments.interpreter import Interpreters
from edge_agent.environments.own_room import OwnRoom
from edge_agent.environments.package_index import installer_environ
from edge_agent.environments.package_store import PackageStore
from edge_agent.long_work import LongWork
from edge_agent.sandbox.job_users import JobUsers
from edge_agent.sandbox.narrowing import LANDLOCK, SECCOMP, Narrowing
from edge_agent.trash import Trash
from edge_agent.web_sessions import WebSessions
from shoal.sandbox import SandboxLevel
from shoal.spec import Environment, EnvironmentStep
from tests.kit.bundle_archive import wheel_of

UV = Path(sys.executable).parent / "uv"
PYTHON = Path(os.path.realpath(sys.executable))
OWN = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}


@dataclass
class EnvironmentWorkshop:
    """A cache of environments over an empty folder, and a job's folder with wheels."""

    root: Path
    downloader: Downloader
    long_work: LongWork
    progress: list[str] = field(default_factory=list[str])
    bytes_max: int = 1 << 30
    environ: Mapping[str, str] = field(default_factory=lambda: OWN)
    users: JobUsers | None = None
    uv: Path = UV
    filters: tuple[str, ...] = ()
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.folder = self.root / "environments"
        self.work = self.root / "work"
        self.attempts = self.root / "attempts"
        self.work.mkdir(exist_ok=True)
        self.trash = Trash(
            self.root / "trash",
            self.long_work,
            new_id=lambda: f"t{next(self._numbers)}",
            chance=lambda: 0.5,
        )
        self.packages = PackageStore(
            self.root / "packages",
            self.downloader,
            self.long_work,
            self.trash,
            bytes_max=self.bytes_max // 2,
        )
        variables = installer_environ(self.packages.variables(self.environ), ())
        self.interpreters = Interpreters(self.uv, PYTHON, variables)
        self.installer = Installer(self.uv, self.packages)
        self.own_room = OwnRoom(variables, self.packages, self.long_work)
        self.rooms = BuildRooms(
            self.root / "builds",
            variables,
            self.packages,
            self.users,
            self.long_work,
            self.trash,
            BuildPlanning(
                Narrowing(
                    (str(self.root),), self.filters, platform.machine(), shutil.which("bwrap") or ""
                ),
                (self.uv,),
            ),
            lambda: f"r{next(self._numbers)}",
        )

    def cache(self) -> EnvironmentCache:
        """A cache as an agent that starts has it; `open` it to find what is there."""
        return EnvironmentCache(
            self.folder,
            self.attempts,
            self.interpreters,
            self.installer,
            self.rooms,
            self.packages,
            self.long_work,
            self.trash,
            bytes_max=self.bytes_max,
            build_id=lambda: f"b{next(self._numbers)}",
            read_after_seconds=0.0,
        )

    async def get(
        self,
        cache: EnvironmentCache,
        *steps: EnvironmentStep,
        bundle: str = "",
        python: str = "",
        attempt: str = "attempt",
        namespace: str = "default",
        level: SandboxLevel = SandboxLevel.NONE,
    ) -> Path:
        """Get the environment of these steps for an attempt."""
        environment = Environment(python=python, steps=steps)
        user = self.attempts / attempt
        user.mkdir(parents=True, exist_ok=True)
        return await cache.get(
            environment,
            self.work,
            bundle,
            self.progress.append,
            user,
            namespace=namespace,
            level=level,
        )

    def forget(self, attempt: str = "attempt") -> None:
        """Throw the folder of an attempt away."""
        shutil.rmtree(self.attempts / attempt)

    def lose(self, place: Path) -> None:
        """Remove an environment, as one that a person has removed."""
        shutil.rmtree(place)

    def wheel(self, name: str, version: str) -> str:
        """Put a wheel with one module into the job's folder; returns its name."""
        file, data = wheel_of(name, version, f"version = '{version}'\n")
        (self.work / file).write_bytes(data)
        return file


def says(built: Path, code: str) -> str:
    """What the Python of an environment prints."""
    return subprocess.run(
        [built / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@contextlib.asynccontextmanager
async def open_workshop(
    root: Path,
    *,
    bytes_max: int = 1 << 30,
    users: JobUsers | None = None,
    uv: Path = UV,
    **variables: str,
) -> AsyncIterator[EnvironmentWorkshop]:
    """An empty workshop; `variables` are for its installers, `users` build above level `none`."""
    async with aiohttp.ClientSession() as client, LongWork(time.monotonic) as long_work:
        downloader = Downloader(WebSessions(client, client), chance=lambda: 0.5)
        environ = {**OWN, **variables}
        yield EnvironmentWorkshop(
            root,
            downloader,
            long_work,
            bytes_max=bytes_max,
            environ=environ,
            users=users,
            uv=uv,
            filters=(SECCOMP, LANDLOCK) if users is not None else (),
        )

"""The room of a build above level `none`: a user, a home and kept packages of its own, behind the door of jobs.

**Rule.** A build runs code of strangers (`setup.py`, a build backend, a `.pth` file that its installer's Python
reads), and the agent may be root. So every program of a build runs as the user of the builds of its namespace, and
may write to three places alone: its environment, its home and the kept packages of its namespace. All of them begin
empty or as an earlier build of this namespace left them. What the agent writes for it lies in a folder of the
agent's, and what it leaves is taken over as `ownership.py` says.

**What it reads.** Of the job's folder, which the agent alone can enter, copies: of the files that its recipe
names, or of the whole bundle where the installer may read any of it. Of the agent's home the settings of pip and uv
and the passwords of package indexes, which are for builds.

Example: `pip: [--no-deps, -e, .]` installs the copy `ENVIRONMENT/bundle`; `requirements: r.txt` reads
`builds/ID/given/r.txt`.
"""

import asyncio
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edge_agent.environments.build_planning import BuildPlanError
from edge_agent.environments.command import CommandFailedError, run_command
from edge_agent.environments.ownership import LeftBehindError, give, take_over
from edge_agent.environments.package_store import PackageFolders
from edge_agent.environments.recipe import Recipe
from edge_agent.file_copy import copy_file, copy_tree
from edge_agent.long_work import LongWork, Steps
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.plan_json import plan_to_json

_OWN: Final = (
    "CARGO_HOME", "LOGNAME", "SHELL", "USER", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
)  # fmt: skip
"""Variables that lead to the agent's own places, or name its user."""
_SETTINGS: Final = (".pip/pip.conf", ".config/pip/pip.conf", ".config/uv/uv.toml", ".netrc")
_SETTINGS_BYTES_MAX: Final = 1 << 20
_DOOR: Final = ("-I", "-m", "edge_agent.sandbox.door")


@dataclass(frozen=True, slots=True)
class ApartRoom:
    """See `edge_agent.environments.build_room.BuildRoom`; `open` it before it is used.

    Args:
        folder: the agent's folder of this build.
        uid: user of the build.
        environ: variables of an installer of the agent's user.
        kept: what the builds of the namespace keep.
        work: copies and gives files.
        plan: what is done to a program of it, given where it begins, what it writes to and what it reads.
    """

    folder: Path
    uid: int
    environ: Mapping[str, str] = field(repr=False)
    kept: PackageFolders
    work: LongWork
    plan: Callable[[Path, Sequence[Path], Sequence[Path]], SandboxPlan]
    _places: list[Path] = field(default_factory=list[Path])

    @property
    def wheels(self) -> Path:
        """The folder where pip keeps what it finds without a network."""
        return self.kept.wheels

    @property
    def _home(self) -> Path:
        return self.folder / "home"

    @property
    def _given(self) -> Path:
        return self.folder / "given"

    async def open(self) -> None:
        """Make its folders.

        Raises:
            OSError: the disk does not take them, or they cannot be given.
        """
        await self.work.run(self._make_folders())

    def _make_folders(self) -> Steps[None]:
        self.folder.mkdir(mode=0o711, parents=True)
        self._given.mkdir(mode=0o755)
        (self._home / "tmp").mkdir(mode=0o700, parents=True)
        for source, target in _settings(self.environ):
            place = self._home / target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
            place.chmod(0o400)
            yield
        self._home.chmod(0o700)
        yield from give(self._home, self.uid, os.geteuid())

    def variables(self, *, old_pip: bool = False) -> Mapping[str, str]:
        """Variables of the installer; a pip that knows no `NETRC` finds the file at home."""
        del old_pip
        given = {name: text for name, text in self.environ.items() if name not in _OWN}
        own = {
            **self.kept.variables,
            "HOME": str(self._home),
            "TMPDIR": str(self._home / "tmp"),
            "UV_PYTHON_INSTALL_DIR": given.get("UV_PYTHON_INSTALL_DIR", pythons(self.environ)),
        }
        if "NETRC" in given:
            own["NETRC"] = str(self._home / ".netrc")
        return MappingProxyType({**given, **own})

    async def make(self, recipe: Recipe, place: Path) -> Path:
        """Make the folder of the environment, and copy what the recipe names."""
        await self.work.run(self._copy(recipe))
        await asyncio.to_thread(_make_given, place, self.uid)
        self._places.append(place)
        return self._given

    def _copy(self, recipe: Recipe) -> Steps[None]:
        if recipe.from_bundle:
            return
        for path, target in recipe.links:
            link = self._given / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
        for path in recipe.files:
            place = self._given / path
            place.parent.mkdir(parents=True, exist_ok=True)
            yield from copy_file(recipe.folder / path, place)
        yield from take_over(self._given, os.geteuid())

    async def bring_bundle(self, recipe: Recipe, place: Path) -> Path:
        """Copy the whole bundle where no program of the build sees it, and give it as a whole then."""
        aside = self.folder / "bundle"
        await self.work.run(copy_tree(recipe.folder, aside))
        await self.work.run(give(aside, self.uid, os.geteuid()))
        await asyncio.to_thread(_move_into, aside, place, self.uid)
        return place / "bundle"

    def packages(self, place: Path) -> Path:
        """The folder for packages that the agent fetches by their hash."""
        del place
        return self.folder / "packages"

    async def run(
        self,
        argv: Sequence[str],
        timeout_seconds: float,
        folder: Path | None = None,
        *,
        old_pip: bool = False,
    ) -> str:
        """Run a program behind the door, to its end and to that of everything that it started."""
        variables = await asyncio.to_thread(self.variables, old_pip=old_pip)
        where = folder or self._home
        writes = (*self._places, self._home, self.kept.folder)
        name = Path(argv[0]).name
        try:
            plan = await asyncio.to_thread(self.plan, where, writes, (self.folder,))
        except BuildPlanError as error:
            raise CommandFailedError(f"{name} is not started: {error}", str(error)) from error
        order = {
            "plan": plan_to_json(plan),
            "argv": list(argv),
            "env": dict(variables),
            "cwd": str(where),
        }
        return await run_command(
            (sys.executable, *_DOOR),
            {},
            timeout_seconds,
            order=json.dumps(order).encode() + b"\n",
            name=name,
        )

    async def take_over(self, place: Path) -> None:
        """Make what was built the agent's, readable by all users and written by none of them."""
        await self.work.run(take_over(place, self.uid))


def _settings(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Files of the agent's that builds read, and where they find them at home."""
    home = Path(environ.get("HOME", "/"))
    found = {name: home / name for name in _SETTINGS}
    if config := environ.get("XDG_CONFIG_HOME"):
        found |= {f".config/{name}": Path(config, name) for name in ("pip/pip.conf", "uv/uv.toml")}
    if credentials := environ.get("NETRC"):
        found[".netrc"] = Path(credentials)
    for name, path in found.items():
        if path.is_file() and path.stat().st_size <= _SETTINGS_BYTES_MAX:
            yield path, name


def pythons(environ: Mapping[str, str]) -> str:
    """Where `uv python install` of the agent's user has put interpreters."""
    data = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME", "/"), ".local/share")
    return str(Path(data, "uv/python"))


def _make_given(place: Path, uid: int) -> None:
    mode = place.parent.stat().st_mode
    place.parent.chmod(stat.S_IMODE(mode) | 0o711)
    place.mkdir(mode=0o700)
    os.chown(place, uid, -1 if uid == os.geteuid() else uid)


def _move_into(folder: Path, place: Path, uid: int) -> None:
    """Move a folder of the agent's into one of the build's, whatever the build has made there."""
    into = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(into).st_uid != uid:
            raise LeftBehindError("the build's folder is not its own any more")
        os.rename(folder, "bundle", dst_dir_fd=into)
    finally:
        os.close(into)

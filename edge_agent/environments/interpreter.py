"""The interpreter that a job asks for, found on this node and asked what it is."""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from edge_agent.environments.command import CommandFailedError
from edge_agent.environments.program_room import ProgramRoom

_PROBE: Final = (
    "import json, platform, site, sys, sysconfig; print(json.dumps(["
    "sys.version_info[0], sys.version_info[1], sys.version_info[2], "
    "platform.python_implementation(), sysconfig.get_config_var('SOABI') or '', "
    "platform.machine(), '-'.join(platform.libc_ver())] + site.getsitepackages()))"
)
_FIND_SECONDS: Final = 60.0
_SYSTEM: Final = (Path("/usr/bin/python3"), Path("/bin/python3"), Path("/usr/local/bin/python3"))
_NAME: Final = re.compile(r"python3\.\d+")
_CANDIDATES_MAX: Final = 32


class InterpreterMissingError(Exception):
    """This node does not have the interpreter that a job asks for."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter, what binary packages for it must fit, and the folders of its own packages."""

    path: Path
    version: tuple[int, int, int]
    implementation: str
    abi: str
    machine: str
    libc: str
    site: tuple[Path, ...] = ()


class Interpreters:
    """Finds interpreters; what was found is remembered as long as the file stays the same.

    Args:
        uv: path of the uv program, which knows where interpreters live.
        default: the agent's own interpreter, for jobs that do not say.
        environ: variables of the installer; `PATH` and `HOME` say where interpreters may be.
        system: the board's own interpreter, by the places where it may be.
    """

    def __init__(
        self,
        uv: Path,
        default: Path,
        environ: Mapping[str, str],
        system: Sequence[Path] = _SYSTEM,
    ) -> None:
        self._uv = uv
        self._default = default
        self._environ = environ
        self._system = system
        self._paths: dict[str, Path] = {}
        self._known: dict[tuple[Path, int], Interpreter] = {}

    def known(self, wanted: str) -> Interpreter | None:
        """Return what was found before for the same words, if it is still the same file."""
        path = self._paths.get(wanted)
        return None if path is None or not _exists(path) else self._known.get((path, _stamp(path)))

    def is_same(self, path: Path) -> bool:
        """Whether an interpreter that was found before is still the same file."""
        try:
            return (path, _stamp(path)) in self._known
        except OSError:
            return False

    async def find(self, wanted: str, room: ProgramRoom) -> Interpreter:
        """Return the interpreter for `3.11`, `system`, `/opt/python3.6`, or for nothing in particular.

        Args:
            wanted: such words.
            room: where it is asked what it is: a path that a job names may be a program of any job.

        Raises:
            InterpreterMissingError: it is not on this node, or does not run.
        """
        path = self._paths.get(wanted)
        if path is None or not _exists(path):
            path = self._paths[wanted] = await self._locate(wanted, room)
        key = (path, _stamp(path))
        if key not in self._known:
            self._known[key] = await self._ask(path, room)
        return self._known[key]

    async def _locate(self, wanted: str, room: ProgramRoom) -> Path:
        if not wanted:
            return self._default
        if wanted == "system":
            for path in self._system:
                if _exists(path):
                    return path
            raise InterpreterMissingError(
                f"this board has no Python of its own at {' or '.join(map(str, self._system))}: install its "
                "package python3, or leave `python` out to take the agent's own version"
            )
        if wanted.startswith("/"):
            if not _exists(Path(wanted)):
                raise InterpreterMissingError(
                    f"the interpreter {wanted} is not on this node: install it, or leave `python` "
                    "out to take the agent's own version"
                )
            return Path(wanted)
        if wanted.startswith("-"):
            raise InterpreterMissingError(f"{wanted!r} is not a version of Python, such as 3.11")
        find = ("python", "find", "--no-project", "--no-python-downloads", wanted)
        try:
            found = await room.run((str(self._uv), *find), _FIND_SECONDS)
            return Path(found.strip())
        except CommandFailedError as error:
            # uv ends at the first program of that name, which may be one that only says what is missing.
            here = await self._others(room)
            for path, version in here.items():
                if f"{version}.".startswith(f"{wanted}."):
                    return path
            named = ", ".join(f"{version} ({path})" for path, version in here.items())
            raise InterpreterMissingError(
                f"Python {wanted} is not on this node, which has {named or 'none but its own'}: install it "
                f"there (a package of its system, or from 3.8 on `uv python install {wanted}` as the agent's "
                "user), ask for another version, or leave `python` out to take the agent's own. "
                f"uv says: {error.said}"
            ) from error

    async def _others(self, room: ProgramRoom) -> Mapping[Path, str]:
        """Interpreters in the usual places that do run, and their versions."""
        found: dict[Path, str] = {}
        for path in await asyncio.to_thread(_candidates, self._environ):
            try:
                version = (await self._ask(path, room)).version
            except InterpreterMissingError:
                continue
            found[path] = ".".join(map(str, version))
        return found

    async def _ask(self, path: Path, room: ProgramRoom) -> Interpreter:
        argv = (str(path), "-I", "-c", _PROBE)
        try:
            return _read_answer(path, await room.run(argv, _FIND_SECONDS))
        except (CommandFailedError, ValueError) as error:
            raise InterpreterMissingError(
                f"{path} does not run as a Python interpreter: {error}"
            ) from error


def _read_answer(path: Path, said: str) -> Interpreter:
    """Read what an interpreter says of itself; it may be any program, so nothing is believed of its form.

    Raises:
        ValueError: it is not what the probe prints.
    """
    try:
        answer = cast("list[Any]", json.loads(said))
        major, minor, micro = (int(number) for number in answer[:3])
        words = [str(word) for word in answer[3:]]
        implementation, abi, machine, libc = words[:4]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it printed {said[:200]!r}") from error
    if any("\0" in word for word in words):
        raise ValueError("it printed a NUL")
    return Interpreter(
        path,
        version=(major, minor, micro),
        implementation=implementation,
        abi=abi,
        machine=machine,
        libc=libc,
        site=tuple(Path(word) for word in words[4:]),
    )


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    """What is called python3.N in the usual places, each file once."""
    folders = [Path(folder) for folder in environ.get("PATH", "").split(":") if folder]
    folders += [Path("/usr/bin"), Path("/usr/local/bin")]
    home = Path(environ.get("HOME", "/"))
    for root, pattern in ((home / ".pyenv/versions", "*/bin"), (Path("/opt"), "*/bin")):
        folders += sorted(root.glob(pattern))
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            if _NAME.fullmatch(path.name) and os.access(path, os.X_OK):
                found.setdefault(path.resolve(), path)
    return list(found.values())[:_CANDIDATES_MAX]


def _exists(path: Path) -> bool:
    return path.exists()


def _stamp(path: Path) -> int:
    return os.stat(path).st_mtime_ns  # noqa: PTH116 - follows the link, as running it does

"""The interpreter that a job asks for, found on this node and asked what it is."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from edge_agent.environments.command import CommandFailedError, run_command

_PROBE: Final = (
    "import json, platform, site, sys, sysconfig; print(json.dumps(["
    "sys.version_info[0], sys.version_info[1], sys.version_info[2], "
    "platform.python_implementation(), sysconfig.get_config_var('SOABI') or '', "
    "platform.machine(), '-'.join(platform.libc_ver())] + site.getsitepackages()))"
)
_FIND_SECONDS: Final = 60.0


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
        environ: environment of the programs that are run here.
    """

    def __init__(self, uv: Path, default: Path, environ: Mapping[str, str]) -> None:
        self._uv = uv
        self._default = default
        self._environ = environ
        self._paths: dict[str, Path] = {}
        self._known: dict[tuple[Path, int], Interpreter] = {}

    async def find(self, wanted: str) -> Interpreter:
        """Return the interpreter for `3.11`, `/usr/bin/python3`, or for nothing in particular.

        Raises:
            InterpreterMissingError: it is not on this node, or does not run.
        """
        path = self._paths.get(wanted)
        if path is None or not _exists(path):
            path = self._paths[wanted] = await self._locate(wanted)
        key = (path, _stamp(path))
        if key not in self._known:
            self._known[key] = await self._ask(path)
        return self._known[key]

    async def _locate(self, wanted: str) -> Path:
        if not wanted:
            return self._default
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
            found = await run_command((str(self._uv), *find), self._environ, _FIND_SECONDS)
            return Path(found.strip())
        except CommandFailedError as error:
            raise InterpreterMissingError(
                f"Python {wanted} is not on this node: install it, ask for another version, or "
                f"leave `python` out to take the agent's own. uv says: {error.said}"
            ) from error

    async def _ask(self, path: Path) -> Interpreter:
        argv = (str(path), "-I", "-c", _PROBE)
        try:
            said = await run_command(argv, self._environ, _FIND_SECONDS)
            answer = cast("list[Any]", json.loads(said))
        except (CommandFailedError, ValueError) as error:
            raise InterpreterMissingError(
                f"{path} does not run as a Python interpreter: {error}"
            ) from error
        return Interpreter(
            path,
            version=(int(answer[0]), int(answer[1]), int(answer[2])),
            implementation=str(answer[3]),
            abi=str(answer[4]),
            machine=str(answer[5]),
            libc=str(answer[6]),
            site=tuple(Path(str(value)) for value in answer[7:]),
        )


def _exists(path: Path) -> bool:
    return path.exists()


def _stamp(path: Path) -> int:
    return os.stat(path).st_mtime_ns  # noqa: PTH116 - follows the link, as running it does

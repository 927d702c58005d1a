"""The docker daemon of the lanes: the one that DOCKER_HOST names, or one of their own that leaves nothing behind.

`python -m tests.kit.docker COMMAND...` starts one around a command, so that lanes side by side share it.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.child_process import ChildProcess
from tests.kit.programs import SEARCH_PATH, program, unavailable
from tests.kit.tree import ROOT
from tests.kit.until import PATIENCE, until_sync

LOG = logging.getLogger(__name__)

HOST_VARIABLE: Final = "DOCKER_HOST"
PATH: Final = os.pathsep.join(["/usr/bin", SEARCH_PATH])
"""Debian's programs come first, whatever else is called `docker`."""
OLDEST: Final = (20, 10)
"""The oldest docker that the Dockerfiles are for."""
_LOCK: Final = Path(tempfile.gettempdir()) / "shoal-docker.lock"
_ALONE_SECONDS: Final = 300
_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")
_BRIDGE: Final = Path("/sys/class/net/docker0")
DOWNLOADS: Final = 3
"""How often a build is tried whose downloads are cut off."""


def hung_up(said: str) -> bool:
    """Whether a build failed because a registry hung up, by what it said."""
    return any(
        word in said for word in ("Failed to download", "Connection broken", "ReadTimeoutError")
    )


class DockerError(Exception):
    """A command of docker that failed; has what it said."""


@dataclass(frozen=True, slots=True)
class Docker:
    """A daemon, and the commands that speak to it.

    Attributes:
        host: its address, as DOCKER_HOST has it; empty for the machine's own.
        path: folders of programs.
    """

    host: str
    path: str = PATH

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables for a command that speaks to it."""
        own = {HOST_VARIABLE: self.host} if self.host else {}
        return {**os.environ, **own, "PATH": self.path, "DOCKER_BUILDKIT": "1"}

    def __call__(self, *words: str, seconds: float = 60, stdin: str = "") -> str:
        """Run `docker WORDS...` to its end and return what it printed.

        Raises:
            DockerError: it failed.
        """
        return self.command((self.program, *words), seconds=seconds, stdin=stdin)

    def command(
        self,
        words: Sequence[str],
        *,
        seconds: float = 60,
        stdin: str = "",
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Run a program that speaks to the daemon to its end and return what it printed.

        Where a registry hangs up, it is run again.

        Raises:
            DockerError: it failed.
        """
        for left in range(DOWNLOADS - 1, 0, -1):
            try:
                return self._run(words, seconds, stdin, more)
            except DockerError as error:
                if not hung_up(str(error)):
                    raise
                LOG.warning("a registry hung up; %d more tries", left)
        return self._run(words, seconds, stdin, more)

    def _run(
        self, words: Sequence[str], seconds: float, stdin: str, more: Mapping[str, str] | None
    ) -> str:
        ended = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE * seconds,
            env={**self.environ, **(more or {})},
            cwd=ROOT,
            check=False,
        )
        if ended.returncode:
            raise DockerError(
                f"{' '.join(words)}: status {ended.returncode}\n{ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    @property
    def program(self) -> str:
        """The command; ends the test that needs it where it is not there."""
        found = shutil.which("docker", path=self.path)
        return found or unavailable(
            "docker is not installed; `.ci/system compose` installs it or says how"
        )

    def version(self) -> str:
        """Return the version of the daemon; empty where none answers."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            words = [self.program, "version", "--format", "{{.Server.Version}}"]
            ended = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=PATIENCE * 10,
                env=self.environ,
                check=False,
            )
            return "" if ended.returncode else ended.stdout.strip()
        return ""

    def base(self, name: str = "bookworm") -> str:
        """Return an image to build on, which `.ci/bases` makes where it is missing."""
        self.command([str(ROOT / ".ci" / "bases"), name], seconds=300)
        return f"shoal-base:{name}"


def _number(version: str) -> tuple[int, ...]:
    """Return year and month of `20.10.24+dfsg1`."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


@contextlib.contextmanager
def docker_daemon(path: str = PATH) -> Iterator[Docker]:
    """A daemon: that of DOCKER_HOST, that of this machine, or, as root, one that ends with the block."""
    host = os.environ.get(HOST_VARIABLE, "")
    found = Docker(host, path)
    if version := found.version():
        if _number(version) < OLDEST:
            unavailable(
                f"docker {version} answers; builds need {OLDEST[0]}.{OLDEST[1]} or later: install docker.io of Debian "
                "12, or a newer docker"
            )
        yield found
    elif host:
        unavailable(f"no docker daemon answers at {HOST_VARIABLE}={host}: start it, or unset that")
    elif os.geteuid() != 0:
        unavailable(
            "no docker daemon answers; start it (sudo systemctl start docker) and be in the group docker, "
            "or run this as root"
        )
    else:
        with _own_daemon() as own:
            yield own


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for other daemons of tests to end: each begins by emptying the chains of iptables, which all share."""
    with _LOCK.open("w") as file:

        def locked() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        until_sync(locked, _ALONE_SECONDS, f"the daemon of another lane ends ({_LOCK} is locked)")
        yield


def _unmount_below(folder: str) -> None:
    """Let go of what a daemon has left mounted."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (point := line.split(" ")[1]).startswith(f"{folder}/"):
            subprocess.run([program("umount"), "--lazy", point], check=False)


@contextlib.contextmanager
def _own_daemon() -> Iterator[Docker]:
    with _alone(), _daemon_alone() as own:
        yield own


@contextlib.contextmanager
def _daemon_alone() -> Iterator[Docker]:
    daemon = program("dockerd")
    try:
        # Before the daemon starts, or it lets nothing be forwarded from then on.
        _FORWARD.write_text("1\n")
    except OSError as error:
        unavailable(f"{_FORWARD} cannot be written ({error}), so a docker daemon is of no use here")
    had_bridge = _BRIDGE.exists()
    with tempfile.TemporaryDirectory(prefix="shoal-docker-", ignore_cleanup_errors=True) as folder:
        own = Docker(f"unix://{folder}/d.sock")
        folders = (
            f"--{name}={folder}/{name.partition('-')[0]}" for name in ("data-root", "exec-root")
        )
        child = ChildProcess(Path(folder) / "log")
        words = [daemon, f"--host={own.host}", *folders, f"--pidfile={folder}/pid"]
        process = child.run(words, own.environ)
        try:
            until_sync(lambda: own.version() or process.poll() is not None, 60, "dockerd answers")
            assert process.poll() is None, f"dockerd ended at once: {child.log()}"
            yield own
        finally:
            with contextlib.suppress(DockerError, subprocess.TimeoutExpired):
                if running := own("ps", "--all", "--quiet").split():
                    own("rm", "--force", *running)
            child.end(signal.SIGTERM, PATIENCE * 30)
            _unmount_below(folder)
    if not had_bridge and _BRIDGE.exists():
        subprocess.run([program("ip"), "link", "delete", _BRIDGE.name], check=False)


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """The daemon of this run."""
    with docker_daemon() as found:
        yield found


def main(words: Sequence[str]) -> int:
    """Run a command with a daemon; returns its exit status.

    Where there can be none, the command runs all the same: its tests say what is missing.
    """
    with contextlib.ExitStack() as stack:
        environ: Mapping[str, str] = os.environ
        there = all(shutil.which(name, path=PATH) for name in ("docker", "dockerd"))
        if there and os.geteuid() == 0 and not environ.get(HOST_VARIABLE):
            own = stack.enter_context(docker_daemon())
            environ = {**environ, **({HOST_VARIABLE: own.host} if own.host else {})}
        return subprocess.run(words, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

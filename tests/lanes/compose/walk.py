"""The machine on which `docs/compose.md` is carried out, and another one in a network namespace of its own."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.kit.docker import DOWNLOADS, Docker, hung_up
from tests.kit.docker import PATH as PROGRAMS
from tests.kit.document_blocks import Block
from tests.kit.ports import free_port
from tests.kit.programs import program, unavailable
from tests.kit.tree import ROOT, tracked
from tests.kit.until import PATIENCE

LOG: Final = logging.getLogger("compose")
"""Tells each block, what it printed and how long it took; `make lane-compose` shows it."""
PAGE: Final = ROOT / "docs" / "compose.md"
PAGE_HOST: Final = "192.168.1.5"
"""What the page calls this machine."""
FRAMES: Final = 40
"""So many frames of the video are looked at."""
BLOCK_SECONDS: Final = 120
_DOCKER: Final = """#!/bin/sh
[ "${{1:-}}" = compose ] || exec {docker} "$@"
shift
exec {compose} "$@"
"""
"""`docker compose` where only docker-compose is installed."""


class Walk:
    """Carries out blocks of the page.

    Args:
        docker: the daemon.
        folder: an empty folder, in which the checkout of either machine is.
    """

    def __init__(self, docker: Docker, folder: Path) -> None:
        self.docker = docker
        self._folder = folder
        self._id = secrets.token_hex(3)
        self.project = f"shoal-lane-{self._id}"
        self.tag = f"lane-{self._id}"
        number = int(self._id[:2], 16)
        self.host = f"10.211.{number}.1"
        self._net = f"10.212.{number}"
        self.mqtt_port = free_port()
        self.victim = "board-2"
        """The board that the page kills; it has to run something then."""

    def home(self, machine: str) -> Path:
        """The folder in which the shell of a machine begins."""
        return self._folder / machine

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Lay out both machines, and leave nothing of them."""
        here, other = self.home("this"), self.home("another")
        other.mkdir()
        for path in tracked("*"):
            if path.parts[0] not in {"tests", "bench", "docs"}:
                copy = here / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, copy)
        self._shorten(here / "examples" / "people_counter" / "camera.py")
        wrapper = self._folder / "bin" / "docker"
        wrapper.parent.mkdir()
        own = self.docker.program
        wrapper.write_text(_DOCKER.format(docker=own, compose=_compose(own)))
        wrapper.chmod(0o755)
        base = os.environ.get("SHOAL_BASE") or self.docker.base()
        self._kept("this").write_text(
            "".join(
                f"export {name}={value}\n"
                for name, value in {
                    "SHOAL_BASE": base,
                    "SHOAL_TAG": self.tag,
                    "SHOAL_NET": self._net,
                    "SHOAL_MQTT_PORT": self.mqtt_port,
                    "COMPOSE_PROJECT_NAME": self.project,
                }.items()
            )
        )
        self._kept("another").touch()
        self._ip("netns", "add", self._space)
        try:
            self._ip(
                "link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self._space
            )
            self._ip("address", "add", f"{self.host}/24", "dev", self._link)
            self._ip("link", "set", self._link, "up")
            self._ip("-n", self._space, "address", "add", f"{self.host[:-1]}2/24", "dev", "eth0")
            self._ip("-n", self._space, "link", "set", "eth0", "up")
            yield
        finally:
            self._ip("netns", "delete", self._space)
            down = "export COMPOSE_FILE=compose/docker-compose.yml; docker compose down --volumes"
            self.run("this", f"{down} --timeout 1 --rmi all")

    @staticmethod
    def _shorten(camera: Path) -> None:
        """End the video of the example early: all of it takes two cores a minute, and the page runs it twice.

        All frames are in tests/integration/cluster/test_people_counter.py.
        """
        words, every = camera.read_text(), "in range(frames):"
        assert every in words
        camera.write_text(words.replace(every, f"in range(min(frames, {FRAMES})):"))

    @property
    def _space(self) -> str:
        return f"shoal-{self._id}"

    @property
    def _link(self) -> str:
        return f"sl{self._id}"

    def _kept(self, machine: str) -> Path:
        return self._folder / f"{machine}.exported"

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run([program("ip"), *words], check=True, capture_output=True)

    def run(self, machine: str, commands: str) -> tuple[int, str]:
        """Run commands in a shell of a machine; returns their exit status and what they said."""
        kept = self._kept(machine)
        script = self._folder / "script"
        script.write_text(f". {kept}\n{commands}\nexport -p > {kept}\n")
        shell = ["bash", "-euo", "pipefail", str(script)]
        if machine == "another":
            shell = [program("ip"), "netns", "exec", self._space, *shell]
        ended = subprocess.run(
            shell,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE * BLOCK_SECONDS,
            cwd=self.home(machine),
            env=self._environ(machine),
            check=False,
        )
        return ended.returncode, ended.stdout

    def _environ(self, machine: str) -> Mapping[str, str]:
        paths = [
            str(self._folder / "bin"),
            str(Path(sys.executable).parent),
            self.docker.environ["PATH"],
        ]
        names = {name: value for name, value in self.docker.environ.items() if "SHOAL" not in name}
        return {
            **names,
            "HOME": str(self.home(machine)),
            "XDG_STATE_HOME": str(self.home(machine) / ".state"),
            "PATH": os.pathsep.join(paths),
            "LANG": "C.UTF-8",
        }

    def bring(self, *names: str) -> None:
        """Copy files from this machine to the other one."""
        for name in names:
            shutil.copy2(self.home("this") / name, self.home("another"))

    def ask(self, commands: str) -> str:
        """Run commands on this machine, which have to go well; returns what they said."""
        status, said = self.run("this", commands)
        assert status == 0, f"{commands}: status {status}: {said}"
        return said

    def written(self, commands: str) -> str:
        """Say commands of the page in the words of this run."""
        return commands.replace(PAGE_HOST, self.host).replace("board-2", self.victim)

    def tried(self, block: Block, commands: str) -> str:
        """Carry out a block once; returns what differs from the page, and nothing if nothing does."""
        machine = "another" if "another machine" in block.where else "this"
        begin = time.monotonic()
        status, said = self.run(machine, commands)
        for _ in range(DOWNLOADS - 1):
            if status and hung_up(said):
                status, said = self.run(machine, commands)
        LOG.info("# %s\n%s%s%.1f s", block.where, commands, said, time.monotonic() - begin)
        if status:
            return f"status {status}: {said}\n{self.logs()}"
        wanted = [self.written(line) for line in block.prints]
        missing = [line for line in wanted if not re.search(_pattern(line), said)]
        return f"it does not print {missing} but\n{said}" if missing else ""

    def container(self, service: str) -> str:
        """Return the id of the container of a service."""
        (found,) = self.docker(
            "ps", "--all", "--quiet",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).split()  # fmt: skip
        return found

    def inspected(self, service: str) -> dict[str, Any]:
        """Return what docker knows of the container of a service."""
        (found,) = json.loads(self.docker("inspect", self.container(service)))
        return dict(found)

    def inside(self, service: str, commands: str) -> str:
        """Run commands in the container of a service."""
        return self.docker("exec", self.container(service), "sh", "-c", commands)

    def logs(self) -> str:
        """What all containers said last."""
        return self.run("this", "docker compose logs --tail 40")[1]


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))


def _compose(docker: str) -> str:
    """Return the words that `docker compose` stands for here."""
    if old := shutil.which("docker-compose", path=PROGRAMS):
        return old
    plugin = [docker, "compose", "version"]
    if subprocess.run(plugin, capture_output=True, check=False).returncode:
        unavailable(
            "neither docker-compose nor the plugin compose of docker is installed; `.ci/system compose` does"
        )
    return f"{docker} compose"

"""`docs/boards.md` is carried out as it stands: three boards on a switch that leads nowhere, from wheels to a pipeline.

A board has namespaces of its own (network, processes, mounts, name), and its own /etc, /var/lib and login folder. Its
/opt and /usr/local are those of all boards, as if the memory cards were copies. The workstation is a fourth network
namespace, with a copy of the checkout. What a block of the page says runs in a shell there, and what it prints has to
be what the page shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import psutil
import pytest

from tests.kit.document_blocks import Block, blocks
from tests.kit.namespaces import Lab, lab
from tests.kit.programs import program, unavailable
from tests.kit.tree import ROOT, tracked
from tests.kit.until import PATIENCE, until

BOARDS: Final = (1, 2, 3)
WORKSTATION: Final = 4
PAGE: Final = ROOT / "docs" / "boards.md"
PYTHON: Final = Path("/usr/bin/python3.11")
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BLOCK_SECONDS: Final = 60
LOG: Final = logging.getLogger("boards")
"""Tells each block and what it printed; `make boards` shows it."""

BOOT: Final = """
set -e
hostname "$1"
for folder in etc var/lib; do mount --bind "$2/$folder" /$folder; done
for folder in opt usr/local; do mount --bind "$3/$folder" /$folder; done
mount -t tmpfs -o mode=755 tmpfs /run
touch "$2/up"
sleep infinity &
wait
"""
"""What the first process of a board does; it is a shell, so that it reaps what others leave."""
SCP: Final = """#!{python}
import os, subprocess, sys

homes = {homes!r}
words = [word for word in sys.argv[1:] if not word.startswith("-")]
for at, home in homes.items():
    words = [home + word.removeprefix(at) if word.startswith(at) else word for word in words]
os.execvp("cp", ["cp", "--recursive", "--link", "--remove-destination", "--", *words])
"""
"""Copies between the login folders of the machines, as hard links: a board is full of wheels."""
AS_BOARD: Final = 'cd "$1"; exec bash -euo pipefail "$2"'


class Machines:
    """The boards and the workstation.

    Args:
        net: their network.
        folder: where all of it is kept.
    """

    def __init__(self, net: Lab, folder: Path) -> None:
        self._net = net
        self._folder = folder
        self._terminals: list[tuple[asyncio.subprocess.Process, Path]] = []
        self._boards: dict[int, asyncio.subprocess.Process] = {}
        self._scripts = 0

    def home(self, host: int) -> Path:
        """The folder in which a machine's shell begins."""
        return self._folder / str(host) / "login"

    def _prepare(self) -> None:
        """Lay out what is there before the page begins."""
        for name in ("opt", "usr/local"):
            (self._folder / "shared" / name).mkdir(parents=True)
        for host in BOARDS:
            board = self._folder / str(host)
            (board / "var" / "lib").mkdir(parents=True)
            shutil.copytree("/etc", board / "etc", symlinks=True)
            self.home(host).mkdir()
        sbin = self._folder / "shared" / "usr" / "local" / "sbin"
        sbin.mkdir()
        (sbin.parent / "bin").mkdir()
        _executable(
            sbin / "systemctl",
            f"#!{PYTHON}\n" + (ROOT / "tests" / "kit" / "systemctl.py").read_text(),
        )
        for path in tracked("*.py", "*.md", "*.toml", "*.lock", "*.service", "sdk", "LICENSE"):
            copy = self.home(WORKSTATION) / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy)
        homes = {f"{Lab.address(host)}:": f"{self.home(host)}/" for host in BOARDS}
        _executable(self._folder / "bin" / "scp", SCP.format(python=PYTHON, homes=homes))

    async def boot(self, host: int) -> None:
        """Give a board its namespaces, whose first process is its power: the kernel ends all with it."""
        board, shared = self._folder / str(host), self._folder / "shared"
        (board / "up").unlink(missing_ok=True)
        unshare = ("unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = (*unshare, "bash", "-c", BOOT, "sh", f"board-{host}", str(board), str(shared))
        process = await asyncio.create_subprocess_exec(*self._net.inside(host, *words))
        self._boards[host] = process
        await until((board / "up").exists, 20, f"board-{host} is up")

    async def power_off(self, host: int) -> None:
        """End a board as a power cut does."""
        self._boards[host].kill()
        await self._boards.pop(host).wait()

    def _words(self, host: int, script: Path, *, online: bool) -> list[str]:
        if host == WORKSTATION:
            shell = ["bash", "-euo", "pipefail", str(script)]
            return shell if online else self._net.inside(host, *shell)
        (first,) = psutil.Process(self._boards[host].pid).children()
        enter = ("nsenter", f"--target={first.pid}", "--uts", "--mount", "--net", "--pid", "--")
        return [*enter, "bash", "-c", AS_BOARD, "sh", str(self.home(host)), str(script)]

    async def _start(
        self, host: int, commands: str, output: Path, *, online: bool = False
    ) -> asyncio.subprocess.Process:
        self._scripts += 1
        script = self._folder / f"script-{self._scripts}"
        kept = self._folder / str(host) / "exported"
        kept.touch()
        script.write_text(f". {kept}\n{commands}\nexport -p > {kept}\n")
        at_desk = host == WORKSTATION
        here = f"{self._folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = {
            **({name: value for name, value in os.environ.items() if at_desk}),
            "HOME": str(self.home(host)),
            "XDG_STATE_HOME": str(self.home(host) / ".local" / "state"),
            "LANG": "C.UTF-8",
            "PATH": here if at_desk else SYSTEM_PATH,
        }
        if at_desk and online:
            variables["HOME"] = os.environ.get("HOME", "/")  # where settings of pip may be
        with output.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *self._words(host, script, online=online),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
                cwd=self.home(WORKSTATION),
                start_new_session=True,
            )

    async def run(self, host: int, commands: str, *, online: bool = False) -> tuple[int, str]:
        """Run commands on a machine to their end; returns their exit status and what they said."""
        output = self._folder / f"said-{host}"
        process = await self._start(host, commands, output, online=online)
        try:
            async with asyncio.timeout(PATIENCE * BLOCK_SECONDS):
                status = await process.wait()
        except TimeoutError:
            said = f"{commands}\ndid not end, and said:\n{output.read_text()}\n{self.services()}"
            raise AssertionError(said) from None
        return status, output.read_text()

    async def open_terminal(self, host: int, commands: str) -> None:
        """Run commands that stay; a controller has to say that it is ready."""
        output = self._folder / f"terminal-{len(self._terminals)}"
        process = await self._start(host, commands, output)
        self._terminals.append((process, output))
        if "shoal controller" in commands:
            await until(lambda: "controller ready" in output.read_text(), 30, "the controller")

    async def close_terminals(self) -> None:
        """Press Ctrl-C in each that still runs something."""
        for process, output in self._terminals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            async with asyncio.timeout(PATIENCE * 20):
                await process.wait()
            assert "Traceback" not in output.read_text()
        self._terminals = []

    async def _link(self, host: int, state: str) -> None:
        words = [program("ip"), "-n", self._net.namespace(host), "link", "set", "eth0", state]
        await asyncio.to_thread(subprocess.run, words, check=True)

    async def unplug(self, host: int) -> None:
        """Take a board's power away."""
        await self._link(host, "down")
        await self.power_off(host)

    async def plug_in(self, host: int) -> None:
        """Give it back, and let the board start what is enabled there."""
        await self._link(host, "up")
        await self.boot(host)
        status, said = await self.run(host, "systemctl boot")
        assert status == 0, said

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prepare)
        for host in BOARDS:
            await self.boot(host)
        return self

    async def __aexit__(self, *_error: object) -> None:
        for host in tuple(self._boards):
            await self.power_off(host)

    def terminals(self) -> str:
        """What stands in the terminals that are open."""
        return "".join(f"--- {output}\n{output.read_text()}" for _, output in self._terminals)

    def services(self) -> str:
        """What the services of all boards said."""
        logs = sorted(self._folder.glob("*/etc/systemd/system/running/*.log"))
        return "".join(f"--- {path}\n{path.read_text()}" for path in logs)


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@contextlib.asynccontextmanager
async def machines() -> AsyncIterator[Machines]:
    """Three boards and a workstation on a switch, which leave nothing behind."""
    if not PYTHON.exists():
        unavailable(f"{PYTHON} is not there; the page needs Debian's Python 3.11")
    with tempfile.TemporaryDirectory(prefix="shoal-boards-") as folder:
        async with lab(len(BOARDS) + 1) as net, Machines(net, Path(folder)) as made:
            yield made


def _hosts(block: Block) -> Sequence[int]:
    named = [int(number) for number in re.findall(r"board-(\d)", block.where)]
    if named:
        return named
    if "each board" in block.where:
        return BOARDS[:1] if "Install" in block.section else BOARDS
    assert "workstation" in block.where, f"where does this run? {block.where}"
    return (WORKSTATION,)


async def carry_out(made: Machines, block: Block) -> None:
    """Do what a block says, and compare what it prints."""
    hosts = _hosts(block)
    LOG.info("# %s\n%s", block.where, block.commands)
    if block.where.startswith("pull the plug"):
        await made.unplug(*hosts)
    elif block.where.startswith("plug "):
        await made.plug_in(*hosts)
    elif "terminal of its own" in block.where:
        for host in hosts:
            await made.open_terminal(host, block.commands)
    else:
        online = "with internet" in block.section

        # Services and nodes are there within seconds, and a reader looks again.
        again = block.commands.endswith("shoal nodes\n")

        last: dict[int, str] = {}

        async def printed(host: int) -> bool:
            status, said = await made.run(host, block.commands, online=online)
            missing = block.missing(said)
            last[host] = said
            if again and (status or missing):
                return False
            assert status == 0, f"{block.where}: status {status}: {said}\n{made.services()}"
            assert not missing, f"{block.commands} did not print {missing} but:\n{said}"
            LOG.info("%s printed\n%s", block.where, said)
            return True

        waits = (until(partial(printed, host), 30, block.commands) for host in hosts)
        try:
            await asyncio.gather(*waits)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last}\n{made.terminals()}{made.services()}") from None


@pytest.mark.timeout(900)
async def test_u3_the_page_about_boards_is_carried_out() -> None:
    section = ""
    async with machines() as made:
        for block in blocks(PAGE):
            if block.section != section:
                await made.close_terminals()
                section = block.section
            if "not in CI" not in block.where:
                await carry_out(made, block)
        # Keeper and stream worker outlived the restart of their agent's service.
        assert re.search(r"agent started node=board-2 .*streams_survived=True", made.services())
        await _check_units(made)


async def _check_units(made: Machines) -> None:
    """Let systemd itself read the units, on a board where all that they name is there."""
    verify = program("systemd-analyze")
    units = "/etc/systemd/system/shoal-controller.service /etc/systemd/system/shoal-agent.service"
    status, said = await made.run(1, f"{verify} verify {units}")
    # systemd before 254 does not know this one, and goes on.
    told = [line for line in said.splitlines() if "'DelegateSubgroup'" not in line]
    assert (status, told) == (0, [])

"""A fleet for Ansible: a controller and two boards as containers with systemd and sshd, and a workstation.

`board-2` has no Python at all. A machine is reached by ssh with a key, as an ordinary user that may use sudo. The
workstation is a copy of the checkout, in which the commands of `docs/fleet.md` run. All of it ends with the block.
"""

import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from tests.kit.docker import Docker, DockerError, docker_daemon
from tests.kit.programs import program, unavailable
from tests.kit.tree import ROOT, tracked
from tests.kit.until import PATIENCE, until_sync

LOG: Final = logging.getLogger("fleet")
"""Tells each step and what it took; `make lane-ansible` shows it."""
ADDRESSES: Final = {"controller": "10.77.0.1", "board-1": "10.77.0.11", "board-2": "10.77.0.12"}
"""The machines, and the addresses that the page gives them."""
BOARDS: Final = ("board-1", "board-2")
TOOLS: Final = ROOT / ".venv-ansible" / "bin"
SYSTEMD: Final = (
    *("--cap-add", "SYS_ADMIN", "--cgroupns", "private"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),
)
"""What a container needs so that systemd can be its first process."""
SSH_CONFIG: Final = """\
Host *
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
  LogLevel ERROR
"""
OPERATOR: Final = (
    "runuser -u shoal -- env SHOAL_CONTROLLER={address}:7470"
    " SHOAL_IDENTITY=/var/lib/shoal/controller/identity/operator shoal"
)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Tell how long a step took."""
    begun = time.monotonic()
    yield
    LOG.info("%6.1f s  %s", time.monotonic() - begun, name)


class Fleet:
    """The machines, and the workstation beside them.

    Args:
        docker: the daemon.
        folder: for all that the workstation keeps.
        addresses: those that the machines have got.
    """

    def __init__(self, docker: Docker, folder: Path, addresses: Mapping[str, str]) -> None:
        self._docker = docker
        self._folder = folder
        self._run = folder.name.rpartition("-")[2].lower()
        self.addresses = addresses
        self.checkout = folder / "checkout"
        self.said = ""

    # ---- the machines ----

    def on(self, machine: str, commands: str, *, stdin: str = "") -> str:
        """Run commands on a machine, as root, and return what they printed.

        Raises:
            DockerError: they failed.
        """
        words = ("exec", "--interactive", container(self._run, machine), "bash", "-euc", commands)
        return self._docker(*words, stdin=stdin)

    def holds(self, machine: str, condition: str) -> bool:
        """Say whether a command succeeds on a machine."""
        try:
            self.on(machine, condition)
        except DockerError:
            return False
        return True

    def operator(self, words: str) -> str:
        """Run `shoal WORDS` on the controller's machine, as its operator."""
        command = OPERATOR.format(address=self.addresses["controller"])
        return self.on("controller", f"{command} {words}")

    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the controller says of each node."""
        return {one["name"]: one for one in documents(self.operator("nodes --json"))}

    # ---- the workstation ----

    def start(self, commands: str, output: Path) -> subprocess.Popen[bytes]:
        """Start commands on the workstation, in a process group of their own."""
        exported = self._folder / "exported"
        for machine, address in ADDRESSES.items():
            # Longer addresses first would matter if one began with another one: they end in a blank or a colon.
            commands = _put(commands, address, self.addresses[machine])
        script = self._folder / "script"
        script.write_text(
            f'. {exported}\ncd -- "$PWD"\n{commands}\nexport -p > {exported}\n', encoding="utf-8"
        )
        with output.open("wb") as log:
            return subprocess.Popen(
                ["bash", "-euo", "pipefail", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, commands: str, seconds: float = 100) -> tuple[int, str]:
        """Run commands on the workstation to their end; returns their exit status and what they said."""
        output = self._folder / "output"
        process = self.start(commands, output)
        try:
            status = process.wait(PATIENCE * seconds)
        finally:
            self.interrupt(process)
        said = output.read_text(errors="replace")
        self.said += said
        return status, said

    @staticmethod
    def interrupt(process: subprocess.Popen[bytes]) -> None:
        """Kill all that was started with it, as a power cut of the workstation does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE * 10)

    def play(self, words: str, seconds: float = 100) -> tuple[int, str]:
        """Run `ansible-playbook WORDS`; returns its exit status and what it said."""
        with step(f"ansible-playbook {words}"):
            return self.run(f"ansible-playbook {words}", seconds)

    def prepare(self) -> None:
        """Lay out the workstation."""
        for name in tracked():
            if name.parts[0] not in {"tests", "docs", "bench", "proto"}:
                copy = self.checkout / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy, follow_symlinks=False)
        ssh = self._folder / "bin" / "ssh"
        ssh.parent.mkdir()
        config = self._folder / "ssh_config"
        config.write_text(SSH_CONFIG.format(folder=self._folder))
        ssh.write_text(f'#!/bin/sh\nexec {program("ssh")} -F {config} "$@"\n')
        ssh.chmod(0o755)
        path = f"{ssh.parent}:{Path(sys.executable).parent}:{TOOLS}:{os.environ['PATH']}"
        variables = {
            **os.environ,
            "PATH": path,
            "PWD": str(self.checkout),
            "LC_ALL": "C.UTF-8",
            "XDG_STATE_HOME": str(self._folder / "state"),
            "ANSIBLE_HOME": str(self._folder / "home"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_VERBOSITY": "1",
        }
        (self._folder / "exported").write_text(
            "".join(
                f"export {name}={shlex.quote(value)}\n"
                for name, value in variables.items()
                if name.isidentifier()
            )
        )

    def hang_up(self) -> None:
        """End the connections that ssh keeps for the next play."""
        for socket in (self._folder / "cp").glob("*"):
            words = [program("ssh"), "-o", f"ControlPath={socket}", "-O", "exit", "machine"]
            subprocess.run(words, capture_output=True, timeout=PATIENCE * 5, check=False)


def _put(commands: str, address: str, other: str) -> str:
    """Put another address in the place of one, and not of the beginning of a longer one."""
    parts = commands.split(address)
    made = parts[0]
    for part in parts[1:]:
        made += (address if part[:1].isdigit() else other) + part
    return made


def documents(text: str) -> list[dict[str, Any]]:
    """Read lines of JSON; what is none of them is left out."""
    return [
        cast("dict[str, Any]", json.loads(line))
        for line in text.splitlines()
        if line.startswith("{")
    ]


def container(run: str, machine: str) -> str:
    """Return the name of the container of a machine."""
    return f"shoal-fleet-{run}-{machine}"


def images(docker: Docker) -> Mapping[str, str]:
    """Build the images of the machines; returns them by machine."""
    base = docker.base()
    made: dict[str, str] = {}
    for stage in ("board", "bare"):
        words = ("build", "--quiet", "--network=host", f"--build-arg=BASE={base}")
        docker(
            *words,
            f"--target={stage}",
            f"--tag=shoal-fleet:{stage}",
            str(ROOT / "tests" / "lanes" / "ansible"),
            seconds=120,
        )
        made[stage] = f"shoal-fleet:{stage}"
    return {"controller": made["board"], "board-1": made["board"], "board-2": made["bare"]}


@contextlib.contextmanager
def fleet() -> Iterator[Fleet]:
    """The machines, up and running, with nothing of Shoal on them."""
    if not (TOOLS / "ansible-playbook").exists():
        unavailable(f"{TOOLS} has no Ansible; `make lane-ansible` makes it")
    keygen = program("ssh-keygen")
    with (
        docker_daemon() as docker,
        tempfile.TemporaryDirectory(prefix="shoal-fleet-", ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        run = folder.name.rpartition("-")[2].lower()
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True
        )
        with step("the images of the machines"):
            built = images(docker)
        network = f"shoal-fleet-{run}"
        docker("network", "create", network)
        try:
            with step("the machines boot"):
                made = Fleet(docker, folder, _boot(docker, run, network, built, folder))
            made.prepare()
            yield made
            made.hang_up()
        finally:
            for machine in ADDRESSES:
                with contextlib.suppress(DockerError):
                    docker("rm", "--force", "--volumes", container(run, machine))
            docker("network", "rm", network)


def _boot(
    docker: Docker, run: str, network: str, built: Mapping[str, str], folder: Path
) -> Mapping[str, str]:
    """Start the machines, let the key in, and return their addresses."""
    key = (folder / "key.pub").read_text()
    addresses: dict[str, str] = {}
    for machine, image in built.items():
        name = container(run, machine)
        docker(
            *("run", "--detach", "--name", name, "--hostname", machine, "--network", network),
            *SYSTEMD,
            image,
        )
        let_in = "cat > ~jetson/.ssh/authorized_keys; chown jetson: ~jetson/.ssh/authorized_keys"
        docker("exec", "--interactive", name, "bash", "-euc", let_in, stdin=key)
        where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        addresses[machine] = docker("inspect", "--format", where, name).strip()
    for machine in built:
        words = ("exec", container(run, machine), "systemctl", "is-active", "ssh")
        until_sync(partial(_succeeds, docker, words), 60, f"{machine} takes ssh")
    return addresses


def _succeeds(docker: Docker, words: tuple[str, ...]) -> bool:
    try:
        docker(*words)
    except DockerError:
        return False
    return True

"""The words of bubblewrap: their order, and what a real program sees and may do behind them."""

import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.bubblewrap import HIDDEN, Confinement, words
from edge_agent.sandbox.plan import SECCOMP_WORD, STATUS_WORD
from shoal.sandbox import SandboxNetwork
from tests.kit.programs import program
from tests.kit.until import until_sync

PYTHON = "/usr/bin/python3"


def test_words_hide_first_and_bind_back_then() -> None:
    said = words(
        Confinement(
            program="/usr/bin/bwrap",
            folder="/state/a/work",
            hidden=("/tmp", "/state", "/state/a"),
            visible=("/state/sdk", "/usr/lib", "/dev/shm/secrets"),
            writable=("/state/a/work",),
            devices=("/dev/video0",),
            network=SandboxNetwork.NONE,
            filtered=True,
        )
    )
    assert said == (
        "/usr/bin/bwrap",
        *(
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ),
        "--unshare-net",
        *("--new-session", "--die-with-parent", "--cap-drop", "ALL"),
        *("--json-status-fd", STATUS_WORD, "--seccomp", SECCOMP_WORD),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
        *("--dev-bind", "/dev/video0", "/dev/video0"),
        *("--tmpfs", "/state", "--tmpfs", "/tmp"),
        *("--ro-bind", "/state/sdk", "/state/sdk"),
        *("--ro-bind", "/dev/shm/secrets", "/dev/shm/secrets"),
        *("--bind", "/state/a/work", "/state/a/work"),
        *("--remount-ro", "/state"),
        *("--chdir", "/state/a/work", "--"),
    )


def test_the_nodes_network_and_no_filter_add_no_words() -> None:
    said = words(Confinement(program="/usr/bin/bwrap", folder="/state/a/work"))
    assert "--unshare-net" not in said
    assert SECCOMP_WORD not in said


class Started:
    """A program behind the words; `inside` is the number that bubblewrap said."""

    def __init__(self, process: "subprocess.Popen[str]", status: int) -> None:
        self.process = process
        self._status = os.fdopen(
            status
        )  # open until the end: bubblewrap says the exit status there, too
        words = self._status.readline()
        self.inside: int = json.loads(words)["child-pid"] if words else 0

    def ended(self) -> tuple[int, str]:
        """Return its exit status and what it printed."""
        printed, complaints = self.process.communicate(timeout=60)
        self._status.close()
        return self.process.returncode, printed + complaints


class Wrapped:
    """Starts programs behind the words as the keeper does, with a user of their own where the tests are root."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.work = state / "work"
        self.uid = 231_000 if os.geteuid() == 0 else os.geteuid()
        self.work.mkdir()
        if os.geteuid() == 0:
            os.chown(self.work, self.uid, self.uid)
        hidden = tuple(path for path in (*HIDDEN, str(state)) if Path(path).is_dir())
        self.confinement = Confinement(
            program=program("bwrap"),
            folder=str(self.work),
            hidden=hidden,
            writable=(str(self.work),),
        )

    def start(self, confinement: Confinement, *argv: str) -> Started:
        reading, status = os.pipe()
        calls = os.memfd_create("filter", 0)
        os.write(calls, seccomp.program(platform.machine()))
        os.lseek(calls, 0, os.SEEK_SET)
        places = {STATUS_WORD: str(status), SECCOMP_WORD: str(calls)}
        process = subprocess.Popen(
            [places.get(word, word) for word in words(confinement)] + list(argv),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            pass_fds=(status, calls), start_new_session=True, preexec_fn=self._become,  # noqa: PLW1509 - no threads
        )  # fmt: skip
        os.close(status)
        os.close(calls)
        return Started(process, reading)

    def _become(self) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        landlock.restrict([], scoped=landlock.abi() >= landlock.SCOPES_ABI)


@pytest.fixture
def wrapped() -> Iterator[Wrapped]:
    # Below a folder that any user reaches: that of tmp_path is root's alone.
    state = Path(tempfile.mkdtemp(prefix="shoal-wrapped-", dir="/var/tmp"))
    state.chmod(0o755)
    try:
        yield Wrapped(state)
    finally:
        shutil.rmtree(state)


def test_a_program_sees_its_folder_and_not_the_state(wrapped: Wrapped) -> None:
    (wrapped.state / "secret").write_text("secret")
    (wrapped.state / "sdk").mkdir()
    (wrapped.state / "sdk" / "module").write_text("visible")
    confinement = replace(
        wrapped.confinement, visible=(str(wrapped.state / "sdk"), "/usr/lib"), filtered=True
    )
    code, said = wrapped.start(
        confinement,
        "/bin/sh", "-c",
        "cat ../sdk/module; echo; ls ..; echo mine >file; id -u; echo no >../sdk/module || echo refused;"
        " echo own >../other; echo no >/etc/other || echo refused; echo own >/tmp/own && cat /tmp/own;"
        " ls -A /home /root /run; exit 7",
    ).ended()  # fmt: skip
    assert code == 7
    printed = [line for line in said.splitlines() if ": " not in line]
    assert printed[:5] == ["visible", "sdk", "work", str(wrapped.uid), "refused"]
    assert printed[5:8] == ["refused", "own", "/home:"]
    # What stands in for a hidden folder below /var/tmp is the program's own.
    assert not (wrapped.state / "other").exists()
    assert (wrapped.work / "file").read_text() == "mine\n"
    assert not Path("/tmp/own").exists()


def test_a_program_sees_its_own_processes_and_the_filter_holds(wrapped: Wrapped) -> None:
    code, said = wrapped.start(
        replace(wrapped.confinement, filtered=True),
        "/bin/sh", "-c", "ls -d /proc/[0-9]* | wc -l; grep -E 'Seccomp:|NoNewPrivs|CapEff|CapBnd' /proc/self/status",
    ).ended()  # fmt: skip
    assert code == 0
    processes, *rest = said.split()
    assert int(processes) <= 5
    assert rest == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]


def test_without_a_network_the_nodes_loopback_is_out_of_reach(wrapped: Wrapped) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        reach = (
            "import socket, sys\n"
            f"try: socket.create_connection({place!r}, 10)\n"
            "except OSError as error: print(error.strerror)\n"
            "else: print('reached')\n"
            "own = socket.create_server(('127.0.0.1', 0)); socket.create_connection(own.getsockname(), 10)\n"
        )
        network = wrapped.start(wrapped.confinement, "/usr/bin/python3", "-c", reach)
        assert network.ended() == (0, "reached\n")
        none = replace(wrapped.confinement, network=SandboxNetwork.NONE)
        assert wrapped.start(none, "/usr/bin/python3", "-c", reach).ended() == (
            0,
            "Connection refused\n",
        )


def test_a_device_that_was_not_asked_for_is_not_there(wrapped: Wrapped) -> None:
    look = ("/bin/sh", "-c", "ls /dev/kmsg")
    code, said = wrapped.start(wrapped.confinement, *look).ended()
    assert code != 0, said
    asked = replace(wrapped.confinement, devices=("/dev/kmsg",))
    assert wrapped.start(asked, *look).ended() == (0, "/dev/kmsg\n")


def test_sigterm_to_the_programs_group_gives_its_own_exit_status(wrapped: Wrapped) -> None:
    started = _begun(wrapped, "trap 'exit 3' TERM; touch begun; while :; do sleep 0.05; done")
    os.killpg(started.inside, signal.SIGTERM)
    assert started.ended()[0] == 3


def test_a_program_that_a_signal_ends_says_so(wrapped: Wrapped) -> None:
    started = _begun(wrapped, "touch begun; exec sleep 300")
    os.killpg(started.inside, signal.SIGTERM)
    assert started.ended()[0] == 128 + signal.SIGTERM


def test_nothing_is_left_of_a_program_that_is_killed(wrapped: Wrapped) -> None:
    """A daemon of another group and session, too: it cannot leave the namespace."""
    started = _begun(wrapped, "setsid sh -c 'touch begun; exec sleep 677' & wait")
    daemons: list[int] = []

    def runs() -> bool:
        daemons[:] = [pid for pid in _below(started.inside) if _name(pid) == "sleep"]
        return bool(daemons)

    until_sync(runs)
    os.kill(started.inside, signal.SIGKILL)
    assert started.ended()[0] == 128 + signal.SIGKILL
    until_sync(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons))


def test_nothing_is_left_when_bubblewrap_itself_is_killed(wrapped: Wrapped) -> None:
    started = _begun(wrapped, "touch begun; exec sleep 677")
    inside = _below(started.process.pid)
    assert started.inside in inside
    started.process.kill()
    assert started.ended()[0] == -signal.SIGKILL
    until_sync(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))


def test_a_word_that_cannot_be_carried_out_starts_nothing(wrapped: Wrapped) -> None:
    absent = replace(wrapped.confinement, visible=(str(wrapped.state / "absent"),))
    started = wrapped.start(absent, "/bin/touch", "begun")
    code, said = started.ended()
    assert (code, "absent" in said) == (1, True)
    assert not (wrapped.work / "begun").exists()


def _begun(wrapped: Wrapped, script: str) -> Started:
    started = wrapped.start(wrapped.confinement, "/bin/sh", "-c", script)
    until_sync((wrapped.work / "begun").exists)
    return started


def _below(pid: int) -> list[int]:
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for one in found:
        found += [
            int(word) for word in Path(f"/proc/{one}/task/{one}/children").read_text().split()
        ]
    return found


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()

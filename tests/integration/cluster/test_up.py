"""`shoal up` beginning, ending and being found: real processes, and a real terminal."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.programs import program
from tests.kit.until import until_sync

SHOAL = str(Path(sys.executable).parent / "shoal")
SMALL = ("--agents", "1", "--port", "0")
"""As quick as a cluster can be started."""


class Home:
    """A user of this machine, by the folder of their state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("SHOAL_CONTROLLER", "SHOAL_CLUSTER", "SHOAL_UP_MQTT", "SHOAL_IDENTITY")
        kept = {key: value for key, value in os.environ.items() if key not in names}
        self.environ = {**kept, "XDG_STATE_HOME": str(folder)}

    def shoal(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            # Its shell ignores SIGHUP, and what the command starts has to hear it all the same.
            [program("nohup"), SHOAL, *words],
            env={**self.environ, **variables},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def said(self, *words: str, **variables: str) -> str:
        """What a command prints that succeeds."""
        ended = self.shoal(*words, **variables)
        assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
        return ended.stdout

    def processes(self) -> dict[int, str]:
        """The processes that have to do with this user's state, with their command lines."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                around = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or is none
                continue
            ours = str(self.folder) in words or os.fsencode(self.folder) in around
            if ours and words:  # one that has ended and is not waited for has none
                found[int(entry.name)] = words
        return found

    def pid(self, name: str) -> int:
        """The process of a cluster."""
        record = json.loads((self.folder / f"shoal/clusters/{name}.json").read_text())
        return int(record["pid"])

    def busy(self, *words: str) -> None:
        """Have a job run on a cluster, which would never end by itself."""
        self.said("run", "-d", *words, "--", "sleep", "1000")
        until_sync(
            lambda: any("sleep 1000" in words for words in self.processes().values()),
            60,
            "a job that runs",
        )

    def quiet(self) -> None:
        """Wait until no process is left."""
        until_sync(lambda: not self.processes(), 60, f"an end of {self.processes()}")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    user = Home(tmp_path)
    try:
        yield user
    finally:
        for pid in user.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def terminal(home: Home, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command in the foreground of a terminal; gives the process and our end of the terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        # The leader of a session that has this terminal, as a shell is. It hears SIGHUP, also where these
        # tests run below nohup.
        [program("env"), "--default-signal=HUP", program("setsid"), "--ctty", SHOAL, *words],
        env=home.environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        yield running, ours


def read_until(descriptor: int, wanted: bytes) -> str:
    said = b""
    while wanted not in said:
        try:
            said += os.read(descriptor, 4096)
        except OSError:  # its last program has ended
            break
    assert wanted in said, said.decode()
    return said.decode()


def line_of(said: str, word: str) -> str:
    [line] = [line for line in said.splitlines() if line.startswith(word)]
    return line.removeprefix(word).strip()


def test_u4_a_closed_terminal_ends_everything_and_the_broker_stays_where_it_was(home: Home) -> None:
    """B13: who subscribed finds the broker again at the next start."""
    with terminal(home, "up", *SMALL) as (running, ours):
        broker = line_of(read_until(ours, b"ready:"), "events")
        assert broker.startswith("mqtt://127.0.0.1:")
        home.busy()
        os.close(ours)
        assert running.wait(240) == 0
    home.quiet()
    assert "no cluster" in home.said("down")
    again = home.said("up", "--detach", *SMALL)
    assert line_of(again, "events") == broker
    assert "shoal down local" in again
    assert home.said("down").startswith("the cluster local has ended")
    home.quiet()


def test_u4_u5_a_cluster_that_is_killed_leaves_nothing_and_several_are_known_by_name(
    home: Home,
) -> None:
    first = home.said("up", "--detach", "--mqtt", "none", *SMALL)
    assert line_of(first, "cluster") == "local"
    dead = home.said("up", "-d", "--name", "second", "--mqtt", "mqtt://u:pw@127.0.0.1:1", *SMALL)
    events = line_of(dead, "events")
    assert "mqtt://127.0.0.1:1 unreachable since" in events
    assert "nothing listens on port 1 of 127.0.0.1" in events
    assert "start it, or name another one with --mqtt" in events
    assert "pw" not in dead

    home.said("drain", "node-1", "--cluster", "second")
    unsaid = home.shoal("nodes")
    assert unsaid.returncode == 2
    for word in ("local (127.0.0.1:", "second (127.0.0.1:", "--cluster NAME", "SHOAL_CLUSTER"):
        assert word in unsaid.stderr
    home.said("down", "second")
    assert "node-1  ready" in home.said("nodes")  # the other one is the only one again

    taken = home.shoal("up", *SMALL)
    assert taken.returncode == 2
    assert "a cluster runs already under this name: local (127.0.0.1:" in taken.stderr
    assert "shoal down local" in taken.stderr

    home.busy()
    os.kill(home.pid("local"), signal.SIGKILL)
    # At once, while the processes of the killed one are ending.
    assert "ready" in home.said("up", "--detach", "--mqtt", "none", *SMALL)
    os.kill(home.pid("local"), signal.SIGKILL)
    home.quiet()


def test_b3_a_refused_cluster_says_what_was_refused_and_nothing_of_earlier_runs(home: Home) -> None:
    log = home.folder / "files/controller.log"
    log.parent.mkdir()
    log.write_text("what an earlier run said\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for detach in ((), ("--detach",)):
            words = ("--agents", "1", "--port", port, "--mqtt", "none", "--state", "files")
            refused = home.shoal("up", *words, *detach)
            assert refused.returncode == 2, refused
            assert refused.stderr.count("the controller cannot start") == 1
            assert port in refused.stderr
            assert "an earlier run" not in refused.stderr
            assert "Traceback" not in refused.stderr
            assert refused.stdout == ""
    assert log.read_text().count("the controller cannot start") == 2
    home.quiet()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", "Bad Name"), "cluster 'Bad Name' is not a valid id"),
        (("--mqtt", "nowhere"), "write mqtt://user:password@host:1883"),
        (("--mqtt", "mqtt://user:secret@"), "has no host"),
    ],
)
def test_u5_wrong_words_for_a_cluster_start_nothing(
    home: Home, words: tuple[str, ...], said: str
) -> None:
    refused = home.shoal("up", *words)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "secret" not in refused.stderr
    assert not (home.folder / "shoal").exists()


def test_a_cluster_believes_its_user_and_no_other_unless_it_is_insecure(
    home: Home, tmp_path: Path
) -> None:
    home.said("up", "--detach", "--mqtt", "none", *SMALL)
    assert "you are operator/local" in home.said("whoami")
    record = json.loads((home.folder / "shoal/clusters/local.json").read_text())
    port = record["controller"].rpartition(":")[2]
    assert "you are operator/local" in home.said("whoami", "--controller", f"localhost:{port}")
    home.said("run", "--", "sh", "-c", "echo hello > results/x")
    home.said("get", "latest", "results/x", "--output", str(tmp_path / "got"))
    stranger = Home(tmp_path / "stranger")
    stranger.folder.mkdir()
    refused = stranger.shoal("nodes", "--controller", record["controller"])
    assert refused.returncode == 1
    assert "shoal login" in refused.stderr
    shown = stranger.said(
        "whoami", "--controller", record["controller"], "--identity", record["identity"]
    )
    assert "you are operator/local" in shown
    home.said("down")
    home.said("up", "--detach", "--mqtt", "none", "--insecure", *SMALL)
    assert "INSECURE" in home.said("whoami")
    home.said("down")
    home.said("up", "--detach", "--mqtt", "none", *SMALL)
    assert "you are operator/local" in home.said("whoami")
    home.said("down")

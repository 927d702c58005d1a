"""A real MQTT broker: mosquitto with a configuration and a folder of its own."""

import contextlib
import getpass
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.child_process import ChildProcess
from tests.kit.ports import accepts, free_port
from tests.kit.programs import program
from tests.kit.until import until_sync

_STOPS = 10


class Mosquitto:
    """One broker on 127.0.0.1; it keeps its port and its sessions over stop, kill and start.

    Args:
        folder: where its configuration, its persistent sessions and its log go.
        extra: further lines of mosquitto.conf, such as `password_file …`.
    """

    def __init__(self, folder: Path, extra: str = "allow_anonymous true") -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self.saved = folder / "mosquitto.db"
        self._config = folder / "mosquitto.conf"
        self._child = ChildProcess(self.log)
        self._program = program("mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            f"listener {self.port} {self.host}\n"
            # Started as root it would change to a user that cannot read the folder.
            f"user {getpass.getuser()}\n"
            "persistence true\n"
            f"persistence_location {folder}/\n"
            # Every change is saved, though only just after it was acknowledged: what is killed in
            # between forgets, so a test that kills waits until the change is in `saved`.
            "autosave_on_changes true\n"
            "autosave_interval 1\n"
            "log_type all\n"
            f"{extra}\n"
        )

    def start(self) -> None:
        """Start the broker and wait until it accepts connections."""
        process = self._child.run([self._program, "-c", str(self._config)])
        until_sync(
            lambda: accepts(self.port) or process.poll() is not None,
            what=f"mosquitto accepting on port {self.port}",
        )
        if process.poll() is not None:
            raise AssertionError(f"mosquitto ended at once: {self.log.read_text()}")

    def stop(self) -> None:
        """End the broker in good order; does nothing when it does not run.

        It forgets a signal that comes just before its main loop, though it accepts connections by then.
        """
        for _ in range(_STOPS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.end(signal.SIGTERM, 3)
                return
        raise AssertionError(f"mosquitto does not end: {self.log.read_text()[-2000:]}")

    def reload(self) -> None:
        """Let the broker read its passwords and access lists anew."""
        if self._child.process is not None:
            self._child.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End the broker without warning, as a power cut would."""
        self._child.end(signal.SIGKILL, 10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker that anybody may use; it ends with the test."""
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()

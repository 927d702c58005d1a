"""A controller as a real process, whose addresses its ready file tells."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.kit.until import until


class ControllerProcess:
    """One controller with a state folder of its own; every port is free unless `extra` says more.

    Args:
        folder: where its state and its log go.
        extra: further words of its command line.
        environ: variables besides those of this process.
    """

    def __init__(self, folder: Path, *extra: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._extra = extra
        self._environ = {**os.environ, **(environ or {})}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.end(signal.SIGKILL)

    @property
    def grpc(self) -> str:
        """Where it serves."""
        return self.addresses["grpc"]

    @property
    def gossip(self) -> str:
        """Where it gossips."""
        return self.addresses["gossip"]

    async def start(self, *extra: str) -> None:
        """Start it, again with the same state if it ran before; later words win."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.folder / "controller.log").open("ab") as log:
            process = self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "shoal.cli", "controller",
                    "--state", str(self.folder / "state"), "--ready-file", str(ready),
                    "--grpc", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--objects", "127.0.0.1:0",
                    *self._extra, *extra,
                ],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        await until(lambda: ready.exists() or process.poll() is not None, 30, "the ready file")
        assert process.poll() is None, self.log()
        self.addresses = json.loads(ready.read_text())

    def end(self, how: signal.Signals) -> int:
        """End it, and return its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def log(self) -> str:
        """What it logged."""
        return (self.folder / "controller.log").read_text()

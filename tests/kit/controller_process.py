"""A controller as a real process, whose addresses its ready file tells."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.kit.child_process import ChildProcess
from tests.kit.until import until


class ControllerProcess(ChildProcess):
    """One controller with a state folder of its own; every port is free unless `extra` says more.

    Args:
        folder: where its state and its log go.
        extra: further words of its command line.
        environ: variables besides those of this process.
    """

    def __init__(self, folder: Path, *extra: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.addresses: dict[str, str] = {}
        super().__init__(folder / "controller.log")
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
        process = self.run(
            [
                sys.executable, "-m", "shoal.cli", "controller",
                "--state", str(self.folder / "state"), "--ready-file", str(ready),
                "--grpc", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--objects", "127.0.0.1:0",
                "--insecure",
                *self._extra, *extra,
            ],
            self._environ,
        )  # fmt: skip
        await until(lambda: ready.exists() or process.poll() is not None, 30, "the ready file")
        assert process.poll() is None, self.log()
        self.addresses = json.loads(ready.read_text())

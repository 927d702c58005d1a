"""A gateway as a real process in front of a controller, and its users."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from tests.kit.child_process import ChildProcess
from tests.kit.until import until

_READY: Final = "gateway ready "


class RunningGateway(ChildProcess):
    """One gateway with a state folder of its own, on a port that was free.

    Args:
        folder: where its state and its log go.
        controller: `host:port`.
        extra: further words of its command line; later ones win.
    """

    def __init__(self, folder: Path, controller: str, *extra: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "gateway.log")
        self.state = folder / "state"
        self.address = "127.0.0.1:0"
        self._controller = controller
        self._extra = extra

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://{self.address}"

    async def start(self) -> None:
        """Start it, again at the same address if it ran before, and wait until it listens."""
        seen = self.log().count(_READY) if self._log_path.exists() else 0
        process = self.run(
            [
                sys.executable, "-m", "shoal.cli", "gateway",
                "--state", str(self.state),
                "--controller", self._controller,
                "--listen", self.address,
                *self._extra,
            ]
        )  # fmt: skip
        await until(
            lambda: self.log().count(_READY) > seen or process.poll() is not None,
            30,
            "the gateway listens",
        )
        assert process.poll() is None, self.log()
        self.address = self.log().rpartition(_READY)[2].split()[0]

    def allow(self, name: str, *words: str) -> str:
        """Let a user in by the command, and return its token."""
        return self.command("allow", name, *words).strip()

    def command(self, *words: str) -> str:
        """Run a command about its users, and return what it prints."""
        said = subprocess.run(
            (sys.executable, "-m", "shoal.cli", "gateway", "--state", str(self.state), *words),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        return said.stdout

    async def ask(
        self, method: str, token: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Call a method by JSON, and return the status of HTTP and the answer."""
        said = {"authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.url}/shoal.v1.{method}", json=body or {}, headers={**said, **headers}
            ) as answer,
        ):
            text = await answer.text()
            with contextlib.suppress(ValueError):
                return answer.status, json.loads(text)
            return answer.status, text

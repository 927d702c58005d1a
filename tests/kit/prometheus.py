"""A real Prometheus, from Debian's package, with a configuration and a folder of its own."""

import contextlib
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.kit.child_process import ChildProcess
from tests.kit.ports import quiet_port
from tests.kit.programs import program
from tests.kit.until import until


class Prometheus:
    """One server on 127.0.0.1; `async with` it.

    Args:
        folder: where its figures and its log go.
        config: its configuration.
    """

    def __init__(self, folder: Path, config: Path) -> None:
        self.address = f"127.0.0.1:{quiet_port()}"
        self.log = folder / "prometheus.log"
        self._folder = folder
        self._config = config
        self._child = ChildProcess(self.log)
        self._session = aiohttp.ClientSession(f"http://{self.address}")

    async def __aenter__(self) -> Self:
        process = self._child.run(
            [
                program("prometheus"),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self.address}",
            ]
        )

        async def is_ready() -> bool:
            assert process.poll() is None, self.log.read_text()
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get("/-/ready") as answer:
                    return answer.status == 200
            return False

        await until(is_ready, 30, "Prometheus is ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._child.end(signal.SIGTERM)

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return what a page of its API answers; an error is the test's."""
        async with self._session.get(f"/api/v1/{path}", params=parameters) as answer:
            said: Mapping[str, Any] = await answer.json()
        assert said["status"] == "success", (parameters, said)
        return said["data"]

    async def query(self, expression: str) -> list[Any]:
        """Return the series of an expression, now."""
        found: list[Any] = (await self.ask("query", query=expression))["result"]
        return found


def promtool(folder: Path, *words: str) -> str:
    """Run promtool in a folder and return what it said; it has to be content."""
    done = subprocess.run(
        [program("promtool"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said

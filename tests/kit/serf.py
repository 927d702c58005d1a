"""Debian's Serf agent as a test partner, on loopback."""

import asyncio
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from tests.kit.ports import free_port
from tests.kit.programs import program
from tests.kit.until import until


@dataclass(slots=True, kw_only=True)
class SerfAgent:
    """One `serf agent` process.

    Attributes:
        name: Its node name.
        folder: Where its log goes.
        tags: Its tags.
        key: Base64 key, empty for plain.
        keyring: File of its keys, in the place of a key.
        join: `host:port` addresses to join at start.
    """

    name: str
    folder: Path
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    key: str = ""
    keyring: Path | None = None
    join: Sequence[str] = ()
    profile: str = "lan"
    port: int = field(default_factory=free_port)
    rpc_port: int = field(default_factory=free_port)
    _process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where it gossips."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / f"{self.name}.log").read_text()

    async def __aenter__(self) -> Self:
        arguments = [
            program("serf"),
            "agent",
            f"-node={self.name}",
            f"-bind={self.address}",
            f"-rpc-addr=127.0.0.1:{self.rpc_port}",
            f"-profile={self.profile}",
            "-log-level=debug",
        ]
        arguments += [f"-tag={key}={value}" for key, value in self.tags.items()]
        arguments += [f"-join={address}" for address in self.join]
        if self.key:
            arguments.append(f"-encrypt={self.key}")
        if self.keyring is not None:
            arguments.append(f"-keyring-file={self.keyring}")
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(*arguments, stdout=log, stderr=log)
        await until(self._answers, 10, f"serf agent {self.name} answers its command")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run the `serf` command against it: exit code and what it said."""
        return await serf_command(self.rpc_port, *arguments)

    async def members(self) -> dict[str, str]:
        """State by name, as `serf members` lists them."""
        return {name: str(row["status"]) for name, row in (await self.rows()).items()}

    async def rows(self) -> dict[str, dict[str, Any]]:
        """All that `serf members` knows, by name."""
        code, said = await self.command("members", "-format=json")
        assert code == 0, said
        rows = cast("list[dict[str, Any]]", json.loads(said)["members"])
        return {str(row["name"]): row for row in rows}

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log
        code, _ = await self.command("members")
        return code == 0


async def serf_command(rpc_port: int, *arguments: str) -> tuple[int, str]:
    """Run the stock `serf` command against an RPC port: exit code and what it said."""
    action, *rest = arguments
    process = await asyncio.create_subprocess_exec(
        program("serf"),
        action,
        f"-rpc-addr=127.0.0.1:{rpc_port}",
        *rest,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()

"""HashiCorp's memberlist as a test partner, built from Debian's source package."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.kit.programs import program, unavailable
from tests.kit.until import until

SOURCE = Path(__file__).parent / "go_member" / "main.go"
GOPATH = Path("/usr/share/gocode")
PACKAGE = GOPATH / "src/github.com/hashicorp/memberlist"
BUILD_SECONDS = 300


class Seen(NamedTuple):
    """An event of a Go member: at `when` (seconds since 1970) `observer` saw `kind` of `name`."""

    when: float
    observer: str
    kind: str
    name: str


async def build() -> Path:
    """Build the partner, once for each version of its source.

    Without Go or Debian's golang-github-hashicorp-memberlist-dev the test is skipped, or under CI
    fails.
    """
    go = program("go")
    if not PACKAGE.is_dir():
        unavailable("golang-github-hashicorp-memberlist-dev is not installed; apt-get install it")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"shoal-go-member-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    binary = cache / digest
    if binary.exists():
        return binary
    unfinished = cache / f"{digest}.{os.getpid()}"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(cache / "cache"),
        "GOFLAGS": "",
    }
    process = await asyncio.create_subprocess_exec(
        go,
        "build",
        "-o",
        str(unfinished),
        str(SOURCE),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BUILD_SECONDS):
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    unfinished.rename(binary)
    return binary


@dataclass(slots=True, kw_only=True)
class GoMembers:
    """Members of Go's memberlist in one process.

    Attributes:
        count: How many.
        prefix: Start of their names; a number follows.
        key: Encryption key, empty for plain.
        preset: `lan` or `local`.
    """

    count: int = 1
    prefix: str = "go"
    key: bytes = b""
    preset: str = "lan"
    ports: list[int] = field(default_factory=list[int])
    events: list[Seen] = field(default_factory=list[Seen])
    _lists: dict[int, set[str]] = field(default_factory=dict[int, set[str]])
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        binary = await build()
        self._process = await asyncio.create_subprocess_exec(
            str(binary),
            f"-nodes={self.count}",
            f"-prefix={self.prefix}",
            f"-preset={self.preset}",
            f"-key={self.key.hex()}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())
        await until(lambda: len(self.ports) == self.count, 20, "Go members listen")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def address(self, index: int = 0) -> str:
        """Where a member gossips."""
        return f"127.0.0.1:{self.ports[index]}"

    def tell(self, *words: object) -> None:
        """Send a command, as main.go lists them."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    async def members(self, index: int = 0) -> set[str]:
        """Names that a member holds for alive or suspect."""
        self._lists.pop(index, None)
        self.tell("members", index)
        await until(lambda: index in self._lists, 5, "a Go member lists its members")
        return self._lists[index]

    def saw(self, kind: str, name: str) -> Sequence[Seen]:
        """The events of a kind about a member."""
        return [seen for seen in self.events if seen.kind == kind and seen.name == name]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, *rest = line.decode().split()
            if word == "ready":
                self.ports.append(int(rest[1]))
            elif word == "event":
                self.events.append(Seen(float(rest[0]), rest[1], rest[2], rest[3]))
            elif word == "members":
                self._lists[int(rest[0])] = set(rest[1].split(",")) if len(rest) > 1 else set()

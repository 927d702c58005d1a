"""Real S3 servers: moto, which is quick, and ministack, which is strict and has queues (SQS), too."""

import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self

import pytest

from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from tests.kit.child_process import ChildProcess
from tests.kit.ports import accepts, free_port
from tests.kit.programs import program
from tests.kit.tree import ROOT
from tests.kit.until import until_sync

BUCKET = "shoal-archive"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a moto server; one for the whole run, each test takes a bucket of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    yield from _serve(command, port, {}, tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def ministack_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a ministack server, which checks checksums and races of conditional PUTs.

    It pins another botocore, so it lives in an environment of its own: `make test` makes it, and
    SHOAL_MINISTACK may name another program.
    """
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server.endpoint


class BucketServer(Protocol):
    """An S3 server on 127.0.0.1 that a test stops and starts; it keeps its port and its objects.

    Attributes:
        endpoint: its address.
        credentials: variables of the environment with the keys of somebody who may make buckets.
    """

    endpoint: str
    credentials: Mapping[str, str]

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        ...

    def stop(self) -> None:
        """End it; does nothing when it does not run."""
        ...

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        """Let it take connections and answer nothing until the end of the block."""
        ...


class Ministack:
    """One ministack on 127.0.0.1 with S3 and SQS; it keeps its port over stop and start, its objects but no queue.

    Args:
        folder: where its objects and its log go.
    """

    def __init__(self, folder: Path) -> None:
        self.credentials: Mapping[str, str] = CREDENTIALS
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        made = ROOT / ".venv-ministack" / "bin" / "ministack"
        named = os.environ.get("SHOAL_MINISTACK") or (str(made) if made.exists() else "ministack")
        self.program = program(named)
        self._folder = folder
        self._child = ChildProcess(folder / "log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3,sqs",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._folder / "data"),
        }
        _begin(self._child, [self.program], self.port, settings, self._folder)

    def stop(self) -> None:
        """End it; does nothing when it does not run."""
        self._child.end(signal.SIGTERM, 10)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it take connections and answer nothing until the end of the block."""
        process = self._child.process
        assert process is not None, "start it first"
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


def _serve(
    command: list[str], port: int, settings: Mapping[str, str], folder: Path
) -> Iterator[str]:
    child = ChildProcess(folder / "log")
    try:
        _begin(child, command, port, settings, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.end(signal.SIGTERM, 10)


def _begin(
    child: ChildProcess, command: list[str], port: int, settings: Mapping[str, str], folder: Path
) -> None:
    process = child.run(command, {**os.environ, **CREDENTIALS, **settings}, folder)
    until_sync(
        lambda: accepts(port) or process.poll() is not None, 60, f"{command[0]} on port {port}"
    )
    assert process.poll() is None, child.log()


async def make_bucket(server: S3Server) -> str:
    """Make a bucket that nobody else uses and return its name."""
    bucket = f"{BUCKET}-{secrets.token_hex(4)}"
    async with s3_client(server) as client:
        await client.create_bucket(Bucket=bucket)
    return bucket

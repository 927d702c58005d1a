"""Real S3 servers: moto, which is quick, and ministack, which is strict."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from tests.kit.child_process import ChildProcess
from tests.kit.ports import accepts, free_port
from tests.kit.programs import program
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
    SHOAL_MINISTACK names its program.
    """
    command = program(os.environ.get("SHOAL_MINISTACK") or "ministack")
    port = free_port()
    folder = tmp_path_factory.mktemp("ministack")
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "data"),
    }
    yield from _serve([command], port, settings, folder)


def _serve(
    command: list[str], port: int, settings: Mapping[str, str], folder: Path
) -> Iterator[str]:
    child = ChildProcess(folder / "log")
    process = child.run(command, {**os.environ, **CREDENTIALS, **settings}, folder)
    try:
        until_sync(
            lambda: accepts(port) or process.poll() is not None, 60, f"{command[0]} on port {port}"
        )
        assert process.poll() is None, child.log()
        yield f"http://127.0.0.1:{port}"
    finally:
        child.end(signal.SIGTERM, 10)


async def make_bucket(server: S3Server) -> str:
    """Make a bucket that nobody else uses and return its name."""
    bucket = f"{BUCKET}-{secrets.token_hex(4)}"
    async with s3_client(server) as client:
        await client.create_bucket(Bucket=bucket)
    return bucket

"""The image of the agent for aarch64, built once from the shipped file."""

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.docker import Docker, docker

__all__ = ["docker"]

LOG: Final = logging.getLogger("arm64")
"""Tells what was seen and what it took; `make lane-arm64` shows it."""
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class BoardImage:
    """An image of the agent, and the image that it was built on.

    Attributes:
        docker: the daemon that has both.
        name: of the image.
        base: of what it was built on.
    """

    docker: Docker
    name: str
    base: str


@pytest.fixture(scope="session")
def image(docker: Docker) -> Iterator[BoardImage]:
    """`edge_agent/Dockerfile` for aarch64; Debian 12 stands in for its BASE, which CI cannot pull."""
    began = time.monotonic()
    base = docker.base("bookworm-arm64")
    docker.base("bookworm-build")
    bases = time.monotonic()
    built = BoardImage(docker, f"shoal-agent-arm64:{uuid.uuid4().hex[:8]}", base)
    build(docker, base, "--quiet", "--platform", "linux/arm64", "--tag", built.name)
    LOG.info(
        "bases made in %.1f s, the image built in %.1f s", bases - began, time.monotonic() - bases
    )
    yield built
    docker("image", "rm", "--force", built.name)


def build(docker: Docker, base: str, *words: str) -> None:
    """Build the shipped file on a base.

    Raises:
        DockerError: it is refused.
    """
    docker(
        "build", "--file", "edge_agent/Dockerfile",
        "--build-arg", f"BASE={base}", "--build-arg", "BUILD_BASE=shoal-base:bookworm-build",
        *(("--secret", f"id=ca,src={AUTHORITIES}") if AUTHORITIES.exists() else ()),
        *words, ".",
        seconds=120,
    )  # fmt: skip

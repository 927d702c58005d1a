"""The image of the agent for aarch64, built once from the shipped file."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.docker import Docker, docker
from tests.kit.document_blocks import Block, blocks
from tests.kit.tree import ROOT

__all__ = ["docker"]

LOG: Final = logging.getLogger("arm64")
"""Tells what was seen and what it took; `make lane-arm64` shows it."""
PAGE: Final = ROOT / "docs" / "jetson.md"
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
    options = f"docker build --quiet {' '.join(build_options(base))} "
    carry_out(docker, "docker build ", {"docker build ": options, "shoal-agent:arm64": built.name})
    LOG.info(
        "bases made in %.1f s, the image built in %.1f s", bases - began, time.monotonic() - bases
    )
    yield built
    docker("image", "rm", "--force", built.name)


def build_options(base: str) -> tuple[str, ...]:
    """What this lane has to say to build on a base of its own."""
    secret = ("--secret", f"id=ca,src={AUTHORITIES}") if AUTHORITIES.exists() else ()
    arguments = (f"BASE={base}", "BUILD_BASE=shoal-base:bookworm-build")
    return (*(word for one in arguments for word in ("--build-arg", one)), *secret)


def block_of(command: str) -> Block:
    """The only block of the page with this command that CI carries out."""
    [found] = [
        block
        for block in blocks(PAGE)
        if command in block.commands and not block.where.endswith("(not in CI)")
    ]
    return found


def carry_out(
    docker: Docker,
    command: str,
    replaced: Mapping[str, str],
    more: Mapping[str, str] | None = None,
) -> str:
    """Run the block of the page that has a command, with names and addresses of this run; returns what it printed.

    Raises:
        AssertionError: what is to be replaced does not stand there any more.
        DockerError: it failed.
    """
    text = block_of(command).commands
    for old, new in replaced.items():
        assert old in text, f"{PAGE} does not say {old!r} where it says {command!r}"
        text = text.replace(old, new)
    return docker.command(["bash", "-euo", "pipefail", "-c", text], seconds=120, more=more)

"""A controller with identity in the test's process, and a gateway before it as a real process."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from shoal.client import Client
from shoal.credentials import write_credentials
from shoal.identity import Role
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller
from tests.kit.running_gateway import RunningGateway


@dataclass(frozen=True)
class Site:
    """What a browser meets.

    Attributes:
        gateway: the gateway.
        controller: `host:port` of the controller.
        state: folder of the controller.
        ann: token of a submitter.
        bob: token of a viewer.
    """

    gateway: RunningGateway
    controller: str
    state: Path
    ann: str
    bob: str

    def operator(self) -> Client:
        """A client of an operator, past the gateway."""
        return Client(
            self.controller, credentials=credentials_of(self.state, Role.OPERATOR, "root")
        )


def gateway_identity(state: Path, folder: Path) -> Path:
    """Write the credentials of a gateway into a folder, and return it."""
    write_credentials(folder, credentials_of(state, Role.GATEWAY, "web"))
    return folder


@contextlib.asynccontextmanager
async def running_site(folder: Path, *words: str, **settings: object) -> AsyncIterator[Site]:
    """Run a controller and a gateway until the end of the block.

    Args:
        folder: where both keep things.
        words: further words of the gateway's command line.
        settings: of the controller.
    """
    state = folder / "controller"
    async with running_controller(state, insecure=False, **settings) as addresses:
        identity = gateway_identity(state, folder / "identity")
        gateway = RunningGateway(
            folder / "gateway", addresses.grpc, "--identity", str(identity), *words
        )
        ann = gateway.allow("ann", "--role", "submitter")
        bob = gateway.allow("bob")
        async with gateway:
            yield Site(gateway, addresses.grpc, state, ann, bob)


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no chromium: .ci/system installs it")
        pytest.skip("there is no chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path) as site:
        yield site

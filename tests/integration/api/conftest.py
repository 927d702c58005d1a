"""A controller in the test's process, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from tests.kit.running_controller import running_controller


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerAddresses]:
    async with running_controller(tmp_path / "controller") as addresses:
        yield addresses


@pytest.fixture
async def client(controller: ControllerAddresses) -> AsyncIterator[Client]:
    async with Client(controller.grpc) as opened:
        yield opened

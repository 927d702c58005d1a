"""A controller with identity in the test's process, with whoever calls it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.credentials import Credentials
from shoal.identity import Role
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller


@dataclass(frozen=True)
class Cluster:
    """A controller that runs."""

    address: str
    state: Path

    def credentials(self, role: Role, name: str, namespace: str = "") -> Credentials:
        """Credentials of somebody in it."""
        return credentials_of(self.state, role, name, namespace)

    def client(
        self, role: Role, name: str = "ann", namespace: str = "", *, asks: str = ""
    ) -> Client:
        """A client of somebody, who asks about a namespace, by default the own one."""
        return Client(
            self.address,
            namespace=asks or namespace or "default",
            credentials=self.credentials(role, name, namespace),
        )


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running_controller(tmp_path / "controller", insecure=False) as addresses:
        yield Cluster(addresses.grpc, tmp_path / "controller")

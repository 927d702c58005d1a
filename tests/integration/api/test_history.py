"""The controller's own history, through the API."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.front.history import SERIES, SLOTS
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.identity import Role
from tests.kit.controller_credentials import credentials_of
from tests.kit.running_controller import running_controller


async def test_the_history_is_a_week_that_ends_now(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running_controller(state, insecure=False) as addresses:
        viewer = credentials_of(state, Role.VIEWER, "ann")
        async with Client(addresses.grpc, credentials=viewer) as client:
            history = await client.history()
        assert set(history.series) == set(SERIES)
        assert {len(values) for values in history.series.values()} == {SLOTS}
        ends = history.begin_time + timedelta(seconds=SLOTS * history.slot_seconds)
        assert abs(datetime.now(UTC) - ends) <= timedelta(seconds=history.slot_seconds + 60)
        bound = credentials_of(state, Role.VIEWER, "bob", "lab")
        async with Client(addresses.grpc, credentials=bound) as client:
            with pytest.raises(ShoalError, match="bound to lab"):
                await client.history()

"""`shoal history` at a controller that has a history."""

import json
import time
from pathlib import Path

from control.controller import HISTORY_NAME
from control.front.history import SERIES, SLOT_SECONDS
from tests.integration.sdk.test_cli_lists import said
from tests.kit.running_controller import running_controller
from tests.unit.control.test_history import Week


async def test_the_course_of_a_day_is_shown_and_its_numbers_are_printed(tmp_path: Path) -> None:
    week = Week(tmp_path / HISTORY_NAME, time.time() - 4 * SLOT_SECONDS)
    for waiting, ended in ((4, 0), (8, 3), (2, 5)):
        week.waiting, week.ended = waiting, ended
        await week.look(SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    async with running_controller(tmp_path) as addresses:
        table = (await said(addresses.grpc, "history")).splitlines()
        assert [line.split()[0] for line in table[1:]] == list(SERIES)
        [row] = [line for line in table if line.startswith("jobs_waiting")]
        assert row.split()[1:5] == ["2", "2", "4.7", "8"]
        assert "█" in row
        [row] = [line for line in table if line.startswith("attempts_failed")]
        assert row.split()[1:5] == ["2", "0", "5", "3"], "how many there were, not their mean"
        one = json.loads(await said(addresses.grpc, "history", "jobs_waiting", "--json"))
        assert one["slot_seconds"] == SLOT_SECONDS
        assert [value for value in one["values"] if value is not None] == [4, 8, 2]
        assert len(one["values"]) in {288, 289}
        assert "write one of attempts_failed" in await said(addresses.grpc, "history", "jobs")
        assert "9h" in await said(addresses.grpc, "history", "--since", "9hours")

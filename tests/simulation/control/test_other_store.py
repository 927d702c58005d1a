"""R6: in histories with faults, a controller with an older or an empty store ends no attempt."""

import sqlite3

import pytest

from control.store import schema
from tests.simulation.control.world import Faults, World

HISTORIES = 24


def _live(seed: int, *, empty: bool) -> None:
    """A history in which the controller runs for 20 s with another store, and then with its own."""
    world = World(seed, Faults())
    world.start()
    for agent in world.agents:
        agent.dial()
        agent.watch_lease()
    for _ in range(2):
        world.submit()
    world.lottery()
    copied_at = world.random.uniform(0.0, 10.0)
    world.run(copied_at)
    store = world.copy()
    if empty:
        store = sqlite3.connect(":memory:", isolation_level=None)
        store.executescript(schema.TABLES)
        world.copied_at = -1.0  # whoever was told anything was told more
    world.run(copied_at + world.random.uniform(0.5, 10.0))
    world.mistake(store)
    world.run(world.now + 20.0)
    world.mend()
    world.run(world.now + 5.0)
    world.heal()
    world.run(world.now + 400.0, world.settled)
    assert world.settled()
    world.check_end()


@pytest.mark.parametrize("empty", [False, True])
def test_r6_an_agent_is_told_nothing_by_a_store_that_knows_less(*, empty: bool) -> None:
    for seed in range(HISTORIES):
        try:
            _live(seed, empty=empty)
        except BaseException as error:
            error.add_note(f"seed {seed}, empty {empty}")
            raise

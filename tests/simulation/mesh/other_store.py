"""R6: a history in which the controller runs for a while with a copy of its store that knows less.

Someone restores a backup that is too old, or starts the controller with an empty folder, and puts it right
20 seconds later. An agent that was told more than that store knows must not be told anything by it. One
that was not follows it by right, so it is kept off.
"""

import asyncio
import sqlite3
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from control.store import schema
from edge_agent.agent_shell import FOLLOWED
from edge_agent.attempts.events import Acknowledged, DesiredChanged
from edge_agent.followed import read_followed
from tests.simulation.mesh.archive import MemoryArchive
from tests.simulation.mesh.board import Board
from tests.simulation.mesh.broker import MemoryBroker
from tests.simulation.mesh.controller import Controller
from tests.simulation.mesh.story import Faults
from tests.simulation.mesh.world import MistakeError, World

FAULTS = replace(Faults(), board_dies=0.0)
MISTAKEN_SECONDS = 20.0
GAP_SECONDS = 0.5
"""Between two controllers: what the one before sent has arrived, and is on the agent's disk."""


class OtherStoreWorld(World):
    """A world whose controller has another store for a while; see `World`.

    Args:
        empty: whether that one is empty, and not a copy.
    """

    def __init__(self, *args: Any, empty: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mistaken = False
        self._empty = empty

    async def live(self) -> None:
        """Live through the history; see `World.live`."""
        lottery = self._begin()
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        store = self._copy()
        self.user(self._submit())
        await asyncio.sleep(self.rng.uniform(0.5, 4.0))
        lottery.cancel()
        self._heal()
        self.controller.kill()
        await asyncio.sleep(GAP_SECONDS)
        await self._be_mistaken(store)
        await asyncio.sleep(GAP_SECONDS)
        self.controller.start()
        await self._settle()
        self._check_end()

    def _copy(self) -> sqlite3.Connection:
        """Copy the store as a backup does, while the controller runs."""
        target = sqlite3.connect(":memory:", isolation_level=None)
        if self._empty:
            schema.add_functions(target)
            target.executescript("".join(schema.STEPS))
        else:
            self.controller.store.connection.backup(target)
        return target

    async def _be_mistaken(self, store: sqlite3.Connection) -> None:
        """Run the controller with the other store, while agents and boards start again."""
        # With an archive and a broker of its own: what it tells them is none of the ledger's business.
        other = Controller(
            self.loop,
            self.network,
            MemoryArchive(Random(self.rng.random()), lambda _key, _data, _objects: None),
            MemoryBroker(Random(self.rng.random()), lambda _: None),
            Random(self.rng.random()),
            config=self.config,
            recorded=lambda _: None,
            membership=self.membership,
        )
        other.store.connection = store
        other.starts = self.controller.starts
        kept_off = [board for board in self.boards if not self._was_told_more(board, store)]
        for board in kept_off:
            self.network.cut_both_ways(board.name, "controller")
        self.count("told more")
        self.counts["told more"] += len(self.boards) - len(kept_off) - 1
        self.mistaken = True
        other.start()
        for board in self.boards:
            self.user(self._restart(board))
        await asyncio.sleep(MISTAKEN_SECONDS)
        if other.process is not None and other.process.failure is not None:
            raise MistakeError("the mistaken controller ended") from other.process.failure
        other.kill()
        self.mistaken = False
        self.controller.starts = other.starts
        for board in kept_off:
            self.network.heal_both_ways(board.name, "controller")

    @staticmethod
    def _was_told_more(board: Board, store: sqlite3.Connection) -> bool:
        """Whether an agent was told of a commit that a store does not know."""
        followed = read_followed(board.journal.facts.get(FOLLOWED, ""))
        if followed is None:
            return False
        known = dict(store.execute("SELECT term, commits FROM starts").fetchall())
        return bool(followed.commit > known.get(followed.term, -1))

    async def _restart(self, board: Board) -> None:
        """Let its agent, or the board, go down for a while, or neither."""
        down: Any = self.rng.choice(
            (None, board.kill_agent, partial(board.power_off, lose_unsynced=True))
        )
        if down is not None:
            await asyncio.sleep(self.rng.uniform(0.0, MISTAKEN_SECONDS / 2))
            down()
            await asyncio.sleep(self.rng.uniform(0.1, MISTAKEN_SECONDS / 4))
            board.boot()
            board.start_agent()

    def _agent_takes(self, board: Board, event: object) -> None:
        super()._agent_takes(board, event)
        if isinstance(event, DesiredChanged | Acknowledged):
            self.ledger.check(
                not self.mistaken,
                f"R6: {board.name} was told by a store that knows less: {event}",
            )

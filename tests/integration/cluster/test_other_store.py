"""R6: a controller whose store is empty, or an older copy, ends nothing on a board and deletes nothing."""

import contextlib
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import NodeView
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import describe, job_of, submit, when
from tests.kit.controller_process import ControllerProcess
from tests.kit.until import until

_SPEC = """
    name: patient
    jobs:
      main: {{run: sh patient.sh, variables: {{GATE: "{gate}"}}}}
    bundle: .
"""
_SCRIPT = "echo $$ > pid\nuntil [ -e $GATE ]; do sleep 0.1; done\necho done > results/x\n"


class _Board:
    """A controller and an agent with one job that runs until its gate is opened."""

    def __init__(self, folder: Path, controller: ControllerProcess, agent: AgentProcess) -> None:
        self.controller = controller
        self.agent = agent
        self.name = ""
        self._folder = folder
        self._gate = folder / "gate"

    async def submit(self) -> None:
        async with self.client() as client:
            spec = _SPEC.format(gate=self._gate)
            found = await submit(client, self._folder / "bundle", spec, {"patient.sh": _SCRIPT})
            self.name = found.pipeline.id
            await when(client, self.name, lambda now: now.jobs[0].state is JobState.RUNNING)
        await until(self._pid, 10, "the job's process id")

    def open_gate(self) -> None:
        self._gate.touch()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(self.controller.grpc) as client:
            yield client

    async def restart(self, *extra: str) -> None:
        """Start the controller again where it was."""
        self.controller.end(signal.SIGKILL)
        await self.controller.start("--grpc", self.controller.grpc, *extra)

    async def node(self) -> NodeView | None:
        async with self.client() as client:
            found = await client.nodes()
        return found[0] if found else None

    async def quarantined(self) -> str:
        async def said() -> str:
            node = await self.node()
            return node.quarantine if node is not None and node.connected else ""

        return await until(said, 15, "the quarantine")

    async def ready(self) -> None:
        async def is_ready() -> bool:
            node = await self.node()
            return node is not None and node.connected and not node.quarantine

        await until(is_ready, 15, "the node to be ready")

    def runs(self) -> bool:
        """Whether the very program that was started runs still, in its folder."""
        pid = self._pid()
        return bool(pid) and Path(f"/proc/{pid}/cwd").exists() and len(self.agent.attempts()) == 1

    def agent_says(self, what: str) -> Callable[[], bool]:
        return lambda: what in self.agent.log()

    def _pid(self) -> str:
        for attempt in self.agent.attempts():
            path = self.agent.state / "attempts" / attempt / "work" / "pid"
            if path.exists():
                return path.read_text().strip()
        return ""

    def store(self) -> Path:
        return self.controller.folder / "state" / "controller.db"

    def copy(self, path: Path) -> None:
        """Copy the store as a backup does, while the controller runs."""
        with (
            contextlib.closing(sqlite3.connect(self.store())) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)

    async def restore(self, copy: Path) -> None:
        """Start the controller with a copy of its store."""
        self.controller.end(signal.SIGKILL)
        for path in self.store().parent.glob("controller.db-*"):
            path.unlink()
        shutil.copy(copy, self.store())
        await self.restart()


@contextlib.asynccontextmanager
async def _board(folder: Path) -> AsyncIterator[_Board]:
    async with (
        ControllerProcess(folder, "--lease-seconds", "3") as controller,
        AgentProcess(controller.grpc) as agent,
    ):
        board = _Board(folder, controller, agent)
        await board.ready()
        yield board


async def test_r6_an_older_copy_ends_nothing_and_the_right_store_goes_on(tmp_path: Path) -> None:
    async with _board(tmp_path) as board:
        older, right = tmp_path / "older.db", tmp_path / "right.db"
        board.copy(older)
        await board.submit()
        await board.restart()
        await board.ready()
        assert board.runs()
        assert "quarantined" not in board.agent.log(), "nobody notices a restart"
        board.copy(right)

        await board.restore(older)  # it counts up to the same term
        why = await board.quarantined()
        assert "does not list" in why
        assert "shoal nodes adopt node-1" in why
        assert why in board.controller.log()
        await until(board.agent_says(why), 10, "the agent's word")
        # What is submitted meanwhile does not go there, and says why.
        async with board.client() as client:
            spec = "name: other\njobs: {main: {run: 'true'}}\n"
            other = await submit(client, tmp_path / "other", spec, {})
            name = other.pipeline.id
            await when(client, name, lambda now: "quarantined" in now.jobs[0].waiting_for)
            [verdict] = await client.explain(f"{name}/main")
            assert why in verdict.sentence
            assert not verdict.feasible
        assert board.runs(), board.agent.log()

        await board.restore(right)
        await board.ready()
        assert board.runs()
        board.open_gate()
        async with board.client() as client:
            done = await when(client, board.name, lambda now: now.state.terminal)
            assert done.state is PipelineState.SUCCEEDED, describe(done)
            assert len(job_of(done, "main").attempts) == 1


async def test_r6_an_empty_store_ends_nothing_until_the_node_is_adopted(tmp_path: Path) -> None:
    async with _board(tmp_path) as board:
        older = tmp_path / "older.db"
        board.copy(older)
        await board.submit()
        await board.restore(older)  # its starts list the one that the board follows
        assert "was told of commit" in await board.quarantined()
        assert board.runs()

        board.controller.end(signal.SIGKILL)
        shutil.rmtree(board.store().parent)
        await board.restart()
        assert "knows nothing of it" in await board.quarantined()
        board.agent.kill()
        board.agent.start()  # it remembers, and so does nothing but wait
        await until(lambda: board.agent.log().count("agent started") == 2, 15, "its start")
        await board.quarantined()
        assert board.runs(), board.agent.log()

        async with board.client() as client:
            await client.adopt("node-1")
            await board.ready()
            await until(lambda: not board.agent.attempts(), 15, "the end of what it had")
            spec = "name: other\njobs: {main: {run: 'true'}}\n"
            other = await submit(client, tmp_path / "other", spec, {})
            await when(client, other.pipeline.id, lambda now: now.state is PipelineState.SUCCEEDED)

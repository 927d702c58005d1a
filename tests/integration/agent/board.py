"""One board under test: a scripted controller, a store and a real agent process."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.spec import Job
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until


@dataclass
class Board:
    """What a test of the agent needs at hand."""

    objects: ObjectServer
    controller: ScriptedController
    agent: AgentProcess
    numbers: dict[str, int] = field(default_factory=dict[str, int])

    def run(self, job: Job, bundle: bytes = b"", **more: object) -> AttemptRef:
        """Want a job to run, with a bundle if there is one."""
        number = self.numbers[job.name] = self.numbers.get(job.name, 0) + 1
        ref = AttemptRef("default", "p", job.name, number, number)
        digest, url = self.objects.add(bundle) if bundle else ("", "")
        self.controller.assign(
            Assignment(ref, job, bundle_digest=digest, bundle_url=url, **more)  # type: ignore[arg-type]
        )
        return ref

    async def state(self, ref: AttemptRef, state: JobState, seconds: float = 30) -> None:
        """Wait until an attempt has been in a state."""

        def there() -> bool:
            states = self.controller.states(ref)
            if state in states:
                return True
            over = [seen for seen in states if seen.terminal]
            assert not over, f"{ref.name} is {over}: {self.controller.reason(ref)}"
            return False

        await until(there, seconds, f"{ref.name} being {state.name}\n{self.agent.log()[-3000:]}")

    async def end(self, ref: AttemptRef, seconds: float = 30) -> JobState:
        """Wait for the end of an attempt."""

        def ended() -> JobState | None:
            state = self.controller.state(ref)
            return state if state is not None and state.terminal else None

        state = await until(ended, seconds, f"the end of {ref.name}")
        assert state is not None
        return state

    async def connected(self, sessions: int = 1) -> None:
        """Wait until the agent has opened so many sessions."""
        await until(lambda: self.controller.sessions >= sessions, 30, "a session")

    async def idle(self) -> None:
        """Wait until nothing of any attempt is left."""
        await until(lambda: self.agent.attempts() == [], 20, "nothing left of any attempt")

    def artifact(self, ref: AttemptRef, path: str) -> bytes:
        """What was stored of an attempt."""
        return self.objects.objects[f"{ref.prefix}/out/{path}"]


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board whose agent has its session."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address) as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found

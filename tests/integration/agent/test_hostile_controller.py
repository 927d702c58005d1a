"""T4: whatever a controller sends, a real agent lives, keeps its session and runs the next good job."""

import contextlib
from random import Random
from typing import Any

from edge_agent.attempts.local_attempt import LocalAttempt
from shoal.model import JobState
from shoal.session.messages import Desired
from shoal.spec import Job
from shoal.v1 import session_service_pb2
from shoal.wire.fields import WireError
from shoal.wire.session import decode_controller_message
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.hostile_controller import HostileController
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import Messages, ScriptedController
from tests.kit.until import until

MESSAGES = 300
AT_ONCE = 15


class Stranger(ScriptedController):
    """Answers every heartbeat with messages that no controller would send, and counts them."""

    def __init__(self, objects: ObjectServer) -> None:
        super().__init__(objects, heartbeat_seconds=0.1)
        self.hostile = HostileController(Random(1), lambda: self.told)
        self.told: list[LocalAttempt] = []
        self.said = 0

    def _take(self, message: session_service_pb2.AgentMessage, outbox: Any) -> Messages:
        answers = super()._take(message, outbox)
        if message.WhichOneof("message") == "heartbeat" and self.said < MESSAGES:
            answers += [self.message() for _ in range(AT_ONCE)]
            self.said += AT_ONCE
        return answers

    def message(self) -> session_service_pb2.ControllerMessage:
        """One that asks for no download of software."""
        message = self.hostile.message()
        for wanted in message.desired.assignments:
            wanted.job.ClearField("environment")
        with contextlib.suppress(WireError):
            decoded = decode_controller_message(message)
            if isinstance(decoded, Desired):
                self.told += [LocalAttempt(wanted) for wanted in decoded.assignments]
        return message


async def test_t4_a_real_agent_outlives_what_a_stranger_sends_as_its_controller() -> None:
    async with (
        ObjectServer() as objects,
        Stranger(objects) as controller,
        AgentProcess(controller.address) as agent,
    ):
        board = Board(objects, controller, agent)
        await until(lambda: controller.said >= MESSAGES, 120, "all of it being said")
        ref = board.run(Job("good", ("true",)))
        assert await board.end(ref, 120) is JobState.SUCCEEDED
        assert controller.sessions == 1, agent.log()[-3000:]
        assert agent.process is not None
        assert agent.process.poll() is None
        assert "a message of the controller is refused" in agent.log()

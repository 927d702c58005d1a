"""What a dashboard asks about nodes is answered on its topics, in the JSON that its programs know.

`ActiveNodes` has `{"Active": [{"Name", "IP", "Port"}]}`, `NodeInfo` the details of one node. Both are retained.
"""

import json
from dataclasses import dataclass
from typing import Final, Protocol

from services.intake.controller_link import ControllerLink
from services.intake.message import NodeQuestion
from services.runtime.dashboard_nodes import active_answer, info_answer

ACTIVE_TOPIC: Final = "ActiveNodes"
INFO_TOPIC: Final = "NodeInfo"


class TopicPublisher(Protocol):
    """Publishes on topics that retain."""

    async def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a message that the broker retains.

        Raises:
            ServerAwayError: the broker is away, or does not take it.
        """
        ...


@dataclass(frozen=True, slots=True)
class DashboardAnswers:
    """Answers with what the controller knows; see `NodeAnswers`.

    Args:
        controller: is asked.
        broker: carries the answers.
    """

    controller: ControllerLink
    broker: TopicPublisher

    async def answer(self, question: NodeQuestion) -> None:
        """Publish the answer to one question.

        Raises:
            ServerAwayError: the controller or the broker is away.
            RequestRefusedError: there is no such node.
        """
        members = await self.controller.asked(lambda client: client.members())
        known = {member.name: member for member in members}
        if question.node:
            node = await self.controller.asked(
                lambda client: client.node(question.node, fresh_facts=True)
            )
            topic, told = INFO_TOPIC, info_answer(node, known.get(node.name))
        else:
            nodes = await self.controller.asked(lambda client: client.nodes())
            topic, told = ACTIVE_TOPIC, active_answer(nodes, known)
        await self.broker.publish_retained(topic, json.dumps(told).encode())

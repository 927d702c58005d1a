"""The stream of a session, where it is not one that a controller serves well."""

from edge_agent.links.session import dial_session
from edge_agent.session.effects import Write
from edge_agent.session.events import SessionEvent
from edge_agent.session_link import SessionLink
from shoal.model import Capacity
from shoal.session.messages import Hello


def hello() -> Hello:
    return Hello("node-1", "id", Capacity(), "h:1", member_name="node-1")


async def test_t4_a_batch_that_finds_no_room_ends_the_stream_and_not_the_agent() -> None:
    """Such batches are those of a controller that acknowledges what it never read."""

    async def post(_: SessionEvent) -> None:
        pass

    link = SessionLink(post, hello, lambda: 0.0, dial_session)
    for sequence in range(5000):
        link.write(Write(sequence, 0, ()))

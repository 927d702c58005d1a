"""U10: whatever a node does, and whenever the broker listens, it is told of in the end as it is."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from control.core.machine_config import MachineConfig
from control.core.rows import OutboxRow
from shoal.backoff import Backoff
from shoal.model import MemberState
from tests.unit.control.desk import Desk
from tests.unit.control.world import hello

CONFIG = MachineConfig(
    lease_seconds=1.0, heartbeat_seconds=0.2, news_pause=Backoff(1.0, 4.0, jitter=0.0)
)
STEPS = st.lists(
    st.one_of(
        st.sampled_from(["dial", "hang up", "start", "leave", "drain", "undrain"]),
        st.sampled_from([MemberState.ALIVE, MemberState.LEFT, MemberState.UNKNOWN]),
        st.sampled_from([0.25, 1.5, 9.0]),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from(["dial", "hang up"]))
@settings(max_examples=60, deadline=None)
def test_u10_what_is_told_last_of_a_node_is_how_it_is(
    steps: list[str | float | MemberState], last: str
) -> None:
    desk = Desk(CONFIG)
    desk.dial_all("n1")
    arrived: list[OutboxRow] = []
    for step in (*steps, last, 12.0, "leave"):
        match step:
            case "dial":
                desk.claim(hello("n1"))
            case "hang up" if "n1" in desk.sessions:
                desk.hang_up("n1")
            case "start":
                desk.start()
            case "drain" | "undrain":
                desk.drain("n1", drained=step == "drain")
            case "leave":
                arrived += desk.outbox()
                desk.leave()
            case MemberState():
                desk.verdict("n1", step)
            case float():
                desk.pass_time(step)
            case _:
                pass
        assert len(desk.outbox()) <= 1, "the newest takes the place of the others"
    assert [row.sequence for row in arrived] == sorted({row.sequence for row in arrived})
    data = json.loads(arrived[-1].data)
    drained = [step for step in steps if step in {"drain", "undrain"}][-1:] == ["drain"]
    assert data["drained"] == drained
    assert (data["presence"] == "up") == (last == "dial")
    told = desk.machine.cluster.nodes["n1"].presence
    desk.start()
    assert desk.machine.cluster.nodes["n1"].presence == told == data["presence"]

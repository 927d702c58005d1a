"""A node with an identity belongs to one cluster: a controller of another one is left at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.session.effects import Dial, Follow, HangUp, Opened, Quarantined, SessionEffect
from edge_agent.session.events import ControllersKnown, LinkOpened, Received
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from shoal.model import Capacity, Followed
from shoal.session.messages import Desired, FromController, Hello, Welcome

HELLO = Hello("node-1", "id", Capacity(), "h:1", member_name="node-1")
SNAPSHOT = Desired(1, snapshot=True, commit=41)


def welcome(cluster: str | None, quarantine: str = "") -> Welcome:
    following = None if cluster is None else Followed(cluster, 7, "seven")
    return Welcome("ctl", 6.0, 1.0, following, quarantine)


def greeted(
    first: Welcome, *more: FromController, cluster: str = "ours", followed: Followed | None = None
) -> tuple[SessionMachine, list[SessionEffect]]:
    machine = SessionMachine(SessionConfig(), lambda: 0.5, followed=followed, cluster=cluster)
    machine.handle(ControllersKnown(("stranger:1", "real:1")), 0.0)
    machine.handle(LinkOpened(1, HELLO), 0.0)
    return machine, list(machine.handle(Received(1, 1, 1, (first, *more)), 0.0))


@pytest.mark.parametrize("told", ["theirs", None])
@pytest.mark.parametrize("followed", [None, Followed("ours", 3, "three", 9)])
def test_nothing_of_another_cluster_is_kept_and_the_next_address_is_dialled(
    told: str | None, followed: Followed | None
) -> None:
    machine, effects = greeted(welcome(told), SNAPSHOT, followed=followed)
    (left,) = effects
    assert isinstance(left, HangUp)
    assert "the certificate of this node is of cluster ours" in left.reason
    assert (machine.state, machine.followed) == (SessionState.IDLE, followed)
    at = machine.deadline()
    assert at is not None
    assert list(machine.tick(at)) == [Dial(2, "real:1")]
    machine.handle(LinkOpened(2, HELLO), at)
    said = machine.handle(Received(2, 1, 1, (welcome("ours"),)), at)
    assert Opened(welcome("ours")) in said
    assert machine.state is SessionState.OPEN


def test_a_quarantine_of_another_cluster_is_not_waited_in() -> None:
    machine, effects = greeted(welcome("theirs", "leave everything as it is"))
    assert [type(effect) for effect in effects] == [HangUp]
    assert machine.state is SessionState.IDLE


def test_a_name_that_another_agent_has_is_still_waited_for() -> None:
    machine, effects = greeted(welcome(None, "another agent is node-1"))
    assert effects == [Quarantined("another agent is node-1")]
    assert machine.state is SessionState.QUARANTINED


@given(cluster=st.sampled_from(["", "ours"]), told=st.sampled_from(["ours", "theirs", None]))
def test_a_controller_is_followed_if_its_cluster_may_be_that_of_the_node(
    cluster: str, told: str | None
) -> None:
    machine, effects = greeted(welcome(told), SNAPSHOT, cluster=cluster)
    follows = cluster in {"", told}
    assert (machine.state is SessionState.OPEN) is follows
    assert any(isinstance(effect, Opened) for effect in effects) is follows
    assert any(isinstance(effect, Follow) for effect in effects) is (follows and told is not None)

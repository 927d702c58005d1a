"""Whether two builds can work together, and what is said where they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.protocol_version import (
    API,
    KEEPER,
    LANES,
    SESSION,
    STREAM_WORKER,
    LinkEnd,
    LinkKind,
    NoCommonProtocolError,
    Protocols,
    agreed,
    as_text,
    from_text,
)

SPANS = st.tuples(st.integers(1, 9), st.integers(0, 4)).map(lambda a: Protocols(a[0], sum(a)))


def agent(said: Protocols | None) -> LinkEnd:
    return LinkEnd("the agent of node b1", said, "upgrade the agent")


def controller(said: Protocols | None) -> LinkEnd:
    return LinkEnd("the controller", said, "upgrade the controller")


def refusal(one: LinkEnd, other: LinkEnd) -> str:
    with pytest.raises(NoCommonProtocolError) as refused:
        agreed(SESSION, one, other)
    return str(refused.value)


@given(SPANS, SPANS)
def test_both_ends_come_to_the_same_answer_whichever_asks(one: Protocols, other: Protocols) -> None:
    both = set(range(one.lowest, one.highest + 1)) & set(range(other.lowest, other.highest + 1))
    if both:
        assert agreed(SESSION, agent(one), controller(other)) == max(both)
        assert agreed(SESSION, controller(other), agent(one)) == max(both)
    else:
        said = refusal(agent(one), controller(other))
        assert said == refusal(controller(other), agent(one))


def test_a_refusal_names_both_versions_and_the_older_and_what_to_do() -> None:
    said = refusal(agent(Protocols(1, 2, "0.1.0")), controller(Protocols(3, 4, "0.5.0")))
    assert said == (
        "the agent of node b1 of version 0.1.0 speaks protocols 1 to 2 of sessions, and the controller of version "
        "0.5.0 speaks protocols 3 to 4 of sessions, so they cannot work together: the agent of node b1 is the older "
        "one; upgrade the agent (docs/upgrade.md)"
    )
    said = refusal(agent(Protocols(3, 3, "0.5.0")), controller(Protocols(2, 2, "0.1.0")))
    assert "the controller is the older one; upgrade the controller" in said


def test_a_build_that_says_nothing_is_one_before_0_1_0() -> None:
    said = refusal(agent(None), controller(Protocols(1, 1, "0.1.0")))
    assert said == (
        "the agent of node b1 is of a build before 0.1.0, which does not say what it speaks, and the controller of "
        "version 0.1.0 speaks protocol 1 of sessions, so they cannot work together: the agent of node b1 is the "
        "older one; upgrade the agent (docs/upgrade.md)"
    )
    assert "the controller is the older one" in refusal(agent(Protocols(1, 1)), controller(None))


@pytest.mark.parametrize("link", [SESSION, KEEPER, STREAM_WORKER, LANES, API])
def test_a_build_can_work_with_itself_and_says_what_each_number_brought(link: LinkKind) -> None:
    said = link.said_by("1.2.3")
    assert said.version == "1.2.3"
    assert agreed(SESSION, agent(said), controller(said)) == said.highest
    brought = link.brought
    assert all(brought[number] for number in range(said.lowest, said.highest + 1))


@given(SPANS)
def test_a_user_agent_says_protocols(said: Protocols) -> None:
    written = as_text(Protocols(said.lowest, said.highest, "0.1.0"))
    read = from_text(f"{written} grpc-python-asyncio/1.70.0 grpc-c/45.0.0 (linux; chttp2)")
    assert read == Protocols(said.lowest, said.highest, "0.1.0")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "grpcurl/1.9.1 grpc-go/1.61.0",
        "shoal/0.1.0",
        "protocols/-",
        "protocols/1-x",
        "/",
        f"protocols/{'9' * 5000}-1",
        "protocols/\u0663-\u0664",
    ],
)
def test_a_user_agent_of_another_program_says_none(words: str) -> None:
    assert from_text(words) is None

"""Where in a trace something happens, as programs of others say it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.trace_context import (
    TRACEPARENT_MAX,
    TraceContext,
    TraceContextError,
    begun_trace,
    parse_traceparent,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_the_example_of_the_recommendation_is_read() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN)
    assert not parse_traceparent(f"00-{TRACE}-{SPAN}-00").sampled
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-03").sampled, "other flags are not ours"


def test_of_a_later_version_the_first_parts_count() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes") == TraceContext(TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-{'x' * TRACEPARENT_MAX}",
        f"\u0660\u0660-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_none_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(TraceContextError, match="write 00-TRACE-SPAN-01"):
        parse_traceparent(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_traceparent(text)
    except TraceContextError:
        return
    assert parse_traceparent(str(found)) == found


def test_the_span_of_a_thing_is_the_same_wherever_it_is_asked_for() -> None:
    one, other = TraceContext(TRACE, SPAN), TraceContext(TRACE, "0" * 15 + "1")
    assert one.span_of("default", "pipelines/p") == other.span_of("default", "pipelines/p")
    assert one.span_of("default", "pipelines/p") != one.span_of("defaul", "tpipelines/p")
    assert one.span_of("a").trace_id == TRACE


def test_a_trace_that_is_begun_has_no_parent_and_can_be_said_to_others() -> None:
    begun = begun_trace("cluster", "default/p", "2026-01-01")
    assert not begun.parent_id
    assert TraceContext.of(str(begun)) == begun
    assert parse_traceparent(str(begun.span_of("p"))).trace_id == begun.trace_id

"""Filters travel as they are, and patterns mean what SQLite means by them."""

import re
import sqlite3
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shoal.model import PipelineState
from shoal.node_filter import NodeFilter
from shoal.pipeline_filter import PipelineFilter
from shoal.text_pattern import is_pattern, text_fits
from shoal.wire.node_filter import decode_node_filter, encode_node_filter
from shoal.wire.pipeline_filter import decode_pipeline_filter, encode_pipeline_filter

WORDS = st.text("ab*?[]\\!^-", max_size=8)
LABELS = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=16)
FIRST, LAST = datetime(1970, 1, 2), datetime(9000, 1, 1)  # noqa: DTZ001 -- as hypothesis wants them
TIMES = st.none() | st.datetimes(FIRST, LAST, timezones=st.just(UTC))


@given(
    st.builds(
        PipelineFilter,
        st.text(max_size=256),
        LABELS,
        st.text(max_size=256),
        st.frozensets(st.sampled_from([*PipelineState])),
        TIMES,
        TIMES,
        st.booleans(),
        st.just("") | st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True),
    )
)
def test_a_filter_of_pipelines_travels_as_it_is(wanted: PipelineFilter) -> None:
    assert decode_pipeline_filter(encode_pipeline_filter(wanted)) == wanted


@given(
    st.builds(
        NodeFilter,
        st.text(max_size=256),
        LABELS,
        st.none() | st.booleans(),
        st.none() | st.booleans(),
    )
)
def test_a_filter_of_nodes_travels_as_it_is(wanted: NodeFilter) -> None:
    assert decode_node_filter(encode_node_filter(wanted)) == wanted


@given(WORDS, WORDS)
def test_a_pattern_means_the_same_here_and_in_the_store(pattern: str, text: str) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        (there,) = connection.execute(
            "SELECT ? GLOB ?" if is_pattern(pattern) else "SELECT instr(?, ?) > 0",
            (text, pattern.replace("[", "[[]") if is_pattern(pattern) else pattern),
        ).fetchone()
    finally:
        connection.close()
    assert text_fits(pattern, text) == bool(there)


@given(WORDS, WORDS)
def test_a_pattern_means_what_its_regular_expression_does(pattern: str, text: str) -> None:
    meant = "".join({"*": ".*", "?": "."}.get(one) or re.escape(one) for one in pattern)
    found = re.fullmatch(meant, text) if is_pattern(pattern) else re.search(meant, text)
    assert text_fits(pattern, text) == (found is not None)

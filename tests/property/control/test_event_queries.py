"""What is asked for of events in memory and in the store is the same, in both directions and in pages of any size."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from control.core.event_query import EventQuery
from control.core.rows import OutboxKind, OutboxRow, PipelineAdded
from control.store import event_rows, schema, statements
from shoal.names import PipelineRef
from tests.unit.control.world import BEGAN, single

TYPES = ("shoal.job.failed", "shoal.job.succeeded", "shoal.jobs", "shoal.node.up", "shoal.update.x")
SUBJECTS = {
    "": ("nodes/p-1", "nodes/n", "callers/viewer/ann", "identities/node/p-1"),
    "default": ("pipelines/p-1", "pipelines/p-1/jobs/a", "pipelines/p-10/jobs/a", "pipelines/q"),
    "lab": ("pipelines/p-1", "pipelines/p-1/updates"),
}

moments = st.integers(0, 20).map(lambda seconds: BEGAN + timedelta(seconds=seconds))
places = st.sampled_from(
    [(namespace, subject) for namespace, subjects in SUBJECTS.items() for subject in subjects]
)


@st.composite
def outboxes(draw: st.DrawFn) -> list[OutboxRow]:
    """Rows with gaps between them, whose clock may be set back."""
    found: list[OutboxRow] = []
    sequence = draw(st.integers(0, 30))
    for _ in range(draw(st.integers(0, 25))):
        sequence += draw(st.integers(1, 4))
        namespace, subject = draw(places)
        found.append(
            OutboxRow(
                draw(st.sampled_from(OutboxKind)),
                namespace,
                subject,
                f"id/{sequence}",
                draw(moments),
                "{}",
                draw(st.sampled_from(TYPES)),
                "key",
                sequence,
            )
        )
    # A newer state takes the place of one that waits still, which is not what is looked at here.
    kinds = {OutboxKind.STATE: OutboxKind.EVENT}
    for row in found:
        row.kind = kinds.get(row.kind, row.kind)
    return found


queries = st.builds(
    EventQuery,
    st.sampled_from(("default", "lab", "other")),
    st.sampled_from(("", "", "p-1", "q")),
    st.booleans(),
    st.lists(st.sampled_from((*TYPES, "shoal.job.*", "shoal.*", "none*")), max_size=2).map(tuple),
    st.none() | moments,
    st.none() | moments,
)


@given(outboxes(), st.booleans(), queries, st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_pages_of_the_store_have_what_is_wanted_of_the_rows_each_once_and_in_order(
    rows: list[OutboxRow],
    known: bool,  # noqa: FBT001
    query: EventQuery,
    limit: int,
    looked_at: int,
    newest_first: bool,  # noqa: FBT001
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.add_functions(connection)
    connection.executescript("".join(schema.STEPS))
    if known:
        ref = PipelineRef("default", "p-1")
        statements.write(connection, [PipelineAdded(ref, 7, "key", single(), BEGAN)])
    statements.write(connection, rows)
    found: list[int] = []
    place, more = 0, True
    while more:
        read = event_rows.events(
            connection, query, place, limit, newest_first=newest_first, looked_at_max=looked_at
        )
        assert len(read.events) <= limit
        assert not read.more or read.through != place, "each reading goes on"
        found += [event.sequence for event in read.events]
        place, more = read.through, read.more
    wanted = [row.sequence for row in rows if query.wants(row)]
    assert found == (wanted[::-1] if newest_first else wanted)
    connection.close()

"""Pages of the list of pipelines, on a real store: what is on them, whatever comes and goes between two."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from random import Random

import pytest

from control.core.pipeline_query import PageKey, PipelineQuery
from control.core.rows import PipelineAdded, PipelineForgotten, PipelineRow
from control.store import schema, statements
from control.store.pipeline_page import LOOKED_THROUGH, page
from shoal.model import DeadLetter, JobState, PipelineState
from shoal.names import PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.spec import Job, Pipeline
from shoal.view import PipelineSummary
from tests.unit.control.world import BEGAN

MANY = 1_100
NAMES = ("count", "count-people", "people", "scan")
CREATORS = ("", "submitter/ann", "gateway/web for ann", "submitter/[x]*\\")
LABELS: tuple[dict[str, str], ...] = ({}, {"site": "north"}, {"site": "south", "shift": ""})


def moment(number: int) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def store() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.add_functions(connection)
    connection.executescript("".join(schema.STEPS))
    yield connection
    connection.close()


def added(number: int, rng: Random, namespace: str = "default") -> PipelineAdded:
    spec = Pipeline(rng.choice(NAMES), (Job("main", ("true",)),), labels=rng.choice(LABELS))
    ref = PipelineRef(namespace, f"p-{number}")
    created = BEGAN + moment(number)
    return PipelineAdded(ref, number, "", spec, created, creator=rng.choice(CREATORS))


def ended(number: int, rng: Random) -> PipelineRow:
    state = rng.choice([state for state in PipelineState if state.terminal])
    letter = DeadLetter.KEPT if state is PipelineState.FAILED and rng.random() < 0.5 else None
    return PipelineRow(
        PipelineRef("default", f"p-{number}"),
        state,
        end_time=BEGAN + moment(10_000 + rng.randrange(MANY)),  # several end in the same moment
        dead_letter=letter or DeadLetter.NONE,
        job_counts=((JobState(state.value + 4), 1),),
    )


def fill(store: sqlite3.Connection, count: int, seed: int = 1) -> None:
    rng = Random(seed)
    statements.write(store, [added(number, rng) for number in range(1, count + 1)])
    over = [number for number in range(1, count + 1) if rng.random() < 0.7]
    statements.write(store, [ended(number, rng) for number in over])


def everything(store: sqlite3.Connection) -> list[PipelineSummary]:
    """All of them, newest first."""
    ids = store.execute("SELECT id FROM pipelines ORDER BY position DESC").fetchall()
    found = statements.summaries(store, [PipelineRef("default", one) for (one,) in ids])
    known = {one.id: one for one in found}
    return [known[one] for (one,) in ids if one in known]


def pages(
    store: sqlite3.Connection, query: PipelineQuery, limit: int
) -> Iterator[Sequence[PipelineRef]]:
    behind: PageKey | None = None
    while True:
        found, behind = page(store, query, limit, behind)
        yield [ref for _, ref in found]
        if behind is None:
            return


def listed(store: sqlite3.Connection, query: PipelineQuery, limit: int) -> list[str]:
    return [ref.pipeline for part in pages(store, query, limit) for ref in part]


FIND_NOTHING = [
    PipelineFilter("nothing"),
    PipelineFilter(labels={"other": ""}),
    PipelineFilter(creator="[x]*"),  # a bracket means itself
]
FILTERS = [
    *FIND_NOTHING,
    EVERY_PIPELINE,
    PipelineFilter("count"),
    PipelineFilter("count*"),
    PipelineFilter("*"),
    PipelineFilter("c?unt"),
    PipelineFilter(labels={"site": "north"}),
    PipelineFilter(labels={"site": ""}),
    PipelineFilter(labels={"site": "south", "shift": ""}),
    PipelineFilter(creator="ann"),
    PipelineFilter(creator="submitter/*"),
    PipelineFilter(creator="*[x]?\\"),
    PipelineFilter(states=frozenset({PipelineState.QUEUED})),
    PipelineFilter(states=frozenset({PipelineState.FAILED, PipelineState.CANCELLED})),
    PipelineFilter(dead_letters=True),
    PipelineFilter(since_time=BEGAN + moment(100)),
    PipelineFilter(until_time=BEGAN + moment(100)),
    PipelineFilter("people", {"site": ""}, "ann", frozenset({PipelineState.SUCCEEDED})),
]


@pytest.mark.parametrize("count", [200, MANY])
def test_the_store_finds_what_the_filter_says(store: sqlite3.Connection, count: int) -> None:
    """The same noun decides in the store, in watches and in clients."""
    fill(store, count)
    every = everything(store)
    for wanted, limit in product(FILTERS, (70, 1_000)):
        newest = [one for one in every if wanted.matches(one)]
        assert wanted in FIND_NOTHING or newest
        query = PipelineQuery("default", wanted)
        assert listed(store, query, limit) == [one.id for one in newest]
        oldest = listed(store, replace(query, order=PipelineOrder.OLDEST), limit)
        assert oldest == [one.id for one in newest[::-1]]
        by_end = listed(store, replace(query, order=PipelineOrder.ENDED), limit)
        over = [(one.end_time, int(one.id[2:]), one.id) for one in newest if one.end_time]
        assert by_end == [name for _, _, name in sorted(over, reverse=True)]


@pytest.mark.parametrize("order", PipelineOrder)
def test_a_list_stays_right_while_pipelines_come_end_and_go(
    store: sqlite3.Connection, order: PipelineOrder
) -> None:
    fill(store, MANY)
    rng = Random(2)
    query = PipelineQuery("default", PipelineFilter("count"), order)
    before = set(listed(store, query, 1_000))
    gone: set[str] = set()
    shown: list[str] = []
    newest = MANY
    for part in pages(store, query, 20):
        shown += [ref.pipeline for ref in part]
        new = [added(number, rng) for number in range(newest + 1, newest + 6)]
        newest += 5
        statements.write(store, new)
        statements.write(store, [ended(newest, rng)])
        victims = rng.sample(range(1, MANY), 3)
        names = [PipelineRef("default", f"p-{number}") for number in victims]
        gone |= {ref.pipeline for ref in names}
        statements.write(store, [PipelineForgotten(ref) for ref in names])
        if newest > 3 * MANY:
            break  # the oldest come first, and five more with each page
    assert len(shown) == len(set(shown)), "none is on two pages"
    assert before - gone <= set(shown), "none is left out that was there all along"


def test_one_part_looks_at_so_many_and_says_how_far_it_came(store: sqlite3.Connection) -> None:
    rng = Random(3)
    rows = [added(number, rng, "other") for number in range(1, 2 * LOOKED_THROUGH + 1)]
    first = replace(rows[0], ref=PipelineRef("default", "p-0"), position=3 * LOOKED_THROUGH)
    own = [
        replace(added(number, rng), position=3 * LOOKED_THROUGH + number) for number in range(1_200)
    ]
    statements.write(store, [*rows, first, *own[1:]])
    query = PipelineQuery("default", PipelineFilter("nothing"))
    parts = [(found, behind) for found, behind in _parts(store, query)]
    assert all(found == () for found, _ in parts)
    assert len(parts) == 4, "one for the newest, two for the others, and one that finds no more"
    assert listed(store, PipelineQuery("other"), 1_000) == [one.ref.pipeline for one in rows[::-1]]
    assert listed(store, PipelineQuery("nobody"), 1_000) == []


def _parts(store: sqlite3.Connection, query: PipelineQuery) -> Iterator[tuple[object, object]]:
    behind: PageKey | None = None
    while True:
        found, behind = page(store, query, 10, behind)
        yield found, behind
        if behind is None:
            return


def test_a_pattern_of_many_stars_takes_no_time(store: sqlite3.Connection) -> None:
    name = "a" * 63
    spec = Pipeline(name, (Job("main", ("true",)),))
    rows = [
        PipelineAdded(PipelineRef("default", f"p-{n}"), n, "", spec, BEGAN) for n in range(1, 301)
    ]
    statements.write(store, rows)
    wanted = PipelineFilter("*a" * 60 + "b*")
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return steps > 100_000

    store.set_progress_handler(count, 1_000)
    assert listed(store, PipelineQuery("default", wanted), 100) == []
    assert not any(wanted.matches(one) for one in everything(store)[:1])


def test_jobs_that_cannot_be_there_are_not_looked_for(store: sqlite3.Connection) -> None:
    fill(store, 300)
    failed = [one.id for one in everything(store) if one.job_counts.get(JobState.FAILED)]
    query = PipelineQuery("default", job_states=frozenset({JobState.FAILED}))
    found = listed(store, query, 1_000)
    assert [one for one in found if one in failed] == failed
    others = {one.id: one for one in everything(store)}
    assert all(not others[one].state.terminal for one in found if one not in failed)

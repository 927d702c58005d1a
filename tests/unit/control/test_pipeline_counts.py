"""How many pipelines and jobs are in each state, beside the same counted anew."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from control.core.standing import Standing, counted
from control.front.pipeline_counts import FOLDED_AT, PipelineCounts, PipelineSums
from shoal.model import DeadLetter, JobState, PipelineState
from shoal.names import PipelineRef
from shoal.pipeline_filter import PipelineFilter
from shoal.view import JobView, PipelineTotals, PipelineView
from tests.unit.control.world import single

CREATORS = ("", "submitter/ann", "gateway/web for ann")
STATES = st.sampled_from([*PipelineState])


def view(ref: PipelineRef, state: PipelineState, *jobs: JobState, **more: object) -> PipelineView:
    made = tuple(
        JobView(f"{ref.name}/jobs/j-{number}", "j", job) for number, job in enumerate(jobs)
    )
    return PipelineView(ref.pipeline, ref.namespace, state, single(), jobs=made, **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def drawn(
    number: int,
    namespace: str,
    state: PipelineState,
    jobs: list[JobState],
    creator: str,
    letter: DeadLetter,
) -> PipelineView:
    ref = PipelineRef(namespace, f"p-{number}")
    return view(ref, state, *jobs, creator=creator, dead_letter=letter)


VIEWS = st.builds(
    drawn,
    st.integers(0, 5),
    st.sampled_from(["default", "lab"]),
    STATES,
    st.lists(st.sampled_from([*JobState]), min_size=1, max_size=4),
    st.sampled_from(CREATORS),
    st.sampled_from([*DeadLetter]),
)
STEPS = st.lists(VIEWS | st.tuples(st.integers(0, 5), st.sampled_from(["default", "lab"])))
FILTERS = st.builds(
    PipelineFilter,
    creator=st.sampled_from(["", "ann", "submitter/*", "nobody"]),
    states=st.frozensets(STATES),
    dead_letters=st.booleans(),
)


def by_hand(
    there: dict[PipelineRef, PipelineView], namespace: str, asked: PipelineFilter
) -> PipelineTotals:
    found = [one for ref, one in there.items() if ref.namespace == namespace and asked.matches(one)]
    return PipelineTotals(
        Counter(one.state for one in found),
        Counter(job.state for one in found for job in one.jobs),
        sum(one.dead_letter is DeadLetter.KEPT for one in found),
    )


@given(STEPS, STEPS, FILTERS)
def test_what_is_counted_is_what_is_there(
    before: list[PipelineView | tuple[int, str]],
    after: list[PipelineView | tuple[int, str]],
    asked: PipelineFilter,
) -> None:
    there: dict[PipelineRef, PipelineView] = {}
    for step in before:
        if isinstance(step, PipelineView):
            there[PipelineRef(step.namespace, step.id)] = step
    counts = PipelineCounts({ref: Standing.of(one) for ref, one in there.items()})
    for step in after:
        if isinstance(step, PipelineView):
            ref = PipelineRef(step.namespace, step.id)
            there[ref] = step
            counts.show(ref, step)
        else:
            ref = PipelineRef(step[1], f"p-{step[0]}")
            there.pop(ref, None)
            counts.forget(ref)
    for namespace in ("default", "lab"):
        assert counts.totals(namespace, asked) == by_hand(there, namespace, asked)
        sums = PipelineSums()
        refs = [ref for ref in there if ref.namespace == namespace]
        own = PipelineFilter(states=asked.states, dead_letters=asked.dead_letters)
        counts.add_to(sums, [*refs, PipelineRef(namespace, "unknown")], own)
        assert sums.totals() == by_hand(there, namespace, own)


def test_many_changes_are_folded_in_without_being_asked_for() -> None:
    counts = PipelineCounts({})
    for number in range(2 * FOLDED_AT):
        ref = PipelineRef("default", f"p-{number}")
        counts.show(ref, view(ref, PipelineState.QUEUED, JobState.QUEUED))
        assert len(counts._shown) <= FOLDED_AT
    assert counts.totals("default", PipelineFilter()).pipelines == {PipelineState.QUEUED: 2_000}


def test_jobs_are_counted_in_the_order_of_their_states() -> None:
    states = [JobState.FAILED, JobState.QUEUED, JobState.FAILED]
    assert counted(states) == ((JobState.QUEUED, 1), (JobState.FAILED, 2))

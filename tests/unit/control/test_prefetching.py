"""Which nodes shall have a bundle before they need it, and what people see of it."""

from dataclasses import replace

import pytest

from control.core import events
from shoal.model import Capacity, PipelineState
from shoal.names import PipelineRef
from shoal.spec import Pipeline, Place, Resources
from shoal.view import PrefetchView
from tests.unit.control.desk import Desk
from tests.unit.control.world import hello, single

FIRST, SECOND = "1" * 64, "2" * 64


def prefetching(digest: str = FIRST, **changes: object) -> Pipeline:
    return replace(single(**changes), bundle_digest=digest, prefetch=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wanted(desk: Desk) -> dict[str, tuple[str, ...] | None]:
    return {name: desk.machine.prefetch(name) for name in sorted(desk.machine.cluster.nodes)}


def held(desk: Desk, node: str, *digests: str) -> None:
    event = events.BundlesReported(node, desk.sessions[node], frozenset(digests))
    desk.post(lambda _: event)


def counted(desk: Desk, ref: PipelineRef) -> PrefetchView | None:
    return desk.pipeline(ref).prefetched


def test_every_eligible_node_is_to_have_it_until_the_pipeline_has_ended() -> None:
    """F3."""
    desk = Desk()
    desk.dial(hello("n1"))
    desk.dial(replace(hello("n2"), labels={"role": "camera"}))
    desk.dial(hello("small", capacity=Capacity(cpus=1.0)))
    ref = desk.submit(prefetching(resources=Resources(cpus=2.0)))
    other = desk.submit(prefetching(SECOND, place=Place(require={"role": "camera"})))
    assert wanted(desk) == {"n1": (FIRST,), "n2": (FIRST, SECOND), "small": ()}
    assert counted(desk, ref) == PrefetchView(2, 0)
    # A node that comes later is no exception, and neither is one that is full.
    desk.dial(hello("n3"))
    assert wanted(desk)["n3"] == (FIRST,)
    desk.succeed(ref, "main")
    assert wanted(desk) == {"n1": (), "n2": (SECOND,), "n3": (), "small": ()}
    assert counted(desk, other) == PrefetchView(1, 0)


def test_people_see_on_how_many_nodes_it_is() -> None:
    desk = Desk()
    for name in ("n1", "n2", "n3"):
        desk.dial(hello(name))
    ref = desk.submit(prefetching())
    before = desk.pipeline(ref).revision
    held(desk, "n1", FIRST, SECOND)
    held(desk, "n2", SECOND)
    assert counted(desk, ref) == PrefetchView(3, 1)
    assert desk.pipeline(ref).revision > before
    held(desk, "n2", FIRST)
    assert counted(desk, ref) == PrefetchView(3, 2)
    held(desk, "n1")
    assert counted(desk, ref) == PrefetchView(3, 1)
    desk.drain("n1")
    assert counted(desk, ref) == PrefetchView(2, 1)
    desk.drain("n1", drained=False)
    assert counted(desk, ref) == PrefetchView(3, 1)
    desk.hang_up("n3")
    assert counted(desk, ref) == PrefetchView(2, 1)


def test_an_agent_that_cannot_is_not_told() -> None:
    desk = Desk()
    desk.dial(replace(hello("old"), features=frozenset()))
    desk.dial(hello("new"))
    ref = desk.submit(prefetching())
    assert wanted(desk) == {"new": (FIRST,), "old": None}
    assert counted(desk, ref) == PrefetchView(1, 0)


def test_what_is_wanted_is_wanted_after_a_restart() -> None:
    desk = Desk()
    for name in ("n1", "n2"):
        desk.dial(hello(name))
    ref = desk.submit(prefetching())
    desk.start()
    for name in ("n1", "n2"):
        desk.dial(hello(name))
    assert wanted(desk) == {"n1": (FIRST,), "n2": (FIRST,)}
    assert counted(desk, ref) == PrefetchView(2, 0)


@pytest.mark.parametrize("spec", [single(), replace(single(), bundle_digest=FIRST)])
def test_without_the_wish_nothing_is_fetched_before(spec: Pipeline) -> None:
    desk = Desk()
    desk.dial(hello("n1"))
    ref = desk.submit(spec)
    assert wanted(desk) == {"n1": ()}
    assert counted(desk, ref) is None


def test_a_pipeline_that_has_ended_wants_nothing() -> None:
    desk = Desk()
    desk.dial(hello("n1"))
    ref = desk.submit(prefetching())
    desk.succeed(ref, "main")
    assert desk.pipeline(ref).state is PipelineState.SUCCEEDED
    assert wanted(desk) == {"n1": ()}
    assert counted(desk, ref) is None

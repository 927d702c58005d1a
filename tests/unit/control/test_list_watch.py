"""What a watch with a filter is told, and what the others are not: a plane on a real store."""

from pathlib import Path

from control.core.answers import Submission, SubmitResult
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from shoal.model import PipelineState
from shoal.names import PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.view import PipelineSummary, PipelineView, SnapshotEnd, Unlisted
from tests.unit.control.world import Clock, running_plane, single

CANCELLED = PipelineFilter(states=frozenset({PipelineState.CANCELLED}))


async def submit(plane: ControlPlane, name: str, namespace: str = "default") -> PipelineRef:
    (result,) = await plane.submit([Submission(namespace, "", single(name))])
    assert isinstance(result, SubmitResult)
    return PipelineRef(namespace, result.view.id)


async def test_what_is_forgotten_is_told_to_those_that_choose(tmp_path: Path) -> None:
    config, clock = PlaneConfig(pipelines_ended_max=1), Clock()
    async with running_plane(tmp_path / "control.db", config, clock) as plane:
        first, second = [await submit(plane, f"p{number}") for number in range(2)]
        await plane.cancel(first, "enough")
        with (
            plane.watch_pipelines("default", asked=CANCELLED, light=True) as chosen,
            plane.watch_pipelines("default", light=True) as light,
            plane.watch_pipelines("default") as whole,
            plane.watch_pipelines("other", asked=CANCELLED) as other,
        ):
            begun = [await anext(chosen), await anext(chosen)]
            assert isinstance(begun[0], PipelineSummary)
            assert (begun[0].id, begun[0].spec_name) == (first.pipeline, "p0")
            for watch in (light, whole):
                assert [type(await anext(watch)) for _ in range(3)][-1] is SnapshotEnd
            assert isinstance(await anext(other), SnapshotEnd)
            await plane.cancel(second, "enough")
            for watch in (chosen, light, whole):
                cancelled = await anext(watch)
                assert isinstance(cancelled, PipelineView)
                assert cancelled.id == second.pipeline
            revision = whole.resume
            clock.advance(2 * config.sweep_seconds)
            third = await submit(plane, "p2")
            for watch in (chosen, light):
                told = [await anext(watch), await anext(watch)]
                assert {(type(one), _id(one)) for one in told} == {
                    (Unlisted, first.pipeline),
                    (PipelineView, third.pipeline),
                }
                assert watch.resume > revision
            # Neither the one that reads all nor the one of another namespace hears of what is forgotten.
            assert _id(await anext(whole)) == third.pipeline
            fourth = await submit(plane, "p3")
            assert _id(await anext(whole)) == fourth.pipeline
            elsewhere = await submit(plane, "p4", "other")
            assert _id(await anext(other)) == elsewhere.pipeline
        with plane.watch_pipelines("default", "", revision, asked=CANCELLED) as resumed:
            told = [await anext(resumed) for _ in range(3)]
            assert Unlisted(first.pipeline, "default") in told, "one that resumes hears of it, too"
        totals = await plane.shown.totals("default", EVERY_PIPELINE)
        assert totals.pipelines == {PipelineState.QUEUED: 2, PipelineState.CANCELLED: 1}


def _id(one: PipelineView | PipelineSummary | Unlisted | SnapshotEnd) -> str:
    assert not isinstance(one, SnapshotEnd)
    return one.id

"""An overview: several watches as one, whose reader may be slow, leave, and come again after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from control.controller import ControllerAddresses
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import PipelineState
from shoal.overview import OverviewNews, OverviewPart, OverviewWish
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.spec import Job, Pipeline
from shoal.view import PipelineSummary
from tests.kit.controller_process import ControllerProcess
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

ALL = OverviewWish(EVERY_PIPELINE, True, True, True, (), 0, EVERY_PIPELINE)
PIPELINE = Pipeline("one", (Job("a", ("true",)),))


@dataclass
class Page:
    """What a page knows from what it was told."""

    pipelines: dict[str, PipelineState] = field(default_factory=dict[str, PipelineState])
    nodes: set[str] = field(default_factory=set[str])
    members: set[str] = field(default_factory=set[str])
    events: list[str] = field(default_factory=list[str])
    counts: dict[PipelineState, int] = field(default_factory=dict[PipelineState, int])
    begun: list[OverviewPart] = field(default_factory=list[OverviewPart])
    complete: set[OverviewPart] = field(default_factory=set[OverviewPart])
    token: str = ""

    def take(self, news: OverviewNews) -> None:
        """Do as the contract says."""
        for part in news.begun:
            self.begun.append(part)
            self.complete.discard(part)
            for known in (self.pipelines, self.nodes, self.members)[part.value - 1 : part.value]:
                known.clear()
        for one in news.pipelines:
            if isinstance(one, PipelineSummary):
                self.pipelines[one.id] = one.state
            else:
                self.pipelines.pop(one.id, None)
        self.nodes |= {node.name for node in news.nodes}
        self.members |= {member.name for member in news.members}
        self.events += [event.id for event in news.events]
        if news.counts is not None:
            self.counts = dict(news.counts.pipelines)
        self.complete |= news.complete
        self.token = news.resume_token


@contextlib.asynccontextmanager
async def shown(client: Client, wish: OverviewWish, token: str = "") -> AsyncIterator[Page]:
    """Keep a page beside the block."""
    page = Page()

    async def keep() -> None:
        async with contextlib.aclosing(client.watch_overview(wish, resume_token=token)) as watch:
            async for news in watch:
                page.take(news)

    keeping = asyncio.create_task(keep())
    try:
        yield page
        assert not keeping.done(), keeping.exception()
    finally:
        keeping.cancel()
        await asyncio.wait((keeping,))


async def ended(client: Client) -> str:
    pipeline = (await client.submit(PIPELINE)).pipeline
    await client.cancel(pipeline.name, "enough")
    return pipeline.id


async def test_a_page_sees_all_that_is_there_and_what_changes(
    controller: ControllerAddresses, client: Client
) -> None:
    first = await ended(client)
    async with shown(client, ALL) as page, connected_agent(controller.grpc):
        await until(lambda: page.complete == {*OverviewPart}, 20, "all parts")
        await until(lambda: page.nodes == {"node-1"}, 20, "the node")
        await until(lambda: page.members == {"controller"}, 20, "the member")
        second = (await client.submit(PIPELINE)).pipeline.id
        await until(lambda: page.pipelines.keys() == {first, second}, 20, "both pipelines")
        await client.cancel(second, "enough")
        cancelled = PipelineState.CANCELLED
        await until(lambda: page.counts == {cancelled: 2}, 20, "the counts")
        assert page.pipelines == dict.fromkeys((first, second), cancelled)
        events = [event.id for event in (await client.events()).events]
        # Beside these, perhaps a state of the node that a newer one has taken the place of.
        await until(lambda: {*events} <= {*page.events}, 2, "all events")
        assert len(page.events) == len({*page.events})


async def test_a_page_that_comes_again_goes_on_and_is_told_what_begins_anew(
    client: Client,
) -> None:
    wish = OverviewWish(PipelineFilter(states=frozenset({PipelineState.CANCELLED})), events=())
    first = await ended(client)
    async with shown(client, wish) as page:
        await until(lambda: page.complete == {OverviewPart.PIPELINES, OverviewPart.EVENTS}, 20)
        assert page.pipelines == {first: PipelineState.CANCELLED}
        assert len(page.events) == 2
    second = await ended(client)
    async with shown(client, wish, page.token) as again:
        await until(lambda: len(again.events) == 2, 20, "the events of the second one")
        await until(lambda: second in again.pipelines, 20, "the second one")
        assert again.begun == []
        assert first not in again.pipelines
    for other in (OverviewWish(nodes=True), OverviewWish(EVERY_PIPELINE, events=())):
        with pytest.raises(ShoalError, match="is of another list") as refused:
            await anext(client.watch_overview(other, resume_token=page.token))
        assert refused.value.reason == "INVALID_RESUME_TOKEN"
    for wrong in ("x", page.token[:-3], "W10"):
        with pytest.raises(ShoalError, match="resume token"):
            await anext(client.watch_overview(wish, resume_token=wrong))
    with pytest.raises(ShoalError, match="no part is asked for"):
        await anext(client.watch_overview(OverviewWish()))
    with pytest.raises(ShoalError, match="at most 1000"):
        await anext(client.watch_overview(OverviewWish(events=(), last_events=1001)))
    async with shown(client, OverviewWish(events=(), last_events=3)) as page:
        listed = [event.id for event in (await client.events()).events]
        await until(lambda: page.events == listed[-3:], 20, "the last events")


async def test_a_page_has_no_gap_and_no_event_twice_over_kills_of_the_controller(
    tmp_path: Path,
) -> None:
    async with ControllerProcess(tmp_path) as controller, Client(controller.grpc) as client:
        async with shown(client, ALL) as page:
            names: list[str] = []
            for _ in range(3):
                names += [await ended(client) for _ in range(4)]
                controller.end(signal.SIGKILL)
                await controller.start("--grpc", controller.grpc)
            names.append(await ended(client))
            await until(lambda: page.pipelines.keys() == {*names}, 40, "all pipelines")
            await until(lambda: len(page.events) >= 2 * len(names), 40, "all events")
            listed = [event.id for event in (await client.events(page_size=1000)).events]
            assert page.events == listed
            await until(lambda: page.counts == {PipelineState.CANCELLED: 13}, 20, "the counts")
        async with shown(client, ALL, page.token) as again:
            last = await ended(client)
            await until(lambda: len(again.events) == 2, 20, "what was recorded since")
            await until(lambda: last in again.pipelines, 20, "the last pipeline")
            assert again.begun == []
            assert again.pipelines.keys() == {last}

"""The plane on a real store: submit, desired, observed, succeeded, events."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.errors import ClosingError, PageTokenError, SessionEndedError, UnknownPipelineError
from control.plane import ControlPlane
from control.store.rows import OutboxKind
from control.views import Refused, SnapshotEnd, Submission, SubmitResult
from shoal.model import JobState, PipelineState
from shoal.names import PipelineRef
from shoal.view import PipelineView
from tests.unit.control.world import counter, hello, running_plane, seen, single

STEPS = (
    JobState.PREPARING,
    JobState.RUNNING,
    JobState.DRAINING,
    JobState.ARCHIVING,
    JobState.SUCCEEDED,
)


async def submit(plane: ControlPlane, submission: Submission) -> PipelineRef:
    (result,) = await plane.submit([submission])
    assert isinstance(result, SubmitResult), result
    return PipelineRef(result.view.namespace, result.view.id)


async def test_a_pipeline_goes_from_submission_to_its_final_event(tmp_path: Path) -> None:
    async with running_plane(tmp_path / "control.db") as plane:
        assert await plane.open_session(hello("n1"), "s1") == ()
        ref = await submit(plane, Submission("default", "key", counter()))
        updates = plane.desired("n1", "s1")
        first = await anext(updates)
        assert first.snapshot
        while len(first.assignments) < 4:
            first = await anext(updates)
        assert {lane.peer.address for one in first.assignments for lane in one.lanes} == {"n1:7000"}
        for one in first.assignments:
            assert await plane.observe("n1", "s1", seen(one.ref, *STEPS)) == ()
        view = plane.pipeline(ref)
        assert view.state is PipelineState.SUCCEEDED
        assert view.final_event_id == f"default/{ref.name}/succeeded/1"
        rows = await plane._store.outbox()
        manifests = [row for row in rows if row.kind is OutboxKind.MANIFEST]
        assert len(manifests) == 4
        assert rows[-1].id == view.final_event_id
        page = await plane.events("default", ref.pipeline, 3)
        rest = await plane.events("default", ref.pipeline, 1000, page.next_page_token)
        ids = [event.id for event in (*page.items, *rest.items)]
        assert len(ids) == len(set(ids)) == 10
        await updates.aclose()

"""What was recorded for the archive is handed on without a gap, or read from the store."""

from __future__ import annotations

from datetime import UTC, datetime

from control.core.rows import ObjectsWaiting, OutboxKind, OutboxRow
from control.leader.recorded_objects import BYTES_MAX, RecordedObjects

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def manifest(sequence: int, data: str = "{}") -> OutboxRow:
    """One row for the archive."""
    subject = f"pipelines/p-{sequence}/jobs/job"
    return OutboxRow(
        OutboxKind.MANIFEST, "default", subject, subject, NOW, data, key="k", sequence=sequence
    )


def test_what_was_recorded_before_is_read_from_the_store() -> None:
    objects = RecordedObjects()
    assert objects.take(0, 10) is None
    objects.begin(90)
    rows = [manifest(91), manifest(93)]
    objects.add(rows, 94)
    assert objects.take(0, 10) is None
    assert objects.take(92, 10) == ObjectsWaiting(rows[1:], 94, more=False)


def test_what_is_handed_on_is_there_until_it_is_stored() -> None:
    objects = RecordedObjects()
    objects.begin(0)
    assert objects.take(0, 10) == ObjectsWaiting([], 0, more=False)
    rows = [manifest(2), manifest(4), manifest(6)]
    objects.add(rows[:2], 5)
    objects.add(rows[2:], 7)
    assert objects.take(0, 2) == ObjectsWaiting(rows[:2], 4, more=True)
    assert objects.take(0, 2) == ObjectsWaiting(rows[:2], 4, more=True), "it was not stored"
    assert objects.take(4, 2) == ObjectsWaiting(rows[2:], 7, more=False)
    objects.add([], 9)
    assert objects.take(7, 2) == ObjectsWaiting([], 9, more=False)


def test_what_has_no_room_is_read_from_the_store_until_that_has_caught_up() -> None:
    objects = RecordedObjects()
    objects.begin(0)
    objects.add([manifest(1)], 1)
    objects.add([manifest(3, "x" * BYTES_MAX)], 4)
    assert objects.take(0, 10) is None
    later = manifest(6)
    objects.add([later], 6)
    assert objects.take(3, 10) is None
    assert objects.take(4, 10) == ObjectsWaiting([later], 6, more=False)

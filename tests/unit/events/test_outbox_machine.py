"""The outbox, step by step."""

from datetime import UTC, datetime

from services.events.entry import OutboxEntry
from services.events.outbox.effects import Connect, MarkRows, OutboxEffect, Publish, ReadRows
from services.events.outbox.events import (
    Grown,
    LinkLost,
    LinkUp,
    PublishAcknowledged,
    PublishRefused,
    RestsOver,
    RowsMarked,
    RowsRead,
    StoreFailed,
)
from services.events.outbox.machine import Link, OutboxConfig, OutboxMachine
from shoal.backoff import Backoff

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG = OutboxConfig(
    window=3,
    store_retry_seconds=1.0,
    backoff=Backoff(initial_seconds=1.0, maximum_seconds=4.0, jitter=0.0),
    rest=Backoff(initial_seconds=1.0, maximum_seconds=600.0, jitter=0.0),
)


def entry(sequence: int, subject: str = "") -> OutboxEntry:
    return OutboxEntry(
        sequence, f"e{sequence}", "t", "ns", subject or f"pipelines/p{sequence}", WHEN
    )


def linked() -> OutboxMachine:
    outbox = OutboxMachine(CONFIG, 0.0)
    assert outbox.deadline() == 0.0
    assert outbox.tick(0.0) == [Connect()]
    assert outbox.deadline() is None
    assert outbox.handle(LinkUp(), 0.0) == [ReadRows(0, 3)]
    assert outbox.link is Link.UP
    return outbox


def test_a_row_is_let_go_of_only_after_the_acknowledgement() -> None:
    outbox = linked()
    one, two = entry(1), entry(2)
    assert outbox.handle(RowsRead((one, two), 2, more=False), 0) == [Publish(one), Publish(two)]
    assert outbox.handle(PublishAcknowledged(2), 0) == [MarkRows((2,))]
    # One transaction at a time; what is acknowledged meanwhile goes with the next.
    assert outbox.handle(PublishAcknowledged(1), 0) == []
    assert outbox.handle(RowsMarked(), 0) == [MarkRows((1,))]
    assert outbox.held == 1
    assert outbox.handle(RowsMarked(), 0) == []
    assert outbox.held == 0


def test_rows_of_one_subject_leave_one_after_the_other() -> None:
    outbox = linked()
    one, two, other = entry(1, "s"), entry(2, "s"), entry(3, "o")
    effects = outbox.handle(RowsRead((one, two, other), 3, more=False), 0)
    assert effects == [Publish(one), Publish(other)]
    assert outbox.handle(PublishAcknowledged(1), 0) == [MarkRows((1,)), Publish(two)]


def test_what_was_not_acknowledged_is_sent_again_in_order() -> None:
    outbox = linked()
    rows = (entry(1, "s"), entry(2, "s"), entry(3))
    outbox.handle(RowsRead(rows, 3, more=False), 0)
    assert outbox.handle(LinkLost("gone", 0.5), 10.0) == []
    assert outbox.reason == "gone"
    assert outbox.deadline() == 11.0
    assert outbox.tick(10.9) == []
    assert outbox.tick(11.0) == [Connect()]
    # Several were under way, so they leave one by one until they have left.
    assert outbox.handle(LinkUp(), 11.1) == [Publish(rows[0])]
    assert outbox.handle(PublishAcknowledged(1), 11.2) == [MarkRows((1,)), Publish(rows[1])]


def test_the_backoff_grows_until_an_event_arrives_or_a_connection_stands() -> None:
    outbox = linked()
    now = 0.0
    for wait in (1.0, 2.0, 4.0, 4.0):
        outbox.handle(LinkLost("gone", 0.5), now)
        assert outbox.deadline() == now + wait
        now += wait
        assert outbox.tick(now) == [Connect()]
    # K9: a broker that accepts us and hangs up at once is not dialled five times a second.
    outbox.handle(LinkUp(), now)
    outbox.handle(LinkLost("gone", 0.5), now)
    assert outbox.deadline() == now + 4.0
    outbox.tick(now + 4.0)
    outbox.handle(LinkUp(), now + 4.0)
    outbox.handle(LinkLost("gone", 0.5), now + 8.0)
    assert outbox.deadline() == now + 9.0


def test_no_more_rows_than_the_window_are_in_memory() -> None:
    outbox = linked()
    rows = tuple(entry(number) for number in range(1, 4))
    effects = outbox.handle(RowsRead(rows, 3, more=True), 0)
    assert [type(effect) for effect in effects] == [Publish] * 3
    assert outbox.handle(PublishAcknowledged(1), 0) == [MarkRows((1,))]
    assert outbox.handle(RowsMarked(), 0) == [ReadRows(3, 1)]


def test_rows_added_while_reading_are_not_forgotten() -> None:
    outbox = linked()
    assert outbox.handle(Grown(), 0) == []
    assert outbox.handle(RowsRead((), 0, more=False), 0) == [ReadRows(0, 3)]
    assert outbox.handle(RowsRead((), 0, more=False), 0) == []
    assert outbox.handle(Grown(), 0) == [ReadRows(0, 3)]


def test_nothing_is_read_without_a_link() -> None:
    outbox = OutboxMachine(CONFIG, 0.0)
    assert outbox.handle(Grown(), 0) == []
    outbox.tick(0)
    assert outbox.handle(LinkLost("refused", 0.0), 0) == []


def test_a_store_that_fails_is_asked_again_later() -> None:
    outbox = linked()
    assert outbox.handle(StoreFailed(reading=True), 5.0) == []
    assert outbox.handle(Grown(), 5.5) == []
    assert outbox.deadline() == 6.0
    assert outbox.tick(6.0) == [ReadRows(0, 3)]
    outbox.handle(RowsRead((entry(1),), 1, more=False), 6.0)
    assert outbox.handle(PublishAcknowledged(1), 6.0) == [MarkRows((1,))]
    assert outbox.handle(StoreFailed(reading=False), 6.0) == []
    assert outbox.tick(7.0) == [MarkRows((1,))]


def test_a_late_acknowledgement_of_a_row_that_is_gone_is_harmless() -> None:
    outbox = linked()
    assert outbox.handle(PublishAcknowledged(9), 0) == []


def test_an_acknowledgement_from_an_earlier_link_counts() -> None:
    outbox = linked()
    outbox.handle(RowsRead((entry(1), entry(2)), 2, more=False), 0)
    outbox.handle(LinkLost("gone", 0.0), 0)
    assert outbox.handle(PublishAcknowledged(1), 0) == [MarkRows((1,))]


def test_k9_what_can_never_be_sent_is_set_aside_with_its_reason() -> None:
    outbox = linked()
    one, two = entry(1, "s"), entry(2, "s")
    outbox.handle(RowsRead((one, two), 2, more=False), 0)
    effects = outbox.handle(PublishRefused(1, "too large", final=True), 0)
    assert effects == [MarkRows((1,), {1: "too large"}), Publish(two)]


def test_k9_a_refused_subject_rests_and_no_other_does() -> None:
    outbox = linked()
    one, two, other = entry(1, "s"), entry(2, "s"), entry(3, "o")
    outbox.handle(RowsRead((one, two, other), 3, more=False), 0)
    assert outbox.handle(PublishRefused(1, "not authorized"), 10.0) == []
    assert outbox.resting("ns", "s") == "not authorized"
    assert outbox.handle(PublishAcknowledged(3), 10.0) == [MarkRows((3,))]
    assert outbox.handle(RowsMarked(), 10.0) == []
    assert outbox.held == 0, "what rests fills no window"
    assert outbox.deadline() == 11.0
    assert outbox.tick(11.0) == [ReadRows(0, 3)]
    assert outbox.handle(RowsRead((one, two), 3, more=False), 11.0) == [Publish(one)]
    # Once it has left, the rest of its subject is read again, but not as it is being marked.
    assert outbox.handle(PublishAcknowledged(1), 11.0) == [MarkRows((1,))]
    assert outbox.handle(RowsMarked(), 11.0) == [ReadRows(1, 3)]
    assert outbox.handle(RowsRead((two,), 3, more=False), 11.0) == [Publish(two)]
    assert outbox.resting("ns", "s") == ""


def test_what_rests_is_tried_as_soon_as_its_reason_may_be_over() -> None:
    outbox = linked()
    one, other = entry(1, "s"), entry(2, "o")
    outbox.handle(RowsRead((one, other), 2, more=False), 0)
    outbox.handle(PublishRefused(1, "its results are being copied"), 10.0)
    outbox.handle(PublishAcknowledged(2), 10.0)
    outbox.handle(RowsMarked(), 10.0)
    assert outbox.handle(RestsOver(), 10.1) == [ReadRows(0, CONFIG.window)]
    assert outbox.handle(RowsRead((one,), 2, more=False), 10.2) == [Publish(one)]


def test_u10_what_takes_the_place_of_a_row_that_rests_is_sent() -> None:
    """The row was under way as its link broke; meanwhile a newer state of its subject was recorded."""
    outbox = linked()
    one, two = entry(1, "nodes/n"), entry(2, "nodes/n")
    assert outbox.handle(RowsRead((one,), 1, more=False), 0) == [Publish(one)]
    outbox.handle(LinkLost("killed", 0.5), 5.0)
    outbox.handle(Grown(), 6.0)
    assert outbox.tick(7.0) == [Connect()]
    assert outbox.handle(LinkUp(), 7.0) == [ReadRows(1, 3)]
    outbox.handle(RowsRead((two,), 2, more=False), 7.0)
    assert outbox.tick(7.0) == [ReadRows(0, 3)]
    assert outbox.handle(RowsRead((two,), 2, more=False), 7.0) == [ReadRows(1, 3)]
    assert outbox.handle(RowsRead((two,), 2, more=False), 7.0) == [Publish(two)]
    assert outbox.handle(PublishAcknowledged(2), 7.0) == [MarkRows((2,))]


def test_k9_a_row_that_breaks_each_link_is_found_and_set_aside() -> None:
    """As brokers do that know no refusal; its dials become few."""
    outbox = linked()
    rows = tuple(entry(number) for number in range(1, 4))
    outbox.handle(RowsRead(rows, 3, more=False), 0)
    now, links, left = 0.0, 0, {1, 3}
    pending: list[OutboxEffect] = [Publish(row) for row in rows]
    aside: dict[int, str] = {}
    while not aside:
        effects: list[OutboxEffect] = []
        for effect in pending:
            match effect:
                case Publish(entry=row) if row.sequence == 2:
                    links += 1
                    effects += outbox.handle(LinkLost("hung up", 0.5), now)
                    break
                case Publish(entry=row):
                    left.discard(row.sequence)
                    effects += outbox.handle(PublishAcknowledged(row.sequence), now)
                case Connect():
                    effects += outbox.handle(LinkUp(), now)
                case MarkRows(aside=found):
                    aside |= found
                    effects += outbox.handle(RowsMarked(), now)
                case ReadRows(after=after):
                    found_rows = tuple(row for row in rows[1:2] if row.sequence > after)
                    effects += outbox.handle(RowsRead(found_rows, 3, more=False), now)
        if not effects:
            deadline = outbox.deadline()
            assert deadline is not None
            now = max(now, deadline)
            effects += outbox.tick(now)
        pending = effects
    assert aside == {2: "8 links broke as it was sent, the last: hung up"}
    assert left == set()
    assert links <= 10
    assert now > 60


def test_a_row_whose_access_is_denied_by_an_end_of_the_link_is_never_set_aside() -> None:
    """As AWS IoT Core ends the connection of a client that may not publish there."""
    outbox = linked()
    row = entry(1)
    outbox.handle(RowsRead((row,), 1, more=False), 0)
    now, tries = 0.0, 0
    pending: list[OutboxEffect] = [Publish(row)]
    while tries < 30:
        effects: list[OutboxEffect] = []
        for effect in pending:
            assert not isinstance(effect, MarkRows)
            match effect:
                case Publish(losses=losses):
                    assert losses == 0
                    tries += 1
                    lost = LinkLost("Not authorized", 0.5, denied=True)
                    effects += outbox.handle(lost, now)
                case Connect():
                    effects += outbox.handle(LinkUp(), now)
                case ReadRows(after=after):
                    found = (row,) if after < 1 else ()
                    effects += outbox.handle(RowsRead(found, 1, more=False), now)
        if not effects:
            deadline = outbox.deadline()
            assert deadline is not None
            now = max(now, deadline)
            effects += outbox.tick(now)
        pending = effects
    assert outbox.resting("ns", "pipelines/p1") == "the link broke as it was sent: Not authorized"

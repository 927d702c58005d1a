"""Whatever breaks, every event arrives at least once, in order, and none is let go of before (invariant 6).

K9: whatever the broker says to some rows, the others arrive; what it takes in the end arrives, too.
U10: of a state, the newest takes the place of what has not left, and arrives.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.events.entry import OutboxEntry
from services.events.outbox.effects import Connect, MarkRows, OutboxEffect, Publish, ReadRows
from services.events.outbox.events import (
    Grown,
    LinkLost,
    LinkUp,
    OutboxEvent,
    PublishAcknowledged,
    PublishRefused,
    RowsMarked,
    RowsRead,
    StoreFailed,
)
from services.events.outbox.machine import LOSSES_MAX, OutboxConfig, OutboxMachine

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


STATE = "state"
"""A subject of which the newest row takes the place of those that have not left."""

CUTS_MAX = LOSSES_MAX - 1
"""More links in a row that break as one row is under way make that row look guilty, as they should."""


@dataclass
class World:
    """Broker, store and everything that is under way; the moves decide what happens next.

    `moods` says of each row how the broker takes it: well, never (it says so), not before so many
    tries, or by hanging up.
    """

    subjects: list[str]
    moods: list[int | str] = field(default_factory=list[int | str])
    aside: dict[int, str] = field(default_factory=dict[int, str])
    cuts: int = 0
    rows: dict[int, OutboxEntry] = field(default_factory=dict[int, OutboxEntry])
    arrived: list[int] = field(default_factory=list[int])
    on_the_way: deque[OutboxEffect] = field(default_factory=deque[OutboxEffect])
    tried: dict[int, int] = field(default_factory=dict[int, int])
    up: bool = False
    now: float = 0.0
    last: int = 0

    def __post_init__(self) -> None:
        self.outbox = OutboxMachine(OutboxConfig(window=3), 0.0)

    def tell(self, event: OutboxEvent) -> None:
        self.on_the_way.extend(self.outbox.handle(event, self.now))

    def wait(self) -> None:
        deadline = self.outbox.deadline()
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.on_the_way.extend(self.outbox.tick(self.now))

    def add(self) -> None:
        if self.subjects:
            self.last += 1
            sequence, subject = self.last, self.subjects.pop()
            if subject == STATE:
                self.rows = {
                    number: row for number, row in self.rows.items() if row.subject != STATE
                }
            self.rows[sequence] = OutboxEntry(sequence, f"e{sequence}", "t", "ns", subject, WHEN)
            self.tell(Grown())

    def mood(self, sequence: int) -> int | str:
        return self.moods[sequence % len(self.moods)] if self.moods else 0

    def refuse(self, sequence: int) -> bool:
        """Say to a row what its mood is; False if it is taken."""
        match self.mood(sequence):
            case "never":
                self.tell(PublishRefused(sequence, "never", final=True))
            case "hangs up":
                self.cut(guilty=True)
            case int() as tries if self.tried.get(sequence, 0) < tries:
                self.tried[sequence] = self.tried.get(sequence, 0) + 1
                self.tell(PublishRefused(sequence, "not now"))
            case _:
                return False
        return True

    def cut(self, *, connecting: bool = False, guilty: bool = False) -> None:
        if (self.up and (guilty or self.cuts < CUTS_MAX)) or connecting:
            self.cuts += not (guilty or connecting)
            self.up = False
            # What is on the wire is lost; acknowledgements, too.
            self.on_the_way = deque(
                effect for effect in self.on_the_way if not isinstance(effect, Publish)
            )
            self.tell(LinkLost("cut", 0.5))

    def step(self, luck: int) -> None:
        """Let what is first under way happen, or fail when luck is 0."""
        if not self.on_the_way:
            self.wait()
            return
        match self.on_the_way.popleft():
            case Connect():
                if luck:
                    self.up = True
                    self.tell(LinkUp())
                else:
                    self.cut(connecting=True)
            case Publish(entry):
                there = entry.sequence in self.rows or entry.subject == STATE
                assert there, "sent after it was let go of"
                if self.refuse(entry.sequence):
                    return
                self.arrived.append(entry.sequence)
                if luck or self.cuts >= CUTS_MAX:
                    self.tell(PublishAcknowledged(entry.sequence))
                else:
                    self.cut()  # it arrived, and the acknowledgement did not
            case ReadRows(after, limit):
                if luck:
                    found = [row for number, row in self.rows.items() if number > after]
                    through = found[:limit][-1].sequence if found else after
                    self.tell(RowsRead(tuple(found[:limit]), through, more=len(found) > limit))
                else:
                    self.tell(StoreFailed(reading=True))
            case MarkRows(sequences, aside):
                if luck:
                    for sequence in sequences:
                        assert sequence in self.arrived or sequence in aside, "let go of before"
                        self.rows.pop(sequence, None)
                    self.aside |= aside
                    self.tell(RowsMarked())
                else:
                    self.tell(StoreFailed(reading=False))


@given(
    subjects=st.lists(st.sampled_from(["s", "t", STATE]), max_size=12),
    moods=st.lists(
        st.one_of(st.integers(0, 3), st.just(0), st.sampled_from(["never", "hangs up"])), max_size=6
    ),
    moves=st.lists(
        st.one_of(
            st.just("add"), st.just("cut"), st.just("wait"), st.integers(min_value=0, max_value=3)
        ),
        max_size=80,
    ),
)
def test_every_event_arrives_in_order(
    subjects: list[str], moods: list[int | str], moves: list[str | int]
) -> None:
    world = World(list(subjects), list(moods))
    by_sequence: dict[int, str] = {}
    for move in moves:
        match move:
            case "add":
                world.add()
                by_sequence |= {number: row.subject for number, row in world.rows.items()}
            case "cut":
                world.cut()
            case "wait":
                world.wait()
            case int() as luck:
                world.step(luck)
            case _:
                raise AssertionError(move)
    while world.subjects:
        world.add()
        by_sequence |= {number: row.subject for number, row in world.rows.items()}
    for _ in range(5000):
        if not world.rows and not world.on_the_way:
            break
        world.step(1)
    assert world.rows == {}
    guilty = {number for number in by_sequence if isinstance(world.mood(number), str)}
    replaced = {number for number in by_sequence if by_sequence[number] == STATE}
    assert guilty - replaced <= set(world.aside) <= guilty, "only what cannot be sent is set aside"
    for subject in set(by_sequence.values()):
        first_seen = list(
            dict.fromkeys(number for number in world.arrived if by_sequence[number] == subject)
        )
        whole = [n for n in sorted(by_sequence) if by_sequence[n] == subject and n not in guilty]
        if subject != STATE:
            assert first_seen == whole
            continue
        assert first_seen == sorted(first_seen)
        assert max(replaced) in guilty or first_seen[-1] == max(replaced), "as it is in the end"

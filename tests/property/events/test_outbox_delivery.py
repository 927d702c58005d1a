"""Whatever breaks, every event arrives at least once, in order, and none is let go of before."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.events.entry import Entry
from services.events.outbox import (
    Acknowledged,
    Connect,
    Grown,
    LinkLost,
    LinkUp,
    Mark,
    Marked,
    Outbox,
    OutboxConfig,
    OutboxEffect,
    OutboxEvent,
    Publish,
    Read,
    RowsRead,
    StoreFailed,
)

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class World:
    """Broker, store and everything that is under way; `draw` decides what happens next."""

    subjects: list[str]
    rows: dict[int, Entry] = field(default_factory=dict[int, Entry])
    arrived: list[int] = field(default_factory=list[int])
    on_the_way: deque[OutboxEffect] = field(default_factory=deque[OutboxEffect])
    up: bool = False
    now: float = 0.0

    def __post_init__(self) -> None:
        self.outbox = Outbox(OutboxConfig(window=3), 0.0)

    def tell(self, event: OutboxEvent) -> None:
        self.on_the_way.extend(self.outbox.handle(event, self.now))

    def wait(self) -> None:
        deadline = self.outbox.deadline()
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.on_the_way.extend(self.outbox.tick(self.now))

    def add(self) -> None:
        if self.subjects:
            sequence = 1 + max([0, *self.rows, *self.arrived])
            subject = self.subjects.pop()
            self.rows[sequence] = Entry(sequence, f"e{sequence}", "t", "ns", subject, WHEN)
            self.tell(Grown())

    def cut(self, *, connecting: bool = False) -> None:
        if self.up or connecting:
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
                assert entry.sequence in self.rows, "sent after it was let go of"
                self.arrived.append(entry.sequence)
                if luck:
                    self.tell(Acknowledged(entry.sequence))
                else:
                    self.cut()  # it arrived, and the acknowledgement did not
            case Read(after, limit):
                if luck:
                    found = [row for number, row in self.rows.items() if number > after]
                    through = found[:limit][-1].sequence if found else after
                    self.tell(RowsRead(tuple(found[:limit]), through, more=len(found) > limit))
                else:
                    self.tell(StoreFailed(reading=True))
            case Mark(sequences):
                if luck:
                    for sequence in sequences:
                        assert sequence in self.arrived, "let go of before it arrived"
                        del self.rows[sequence]
                    self.tell(Marked())
                else:
                    self.tell(StoreFailed(reading=False))


@given(
    subjects=st.lists(st.sampled_from(["s", "t", "u"]), max_size=12),
    moves=st.lists(
        st.one_of(
            st.just("add"), st.just("cut"), st.just("wait"), st.integers(min_value=0, max_value=3)
        ),
        max_size=80,
    ),
)
def test_every_event_arrives_in_order(subjects: list[str], moves: list[str | int]) -> None:
    world = World(list(subjects))
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
    for _ in range(500):
        if not world.rows and not world.on_the_way:
            break
        world.step(1)
    assert world.rows == {}
    for subject in set(by_sequence.values()):
        first_seen = list(
            dict.fromkeys(number for number in world.arrived if by_sequence[number] == subject)
        )
        assert first_seen == [n for n in sorted(by_sequence) if by_sequence[n] == subject]

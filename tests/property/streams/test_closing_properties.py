"""X1 and X4 in any order: no port passes its end, and all outputs are closed together and once."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.streams.block import Block, Kind, pack
from services.streams.effects import ClosePort, Effect, ReportFailed, SendBlock, SendEnd
from services.streams.events import (
    Attached,
    CallOpened,
    CallReady,
    Concluded,
    Event,
    LanesChanged,
    PortBlock,
)
from services.streams.machine import AttemptStreamsMachine
from services.streams.plan import AttemptPlan, OutputPlan, StreamLimits
from shoal.session.lane import Lane, LanePeer
from shoal.spec import PortBinding, PortFormat

PORTS: tuple[str, ...] = ("one", "two")
LANES = {
    port: Lane(f"a.{port}/b.{port}", True, port, peer_port=port, peer_job="b") for port in PORTS
}


class Source:
    """A program with two outputs, its readers, and whoever asks it to finish."""

    def __init__(self) -> None:
        binding = PortBinding(PortFormat.LINES)
        outputs = tuple(OutputPlan(port, binding, (LANES[port],)) for port in PORTS)
        plan = AttemptPlan(7, False, False, 0, 1, (), outputs)
        self.machine = AttemptStreamsMachine(plan, StreamLimits(), lambda: 0.5)
        self.written = dict.fromkeys(PORTS, 0)
        self.ends: dict[str, int] = {}
        self.done: set[str] = set()
        self.closed: set[str] = set()
        self.ready: list[CallReady] = []
        self.post(Attached())
        for number, port in enumerate(PORTS):
            self.post(CallOpened(number, LANES[port].id, 1, 7, 0, 1 << 20))

    def post(self, event: Event) -> None:
        for effect in self.machine.handle(event, 0.0):
            self.see(effect)

    def see(self, effect: Effect) -> None:
        match effect:
            case SendBlock(call=call, block=block):
                port = PORTS[call]
                assert block.first + block.count <= self.ends.get(port, 1 << 40)
                self.ready.append(CallReady(call, LANES[port].id))
            case SendEnd(call=call, total=total):
                port = PORTS[call]
                assert total == min(self.written[port], self.ends.get(port, 1 << 40))
            case ClosePort(port=port):
                assert port not in self.closed
                self.closed.add(port)
            case ReportFailed(message=message):
                raise AssertionError(message)
            case _:
                pass

    def write(self, port: str, count: int) -> None:
        block = Block(Kind.DATA, self.written[port], count, pack([b"x"] * count))
        if port not in self.closed:
            self.written[port] += count
        self.post(PortBlock(port, True, block))

    def move(self) -> None:
        """Tell the lanes as they are now."""
        self.post(
            LanesChanged(
                tuple(
                    replace(
                        lane, end=self.ends.get(port), peer=LanePeer("", "", 1, port in self.done)
                    )
                    for port, lane in LANES.items()
                )
            )
        )

    def check(self) -> None:
        unwanted = {
            port
            for port in PORTS
            if port in self.done or self.written[port] >= self.ends.get(port, 1 << 40)
        }
        assert self.closed == (set(PORTS) if unwanted == set(PORTS) else set())
        assert self.machine.closed == bool(self.closed)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(PORTS), st.integers(1, 5)),
        st.tuples(st.just("end"), st.sampled_from(PORTS), st.integers(0, 5)),
        st.tuples(st.just("done"), st.sampled_from(PORTS), st.just(0)),
        st.tuples(st.just("leave"), st.sampled_from(PORTS), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_x1_x4_ends_and_readers_in_any_order(steps: list[tuple[str, str, int]]) -> None:
    """400 histories of at most 30 steps."""
    source = Source()
    for what, port, number in steps:
        match what:
            case "write":
                source.write(port, number)
            case "end":
                # Recorded once, and never below what was sent.
                source.ends.setdefault(port, source.written[port] + number)
                source.move()
            case "done":
                source.done.add(port)
                source.move()
            case _:
                while source.ready:
                    source.post(source.ready.pop())
        source.check()
    if source.closed:
        source.post(Concluded(succeeded=True))
        source.done.update(PORTS)
        source.move()
        assert source.machine.drained

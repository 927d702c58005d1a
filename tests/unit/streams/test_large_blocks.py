"""Large blocks of one attempt, step by step: where they are dialled for, and how the spool gives them."""

from __future__ import annotations

from services.streams.block import decode, pack
from services.streams.checksum import crc32c
from services.streams.effects import (
    AcceptCall,
    DialLane,
    ReadSpool,
    RefuseCall,
    SendBlock,
    SendSpooled,
    WriteSpool,
)
from services.streams.events import (
    Attached,
    CallAcknowledged,
    CallOpened,
    CallReady,
    DialBlock,
    DialBroken,
    SpoolWritten,
)
from services.streams.plan import StreamLimits
from tests.unit.streams.test_machine import IN, OUT, Bench, accepted, data, sink, source, wrote

LARGE = b"x" * (2 << 20)


def opened(call: int, *, want: int = 0, bulk: bool) -> CallOpened:
    return CallOpened(call, OUT, 1, 7, want, 1 << 20, parts=True, bulk=bulk)


def test_a_large_block_is_sent_only_where_large_ones_may_come() -> None:
    bench = Bench(source())
    bench.post(Attached())
    bench.post(opened(1, bulk=False))
    bench.post(wrote(data([b"small"])))
    bench.only(SendBlock)
    bench.post(wrote(data([LARGE], 1)))
    bench.post(CallReady(1, OUT))
    assert bench.none(RefuseCall), "there is no credit for it anyway"
    bench.post(CallAcknowledged(1, OUT, 1, 0, 33))
    assert bench.only(RefuseCall).reason == "BULK"
    assert bench.none(SendBlock)
    assert bench.post(CallAcknowledged(1, OUT, 1, 0, 33)) == []  # the call is over
    bench.post(opened(2, want=1, bulk=True))
    assert bench.only(AcceptCall).first == 1
    assert bench.only(SendBlock).retained.first == 1
    assert bench.machine.counters(0)[0].records == 2


def test_a_lane_that_is_refused_for_a_large_block_is_dialled_for_it_at_once_and_from_then_on() -> (
    None
):
    bench = Bench(sink())
    bench.post(Attached())
    assert not bench.only(DialLane).bulk
    accepted(bench)
    bench.post(DialBlock(IN, 1, data([b"waits", b"for the job"])))
    bench.post(DialBroken(IN, 1, "BULK", "the next block has 2097176 bytes"))
    again = bench.only(DialLane)
    assert (again.bulk, again.want) == (True, 0), "what waited for the job is asked for again"
    bench.post(DialBroken(IN, 2, "UNAVAILABLE"))
    [later] = [effect for effect in bench.machine.tick(1.0) if isinstance(effect, DialLane)]
    assert later.bulk


def test_a_large_block_leaves_the_spool_part_by_part_where_it_is_sent_in_parts() -> None:
    limits = StreamLimits(memory_bytes=1000)
    bench = Bench(source(), limits)
    bench.post(Attached())
    body = pack([LARGE])
    bench.post(wrote(data([LARGE])))
    place = bench.only(WriteSpool).place
    bench.post(SpoolWritten(place))
    bench.post(CallOpened(1, OUT, 1, 7, 0, 1 << 20))  # within the node: in one piece
    assert bench.only(ReadSpool).place == place

    bench = Bench(source(), limits)
    bench.post(Attached())
    bench.post(opened(1, bulk=True))
    bench.post(wrote(data([LARGE])))
    sent = bench.only(SendBlock)
    assert decode(sent.header + sent.body) == data([LARGE])
    bench.post(SpoolWritten(bench.only(WriteSpool).place))
    bench.post(opened(2, bulk=True))
    spooled = bench.only(SendSpooled)
    assert (spooled.place.length, spooled.crc) == (len(body), crc32c(body))
    assert decode(spooled.header + body) == data([LARGE])
    bench.post(CallReady(2, OUT))
    bench.post(wrote(data([b"next"], 1)))
    # Beyond the credit until the large one is taken.
    assert bench.none(SendBlock)
    bench.post(CallAcknowledged(2, OUT, 1, 0, len(body) + 24))
    assert bench.only(SendBlock).retained.first == 1

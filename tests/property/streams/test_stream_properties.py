"""What holds of blocks, raw formats and distribution for every input."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.streams.attempt_input import AttemptInput
from services.streams.attempt_output import AttemptOutput
from services.streams.block import (
    HEADED,
    Block,
    BlockError,
    BlockReader,
    Kind,
    decode,
    encode,
    entries,
    pack,
    payload_of,
    unpack,
    without_head,
)
from services.streams.effects import WritePort
from services.streams.events import DialAccepted, DialEnded
from services.streams.framing import FixedReader, LineReader, render
from services.streams.lane_slice import LaneSlice, lane_slice
from services.streams.merge_order import MergeOrder
from services.streams.plan import InputPlan, OutputPlan, StreamLimits
from services.streams.receiver import ReceiveLane
from services.streams.retained_log import RetainedLog
from services.streams.worker.wire import BadBlock, read_message, write_block
from shoal.backoff import Backoff
from shoal.session.lane import Lane, LanePeer, Stretch
from shoal.spec import Distribute, PortBinding, PortFormat
from shoal.v1.streams_service_pb2 import PullResponse

RECORDS = st.lists(st.binary(max_size=60), min_size=1, max_size=20)
CUTS = st.lists(st.integers(1, 200), min_size=1, max_size=50)


def headed_record(headers: bytes, payload: bytes) -> tuple[bool, bytes]:
    return True, len(headers).to_bytes(2, "little") + headers + payload


RECORD: st.SearchStrategy[tuple[bool, bytes]] = st.one_of(
    st.tuples(st.just(value=False), st.binary(max_size=30)),
    st.builds(
        headed_record,
        st.sampled_from([b"{}", b'{"key":"a"}', b'{"k": 1}']),
        st.binary(max_size=30),
    ),
)
"""Whether a record has headers, and its bytes."""

Mixed = list[tuple[bool, bytes]]


def data(records: list[bytes], first: int = 0) -> Block:
    return Block(Kind.DATA, first, len(records), pack(records))


def mixed(records: Mixed, first: int = 0) -> Block:
    table = [len(record) | (HEADED if has else 0) for has, record in records]
    return Block(Kind.DATA, first, len(records), pack([record for _, record in records], table))


def unmixed(block: Block) -> Mixed:
    marks = [bool(entry & HEADED) for entry in entries(block)]
    return list(zip(marks, unpack(block), strict=True))


def feed(
    reader: BlockReader | LineReader | FixedReader, stream: bytes, cuts: list[int]
) -> list[Block]:
    blocks: list[Block] = []
    view = memoryview(stream)
    turn = 0
    while view:
        room = reader.buffer()
        count = min(len(room), len(view), cuts[turn % len(cuts)])
        turn += 1
        room[:count] = view[:count]
        view = view[count:]
        blocks += reader.filled(count)
    return blocks


@given(st.lists(RECORDS, max_size=8), CUTS)
def test_blocks_come_out_as_they_went_in_however_they_are_cut(
    groups: list[list[bytes]], cuts: list[int]
) -> None:
    blocks = [data(group, number) for number, group in enumerate(groups)]
    reader = BlockReader()
    assert feed(reader, b"".join(map(encode, blocks)), cuts) == blocks
    assert reader.finish() == []


@given(st.binary(max_size=400), CUTS)
def test_no_bytes_do_more_than_be_refused(stream: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(BlockError):
        feed(BlockReader(), stream, cuts)
    with contextlib.suppress(BlockError):
        decode(stream)


@given(RECORDS, st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_between_nodes_is_found(records: list[bytes], where: int, flip: int) -> None:
    good = encode(data(records), checksum=True)
    bad = bytearray(good)
    bad[24 + where % (len(good) - 24)] ^= flip
    if bytes(bad) == good:
        assert decode(good) == data(records)
        return
    try:
        decode(bytes(bad))
    except BlockError:
        return
    raise AssertionError("a flipped byte passed")


@given(RECORDS, st.integers(0, 30))
def test_a_block_without_its_head(records: list[bytes], skip: int) -> None:
    skip = min(skip, len(records) - 1)
    assert unpack(without_head(data(records, 9), skip)) == records[skip:]


@given(RECORDS)
def test_a_block_passes_a_call_as_the_message_of_the_contract(records: list[bytes]) -> None:
    block = data(records, 3)
    whole = encode(block, checksum=True)
    message = write_block(whole[:24], whole[24:])
    assert PullResponse.FromString(message).block == whole
    assert read_message(PullResponse(block=whole).SerializeToString()) == block


@given(st.binary(max_size=200))
def test_a_bad_message_does_not_pass_as_a_block(noise: bytes) -> None:
    assert isinstance(read_message(b"\x12" + noise), BadBlock)


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), CUTS)
def test_lines_survive(lines: list[bytes], cuts: list[int]) -> None:
    reader = LineReader()
    blocks = feed(reader, b"".join(line + b"\n" for line in lines), cuts) + reader.finish()
    assert [record for block in blocks for record in unpack(block)] == lines
    text = b"".join(render(PortFormat.LINES, 0, block) for block in blocks)
    assert text == b"".join(line + b"\n" for line in lines)
    assert all(one.first + one.count == two.first for one, two in pairwise(blocks))


@given(st.integers(1, 9), st.binary(max_size=200), CUTS)
def test_fixed_records_survive(size: int, stream: bytes, cuts: list[int]) -> None:
    stream = stream[: len(stream) // size * size]
    blocks = feed(FixedReader(size), stream, cuts)
    text = b"".join(render(PortFormat.BYTES, size, block) for block in blocks)
    assert text == stream


@given(
    producers=st.integers(1, 6),
    consumers=st.integers(1, 6),
    totals=st.lists(st.integers(0, 25), min_size=6, max_size=6),
    broadcast=st.booleans(),
)
def test_consumers_take_what_the_producers_sent_in_the_order_of_the_contract(
    producers: int, consumers: int, totals: list[int], *, broadcast: bool
) -> None:
    sent = {
        (producer, record): record * producers + producer
        for producer in range(producers)
        for record in range(totals[producer])
    }
    seen: list[tuple[int, int]] = []
    for consumer in range(consumers):
        order = MergeOrder(producers, consumer, consumers, broadcast=broadcast)
        slices = [
            lane_slice(producer, producers, consumer, consumers, broadcast=broadcast)
            for producer in range(producers)
        ]
        for producer, part in enumerate(slices):
            assert part.empty == (producer not in order.lanes)
            order.end(producer, part.sequence(totals[producer]))
        taken: list[tuple[int, int]] = []
        while (lane := order.lane()) is not None:
            sequence = order.taken[lane]
            record = slices[lane].record(sequence)
            assert slices[lane].sequence(record) == sequence
            assert broadcast or sent[lane, record] % consumers == consumer
            taken.append((lane, record))
            order.take()
        if len(set(totals[:producers])) == 1:
            indices = [sent[one] for one in taken]
            assert indices == sorted(indices)
        seen += taken
        skipped = MergeOrder(producers, consumer, consumers, broadcast=broadcast)
        known = [part.sequence(totals[producer]) for producer, part in enumerate(slices)]
        for producer, total in enumerate(known):
            skipped.end(producer, total)
        half = len(taken) // 2
        assert skipped.advance(half, known)
        assert [skipped.taken[lane] for lane in range(producers)] == [
            sum(1 for one, _ in taken[:half] if one == lane) for lane in range(producers)
        ]
    assert sorted(seen) == sorted([*sent] * (consumers if broadcast else 1))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), RECORDS),
            st.tuples(st.just("read"), st.integers(0, 60)),
            st.tuples(st.just("take"), st.integers(0, 60)),
            st.tuples(st.just("release"), st.integers(0, 60)),
        ),
        max_size=40,
    )
)
def test_a_track_gives_what_was_appended_until_it_is_released(
    steps: list[tuple[str, list[bytes] | int]],
) -> None:
    log = RetainedLog(block_bytes=200)
    reader = log.cursor()
    everything: list[bytes] = []
    released = read = 0
    for step, value in steps:
        match step, value:
            case "add", list(records):
                log.append(len(records), pack(records))
                everything += records
                if reader.number is None:
                    reader.number = log.number_at(log.base)
            case "read", int(count):
                for _ in range(count % 5):
                    number = reader.number
                    retained = None if number is None else log.block(number)
                    if retained is None or retained.end <= read:
                        break
                    assert retained.first <= read
                    read = retained.end
                    reader.number = None if reader.number is None else reader.number + 1
            case "take", int(number):
                sequence = log.base + number % (log.next - log.base + 1)
                retained = log.block(log.number_at(sequence))
                if retained is None or retained.body is None:
                    assert sequence == log.next
                    continue
                assert retained.first <= sequence
                assert sequence < retained.end or sequence == log.next
                block = Block(Kind.DATA, retained.first, retained.count, retained.body)
                assert unpack(block) == everything[retained.first : retained.end]
                size = sum(len(record) + 4 for record in everything[: retained.first])
                assert retained.offset == size
            case "release", int(number):
                released = max(released, min(number, read))
                log.release(released)
            case _:
                raise AssertionError(step)
        assert log.next == len(everything)
        assert log.base <= max(released, 0)
        assert log.offset == sum(len(record) + 4 for record in everything)
        assert log.memory_bytes == sum(len(record) + 4 for record in everything[log.base :])


@given(st.lists(st.lists(RECORD, min_size=1, max_size=6), max_size=6), CUTS, st.integers(0, 5))
def test_f12_blocks_with_headers_come_out_as_they_went_in(
    groups: list[Mixed], cuts: list[int], skip: int
) -> None:
    blocks = [mixed(group, number) for number, group in enumerate(groups)]
    assert feed(BlockReader(), b"".join(map(encode, blocks)), cuts) == blocks
    for block, group in zip(blocks, groups, strict=True):
        assert unmixed(block) == group
        assert decode(encode(block, checksum=True)) == block
        rest = min(skip, len(group) - 1)
        assert unmixed(without_head(block, rest)) == group[rest:]


@given(
    groups=st.lists(st.lists(RECORD, min_size=1, max_size=6), max_size=6),
    replicas=st.integers(1, 4),
    middle=st.integers(1, 4),
)
def test_f12_headers_pass_through_split_join_and_merge(
    groups: list[Mixed], replicas: int, middle: int
) -> None:
    """Producer replicas split over consumers; each consumer's lanes are merged; all stays marked."""
    limits = StreamLimits(block_bytes=100)
    lanes: dict[tuple[int, int], list[Block]] = {}
    for producer in range(replicas):
        plan = OutputPlan("out", PortBinding(), tuple(lane_of(n, middle) for n in range(middle)))
        out_port = AttemptOutput(plan, producer=producer, producers=replicas, limits=limits)
        out_port.start(0, "restart", 1, 0.0)
        first = 0
        for group in groups:
            out_port.wrote(mixed(group, first), 0.0)
            first += len(group)
        out_port.end()
        for number, lane in enumerate(out_port.lanes):
            lanes[producer, number] = drain(lane.log)
    everything = [record for group in groups for record in group]
    for consumer in range(middle):
        got = taken(
            {n: lanes[n, consumer] for n in range(replicas)}, consumer, middle, PortFormat.BLOCKS
        )
        # Every producer sends the same records here, so its record k has the index k * m + i.
        order = [record for record in everything for _ in range(replicas)]
        assert [one for block in got for one in unmixed(block)] == order[consumer::middle]


@given(st.lists(st.lists(RECORD, min_size=1, max_size=6), max_size=6))
def test_f12_raw_programs_see_no_headers(groups: list[Mixed]) -> None:
    payloads = [payload_of(record) if has else record for group in groups for has, record in group]
    for block, group in zip(map(mixed, groups), groups, strict=True):
        if any(b"\n" in (payload_of(one) if has else one) for has, one in group):
            continue
        text = render(PortFormat.LINES, 0, block)
        assert text == b"".join((payload_of(one) if has else one) + b"\n" for has, one in group)
    size = 5
    cut = [payload[:size].ljust(size, b".") for payload in payloads]
    records = [
        (has, record[: len(record) - len(payload_of(record))] + fixed if has else fixed)
        for (has, record), fixed in zip(
            (one for group in groups for one in group), cut, strict=True
        )
    ]
    if records:
        assert render(PortFormat.BYTES, size, mixed(records)) == b"".join(cut)


@given(
    groups=st.lists(st.lists(RECORD, min_size=1, max_size=6), max_size=6),
    first=st.integers(1, 4),
    second=st.integers(1, 4),
)
def test_equal_keys_reach_one_replica_of_each_consumer_in_order(
    groups: list[Mixed], first: int, second: int
) -> None:
    lanes = [
        Lane(
            f"{job}-{replica}",
            True,
            "out",
            replica,
            replicas,
            peer_port="in",
            peer_job=job,
            distribute=Distribute.KEY,
        )
        for job, replicas in (("one", first), ("two", second))
        for replica in range(replicas)
    ]
    out_port = AttemptOutput(
        OutputPlan("out", PortBinding(), tuple(lanes)),
        producer=0, producers=1, limits=StreamLimits(block_bytes=100),
    )  # fmt: skip
    out_port.start(0, "restart", 1, 0.0)
    everything: Mixed = []
    for group in groups:
        out_port.wrote(mixed(group, len(everything)), 0.0)
        everything += group
    out_port.end()
    for lane in out_port.lanes:
        got = [one for block in drain(lane.log) for one in unmixed(block)]
        assert lane.log.total == len(got)
        assert got == [
            one
            for one in everything
            if zlib.crc32(key_of(*one)) % lane.plan.peer_replicas == lane.plan.peer_replica
        ]


def key_of(has: bool, record: bytes) -> bytes:  # noqa: FBT001 - as records are drawn
    size = 2 + int.from_bytes(record[:2], "little") if has else 0
    headers: dict[str, str] = json.loads(record[2:size]) if has else {}
    return headers["key"].encode() if "key" in headers else record[size:]


def lane_of(replica: int, replicas: int) -> Lane:
    return Lane(
        f"lane-{replica}",
        True,
        "out",
        replica,
        replicas,
        LanePeer("here", "", 1),
        peer_port="in",
        peer_job="peer",
    )


def drain(log: RetainedLog) -> list[Block]:
    blocks: list[Block] = []
    number = 0
    while (retained := log.block(number)) is not None:
        assert retained.body is not None
        blocks.append(Block(Kind.DATA, retained.first, retained.count, retained.body))
        number += 1
    return blocks


def taken(
    lanes: dict[int, list[Block]], consumer: int, consumers: int, port_format: PortFormat
) -> list[Block]:
    """What the job of one consumer reads when these blocks come on its lanes."""
    plans = tuple(lane_of(producer, len(lanes)) for producer in lanes)
    ends = [
        ReceiveLane(
            plan, epoch=1, credit_bytes=10**9, backoff=Backoff(1, 1),
            chance=lambda: 0.5,
        )
        for plan in plans
    ]  # fmt: skip
    in_port = AttemptInput(
        InputPlan("in", PortBinding(port_format), plans), ends, consumer, consumers
    )
    in_port.begin(0)
    assert in_port.settle() == 0
    in_port.start(0, "restart", 1, 0.0)
    written: list[bytes] = []
    for producer, end in enumerate(ends):
        end.dial()
        end.accepted(DialAccepted("", 1, 1, 0))
        for block in lanes[producer]:
            end.received(block)
            in_port.arrived(end)
        end.ended(DialEnded("", 1, end.expected))
        in_port.lane_ended(end)
    while effects := in_port.written(0.0):
        written += [
            bytes(part) for one in effects if isinstance(one, WritePort) for part in one.parts
        ]
    blocks = feed(BlockReader(), b"".join(written), [1 << 20])
    return [block for block in blocks if block.kind is Kind.DATA]


@st.composite
def generations(draw: st.DrawFn) -> list[tuple[int, int, int | None]]:
    """Generations of a job: replicas, and the global indices where each begins and ends."""
    found: list[tuple[int, int, int | None]] = []
    begin = 0
    for _ in range(draw(st.integers(0, 3))):
        replicas, rounds = draw(st.integers(1, 5)), draw(st.integers(0, 6))
        found.append((replicas, begin, begin + replicas * rounds))
        begin += replicas * rounds
    return [*found, (draw(st.integers(1, 5)), begin, None)]


@given(
    producers=generations(),
    consumers=generations(),
    last=st.integers(0, 9),
    broadcast=st.booleans(),
)
def test_a_stream_that_was_cut_at_both_ends_keeps_its_order_and_every_record(
    producers: list[tuple[int, int, int | None]],
    consumers: list[tuple[int, int, int | None]],
    last: int,
    *,
    broadcast: bool,
) -> None:
    """Scaling: each record once (or once for each replica), in the first order, whatever the cuts."""

    def records(producer: tuple[int, int, int | None]) -> int:
        replicas, begin, end = producer
        return last if end is None else (end - begin) // replicas

    total = producers[-1][1] + producers[-1][0] * last
    seen: list[int] = []
    for replicas, begin, end in consumers:
        for consumer in range(replicas):
            taken = _taken(
                producers, (consumer, replicas, begin, end), records, broadcast=broadcast
            )
            stop = total if end is None else min(end, total)
            assert taken == [
                index
                for index in range(begin, stop)
                if broadcast or (index - begin) % replicas == consumer
            ]
            seen += taken
    assert sorted(set(seen)) == [*range(total)]


def _taken(
    producers: list[tuple[int, int, int | None]],
    consumer: tuple[int, int, int, int | None],
    records: Callable[[tuple[int, int, int | None]], int],
    *,
    broadcast: bool,
) -> list[int]:
    """What one replica takes, as global indices."""
    replica, replicas, begin, end = consumer
    order: MergeOrder | None = None
    lanes: list[tuple[LaneSlice, int, int]] = []
    for generation, (number, producer_begin, producer_end) in enumerate(producers):
        if (producer_end is not None and producer_end <= begin) or (
            end is not None and producer_begin >= end
        ):
            continue  # they have no record in common, so there are no lanes
        if order is None:
            order = MergeOrder(
                *(number, replica, replicas),
                broadcast=broadcast,
                begin=begin,
                producer_begin=producer_begin,
            )
        else:
            order.extend(number, producer_begin)
        stretch = Stretch(generation, producer_begin, begin, end)
        for producer in range(number):
            part = lane_slice(
                producer, number, replica, replicas, broadcast=broadcast, stretch=stretch
            )
            order.end(len(lanes), part.sequence(records(producers[generation])))
            lanes.append((part, producer_begin + producer, number))
    taken: list[int] = []
    while order is not None and (index := order.lane()) is not None:
        part, own, number = lanes[index]
        record = part.record(order.taken[index])
        assert part.sequence(record) == order.taken[index]
        assert not part.over(record)
        taken.append(own + record * number)
        order.take()
    return taken

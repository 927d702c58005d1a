"""Job code and stream worker have a block codec each; they agree byte for byte."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from services.streams import block as worker
from shoal import limits
from shoal.job import block as job
from shoal.job.block_reader import BlockReader

RECORDS = st.lists(st.binary(max_size=60), min_size=1, max_size=10)
SEQUENCE = st.integers(min_value=0, max_value=2**64 - 1)


def read_by_worker(data: bytes) -> list[worker.Block]:
    reader = worker.BlockReader()
    blocks: list[worker.Block] = []
    while data:
        buffer = reader.buffer()
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        data = data[size:]
        blocks += reader.filled(size)
    return [*blocks, *reader.finish()]


@given(first=SEQUENCE, records=RECORDS)
def test_data_is_the_same_bytes(first: int, records: list[bytes]) -> None:
    ours = job.encode_data(first, records)
    theirs = worker.Block(worker.Kind.DATA, first, len(records), worker.pack(records))
    assert ours == worker.encode(theirs)
    assert read_by_worker(ours) == [theirs]
    (came,) = BlockReader().feed(worker.encode(theirs))
    assert [bytes(record) for record in came.records()] == worker.unpack(theirs) == records


@given(
    first=SEQUENCE,
    texts=st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=9),
)
def test_f12_headers_are_the_same_bytes(first: int, texts: list[bytes | None]) -> None:
    headed = [text is not None for text in texts]
    records = [
        b"payload" if text is None else job.HEADERS_SIZE.pack(len(text)) + text + b"payload"
        for text in texts
    ]
    lengths = [
        len(record) | (job.HEADED if has else 0)
        for record, has in zip(records, headed, strict=True)
    ]
    data = job.data_head(first, lengths) + b"".join(records)
    (theirs,) = read_by_worker(data)
    assert data == worker.encode(theirs)
    assert list(worker.entries(theirs)) == lengths
    assert worker.headed(theirs) == any(headed)
    (ours,) = BlockReader().feed(data)
    assert ours.records() == [b"payload"] * len(texts)
    assert ours.headers() == {
        index: worker.headers_of(record)
        for index, (record, has) in enumerate(zip(records, headed, strict=True))
        if has
    }


@given(first=SEQUENCE, entry=st.integers(0, 2**32 - 1), record=st.binary(max_size=40))
def test_f12_headers_that_do_not_fit_are_refused_by_both_ends(
    first: int, entry: int, record: bytes
) -> None:
    entry = entry & job.HEADED | len(record)
    data = job.HEADER.pack(job.DATA, 0, 0, 1, first, 4 + len(record), 0)
    data += entry.to_bytes(4, "little") + record
    refused = [True, True]
    with contextlib.suppress(worker.BlockError):
        read_by_worker(data)
        refused[0] = False
    with contextlib.suppress(job.BlockError):
        BlockReader().feed(data)
        refused[1] = False
    assert refused[0] == refused[1]


@given(first=SEQUENCE, kind=st.sampled_from([job.END, job.ACK]))
def test_marks_are_the_same_bytes(first: int, kind: int) -> None:
    theirs = worker.Block(worker.Kind(kind), first)
    assert job.encode_mark(kind, first) == worker.encode(theirs)
    assert read_by_worker(job.encode_mark(kind, first)) == [theirs]


@given(first=SEQUENCE, text=st.text(max_size=50), kind=st.sampled_from([job.START, job.PROGRESS]))
def test_texts_are_the_same_bytes(first: int, text: str, kind: int) -> None:
    body = text.encode("utf-8", "replace")
    theirs = worker.Block(worker.Kind(kind), first, 0, body)
    assert job.encode_text(kind, first, text) == worker.encode(theirs)
    (came,) = BlockReader().feed(worker.encode(theirs))
    assert (came.kind, came.first, bytes(came.body)) == (kind, first, body)


@settings(max_examples=50)  # some of them ask for 256 MiB
@given(
    kind=st.integers(0, 6),
    count=st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)),
    length=st.one_of(
        st.integers(0, 16),
        st.integers(-2, 2).map(lambda more: job.MAX_BLOCK_BYTES + more),
        st.integers(-2, 6).map(lambda more: job.MAX_RECORD_BYTES + more),
        st.integers(0, 2**32 - 1),
    ),
)
def test_no_block_of_data_is_refused_by_one_end_alone(kind: int, count: int, length: int) -> None:
    header = job.HEADER.pack(kind, 0, 0, count, 0, length, 0)
    refused = [True, True]
    with contextlib.suppress(worker.BlockError):
        reader = worker.BlockReader()
        reader.buffer()[: len(header)] = header
        with contextlib.suppress(MemoryError):
            reader.filled(len(header))
        refused[0] = False
    with contextlib.suppress(job.BlockError):
        BlockReader().feed(header)
        refused[1] = False
    if kind == job.DATA:
        assert refused[0] == refused[1]


def test_the_limits_are_the_same() -> None:
    assert job.MAX_RECORD_BYTES == limits.RECORD_BYTES_MAX
    assert job.MAX_BLOCK_BYTES == worker.BLOCK_BYTES_MAX
    assert job.MAX_HEADERS_BYTES == worker.HEADERS_BYTES_MAX

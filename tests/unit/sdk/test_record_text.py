"""Records as people read them."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import spec
from shoal.job.codec import AUTO
from shoal.record_text import codec_of, read_record


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ("brown fox", "value", "brown fox"),
        ({"a": [1, 2.5, None]}, "value", '{"a": [1, 2.5, null]}'),
        (b"\x00\x01", "value", "2 bytes 0001"),
        ((1, "x"), "value", '[1, "x"]'),
    ],
)
def test_f13_values_of_the_sdk_are_shown_as_they_were_sent(
    value: object, kind: str, shown: str
) -> None:
    """What `auto` wrote is read again; JSON shows a tuple as a list."""
    data = b"".join(bytes(piece) for piece in AUTO.encode(value))
    read = read_record(data, len(data), headers=False, codec="auto")
    assert (read.kind, read.shown) == (kind, shown)


def test_f13_plain_bytes_are_text_json_or_hex() -> None:
    """`raw` never takes a letter for a tag; what is no text shows its size and first bytes."""
    assert read_record(b"super", 5, headers=False, codec="raw").value == "super"
    read = read_record(b'{"k": 1}', 8, headers=False, codec="json")
    assert (read.kind, read.value) == ("json", {"k": 1})
    read = read_record(bytes(range(200, 250)), 1_000_000, headers=False, codec="auto")
    assert read.kind == "bytes"
    assert read.shown.startswith("1,000,000 bytes c8c9cacb")
    read = read_record("añb".encode()[:2], 4, headers=False, codec="raw")
    assert read.shown == "a… (4 bytes)"


def test_f13_headers_are_told_apart_from_the_record() -> None:
    """Contract of headers: u16 length, JSON, then the payload."""
    carried = json.dumps({"key": "cam-3"}).encode()
    data = len(carried).to_bytes(2, "little") + carried + b"frame"
    read = read_record(data, len(data), headers=True, codec="raw")
    assert read.headers == {"key": "cam-3"}
    assert read.shown == "frame"


def test_f13_an_array_is_described_without_numpy() -> None:
    """Its type and shape come first in the record."""
    description = b'{"dtype": "<f4", "shape": [480, 640]}'
    data = b"n\0" + len(description).to_bytes(2, "little") + description
    read = read_record(data, 1_228_800, headers=False, codec="auto")
    assert read.shown == "array <f4 480x640"


FRAME = {"frame": 3, "size": (640, 480), "boxes": [[1, 2]], "picture": b"\0" * 900_000}


@pytest.mark.parametrize(
    ("value", "kept", "shown"),
    [
        (FRAME, 64 << 10, '{"frame": 3, "size": [640, 480], "boxes": [[1, 2]], "picture": "<900,000 bytes 00'),
        (FRAME, 130, '"picture": "<900,000 bytes'),
        ((b"\1\2", "x"), 99, '["<2 bytes 0102>", "x"]'),
        ({(1, 2): b"a"}, 99, "{(1, 2): <1 bytes 61>}"),
        (b"\7" * 90_000, 64 << 10, "90,000 bytes 07070707"),
        ("lang " * 20_000, 64 << 10, "lang lang"),
        (["x" * 90_000], 64 << 10, '["xxx'),
        ({"x" * 90_000: b""}, 64 << 10, "a value of 90,0"),
    ],
    ids=["frame", "cut", "tuple", "key", "bytes", "text", "list", "skeleton"],
)  # fmt: skip
def test_u7_the_head_of_a_large_value_is_a_readable_line(
    value: object, kept: int, shown: str
) -> None:
    data = b"".join(bytes(piece) for piece in AUTO.encode(value))
    read = read_record(data[:kept], len(data), headers=False, codec="auto")
    assert read.kind == "value"
    assert shown in read.shown
    assert "\n" not in read.shown
    json.dumps(read.value)


def test_u7_an_array_within_a_value_is_described_without_numpy() -> None:
    description = b'{"dtype": "|u1", "shape": [192, 256, 3]}'
    array = b"n\0" + len(description).to_bytes(2, "little") + description + bytes(147_456)
    skeleton = b'{"d": [["frame", 7], ["thumbnail", {"p": 0}]]}'
    head = struct.pack("<III", len(skeleton), 1, len(array))
    data = b"c" + head + skeleton + array
    for kept in (len(data), 400):
        read = read_record(data[:kept], len(data), headers=False, codec="auto")
        assert read.shown == '{"frame": 7, "thumbnail": "<array |u1 192x256x3>"}'
        assert read.value == {"frame": 7, "thumbnail": {"dtype": "|u1", "shape": [192, 256, 3]}}


@given(data=st.binary(max_size=60), more=st.integers(0, 100), tag=st.sampled_from(b"bysjngcx"))
def test_u7_no_bytes_are_too_damaged_to_be_shown(data: bytes, more: int, tag: int) -> None:
    record = bytes([tag]) + data
    read = read_record(record, len(record) + more, headers=False, codec="auto")
    json.dumps(read.value)


def test_f13_a_raw_format_at_either_end_means_plain_bytes() -> None:
    """As the agent tells the SDK."""

    def pipeline(out: spec.PortFormat, inner: spec.PortFormat) -> spec.Pipeline:
        return spec.Pipeline(
            "p",
            (
                spec.Job("a", ("a",), outputs=(spec.Output("x", spec.PortBinding(out)),)),
                spec.Job(
                    "b", ("b",), streams=(spec.StreamInput("x", "a", "x", spec.PortBinding(inner)),)
                ),
            ),
        )

    blocks, lines = spec.PortFormat.BLOCKS, spec.PortFormat.LINES
    assert codec_of(pipeline(blocks, blocks), "a", "x") == "auto"
    assert codec_of(pipeline(blocks, lines), "a", "x") == "raw"
    assert codec_of(pipeline(lines, blocks), "a", "x") == "raw"

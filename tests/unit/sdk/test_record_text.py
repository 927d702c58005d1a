"""Records as people read them."""

import json

import pytest

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

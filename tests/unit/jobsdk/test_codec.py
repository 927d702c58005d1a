"""Codecs: tags, arrays without a copy, and errors that name type and remedy."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from shoal.job import AUTO, JSON, NDARRAY, PICKLE, RAW, Codec, CodecError
from shoal.job.block import Buffer, encode_data
from shoal.job.block_reader import BlockReader
from shoal.job.codec import codec_for


def record_of(codec: Codec, value: object) -> bytes:
    return b"".join(codec.encode(value))


def there_and_back(codec: Codec, value: object) -> Any:
    return codec.decode(memoryview(bytearray(record_of(codec, value))))


@pytest.mark.parametrize(
    ("value", "record"),
    [
        (b"as they are", b"bas they are"),
        ("text", b"stext"),
        ({"people": 3}, b'j{"people":3}'),
        (None, b"jnull"),
        (1.5, b"j1.5"),
        ((1, 2), b'c\x0b\x00\x00\x00\x00\x00\x00\x00{"t":[1,2]}'),
    ],
)
def test_tags(value: object, record: bytes) -> None:
    assert record_of(AUTO, value) == record


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.linspace(0, 1, 7, dtype=np.float64),
        np.arange(10, dtype=">i4")[::2],
        np.zeros((0, 3), dtype=np.float32),
        np.array(3.5),
        np.array(["one", "three"]),
        np.array([True, False]),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
@pytest.mark.parametrize("codec", [AUTO, NDARRAY], ids=["auto", "ndarray"])
def test_arrays_arrive_as_they_were(array: "np.ndarray[Any, Any]", codec: Codec) -> None:
    came = there_and_back(codec, array)
    assert came.dtype == array.dtype
    assert came.shape == array.shape
    assert (came == array).all()


def test_an_array_is_neither_copied_on_its_way_out_nor_in() -> None:
    image = np.zeros((576, 768, 3), dtype=np.uint8)
    pieces = AUTO.encode(image)
    assert np.shares_memory(np.frombuffer(pieces[-1], np.uint8), image)
    (block,) = BlockReader().feed(encode_data(0, [b"".join(pieces)]))
    came = AUTO.decode(block.records()[0])
    assert np.shares_memory(came, np.frombuffer(block.body, np.uint8))
    came[0, 0, 0] = 255  # and it is writable


def test_the_numbers_of_a_large_array_arrive_aligned() -> None:
    array = np.arange(1000, dtype=np.float64)
    head = b"".join(AUTO.encode(array)[:-1])
    assert (len(head) + 4) % 16 == 0  # 4: the record's length before it in the block


def test_an_unaligned_array_is_copied_so_that_it_is_aligned() -> None:
    array = np.arange(5, dtype=np.float64)
    memory = memoryview(bytearray(b"?" + record_of(AUTO, array)))
    came = AUTO.decode(memory[1:])
    assert came.flags.aligned
    assert (came == array).all()


def test_numpy_scalars_keep_their_type() -> None:
    came = there_and_back(AUTO, np.float32(1.5))
    assert type(came) is np.float32
    assert came == np.float32(1.5)


def test_arrays_travel_inside_of_other_values() -> None:
    value = {"boxes": [(1, 2, 3, 4)], "image": np.ones((2, 2), np.uint8), "raw": b"\x00"}
    came = there_and_back(AUTO, value)
    assert came["boxes"] == [(1, 2, 3, 4)]
    assert came["raw"] == b"\x00"
    assert (came["image"] == 1).all()


def test_a_memoryview_arrives_as_bytes() -> None:
    assert there_and_back(AUTO, memoryview(b"abcdef")[::2]) == b"ace"


@dataclasses.dataclass
class Box:
    width: int


@pytest.mark.parametrize("value", [Box(3), {1, 2}, [Box(3)], np.array([Box(3)])])
def test_what_cannot_be_sent_is_refused_with_the_remedy(value: object) -> None:
    with pytest.raises(CodecError, match="pickle"):
        AUTO.encode(value)


def test_the_refusal_names_the_type() -> None:
    with pytest.raises(CodecError, match=r"test_codec\.Box"):
        AUTO.encode(Box(3))


def test_pickle_sends_it() -> None:
    assert there_and_back(PICKLE, Box(3)) == Box(3)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(CodecError, match="contains itself"):
        AUTO.encode(value)


def test_raw_takes_bytes_and_nothing_else() -> None:
    assert there_and_back(RAW, b"line") == b"line"
    with pytest.raises(CodecError, match=r"value\.encode"):
        RAW.encode("line")


def test_json_refuses_what_other_programs_cannot_read() -> None:
    with pytest.raises(CodecError, match="json"):
        JSON.encode(float("nan"))


def test_bytes_of_a_program_without_the_library_are_refused_with_the_remedy() -> None:
    with pytest.raises(CodecError, match="'raw'"):
        AUTO.decode(memoryview(b"17"))


@pytest.mark.parametrize(
    "record", [b"n", b"n\x00\xff\xff", b"c\x01\x00\x00\x00", b"j{", b"s\xff", b"", b"g\x00\x00\x00"]
)
def test_a_damaged_record_is_refused(record: bytes) -> None:
    with pytest.raises(CodecError):
        AUTO.decode(memoryview(record))


def test_an_unknown_codec_is_refused_with_what_there_is() -> None:
    with pytest.raises(CodecError, match="auto, json, msgpack, ndarray, pickle, raw"):
        codec_for("xml")


class Backwards(Codec):
    """A codec of a user's own."""

    def encode(self, value: Any) -> list[Buffer]:
        return [bytes(reversed(value))]

    def decode(self, record: memoryview) -> Any:
        return bytes(reversed(record))


def test_a_codec_of_ones_own() -> None:
    codec = codec_for(Backwards())
    assert record_of(codec, b"abc") == b"cba"
    assert there_and_back(codec, b"abc") == b"abc"


@pytest.mark.parametrize("value", [b"raw", "text", [1, 2.5, None], {"a": {1: True}}, 2**63])
def test_msgpack_sends_what_it_has(value: object) -> None:
    assert there_and_back(codec_for("msgpack"), value) == value


def test_msgpack_names_what_it_cannot_send_or_read() -> None:
    with pytest.raises(CodecError, match="codec 'msgpack' cannot send the value"):
        codec_for("msgpack").encode(2**64)
    with pytest.raises(CodecError, match="no MessagePack"):
        codec_for("msgpack").decode(memoryview(b"\xc1"))


def test_a_small_array_among_others_is_writable() -> None:
    array = np.arange(4, dtype=np.uint8)
    record = record_of(AUTO, array)
    (block,) = BlockReader().feed(encode_data(0, [record, record]))
    came = AUTO.decode(block.records()[1])
    came[0] = 9
    assert list(came) == [9, 1, 2, 3]

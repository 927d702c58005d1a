"""Headers of records: read, reduced over a round, and sent on (F12)."""

import functools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal import job
from shoal.job import HeaderError, PortError, RoundError, testing
from shoal.job.block import MAX_HEADERS_BYTES
from shoal.job.headers import encode_headers
from shoal.job.testing import Record

LARGE = 100_000


def double(number: int) -> int:
    return 2 * number


async def double_async(number: int) -> int:
    return 2 * number


def double_each(number: int) -> Iterator[int]:
    yield 2 * number


async def double_each_async(number: int) -> AsyncIterator[int]:
    yield 2 * number


class Double:
    def run(self, number: int) -> int:
        return 2 * number

    def finish(self) -> int:
        return -1


def double_explicitly(number: int) -> None:
    job.outputs["doubled"].send(2 * number)


@pytest.mark.parametrize(
    "target", [double, double_async, double_each, double_each_async, double_explicitly]
)
def test_f12_what_a_round_sends_has_the_headers_of_its_record(target: Any) -> None:
    headers: list[dict[str, Any]] = [{"alarm": 1}, {}, {"cam": "cam-3", "at": 1.5, "x": None}, {}]
    numbers = [Record(index, one) for index, one in enumerate(headers)]
    result = testing.call(target, {"number": numbers}, ["doubled"])
    assert result.outputs["doubled"] == [0, 2, 4, 6]
    assert result.headers["doubled"] == headers


def test_f12_what_finish_sends_has_no_headers_of_a_round() -> None:
    result = testing.call(Double, {"number": [Record(1, {"alarm": 1})]}, ["doubled"])
    assert result.outputs["doubled"] == [2, -1]
    assert result.headers["doubled"] == [{"alarm": 1}, {}]


def test_f12_thirty_records_in_are_thirty_out_with_their_headers_and_a_last_word(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from shoal import job\n"
        "class Pass:\n"
        "    def run(self, frame):\n"
        "        job.headers['seen'] = True\n"
        "        return frame\n"
        "if __name__ == '__main__':\n"
        "    job.run(Pass)\n"
    )
    frames = [Record(index, {"bits": 1 << index}) for index in range(30)]
    result = testing.run_program([testing.PYTHON, str(program)], {"frame": frames}, ["out"])
    assert (result.exit_code, result.stderr, result.ended["out"]) == (0, "", True)
    assert result.outputs["out"] == list(range(30))
    assert result.headers["out"] == [{"bits": 1 << index, "seen": True} for index in range(30)]


def pair_of(left: int, right: int) -> tuple[int, int]:
    return left, right


def same(value: object) -> job.Outputs:
    return job.Outputs(out=value)


def len_of(numbers: list[int]) -> int:
    return len(numbers)


def test_f12_bits_of_several_inputs_are_ored_far_beyond_eight() -> None:
    result = testing.call(
        pair_of,
        {
            "left": [Record(1, {"bits": 1 << 40, "cam": "a", "alarm": False}), 2],
            "right": [Record(1, {"bits": 1 << 8, "cam": "b", "alarm": True}), Record(2, {"z": 1})],
        },
        ["out"],
    )
    assert result.headers["out"] == [
        {"bits": 1 << 40 | 1 << 8, "cam": "a", "alarm": True},
        {"z": 1},
    ]


@pytest.mark.parametrize(
    ("reducer", "value"),
    [
        ("or", 7),
        ("and", 0),
        ("min", 1),
        ("max", 4),
        ("sum", 7),
        ("first", 2),
        ("last", 4),
        (None, 7),
        (sorted, None),
        (len, 3),
    ],
)
def test_f12_reducers(reducer: Any, value: Any) -> None:
    numbers = [Record(1, {"n": 2}), 1, Record(1, {"n": 1}), Record(1, {"n": 4})]
    reduce = {} if reducer is None else {"n": reducer}
    call = functools.partial(
        testing.call, len_of, {"numbers": numbers}, ["out"], block_count=4, reduce=reduce
    )
    if reducer is sorted:
        with pytest.raises(HeaderError, match="header 'n' is of type list"):
            call()
        return
    assert call().headers["out"] == [{"n": value}]


def test_f12_reducers_are_named_at_the_decorator() -> None:
    @job.main(reduce={"captured": "min", "alarm": "and"})
    def pair(frames: list[int]) -> int:
        return sum(frames)

    frames = [Record(1, {"captured": 9, "alarm": 6}), Record(2, {"captured": 5, "alarm": 3})]
    result = testing.call(pair, {"frames": frames}, ["out"], block_count=2)
    assert result.headers["out"] == [{"captured": 5, "alarm": 2}]


def test_an_unknown_reducer_is_refused_with_what_there_is() -> None:
    with pytest.raises(HeaderError, match=r"and, first, last, max, min, or, sum"):
        testing.call(double, {"number": [1]}, ["out"], reduce={"alarm": "xor"})


def test_a_reducer_that_does_not_take_the_values_is_named_with_them() -> None:
    numbers = [Record(1, {"n": 1}), Record(1, {"n": "two"})]
    with pytest.raises(HeaderError, match=r"header 'n' has the values \[1, 'two'\]"):
        testing.call(len_of, {"numbers": numbers}, ["out"], block_count=2, reduce={"n": "max"})


def test_f12_a_round_changes_its_headers() -> None:
    def mark(number: int) -> Any:
        seen.append(dict(job.headers))
        job.headers.pop("secret", None)
        job.headers["even"] = number % 2 == 0
        yield number
        job.headers["again"] = len(job.headers)
        yield number

    seen: list[dict[str, Any]] = []
    result = testing.call(mark, {"number": [Record(1, {"secret": 1}), 2]}, ["out"])
    assert seen == [{"secret": 1}, {}]
    assert result.headers["out"] == [
        *({"even": False}, {"even": False, "again": 1}),
        *({"even": True}, {"even": True, "again": 1}),
    ]


def test_f12_a_source_begins_headers() -> None:
    @job.source
    def camera() -> Iterator[Any]:
        for number in range(3):
            if number == 1:
                job.headers["alarm"] = 1
            yield number

    result = testing.call(camera, outputs=["frames"])
    assert result.outputs["frames"] == [0, 1, 2]
    assert result.headers["frames"] == [{}, {"alarm": 1}, {}]


def test_f12_in_stream_style_headers_are_read_and_passed_on_explicitly() -> None:
    @job.stream
    def follow() -> None:
        frames, out = job.inputs["frames"], job.outputs["out"]
        for frame in frames:
            seen.append(frames.headers)
            out.send(frame, headers=frames.headers)
            out.send(frame)
            out.send_many([frame], headers={"n": 1}, key="k")

    seen: list[dict[str, Any]] = []
    result = testing.call(follow, {"frames": [Record("a", {"alarm": 1}), "b"]}, ["out"])
    assert seen == [{"alarm": 1}, {}]
    assert result.outputs["out"] == ["a", "a", "a", "b", "b", "b"]
    last = {"n": 1, "key": "k"}
    assert result.headers["out"] == [{"alarm": 1}, {}, last, {}, {}, last]


def test_f12_headers_of_a_list_are_merged_in_stream_style_too() -> None:
    @job.stream(reduce={"n": "sum"})
    def follow() -> None:
        numbers = job.inputs["numbers"]
        seen.extend(numbers.headers for _ in numbers)

    seen: list[dict[str, Any]] = []
    numbers = [Record(1, {"n": 3}), Record(1, {"n": 4}), 5]
    testing.call(follow, {"numbers": numbers}, block_count=2)
    assert seen == [{"n": 7}, {}]


def test_a_key_is_a_header() -> None:
    def share(frame: int) -> None:
        job.outputs["out"].send(frame, key="cam-3")
        job.outputs["out"].send(frame, {"cam": 3}, key=3)
        job.outputs["out"].send(frame)

    result = testing.call(share, {"frame": [Record(1, {"key": "old", "alarm": 1})]}, ["out"])
    assert result.headers["out"] == [
        {"key": "cam-3", "alarm": 1},
        {"key": 3, "alarm": 1, "cam": 3},
        {"key": "old", "alarm": 1},
    ]


def test_what_stands_in_for_an_optional_record_has_no_headers() -> None:
    seen = threading.Event()

    def frames() -> Iterator[int]:
        while not seen.is_set():
            yield 0
        yield from [1] * 3

    def run(frames: int, speed: int) -> int:
        if speed == 7:
            seen.set()
        return speed

    result = testing.call(
        run,
        {"frames": frames(), "speed": [Record(7, {"unit": "m/s"})]},
        ["out"],
        optional={"speed": {"default": 0, "repeat": True}},
    )
    at = result.outputs["out"].index(7)
    assert result.outputs["out"][at:][:4] == [7] * 4  # it is repeated
    assert [one for one in result.headers["out"] if one] == [{"unit": "m/s"}]
    assert result.headers["out"][at] == {"unit": "m/s"}


@pytest.mark.parametrize("value", [b"x" * LARGE, bytearray(LARGE), "x" * LARGE, 1, b"", None])
@pytest.mark.parametrize("codec", ["auto", "pickle"])
def test_f12_values_of_any_size_have_headers(value: Any, codec: str) -> None:
    codecs = {"value": codec, "out": codec}
    result = testing.call(
        same,
        {"value": [Record(value, {"alarm": 1}), value]},
        ["out"],
        codecs=codecs,
    )
    assert result.outputs["out"] == [value, value]
    assert result.headers["out"] == [{"alarm": 1}, {}]


def test_f12_with_resume_headers_count_as_nothing() -> None:
    numbers = [Record(number, {"n": number} if number % 3 else {}) for number in range(100)]
    result = testing.call(double, {"number": numbers}, ["out"], recovery="resume")
    assert result.headers["out"] == [one.headers for one in numbers]
    with pytest.raises(RoundError):
        testing.call(double_each_twice, {"number": numbers}, ["out"], recovery="resume")


def double_each_twice(number: int) -> Iterator[int]:
    yield number
    yield number


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({1: 2}, "a header's name is 1: use a str"),
        ({"box": [1]}, "header 'box' is of type list"),
        ({"n": float("nan")}, "cannot be sent"),
        ({"n": "\ud800"}, "cannot be sent"),
        ({"n": "x" * MAX_HEADERS_BYTES}, "over the limit of 16384"),
    ],
)
def test_f12_headers_that_cannot_be_sent_are_named(headers: Any, words: str) -> None:
    @job.stream
    def put() -> None:
        job.outputs["out"].send(1, headers=headers)

    with pytest.raises(HeaderError, match=words) as refused:
        testing.call(put, outputs=["out"])
    assert "output port 'out'" in str(refused.value)


def test_headers_have_the_bytes_of_the_contract() -> None:
    assert encode_headers({"alarm": 1, "ü": None}) == b'\x15\x00{"alarm":1,"\xc3\xbc":null}'
    longest = {"n": "x" * (MAX_HEADERS_BYTES - 8)}
    assert len(encode_headers(longest)) == 2 + MAX_HEADERS_BYTES


def test_in_stream_style_there_are_no_headers_of_a_round() -> None:
    @job.stream
    def look() -> None:
        len(job.headers)

    with pytest.raises(PortError, match=r"job\.inputs\[\.\.\.\]\.headers"):
        testing.call(look, {"frames": []})

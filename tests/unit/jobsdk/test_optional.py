"""Inputs that rounds do not wait for."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shoal import job
from shoal.job import JSON, RAW, CodecError, PortError, testing
from shoal.job.block import END, START, encode_data, encode_mark, encode_text
from shoal.job.codec import Codec
from shoal.job.optional_port import OptionalPort
from shoal.job.port_socket import PortSocket

_MANY = 500


class _Pace:
    """Lets required records come until the job has seen what it waits for, and a few more."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def frames(self) -> Iterator[int]:
        while not self.seen.is_set():
            yield 0
        yield from [1] * 3


def _speeds(values: list[Any], stand_in: dict[str, Any], until: Any) -> list[Any]:
    """Speeds that the rounds of a job got, from the first one to some after `until` was seen."""
    pace = _Pace()

    def run(frames: int, speed: Any) -> None:
        got.append(speed)
        if speed == until:
            pace.seen.set()

    got: list[Any] = []
    testing.call(run, {"frames": pace.frames(), "speed": values}, optional={"speed": stand_in})
    return got


def test_the_default_stands_in_before_the_first_record_and_after_the_last() -> None:
    got = _speeds([7], {"default": 0}, 7)
    assert got.count(7) == 1
    assert got[-3:] == [0, 0, 0]
    assert set(got) == {0, 7}


def _pair(frames: int, speed: object) -> list[object]:
    return [frames, speed]


def test_without_a_default_none_stands_in() -> None:
    assert testing.call(
        _pair,
        {"frames": [1, 2], "speed": []},
        ["out"],
        optional={"speed": {}},
    ).outputs["out"] == [[1, None], [2, None]]


def test_the_last_record_is_repeated() -> None:
    got = _speeds([7, 8], {"default": 0, "repeat": True}, 8)
    assert got[-3:] == [8, 8, 8]
    assert got == sorted(got)
    assert got.count(7) >= 1


def test_without_a_limit_no_record_is_lost_and_each_comes_once() -> None:
    got = _speeds(list(range(1, _MANY)), {"default": 0}, _MANY - 1)
    assert [speed for speed in got if speed] == list(range(1, _MANY))


def test_with_a_limit_the_oldest_are_dropped_and_order_is_kept() -> None:
    got = [s for s in _speeds(list(range(1, _MANY)), {"buffer": 1}, _MANY - 1) if s is not None]
    assert got == sorted(got)
    assert got[-1] == _MANY - 1


@contextlib.contextmanager
def _port(codec: Codec = JSON, **stand_in: Any) -> Iterator[tuple[OptionalPort, socket.socket]]:
    ours, theirs = socket.socketpair()
    taken = PortSocket("input port 'speed'", ours.detach())
    try:
        with theirs:
            theirs.sendall(encode_text(START, 0, "{}"))
            yield OptionalPort("speed", taken, codec, stand_in), theirs
    finally:
        taken.close()


def _data(first: int, *values: int) -> bytes:
    return encode_data(first, [str(value).encode() for value in values])


@pytest.mark.parametrize(("drop", "left"), [("oldest", [8, 9]), ("newest", [1, 2])])
def test_what_is_over_the_limit_is_dropped_and_counts_as_taken(drop: str, left: list[int]) -> None:
    with _port(default=0, buffer=2, drop=drop) as (port, theirs):
        theirs.sendall(_data(0, 1, 2, 3) + _data(3, 7, 8, 9))
        assert [port.take_now() for _ in range(3)] == [*left, 0]
        assert port.position == 6
        theirs.sendall(_data(6, 10) + encode_mark(END, 7))
        assert [port.take_now() for _ in range(2)] == [10, 0]
        assert port.position == 7
        assert not port.watched


def test_without_a_limit_what_waits_does_not_count_as_taken() -> None:
    with _port(default=0) as (port, theirs):
        theirs.sendall(_data(0, 1, 2, 3))
        assert port.take_now() == 1
        assert port.position == 1
        assert not port.watched


def test_what_a_job_does_to_a_value_is_not_seen_in_the_next_round() -> None:
    def run(frames: int, settings: list[int]) -> int:
        settings.append(frames)
        return len(settings)

    default = testing.call(
        run,
        {"frames": [1, 2, 3], "settings": []},
        ["out"],
        optional={"settings": {"default": []}},
    )
    assert default.outputs["out"] == [1, 1, 1]


def _frames_only(frames: int, speed: int) -> int:
    return frames


def test_the_job_ends_with_its_required_inputs() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    result = testing.call(
        _frames_only,
        {"frames": [1, 2], "speed": endless()},
        ["out"],
        optional={"speed": {"default": 0}},
    )
    assert result.outputs["out"] == [1, 2]
    assert result.ended["out"]


async def _async_run(frames: int, speed: int) -> int:
    return frames + speed


def test_coroutines_have_optional_inputs_too() -> None:
    result = testing.call(
        _async_run,
        {"frames": [1, 2], "speed": []},
        ["out"],
        optional={"speed": {"default": 10, "buffer": 1}},
    )
    assert result.outputs["out"] == [11, 12]


def test_a_job_with_optional_inputs_alone_is_refused() -> None:
    def run(speed: int) -> None:
        raise AssertionError(speed)

    with pytest.raises(PortError, match="optional inputs alone"):
        testing.call(run, {"speed": [1]}, optional={"speed": {}})


def test_in_stream_style_it_is_a_port_like_any_other() -> None:
    def total() -> None:
        job.outputs["out"].send(sum(job.inputs["speed"]))

    result = testing.call(
        job.stream(total), {"speed": [1, 2, 3]}, ["out"], optional={"speed": {"default": 0}}
    )
    assert result.outputs["out"] == [6]


def test_x7_what_stands_in_for_the_bytes_of_a_plain_program_is_bytes() -> None:
    with _port(codec=RAW, default="idle") as (port, _):
        assert port.take_now() == b"idle"
    with _port(codec=RAW) as (port, _):
        assert port.take_now() is None
    with (
        _port(codec=RAW, default=[0]) as (port, _),
        pytest.raises(CodecError, match=r"the default \[0\], and its records are bytes"),
    ):
        port.take_now()

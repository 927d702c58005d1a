"""Rounds: what a job is called with, and where its values go."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from shoal import job
from shoal.job import CodecError, PortError, RoundError, testing


def add(a: int, b: int) -> int:
    return a + b


async def add_async(a: int, b: int) -> int:
    return a + b


class Total:
    """Keeps state, and says a last word."""

    def __init__(self) -> None:
        self.total = 0

    def setup(self) -> None:
        self.total = 100

    def run(self, number: int) -> int:
        self.total += number
        return self.total

    def finish(self) -> str:
        return "over"


class TotalAsync(Total):
    async def setup(self) -> None:  # type: ignore[override]
        self.total = 100

    async def run(self, number: int) -> int:  # type: ignore[override]
        return super().run(number)

    async def finish(self) -> str:  # type: ignore[override]
        return "over"


@pytest.mark.parametrize("target", [add, add_async])
def test_the_kth_records_of_all_inputs_come_together(target: object) -> None:
    result = testing.call(target, {"a": [1, 2, 3], "b": [10, 20, 30]}, ["sum"])
    assert result.outputs == {"sum": [11, 22, 33]}
    assert result.ended == {"sum": True}
    assert result.acknowledged == {"a": 3, "b": 3}


@pytest.mark.parametrize("target", [Total, TotalAsync])
def test_a_class_is_set_up_and_finished(target: object) -> None:
    assert testing.call(target, {"number": [1, 2]}, ["sum"]).outputs["sum"] == [101, 103, "over"]


def test_it_ends_with_the_shortest_input() -> None:
    result = testing.call(add, {"a": [1, 2], "b": [1, 1, 1]}, ["sum"])
    assert result.outputs["sum"] == [2, 3]
    assert result.acknowledged == {"a": 2, "b": 2}


def test_it_ends_although_another_input_never_does() -> None:
    assert testing.call(add, {"a": [1], "b": itertools.count()}, ["sum"]).outputs["sum"] == [1]


def test_block_count_is_right_from_the_first_record_and_hands_over_the_rest() -> None:
    result = testing.call(sum_of, {"numbers": range(1, 13)}, ["sum"], block_count=5)
    assert result.outputs["sum"] == [15, 40, 23]
    assert result.acknowledged == {"numbers": 12}


def sum_of(numbers: list[int]) -> int:
    return sum(numbers)


def test_block_counts_may_differ_by_port() -> None:
    def pair(single: int, several: list[int]) -> list[int]:
        return [single, *several]

    inputs = {"single": [1, 2], "several": [10, 20, 30, 40]}
    result = testing.call(pair, inputs, ["out"], block_count={"several": 2})
    assert result.outputs["out"] == [[1, 10, 20], [2, 30, 40]]


def route(number: int) -> dict[str, int]:
    return {"even": number} if number % 2 == 0 else {"odd": number, "even": -1}


def test_several_outputs_by_name_and_a_port_may_be_left_out() -> None:
    result = testing.call(route, {"number": [1, 2, 3]}, ["even", "odd"])
    assert result.outputs == {"even": [-1, 2, -1], "odd": [1, 3]}


def test_a_dict_is_a_value_where_there_is_one_output() -> None:
    assert testing.call(route, {"number": [2]}, ["out"]).outputs["out"] == [{"even": 2}]


def test_none_sends_nothing_unless_it_is_said() -> None:
    def explicit(number: int) -> job.Outputs | None:
        return job.Outputs(out=None) if number == 2 else None

    assert testing.call(explicit, {"number": [1, 2, 3]}, ["out"]).outputs["out"] == [None]


def test_hyphens_are_underscores_in_python() -> None:
    def pass_on(left_eye: int) -> job.Outputs:
        return job.Outputs(right_eye=left_eye)

    result = testing.call(pass_on, {"left-eye": [1]}, ["right-eye"])
    assert result.outputs == {"right-eye": [1]}


def test_a_generator_sends_any_number_a_round() -> None:
    def repeat(number: int) -> Iterator[int]:
        for _ in range(number):
            yield number

    assert testing.call(repeat, {"number": [1, 0, 3]}, ["out"]).outputs["out"] == [1, 3, 3, 3]


@job.source
def count() -> Iterator[int]:
    yield from range(5)


@job.source
async def count_async() -> AsyncIterator[int]:
    for number in range(5):
        yield number


class CountClass:
    def run(self) -> Iterator[int]:
        yield from range(5)


@pytest.mark.parametrize("target", [count, count_async, CountClass])
def test_a_source_yields_its_rounds(target: object) -> None:
    result = testing.call(target, {}, ["out"])
    assert result.outputs["out"] == [0, 1, 2, 3, 4]
    assert result.ended["out"]


def test_a_job_without_ports_is_called_once(tmp_path: Any) -> None:
    def write() -> None:
        (job.context.results / "x").write_text(job.context.job)

    result = testing.call(write, results=tmp_path)
    assert (result.results / "x").read_text() == "job"


def test_variadic_keywords_take_every_input() -> None:
    def gather(**records: int) -> dict[str, int]:
        return records

    result = testing.call(gather, {"a": [1], "b": [2]}, ["out"])
    assert result.outputs["out"] == [{"a": 1, "b": 2}]


# ---- resumed attempts ---------------------------------------------------------------------------


def test_a_resumed_attempt_begins_in_the_middle() -> None:
    def double(number: int) -> tuple[int, int]:
        return job.context.first_round, 2 * number

    result = testing.call(double, {"number": [7, 8]}, ["out"], recovery="resume", first_round=7)
    assert result.outputs["out"] == [(7, 14), (7, 16)]
    assert result.acknowledged == {"number": 9}


def test_a_resumed_round_counts_in_blocks() -> None:
    result = testing.call(
        sum_of, {"numbers": [1, 2, 3]}, ["out"], recovery="resume", first_round=4, block_count=2
    )
    assert result.outputs["out"] == [3, 3]
    assert result.acknowledged == {"numbers": 11}


def test_a_resumed_source_goes_on_where_it_was() -> None:
    result = testing.call(count, {}, ["out"], recovery="resume", first_round=3)
    assert result.outputs["out"] == [3, 4]


def test_a_resumed_source_may_find_its_place_itself() -> None:
    def seek(first_round: int) -> Iterator[int]:
        yield from range(first_round, 5)

    result = testing.call(seek, {}, ["out"], recovery="resume", first_round=3)
    assert result.outputs["out"] == [3, 4]


def skip_one(number: int) -> int | None:
    return None if number == 1 else number


def twice(number: int) -> Iterator[int]:
    yield number
    yield number


@pytest.mark.parametrize("target", [skip_one, twice, Total])
def test_with_resume_a_round_sends_exactly_one_record(target: object) -> None:
    with pytest.raises(RoundError, match="exactly one record on every output"):
        testing.call(target, {"number": [0, 1]}, ["out"], recovery="resume")


def test_with_resume_stream_style_is_held_to_it_too() -> None:
    def forget() -> None:
        for number in job.inputs["number"]:
            if number != 1:
                job.outputs["out"].send(number)

    with pytest.raises(RoundError, match="after 2 rounds of job 'job', 1 records"):
        testing.call(job.stream(forget), {"number": [0, 1, 2]}, ["out"], recovery="resume")


@job.stream
def read_by_hand(a: int) -> int:
    return a


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "inputs", "outputs", "error", "words"),
    [
        (add, {"a": [1]}, ["sum"], PortError, "parameter 'b', and the job has no input"),
        (add, {"a": [1], "b": [1], "c": [1]}, ["sum"], PortError, r"input 'c'.*def add\(a, b, c\)"),
        (count, {"a": [1]}, ["sum"], PortError, "use @job.main"),
        (add, {"a": [1], "b": [1]}, [], RoundError, "has no outputs"),
        (add, {"a": [1], "b": [1]}, ["x", "y"], RoundError, r"\{port: value\} with some of x, y"),
        (route, {"number": [2]}, ["x", "y"], RoundError, "output 'even'"),
        (object, {}, [], PortError, "no method `run`"),
        (read_by_hand, {"a": [1]}, [], PortError, "reads job.inputs"),
    ],
)
def test_mistakes_are_named_with_their_remedy(
    target: object,
    inputs: dict[str, list[int]],
    outputs: list[str],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        testing.call(target, inputs, outputs)


def test_a_value_that_cannot_be_sent_names_the_port() -> None:
    def bad(number: int) -> object:
        return {number}

    with pytest.raises(CodecError, match=r"output port 'out': a value of type set .*pickle"):
        testing.call(bad, {"number": [1]}, ["out"])


def test_a_record_that_cannot_be_read_names_port_and_record() -> None:
    with pytest.raises(CodecError, match="input port 'number', record 1"):
        testing.call(
            skip_one, {"number": [b"j1", b"?"]}, ["out"], codecs={"inputs.number": _ToldRaw()}
        )


class _ToldRaw(job.Codec):
    """Sends raw, and reads as the default does."""

    def encode(self, value: Any) -> list[Any]:
        return job.RAW.encode(value)

    def decode(self, record: memoryview) -> Any:
        return job.AUTO.decode(record)


def test_codecs_are_chosen_by_port() -> None:
    @job.main(codecs={"inputs.same": "raw", "outputs.same": "json"})
    def parse(same: bytes) -> int:
        return int(same)

    assert testing.call(parse, {"same": [b"12"]}, ["same"]).outputs["same"] == [12]


def test_codecs_of_unknown_ports_are_refused() -> None:
    with pytest.raises(PortError, match="codecs names the port 'c'"):
        testing.call(add, {"a": [1], "b": [1]}, ["sum"], codecs={"c": "raw"})


def test_what_a_round_raises_is_raised() -> None:
    def fail(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        testing.call(fail, {"number": [1, 0]}, ["out"])


def test_a_job_that_does_not_end_is_named() -> None:
    def wait_for_ever() -> None:
        for number in job.inputs["number"]:
            job.outputs["out"].send(number)
        list(job.inputs["number"])

    endless = job.stream(wait_for_ever)
    with pytest.raises(testing.DeadlineError, match=r"within 0\.2 s; not ended: out"):
        testing.call(endless, {"number": itertools.count()}, ["out"], deadline_seconds=0.2)


def test_x7_a_source_that_returns_once_is_told_that_it_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FISSION calls `run` again and again; here a source yields, and who forgets it hears of it."""

    def count() -> int:
        return 5

    async def later() -> int:
        return 5

    for target in (count, later):
        assert testing.call(target, outputs=["numbers"]).outputs == {"numbers": [5]}
        said = capsys.readouterr().err
        assert "returned, so its streams end after this one record" in said
        assert "`yield`" in said
    testing.call(lambda: None, outputs=["numbers"])
    assert capsys.readouterr().err == ""

"""A specification is written and read once, and nothing old is ever taken for a new one."""

from dataclasses import replace

import pytest

from shoal import spec
from shoal.check import check_pipeline
from shoal.parameter import ParameterValue
from shoal.wire import known_specs
from shoal.wire.fields import WireError
from shoal.wire.known_specs import (
    LARGE_KEPT,
    SMALL_BYTES,
    SMALL_KEPT,
    decode_known_spec,
    decode_spec_bytes,
    encode_known_spec,
    made_of_spec,
)
from shoal.wire.spec import encode_pipeline_spec


def pipeline(name: str = "hello", word: str = "hello") -> spec.Pipeline:
    return spec.Pipeline(name, (spec.Job("say", ("echo", word)),))


def test_a_specification_is_written_once_and_read_once() -> None:
    asked = pipeline("once")
    message = encode_known_spec(asked)
    assert encode_known_spec(asked) is message
    assert message == encode_pipeline_spec(asked)
    read = decode_known_spec(message)
    assert read == asked
    assert decode_spec_bytes(message.SerializeToString(), message) is read
    assert encode_known_spec(read) == message


def test_equal_specifications_of_other_bytes_are_read_by_themselves() -> None:
    first = decode_known_spec(encode_pipeline_spec(pipeline(word="one")))
    second = decode_known_spec(encode_pipeline_spec(pipeline(word="two")))
    assert [one.jobs[0].run[1] for one in (first, second)] == ["one", "two"]


def test_what_its_owner_changes_is_written_anew() -> None:
    labels: dict[str, str] = {}
    variables: dict[str, str] = {}
    parameters: dict[str, ParameterValue] = {}
    job = spec.Job("say", ("echo", "hello"), variables=variables)
    asked = spec.Pipeline("owned", (job,), labels=labels, parameters=parameters)
    written = [encode_known_spec(asked)]
    labels["a"] = "1"
    written.append(encode_known_spec(asked))
    variables["B"] = "2"
    written.append(encode_known_spec(asked))
    parameters["c"] = 3
    written.append(encode_known_spec(asked))
    assert [
        (dict(one.labels), dict(one.jobs[0].variables), len(one.parameters)) for one in written
    ] == [
        ({}, {}, 0),
        ({"a": "1"}, {}, 0),
        ({"a": "1"}, {"B": "2"}, 0),
        ({"a": "1"}, {"B": "2"}, 1),
    ]
    assert written[-1] == encode_pipeline_spec(asked)
    assert encode_known_spec(asked) is written[-1]


def test_the_order_and_the_types_of_parameters_count() -> None:
    owned: dict[str, ParameterValue] = {"a": True, "b": 1}
    asked = replace(pipeline("typed"), parameters=owned)
    encode_known_spec(asked)
    owned["a"] = 1
    assert encode_known_spec(asked) == encode_pipeline_spec(asked)
    del owned["a"]
    owned["a"] = 1
    assert encode_known_spec(asked) == encode_pipeline_spec(asked)


def test_a_specification_with_a_list_in_it_is_written_each_time() -> None:
    words = ["echo", "one"]
    asked = spec.Pipeline("lists", (spec.Job("say", words),))  # type: ignore[arg-type]
    first = encode_known_spec(asked)
    words[1] = "two"
    assert encode_known_spec(asked).jobs[0].run == words
    assert first.jobs[0].run == ["echo", "one"]


def test_what_is_wrong_with_it_is_said_each_time_with_its_path() -> None:
    message = encode_pipeline_spec(pipeline())
    message.jobs[0].run[0] = ""
    for _ in range(2):
        with pytest.raises(WireError, match=r"^spec\.jobs\[0\]\.run: there is no program"):
            decode_known_spec(message)


def test_what_is_made_of_it_is_made_once_and_by_each_function() -> None:
    calls: list[str] = []

    def length(asked: spec.Pipeline) -> int:
        calls.append(asked.name)
        return len(asked.jobs)

    asked = pipeline("made")
    assert [made_of_spec(asked, length) for _ in range(3)] == [1, 1, 1]
    assert calls == ["made"]
    assert made_of_spec(asked, check_pipeline) == ()
    broken = spec.Pipeline("made", (spec.Job("say", ("echo", "\udc80")),))  # cannot be written
    assert [str(one) for one in made_of_spec(broken, check_pipeline)] == [
        str(one) for one in check_pipeline(broken)
    ]
    assert len(check_pipeline(broken)) == 1


def test_only_so_many_are_remembered() -> None:
    first = pipeline("first")
    message = encode_known_spec(first)
    others = [pipeline(f"other-{number}") for number in range(SMALL_KEPT)]
    for other in others:
        encode_known_spec(other)
    assert encode_known_spec(others[1]) is encode_known_spec(others[1])
    assert encode_known_spec(first) is not message
    large = [pipeline(f"large-{number}", "o" * SMALL_BYTES) for number in range(LARGE_KEPT + 1)]
    written = [encode_known_spec(one) for one in large]
    assert encode_known_spec(large[-1]) is written[-1]
    assert encode_known_spec(large[0]) is not written[0]
    assert encode_known_spec(others[-1]) is encode_known_spec(others[-1])
    assert known_specs.decode_known_spec(written[0]) == large[0]

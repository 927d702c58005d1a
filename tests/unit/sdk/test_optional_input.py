"""Optional inputs in the specification, and on the wire."""

from pathlib import Path

import pytest

from shoal import spec
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_input, encode_input

_FILE = """\
name: p
jobs:
  camera: {{run: x, outputs: [frames]}}
  gps: {{run: x, outputs: [speed]}}
  fuse:
    run: x
    inputs:
      frames: camera.frames
      speed: {{from: gps.speed, {more}}}
{job}"""


def _input(more: str, job: str = "") -> spec.StreamInput:
    pipeline = parse(_FILE.format(more=more, job=job), "p.yaml", Path()).pipeline
    return pipeline.job("fuse").streams[1]


def _said(more: str, job: str = "") -> str:
    with pytest.raises(SpecFileError) as caught:
        _input(more, job)
    assert len(caught.value.findings) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "stand_in"),
    [
        ("optional: true", spec.StandIn()),
        ("optional: true, default: 0", spec.StandIn("0")),
        (
            "optional: true, default: [1, -2.5, yes, null, x]",
            spec.StandIn('[1, -2.5, true, null, "x"]'),
        ),
        ("optional: true, default: {a: {b: '1'}}", spec.StandIn('{"a": {"b": "1"}}')),
        ("optional: true, repeat: true", spec.StandIn(repeat=True)),
        (
            "optional: true, buffer: 5, drop: newest",
            spec.StandIn(buffer=5, drop=spec.Drop.NEWEST),
        ),
        ("optional: false", None),
    ],
)
def test_an_optional_input_says_what_stands_in(more: str, stand_in: spec.StandIn | None) -> None:
    found = _input(more)
    assert found.optional == stand_in
    assert decode_input(encode_input(found)) == found


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ("default: 0", "add `optional: true`"),
        ("optional: false, repeat: true", "add `optional: true`"),
        ("optional: perhaps", "is not true or false"),
        ("optional: true, default: .inf", "put a text in quotes"),
        ("optional: true, default: 0x10", "put a text in quotes"),
        ("optional: true, buffer: 0", "or leave it out"),
        ("optional: true, drop: newest", "add for example `buffer: 10`"),
        ("optional: true, buffer: 1, drop: all", "known are newest, oldest"),
        ("optional: true, format: lines", "leave out `format` and `as`"),
        ("optional: true, block_count: 5", "leave out `block_count`"),
        ("optinal: true", "did you mean 'optional'?"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(more: str, remedy: str) -> None:
    assert remedy in _said(more)


def test_a_replacement_that_goes_on_at_a_round_cannot_have_any() -> None:
    assert "use `recovery: restart`" in _said("optional: true", "    recovery: resume\n")


def test_one_input_at_least_makes_the_rounds() -> None:
    text = (
        "{name: p, jobs: {a: {run: x, outputs: [o]},"
        " b: {run: x, inputs: {i: {from: a.o, optional: true}}}}}"
    )
    with pytest.raises(SpecFileError, match="there is none; leave out"):
        parse(text, "p.yaml", Path())


def test_a_default_that_is_no_json_is_refused_on_the_wire() -> None:
    message = encode_input(spec.StreamInput("speed", "gps", "speed", optional=spec.StandIn("{")))
    with pytest.raises(WireError) as caught:
        decode_input(message)
    assert caught.value.path.endswith("optional.default_json")

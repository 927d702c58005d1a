"""Inputs with `promise: latest`: in the specification, on the wire, and what cannot be (F10)."""

from pathlib import Path

import pytest

from control.core.topology import topology
from shoal import spec
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.wire.spec import decode_input, encode_input

_FILE = """\
name: p
jobs:
  camera: {{run: x, outputs: [frames], replicas: {replicas}}}
  gps: {{run: x, outputs: [speed]}}
  view:
    run: x
    recovery: {recovery}
    inputs:
      frames: {{from: camera.frames, promise: latest{frames}}}{other}
  log: {{run: x, inputs: {{speed: gps.speed, frames: {{from: camera.frames, merge: arrival}}}}}}
"""
_SPEED = "\n      speed: gps.speed"


def _text(
    frames: str = "", *, other: str = "", recovery: str = "restart", replicas: int = 1
) -> str:
    return _FILE.format(frames=frames, other=other, recovery=recovery, replicas=replicas)


def _view(text: str) -> spec.StreamInput:
    return parse(text, "p.yaml", Path()).pipeline.job("view").streams[0]


def _said(text: str) -> str:
    with pytest.raises(SpecFileError) as caught:
        _view(text)
    assert len(caught.value.findings) == 1
    return str(caught.value)


@pytest.mark.parametrize(("more", "keep"), [("", 1), (", keep: 20", 20)])
def test_an_input_wants_the_newest(more: str, keep: int) -> None:
    found = _view(_text(more))
    assert (found.promise, found.keep) == (spec.Promise.LATEST, keep)
    assert decode_input(encode_input(found)) == found


def test_both_ends_of_the_lane_know() -> None:
    found = topology(parse(_text(", keep: 7"), "p.yaml", Path()).pipeline)
    assert {end.lane.id: end.lane.keep for end in found.ends["camera"]} == {
        "camera.frames/view.frames": 7,
        "camera.frames/log.frames": 0,
    }
    assert [end.lane.keep for end in found.ends["view"]] == [7]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (_text(other=_SPEED), "add `optional: true`, or leave it the job's only stream"),
        (_text(", block_count: 2"), "leave out `block_count`"),
        (_text(", keep: 0"), "0 records cannot wait; write 1 to 10000"),
        (_text(", keep: 10001"), "10001 records cannot wait"),
        (_text(recovery="resume"), "use `recovery: restart`"),
        (_text(replicas=2), "use `merge: arrival`"),
        (_text().replace("promise: latest", "keep: 3"), "add `promise: latest`"),
        (_text().replace("latest", "newest"), "known are at_least_once, latest"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(text: str, remedy: str) -> None:
    assert remedy in _said(text)


def test_an_optional_input_may_want_the_newest_beside_others() -> None:
    found = _view(_text(", optional: true, repeat: true", other=_SPEED))
    assert found.promise is spec.Promise.LATEST
    assert found.optional == spec.StandIn(repeat=True)

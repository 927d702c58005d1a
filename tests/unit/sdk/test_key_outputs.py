"""Outputs that are spread by key: in the specification, on the wire, and what cannot be."""

from pathlib import Path

import pytest

from shoal import spec
from shoal.specfile.load import parse
from shoal.specfile.mark import SpecFileError
from shoal.wire.spec import OUTPUT

_FILE = """\
name: p
jobs:
  split:
    run: x
    outputs: {{words: {{{output}}}}}{split}
  count:
    run: x
    replicas: {replicas}
    inputs:
      words: {{from: split.words, {input}}}
"""


def _text(
    output: str, *, split: str = "", replicas: int = 3, stream: str = "merge: ordered"
) -> str:
    return _FILE.format(output=output, split=split, replicas=replicas, input=stream)


def _read(text: str) -> spec.Pipeline:
    return parse(text, "p.yaml", Path()).pipeline


def _said(text: str) -> str:
    with pytest.raises(SpecFileError) as caught:
        _read(text)
    assert len(caught.value.findings) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("output", "key"),
    [
        ("distribute: key", ""),
        ("distribute: key, format: lines, key: 2", "2"),
        ("distribute: key, format: jsonl, key: camera id", "camera id"),
        ("distribute: key, format: u32", ""),
    ],
)
def test_an_output_is_spread_by_key(output: str, key: str) -> None:
    found = _read(_text(output)).job("split").outputs[0]
    assert (found.distribute, found.key) == (spec.Distribute.KEY, key)
    assert OUTPUT.decode(OUTPUT.encode(found)) == found


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("format: lines, key: 2", "only `distribute: key` spreads records by a key; add it"),
        ("distribute: key, format: lines, key: 0", "write its number, from 1"),
        ("distribute: key, format: lines, key: word", "write its number, from 1"),
        ("distribute: key, key: camera", 'port.send(value, key="cam-3")'),
        ("distribute: key, format: u32, key: 1", "all of it is the key; leave it out"),
        ("distribute: keys", "did you mean 'key'?"),
    ],
)
def test_what_is_no_key_is_refused_with_a_remedy(output: str, remedy: str) -> None:
    assert remedy in _said(_text(output))


def test_a_producer_by_key_cannot_go_on_at_a_round() -> None:
    said = _said(_text("distribute: key", split="\n    recovery: resume"))
    assert said.startswith("p.yaml:6:15: jobs.split.recovery: split.words is spread by key over 3")
    assert "use `recovery: restart`, or `distribute: round-robin`" in said
    # With one replica everything is one lane, whose sequences are the job's own.
    _read(_text("distribute: key", split="\n    recovery: resume", replicas=1))


def test_replicas_of_a_producer_by_key_take_no_turns() -> None:
    said = _said(_text("distribute: key", split="\n    replicas: 2"))
    assert said.startswith("p.yaml:11:41: jobs.count.inputs.words.merge: split.words is spread by")
    assert "use `merge: arrival`, or one replica" in said
    _read(_text("distribute: key", split="\n    replicas: 2", stream="merge: arrival"))


def test_a_consumer_of_one_producer_by_key_may_go_on_at_a_round() -> None:
    _read(_text("distribute: key") + "    recovery: resume\n")

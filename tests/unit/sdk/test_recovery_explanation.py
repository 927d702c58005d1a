"""How a job's records travel, in the words of `shoal explain`."""

from pathlib import Path

from shoal.recovery_explanation import recovery_explanation
from shoal.specfile.load import parse

_FILE = """\
name: p
jobs:
  split: {run: x, replicas: 2, outputs: {words: {distribute: key, format: lines, key: 2}}}
  count:
    run: x
    replicas: 3
    inputs: {words: {from: split.words, merge: arrival}}
    outputs: [counts]
  total: {run: x, recovery: resume, inputs: {counts: count.counts}}
  view: {run: x, inputs: {counts: {from: count.counts, merge: arrival, promise: latest}}}
  alone: {run: x}
"""


def test_explain_says_how_records_travel_and_what_a_replacement_does() -> None:
    pipeline = parse(_FILE, "p.yaml", Path()).pipeline
    said = {job.name: recovery_explanation(pipeline, job) for job in pipeline.jobs}
    assert said == {
        "split": (
            "words goes to count.words; equal keys (2) to the same one of 3 replicas",
            "a replacement begins with the first record again, because words is spread by key",
        ),
        "count": (
            (
                "words comes from split.words; equal keys (2) to the same one of 3 replicas; "
                "the streams of 2 replicas become one as they arrive"
            ),
            "counts goes to total.counts",
            "counts goes to view.counts",
            (
                "a replacement gets its records again from the first one, because words takes records "
                "as they arrive"
            ),
        ),
        "total": (
            "counts comes from count.counts; the streams of 3 replicas become one in turn",
            "a replacement goes on with the round that is missing",
        ),
        "view": (
            (
                "counts comes from count.counts; the streams of 3 replicas become one as they arrive; "
                "the newest record alone: what does not fit is dropped, and the producer never waits"
            ),
            "a replacement begins with what is newest",
        ),
        "alone": ("a replacement starts anew",),
    }

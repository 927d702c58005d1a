"""Manifests as text."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from services.archive.manifest import manifest_key, manifest_text
from shoal.model import Artifact
from shoal.names import AttemptRef

REF = AttemptRef("default", "p-1", "detector-0", 2, 7)
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = Artifact("results/a.csv", 3, "aa" * 32, f"{REF.prefix}/out/results/a.csv")
TWO = Artifact("results/ü.bin", 0, "bb" * 32, f"{REF.prefix}/out/results/ü.bin")


def test_a_manifest_says_everything() -> None:
    assert json.loads(manifest_text(REF, (TWO, ONE), WHEN)) == {
        "version": 1,
        "namespace": "default",
        "attempt": REF.name,
        "epoch": 7,
        "commit_time": "2026-01-02T03:04:05+00:00",
        "artifacts": [asdict(ONE), asdict(TWO)],
    }
    assert manifest_key(REF.job_ref) == "default/pipelines/p-1/jobs/detector-0/manifest.json"


def test_equal_manifests_have_equal_bytes() -> None:
    assert manifest_text(REF, (TWO, ONE), WHEN) == manifest_text(REF, (ONE, TWO), WHEN)


def test_a_manifest_without_artifacts_is_as_canonical_as_others() -> None:
    for when in (WHEN, WHEN.replace(microsecond=7)):
        text = manifest_text(REF, (), when)
        said = json.loads(text)
        assert said["artifacts"] == []
        assert said.keys() == json.loads(manifest_text(REF, (ONE,), when)).keys()
        assert text == f"{json.dumps(said, sort_keys=True, separators=(',', ':'))}\n"


def test_a_time_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="time zone"):
        manifest_text(REF, (), WHEN.replace(tzinfo=None))

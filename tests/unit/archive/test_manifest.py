"""Manifests as bytes."""

from datetime import UTC, datetime

import pytest

from services.archive.manifest import ArchivedManifest, ManifestError, decode, encode
from shoal.model import Artifact
from shoal.names import AttemptRef

REF = AttemptRef("default", "p-1", "detector-0", 2, 7)
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = Artifact("results/a.csv", 3, "aa" * 32, f"{REF.prefix}/out/results/a.csv")
TWO = Artifact("results/ü.bin", 0, "bb" * 32, f"{REF.prefix}/out/results/ü.bin")


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = ArchivedManifest(REF, (TWO, ONE), WHEN)
    assert decode(encode(manifest)) == manifest
    assert manifest.key == "default/pipelines/p-1/jobs/detector-0/manifest.json"


def test_equal_manifests_have_equal_bytes() -> None:
    assert encode(ArchivedManifest(REF, (TWO, ONE), WHEN)) == encode(
        ArchivedManifest(REF, (ONE, TWO), WHEN)
    )
    assert encode(ArchivedManifest(REF, (), WHEN)).endswith(b"}\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        encode(ArchivedManifest(REF, (ONE,), WHEN)).replace(b'"version":1', b'"version":2'),
        encode(ArchivedManifest(REF, (ONE,), WHEN)).replace(b'"size_bytes":3', b'"size_bytes":-3'),
        encode(ArchivedManifest(REF, (ONE,), WHEN)).replace(
            b'"size_bytes":3', b'"size_bytes":true'
        ),
        encode(ArchivedManifest(REF, (ONE,), WHEN)).replace(b"pipelines/p-1", b"pipelines/../1"),
        encode(ArchivedManifest(REF, (ONE,), WHEN)).replace(b"+00:00", b""),
    ],
)
def test_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode(data)


def test_a_time_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ArchivedManifest(REF, (), WHEN.replace(tzinfo=None))

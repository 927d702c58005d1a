"""Requests and grants of uploads between `shoal.session.uploads` and the contract."""

from collections.abc import Sequence
from typing import Final

from shoal import limits
from shoal.session.uploads import (
    ArtifactContent,
    ArtifactParts,
    PartGrant,
    UploadGrant,
    UploadsGranted,
    UploadsWanted,
)
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import ATTEMPT_REF, decode_attempt_ref
from shoal.wire.codec import checked, codec, count, each, one
from shoal.wire.fields import LeftOut, WireError, readable
from shoal.wire.state import ARTIFACT, decode_artifact

_SHA256_BYTES: Final = 32


def _hashes(values: Sequence[bytes], path: str) -> tuple[str, ...]:
    for value in values:
        if len(value) != _SHA256_BYTES:
            raise WireError(path, f"a SHA-256 has {_SHA256_BYTES} bytes, and one has {len(value)}")
    return tuple(value.hex() for value in values)


PARTS = encode_artifact_parts, decode_artifact_parts = codec(
    ArtifactParts,
    v1.ArtifactParts,
    "parts",
    path=checked(fields.relative),
    part_bytes=count(limits.INTEGER_MAX),
    part_sha256=checked(_hashes, lambda values: [bytes.fromhex(value) for value in values]),
)


def _small(data: bytes, path: str) -> bytes:
    if len(data) > limits.ARTIFACT_CONTENT_BYTES_MAX:
        most = limits.ARTIFACT_CONTENT_BYTES_MAX
        raise WireError(path, f"has {len(data)} bytes, and at most {most} travel like this")
    return data


CONTENT = encode_artifact_content, decode_artifact_content = codec(
    ArtifactContent,
    v1.ArtifactContent,
    "contents",
    path=checked(fields.relative),
    data=checked(_small),
)

encode_uploads_wanted, _ = codec(
    UploadsWanted,
    v1.UploadsWanted,
    ref=one(ATTEMPT_REF),
    artifacts=each(ARTIFACT),
    parts=each(PARTS),
    contents=each(CONTENT),
)

encode_uploads_granted, decode_uploads_granted = codec(
    UploadsGranted,
    v1.UploadsGranted,
    "uploads_granted",
    ref=one(ATTEMPT_REF),
    grants=each(codec(UploadGrant, v1.UploadGrant, parts=each(codec(PartGrant, v1.PartGrant)))),
)


def decode_uploads_wanted(
    message: v1.UploadsWanted, left_out: LeftOut, path: str = "uploads_wanted"
) -> UploadsWanted:
    """Read a request for addresses, without the artifacts that break the contract.

    Args:
        message: the request.
        left_out: gets the path of each artifact that is left out, and why; one whose parts or content break
            the contract is left out, too.
        path: where the request stands.

    Raises:
        WireError: it names no attempt.
    """
    broken: set[str] = set()

    def refused(item: v1.ArtifactParts | v1.ArtifactContent, error: WireError) -> None:
        broken.add(item.path)
        left_out(item.path, error)

    parts = readable(message.parts, fields.at(path, "parts"), decode_artifact_parts, refused)
    contents = readable(
        message.contents, fields.at(path, "contents"), decode_artifact_content, refused
    )
    return UploadsWanted(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")),
        artifacts=readable(
            [one for one in message.artifacts if one.path not in broken],
            fields.at(path, "artifacts"),
            decode_artifact,
            lambda item, error: left_out(item.path, error),
        ),
        parts=parts,
        contents=_together(contents),
    )


def _together(contents: tuple[ArtifactContent, ...]) -> tuple[ArtifactContent, ...]:
    """Take as many as one question may have; the others are granted an address."""
    left = limits.ARTIFACT_CONTENTS_BYTES_MAX
    taken: list[ArtifactContent] = []
    for content in contents[: limits.ARTIFACT_CONTENTS_MAX]:
        left -= len(content.data)
        if left < 0:
            break
        taken.append(content)
    return tuple(taken)

"""Requests and grants of uploads between `shoal.session.uploads` and the contract."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.model import Artifact
from shoal.session.uploads import UploadGrant, UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.fields import LeftOut, WireError
from shoal.wire.state import decode_artifact, encode_artifact


def encode_uploads_wanted(wanted: UploadsWanted) -> v1.UploadsWanted:
    """Write a request for addresses."""
    return v1.UploadsWanted(
        ref=encode_attempt_ref(wanted.ref),
        artifacts=[encode_artifact(artifact) for artifact in wanted.artifacts],
    )


def decode_uploads_wanted(
    message: v1.UploadsWanted, left_out: LeftOut, path: str = "uploads_wanted"
) -> UploadsWanted:
    """Read a request for addresses, without the artifacts that break the contract.

    Args:
        message: the request.
        left_out: told the path of each artifact that is left out, and why.
        path: where the request stands.

    Raises:
        WireError: it names no attempt.
    """

    def readable() -> Iterator[Artifact]:
        for index, artifact in enumerate(message.artifacts):
            try:
                yield decode_artifact(artifact, f"{path}.artifacts[{index}]")
            except WireError as error:
                left_out(artifact.path, error)

    return UploadsWanted(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")), artifacts=tuple(readable())
    )


def encode_uploads_granted(granted: UploadsGranted) -> v1.UploadsGranted:
    """Write where artifacts may be stored, or why not."""
    return v1.UploadsGranted(
        ref=encode_attempt_ref(granted.ref),
        grants=[
            v1.UploadGrant(
                path=grant.path,
                key=grant.key,
                url=grant.url,
                headers=dict(grant.headers),
                problem=grant.problem,
            )
            for grant in granted.grants
        ],
    )


def decode_uploads_granted(
    message: v1.UploadsGranted, path: str = "uploads_granted"
) -> UploadsGranted:
    """Read where artifacts may be stored, or why not.

    Raises:
        WireError: it names no attempt.
    """
    return UploadsGranted(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")),
        grants=tuple(
            UploadGrant(
                grant.path, grant.key, grant.url, fields.strings(grant.headers), grant.problem
            )
            for grant in message.grants
        ),
    )

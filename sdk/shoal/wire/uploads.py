"""Requests and grants of uploads between `shoal.session.uploads` and the contract."""

from shoal.session.uploads import UploadGrant, UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import ATTEMPT_REF, decode_attempt_ref
from shoal.wire.codec import codec, each, one
from shoal.wire.fields import LeftOut, readable
from shoal.wire.state import ARTIFACT, decode_artifact

encode_uploads_wanted, _ = codec(
    UploadsWanted, v1.UploadsWanted, ref=one(ATTEMPT_REF), artifacts=each(ARTIFACT)
)

encode_uploads_granted, decode_uploads_granted = codec(
    UploadsGranted,
    v1.UploadsGranted,
    "uploads_granted",
    ref=one(ATTEMPT_REF),
    grants=each(codec(UploadGrant, v1.UploadGrant)),
)


def decode_uploads_wanted(
    message: v1.UploadsWanted, left_out: LeftOut, path: str = "uploads_wanted"
) -> UploadsWanted:
    """Read a request for addresses, without the artifacts that break the contract.

    Args:
        message: the request.
        left_out: gets the path of each artifact that is left out, and why.
        path: where the request stands.

    Raises:
        WireError: it names no attempt.
    """
    at = fields.at(path, "artifacts")
    return UploadsWanted(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")),
        artifacts=readable(
            message.artifacts, at, decode_artifact, lambda item, error: left_out(item.path, error)
        ),
    )

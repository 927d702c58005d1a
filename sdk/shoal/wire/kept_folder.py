"""A kept folder between `shoal.kept_folder` and the contract."""

from shoal import limits
from shoal.kept_folder import KeptFolder
from shoal.v1 import nodes_service_pb2
from shoal.wire.attempt import SIDE_BY_SIDE
from shoal.wire.codec import checked, codec, count
from shoal.wire.fields import WireError


def _path(path: str, at: str) -> str:
    if len(path) > limits.KEPT_PATH_CHARACTERS_MAX:
        raise WireError(
            at,
            f"it has {len(path)} characters; at most {limits.KEPT_PATH_CHARACTERS_MAX} are taken",
        )
    return path


KEPT_FOLDER = codec(
    KeptFolder,
    nodes_service_pb2.KeptFolder,
    "kept",
    ref=SIDE_BY_SIDE,
    path=checked(_path),
    size_bytes=count(limits.INTEGER_MAX),
)

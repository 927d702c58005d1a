"""A call that ended while a message of it was being written.

grpc.aio then raises an INTERNAL of its own in place of the call's status: "Internal error from Core", with a full stop
in some places and without one in others (grpcio 1.85). It says nothing of why the call ended, so the call is made
again, and that one tells.
"""

from typing import Final

import grpc
import grpc.aio

_WORDS: Final = "Internal error from Core"


def is_crossed(error: grpc.aio.AioRpcError) -> bool:
    """Whether an error stands for a call that ended while a message was on its way, and not for its status."""
    return error.code() is grpc.StatusCode.INTERNAL and _WORDS in (error.details() or "")

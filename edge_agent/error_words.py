"""The words for an error of a call, or of anything else."""

import grpc.aio


def words_of(error: BaseException) -> str:
    """What an error says: of a call its status and details, else its text, or its type without one."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details() or ''}".strip()
    return str(error) or type(error).__name__

"""Every error of ours has a status and a reason."""

import grpc
import pytest

from control.core import errors
from control.front.rpc_status import invalid, refusal
from services.archive.key import InvalidKeyError
from services.archive.object_store import ArchiveUnavailableError, ObjectMissingError
from shoal.names import InvalidNameError
from shoal.wire.fields import WireError


@pytest.mark.parametrize("kind", errors.ControlError.__subclasses__())
def test_no_error_of_the_control_plane_is_forgotten(kind: type[errors.ControlError]) -> None:
    told = refusal(kind("the thing"))
    assert told is not None
    ours = (errors.InternalError, errors.RowError)  # mistakes of the control plane itself
    assert (told.code is grpc.StatusCode.INTERNAL) is issubclass(kind, ours)
    assert told.reason != "CONTROL"
    assert told.message == "the thing"
    assert told.reason == told.reason.upper()


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (WireError("spec.name", "no"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (InvalidNameError("no"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME"),
        (InvalidKeyError("no"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_KEY"),
        (ObjectMissingError("k"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_OBJECT"),
        (ArchiveUnavailableError("no"), grpc.StatusCode.UNAVAILABLE, "ARCHIVE_UNAVAILABLE"),
    ],
)
def test_errors_from_beneath(error: Exception, code: grpc.StatusCode, reason: str) -> None:
    told = refusal(error)
    assert told is not None
    assert (told.code, told.reason) == (code, reason)


def test_a_page_token_is_named_as_the_field_that_is_wrong() -> None:
    told = refusal(errors.PageTokenError("no"))
    assert told is not None
    assert (told.reason, told.metadata) == ("INVALID_PAGE_TOKEN", {"field": "page_token"})


def test_of_several_errors_at_once_ours_is_told() -> None:
    ours = invalid("SEQUENCE", "out of order")
    group = ExceptionGroup("tasks", [OSError("pipe"), ExceptionGroup("inner", [ours])])
    assert refusal(group) is ours


def test_anything_else_goes_on_as_it_is() -> None:
    assert refusal(ZeroDivisionError()) is None
    assert refusal(OSError("x")) is None

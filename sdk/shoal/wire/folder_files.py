"""Requests and grants of addresses of folder inputs between `shoal.session` and the contract."""

from shoal import limits
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.wire.attempt import ATTEMPT_REF
from shoal.wire.codec import codec, count, identifier, one

FILES_WANTED = codec(
    FilesWanted,
    v1.FilesWanted,
    "files_wanted",
    ref=one(ATTEMPT_REF),
    input=identifier("input"),
    count=count(limits.ADDRESSES_MAX),
)
FILES_GRANTED = codec(
    FilesGranted,
    v1.FilesGranted,
    "files_granted",
    ref=one(ATTEMPT_REF),
    input=identifier("input"),
)

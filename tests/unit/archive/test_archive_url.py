"""Addresses of archives."""

from pathlib import Path

import pytest

from services.archive.opening import (
    ArchiveUrlError,
    DirectoryAddress,
    S3Address,
    parse_url,
)
from services.archive.s3_server import S3Server


def test_a_folder() -> None:
    assert parse_url("file:///var/lib/a%20b") == DirectoryAddress(Path("/var/lib/a b"))


def test_a_bucket() -> None:
    assert parse_url("s3://bucket") == S3Address("bucket", "", S3Server())
    assert parse_url("s3://bucket/a/b/?endpoint=http://127.0.0.1:9&region=eu-west-1") == S3Address(
        "bucket", "a/b", S3Server("http://127.0.0.1:9", "eu-west-1")
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/lib",
        "file://host/x",
        "file:relative",
        "file:///x?endpoint=y",
        "s3://",
        "s3://b?endpint=http://x",
        "s3://b?endpoint=localhost:1",
        "http://x",
    ],
)
def test_another_address_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ArchiveUrlError, match="archive"):
        parse_url(url)

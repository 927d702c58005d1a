"""Keys of objects."""

import pytest

from services.archive.key import InvalidKeyError, check_key


@pytest.mark.parametrize(
    "key", ["a", "a/b", "a b/ü", "..a", "a..", "." * 3, "x" * 255, "a\nb\t\x7f"]
)
def test_a_plain_key_is_taken(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\0", "\ud800", "x/" * 600 + "x"]
)
def test_a_key_that_leads_elsewhere_is_refused_with_a_reason(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        check_key(key)

"""Addresses as an operator writes them."""

import pytest

from services.runtime.address import AddressError, host_port, joined


@pytest.mark.parametrize("text", ["10.0.0.1:0", "[::1]:7470", "board.local:65535"])
def test_an_address_is_read_and_written_again(text: str) -> None:
    assert joined(*host_port(text)) == text


def test_a_host_may_be_left_out_where_that_is_said() -> None:
    assert host_port(":80", hostless=True) == ("", 80)
    with pytest.raises(AddressError, match="HOST:PORT"):
        host_port(":80")


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:65536", "host:²"])
def test_anything_else_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(AddressError, match="HOST:PORT"):
        host_port(text, hostless=True)

"""Addresses of brokers."""

import pytest

from services.events.broker_url import (
    BrokerAddress,
    BrokerUrlError,
    check_client_id,
    parse_url,
)


def test_everything_in_one_address() -> None:
    assert parse_url("mqtts://me:p%40ss@broker.example:1?ca=/etc/ca.pem") == BrokerAddress(
        "broker.example", 1, "me", "p@ss", tls=True, ca_file="/etc/ca.pem"
    )


def test_ports_have_their_defaults() -> None:
    assert parse_url("mqtt://h") == BrokerAddress("h", 1883)
    assert parse_url("mqtts://h") == BrokerAddress("h", 8883, tls=True)
    assert parse_url("mqtt://[::1]/").shown == "mqtt://[::1]:1883"


def test_the_password_is_never_shown() -> None:
    address = parse_url("mqtt://me:secret@h")
    assert "secret" not in address.shown
    assert "secret" not in repr(address)
    with pytest.raises(BrokerUrlError) as error:
        parse_url("mqtt://me:secret@h/path")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "h:1883", "http://h", "mqtt://", "mqtt://h:x", "mqtt://h:99999", "mqtt://h?ca=x"]
)
def test_another_address_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(BrokerUrlError, match="write mqtt://"):
        parse_url(url)


def test_a_client_id_fits_into_a_topic() -> None:
    assert check_client_id("shoal-controller-1") == "shoal-controller-1"
    for bad in ("", "a/b", "a+", "#", "x" * 129):
        with pytest.raises(ValueError, match="client id"):
            check_client_id(bad)

"""Addresses of brokers."""

import pytest

from services.events.broker_url import (
    AWS_IOT,
    BrokerAddress,
    BrokerUrlError,
    check_client_id,
    parse_url,
)


def test_everything_in_one_address() -> None:
    assert parse_url("mqtts://me:p%40ss@broker.example:1?ca=/etc/ca.pem") == BrokerAddress(
        "broker.example", 1, "me", "p@ss", tls=True, ca_file="/etc/ca.pem"
    )


def test_a_certificate_of_ours_goes_with_its_key() -> None:
    address = parse_url("mqtts://h?certificate=/c.pem&key=/k.pem&alpn=mqtt")
    assert (address.certificate_file, address.key_file, address.alpn) == (
        "/c.pem",
        "/k.pem",
        "mqtt",
    )
    for words in ("certificate=/c.pem", "key=/k.pem"):
        with pytest.raises(BrokerUrlError, match="goes with its key"):
            parse_url(f"mqtts://h?{words}")


def test_aws_iot_is_known_by_its_host_or_by_what_is_said() -> None:
    host = "a3k7odshaiipe8-ats.iot.eu-central-1.amazonaws.com"
    mine = "certificate=/c.pem&key=/k.pem"
    assert parse_url(f"mqtts://{host}?{mine}").limits == AWS_IOT
    assert parse_url(f"mqtts://{host}?{mine}").alpn == ""
    assert parse_url(f"mqtts://{host}:443?{mine}").alpn == "x-amzn-mqtt-ca"
    assert parse_url(f"mqtts://me@{host}:443").alpn == "mqtt"
    assert parse_url(f"mqtts://{host}?limits=none").limits == ""
    assert parse_url("mqtt://h?limits=aws-iot").limits == AWS_IOT
    assert parse_url("mqtts://iot.example.com:443").limits == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtt://h?certificate=/c.pem&key=/k.pem", "goes with mqtts://"),
        ("mqtts://h?limits=azure", "limits=aws-iot or limits=none"),
        ("mqtts://h?ca=", "wants one value"),
        ("mqtts://h?ca=/a&ca=/b", "wants one value"),
        ("mqtts://h?pasword=s3cret", "'pasword'"),
    ],
)
def test_an_option_that_cannot_be_is_named(url: str, words: str) -> None:
    with pytest.raises(BrokerUrlError) as refused:
        parse_url(url)
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)


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

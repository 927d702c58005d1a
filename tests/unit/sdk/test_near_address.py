"""What is of one's own network, and what is of the web."""

import pytest

from shoal.near_address import is_near


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:7471/x",
        "https://localhost:7471/x",
        "https://10.77.0.1:7471/x?a=b",
        "http://172.19.0.3:9000/",
        "http://192.168.1.9/",
        "http://169.254.1.2/",
        "http://100.64.3.4/",  # a VPN of one's own, or the provider's network (RFC 6598)
        "http://[::1]:7471/",
        "http://[fd00::7]:7471/",
        "http://[fe80::1%eth0]:7471/",
        "http://controller:7471/",
        "http://board-1.local/",
        "http://BOARD-1.LOCAL./",
    ],
)
def test_what_is_near(url: str) -> None:
    assert is_near(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-central-1.amazonaws.com/bucket/key",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]/",
        "https://10.77.0.1.example.com/",
        "https://local.example/",
        "http:///nothing",
        "http://[no-address/",
        "nonsense",
        "",
    ],
)
def test_what_is_not(url: str) -> None:
    assert not is_near(url)

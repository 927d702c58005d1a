"""Settings of a gateway that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from services.gateway.config import GatewayConfig, GatewayConfigError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"listen": "nowhere"}, "not an address"),
        ({"controller": "nowhere"}, "not an address"),
        ({"listen": "0.0.0.0:7480"}, "tokens would travel in the clear"),
        ({"listen": "board-1:7480"}, "tokens would travel in the clear"),
        ({"certificate": Path("web.pem")}, "belong together"),
        ({"origins": ("app.example",)}, "no origin"),
        ({"origins": ("https://app.example/page",)}, "no origin"),
        ({"origins": ("*",)}, "no origin"),
        ({"watches": 0}, "--watches is 0"),
        ({"call_seconds": 0.0}, "--call-seconds is 0"),
        ({"request_bytes": 10}, "--request-bytes is 10"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_remedy(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(GatewayConfigError, match=told):
        GatewayConfig(state=Path("/nowhere"), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "[::1]:7480"},
        {"listen": "localhost:0"},
        {"listen": "0.0.0.0:7480", "proxy": "10.0.0.5"},
        {"listen": "0.0.0.0:7480", "certificate": Path("a"), "key": Path("b")},
        {"origins": ("https://app.example:8443", "http://127.0.0.1:3000")},
    ],
)
def test_what_keeps_tokens_to_itself_is_taken(settings: dict[str, Any]) -> None:
    assert GatewayConfig(state=Path("/nowhere"), **settings).watches == 32

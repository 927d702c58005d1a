"""One place makes server ports and channels, so that none of them forgets who is at the other end."""

import ast
from pathlib import Path

from tests.kit.tree import parsed, sources

PRODUCT = ("compose", "control", "edge_agent", "sdk", "services")
PORTS = {"add_insecure_port", "add_secure_port"}
CHANNELS = {"insecure_channel", "secure_channel"}
PLACES = {
    **dict.fromkeys(PORTS, Path("services/runtime/rpc.py")),
    **dict.fromkeys(CHANNELS, Path("sdk/shoal/channel.py")),
}


def test_ports_and_channels_of_grpc_are_made_in_one_place() -> None:
    elsewhere = [
        f"{path}:{node.lineno}: {node.attr}"
        for path in sources(*PRODUCT)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and node.attr in PLACES
        and Path(path) != PLACES[node.attr]
    ]
    assert elsewhere == [], "use services.runtime.rpc.bind and shoal.channel.open_channel"


def test_the_places_are_where_this_test_says() -> None:
    for word, place in PLACES.items():
        names = {node.attr for node in ast.walk(parsed(place)) if isinstance(node, ast.Attribute)}
        assert word in names, f"{place} makes no {word}"

"""Ask the network of the node: the metadata address of a cloud, or a service on its loopback.

Refused at: no network; a network of its own, which leads nowhere.
"""

import http.client
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    asked = http.client.HTTPConnection(world["metadata"], timeout=10)
    asked.request("GET", "/latest/meta-data")
    return asked.getresponse().read().decode()

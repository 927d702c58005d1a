"""What pages of the edge-analytics dashboard are told about nodes: the JSON that its programs know.

Some keys of the original are misspelt or have another order of words; they stand there in both ways, because
its programs read the one and people the other. A GB is 2^30 bytes, as theirs is.

Sources: Jetson/nodeComm.py and Jetson/node.py of edge-analytics-dashboard, for the keys.
"""

import re
from collections.abc import Mapping
from typing import Final

from shoal.model import MemberState
from shoal.node_facts import NO_FACTS
from shoal.view import MemberView, NodeView

LOCATION_LABEL: Final = "location"
_GB: Final = 1 << 30
_PLACE: Final = re.compile(r"\s*(-?\d{1,3}(?:\.\d+)?)\s*,\s*(-?\d{1,3}(?:\.\d+)?)\s*")
_HERE: Final = frozenset({MemberState.ALIVE, MemberState.SUSPECT})


def active_answer(
    nodes: tuple[NodeView, ...], members: Mapping[str, MemberView]
) -> dict[str, object]:
    """Return the nodes that are there: by their session, or by gossip while that is cut."""
    return {
        "Active": [
            _place(node, members.get(node.name))
            for node in nodes
            if node.connected or _is_here(members.get(node.name))
        ]
    }


def info_answer(node: NodeView, member: MemberView | None) -> dict[str, object]:
    """Return the details of one node; what is not known is empty, 0 or null, and `problem` says why."""
    facts = node.facts or NO_FACTS
    used = _gigabytes(facts.memory_used_bytes)
    available = _gigabytes(facts.memory_available_bytes)
    temperatures = [
        {
            "label": zone.name,
            "current": zone.celsius,
            "high": zone.throttle_celsius,
            "critical": zone.critical_celsius,
        }
        for zone in facts.temperatures
    ]
    return {
        **_place(node, member),
        "location": _location(node.labels.get(LOCATION_LABEL, "")),
        "Architecture": node.architecture,
        "Aarchitecture": node.architecture,
        "OS": facts.os,
        "OS_Version": facts.os_version,
        "cpu_percent": facts.cpu_percent,
        "cpu_count": facts.cpu_count,
        "total_memory": _gigabytes(facts.memory_total_bytes),
        "used_memory": used,
        "memory_used": used,
        "available_memory": available,
        "memory_available": available,
        "temperature": temperatures,
        "temperatue": temperatures,
        "gpu_percent": facts.gpu_percent,
        "emc_percent": facts.emc_percent,
        "power_milliwatts": {rail.name: rail.milliwatts for rail in facts.rails},
        "throttled": list(facts.throttled),
        "problem": node.facts_problem or facts.problem,
    }


def _place(node: NodeView, member: MemberView | None) -> dict[str, object]:
    """Where a node is: as gossip has it, else where its streams are taken."""
    host, _, port = node.stream_address.rpartition(":")
    address, number = host.strip("[]"), int(port) if port.isdecimal() else 0
    if member is not None:
        address, number = member.address, member.port
    return {"Name": node.name, "IP": address, "Port": number}


def _is_here(member: MemberView | None) -> bool:
    return member is not None and member.state in _HERE


def _location(label: str) -> object:
    """Latitude and longitude where the label has two numbers, which maps take; else its words."""
    found = _PLACE.fullmatch(label)
    return label if found is None else [float(found[1]), float(found[2])]


def _gigabytes(count: int) -> float:
    return round(count / _GB, 2)

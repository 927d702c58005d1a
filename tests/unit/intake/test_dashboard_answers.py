"""What a dashboard is told of nodes, key by key."""

from services.runtime.dashboard_nodes import active_answer, info_answer
from shoal.model import MemberState
from shoal.node_facts import NodeFacts, PowerRailFact, TemperatureFact
from shoal.view import MemberView, NodeView

GB = 1 << 30


def member(name: str, state: MemberState = MemberState.ALIVE) -> MemberView:
    return MemberView(name, "10.0.0.7", 7946, state)


def test_a_node_is_active_by_its_session_or_by_gossip_while_that_is_cut() -> None:
    nodes = (
        NodeView("a", connected=True, stream_address="10.0.0.1:7471"),
        NodeView("b", connected=True),
        NodeView("c"),
        NodeView("d"),
        NodeView("e"),
        NodeView("f", connected=True, stream_address="[::1]:9"),
    )
    members = {
        "b": member("b"),
        "c": member("c", MemberState.SUSPECT),
        "d": member("d", MemberState.DEAD),
        "controller": member("controller"),
    }
    assert active_answer(nodes, members) == {
        "Active": [
            {"Name": "a", "IP": "10.0.0.1", "Port": 7471},
            {"Name": "b", "IP": "10.0.0.7", "Port": 7946},
            {"Name": "c", "IP": "10.0.0.7", "Port": 7946},
            {"Name": "f", "IP": "::1", "Port": 9},
        ]
    }


def test_the_details_of_a_node_have_the_keys_of_the_original_in_either_spelling() -> None:
    facts = NodeFacts(
        os="Linux",
        os_version="Ubuntu 18.04",
        cpu_count=6,
        cpu_percent=12.5,
        memory_total_bytes=8 * GB,
        memory_available_bytes=6 * GB - GB // 3,
        temperatures=(TemperatureFact("GPU-therm", 55.5, 90.0, 101.0),),
        gpu_percent=34.5,
        rails=(PowerRailFact("VDD_IN", 4210.0),),
        throttled=("fan",),
    )
    labels = {"location": "48.2, 16.37"}
    node = NodeView("jetson-1", connected=True, labels=labels, architecture="aarch64", facts=facts)
    zones = [{"label": "GPU-therm", "current": 55.5, "high": 90.0, "critical": 101.0}]
    assert info_answer(node, member("jetson-1")) == {
        "Name": "jetson-1",
        "IP": "10.0.0.7",
        "Port": 7946,
        "location": [48.2, 16.37],
        "Architecture": "aarch64",
        "Aarchitecture": "aarch64",
        "OS": "Linux",
        "OS_Version": "Ubuntu 18.04",
        "cpu_percent": 12.5,
        "cpu_count": 6,
        "total_memory": 8.0,
        "used_memory": 2.33,
        "memory_used": 2.33,
        "available_memory": 5.67,
        "memory_available": 5.67,
        "temperature": zones,
        "temperatue": zones,
        "gpu_percent": 34.5,
        "emc_percent": None,
        "power_milliwatts": {"VDD_IN": 4210.0},
        "throttled": ["fan"],
        "problem": "",
    }


def test_a_node_that_says_nothing_has_every_key_and_the_reason() -> None:
    silent = NodeView("cam", labels={"location": "Vineyard 3"}, facts_problem="its agent is away")
    answer = info_answer(silent, None)
    assert answer["location"] == "Vineyard 3"
    assert answer["problem"] == "its agent is away"
    assert (answer["IP"], answer["Port"], answer["cpu_percent"]) == ("", 0, None)

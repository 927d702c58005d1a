"""Lanes as derived from the spec."""

from __future__ import annotations

import pytest

from control.core.topology import topology
from shoal.session.lane import LanePeer
from shoal.spec import Distribute, Job, Output, Pipeline, StreamInput
from tests.unit.control.world import counter, single


def test_a_single_job_has_no_lanes() -> None:
    made = topology(single())
    assert made.ends == {"main": ()}
    assert made.gangs == {"main": "main"}


def test_every_producer_replica_has_a_lane_to_every_consumer_replica() -> None:
    made = topology(counter(replicas=2))
    assert [end.lane.id for end in made.ends["camera"]] == [
        "camera.frames/detector-0.frames",
        "camera.frames/detector-1.frames",
    ]
    end = made.ends["detector-1"][1]
    assert (end.lane.id, end.lane.output, end.lane.port) == (
        "detector-1.found/counter.found",
        True,
        "found",
    )
    assert (end.peer, end.lane.peer_job, end.lane.peer_port) == ("counter", "counter", "found")
    assert (end.lane.peer_replica, end.lane.peer_replicas) == (0, 1)
    assert [end.lane.peer_replica for end in made.ends["counter"]] == [0, 1]
    assert made.neighbours["camera"] == ("detector-0", "detector-1")
    assert made.consumers("camera") == ("detector-0", "detector-1")
    assert made.consumers("counter") == ()


def test_both_ends_of_a_lane_agree() -> None:
    made = topology(counter(replicas=3))
    ends = [end.lane for found in made.ends.values() for end in found]
    for lane in {end.id for end in ends}:
        one, other = [end for end in ends if end.id == lane]
        assert one.output is not other.output
        assert (one.port, one.distribute) == (other.peer_port, other.distribute)


def test_two_consumers_of_one_port_and_two_ports_between_two_jobs() -> None:
    made = topology(
        Pipeline(
            "fan",
            (
                Job("a", ("a",), outputs=(Output("x", distribute=Distribute.BROADCAST),
                                          Output("y"))),
                Job("b", ("b",), streams=(StreamInput("x", "a", "x"), StreamInput("y", "a", "y"))),
                Job("c", ("c",), streams=(StreamInput("in", "a", "x"),)),
                Job("d", ("d",)),
            ),
        )
    )  # fmt: skip
    assert [end.lane.id for end in made.ends["a"]] == ["a.x/b.x", "a.y/b.y", "a.x/c.in"]
    assert [end.lane.distribute for end in made.ends["b"]] == [
        Distribute.BROADCAST,
        Distribute.ROUND_ROBIN,
    ]
    assert made.neighbours["a"] == ("b", "c")
    assert made.gangs == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_peers_are_filled_in_from_where_they_stand() -> None:
    made = topology(counter(replicas=2))
    peers = {
        "detector-0": LanePeer("n1:1", "pipelines/p/jobs/detector-0/attempts/2", 2),
        "detector-1": LanePeer(epoch=1, done=True),
    }
    lanes = made.lanes("camera", peers.__getitem__)
    assert [lane.peer for lane in lanes] == list(peers.values())
    assert [lane.peer_replica for lane in lanes] == [0, 1]


def test_an_unknown_port_is_no_lane() -> None:
    loose = Pipeline(
        "p", (Job("a", ("a",)), Job("b", ("b",), streams=(StreamInput("i", "a", "o"),)))
    )
    with pytest.raises(KeyError):
        topology(loose)

"""What stands in for a local job: its ports, its lanes, and what it costs."""

from control.core.portal import portal_of
from control.core.topology import topology
from shoal import spec
from shoal.check import check_pipeline
from shoal.portal_names import CLIENT_ADDRESS, input_lane, output_lane, portal_job
from shoal.session.lane import LanePeer

ME = spec.Job(
    "me",
    (),
    outputs=(spec.Output("said", spec.PortBinding(spec.PortFormat.LINES)),),
    local=True,
)
TABLE = spec.Job(
    "table",
    ("cat",),
    streams=(spec.StreamInput("rows", "me", "said", spec.PortBinding(spec.PortFormat.LINES)),),
    local=True,
)


def test_f13_a_portal_copies_between_the_pipeline_and_the_client() -> None:
    """One port more for each, blocks everywhere, and it resumes when there is one pair."""
    portal = portal_of(TABLE)
    assert [stream.name for stream in portal.streams] == ["rows"]
    assert [output.name for output in portal.outputs] == ["client-rows"]
    assert portal.streams[0].binding == spec.PortBinding()
    assert portal.recovery is spec.Recovery.RESUME
    both = portal_of(spec.Job("x", ("x",), streams=TABLE.streams, outputs=ME.outputs, local=True))
    assert both.recovery is spec.Recovery.RESTART


def test_f13_lanes_to_the_client_have_no_neighbour() -> None:
    """The source waits for a client that dials, the sink has nobody to tell of."""
    found = topology(spec.Pipeline("p", (ME, TABLE)))
    lanes = {
        lane.id: lane for job in ("me", "table") for lane in found.lanes(job, lambda _: LanePeer())
    }
    assert lanes[input_lane("me", "said")].peer.address == CLIENT_ADDRESS
    assert lanes[output_lane("table", "rows")].peer.address == ""
    assert found.neighbours == {"me": ("table",), "table": ("me",)}
    assert found.consumers("table") == ()
    assert portal_job(input_lane("me", "said")) == "me"
    assert portal_job(output_lane("table", "rows")) == "table"


def test_f13_a_specification_says_what_a_local_job_cannot_be() -> None:
    """Replicas, requirements and places belong to boards."""
    assert not check_pipeline(spec.Pipeline("p", (ME, TABLE)))
    odd = spec.Job(
        "me", (), outputs=ME.outputs, replicas=2, place=spec.Place({"a": "b"}), local=True
    )
    problems = check_pipeline(spec.Pipeline("p", (odd, TABLE)))
    assert {problem.path for problem in problems} == {
        ("jobs", "me", "replicas"),
        ("jobs", "me", "place"),
    }
    lonely = spec.Job("me", ("x",), local=True)
    assert [problem.path for problem in check_pipeline(spec.Pipeline("p", (lonely,)))] == [
        ("jobs", "me", "local")
    ]

"""What the starts of a job's attempts have alike: found out now and then, and never another job's."""

from pathlib import Path

import pytest

import shoal
from edge_agent.program import ProgramError
from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.job_limits import JobLimits
from edge_agent.sandbox.narrowing import Narrowing
from edge_agent.sandbox.plan import NO_PLAN
from edge_agent.sandbox.planning import AttemptDoor, SandboxPlanning
from edge_agent.sdk_copy import SdkCopy
from edge_agent.start_outlines import StartOutlines
from shoal.sandbox import NodeSandbox, SandboxLevel
from shoal.spec import Job, Resources

DOOR = AttemptDoor(SandboxLevel.NONE)


class Node:
    """A node whose attempts run at level none, and whose time stands still."""

    def __init__(self, root: Path) -> None:
        self.now = 0.0
        self._root = root
        node = NodeSandbox(SandboxLevel.NONE, frozenset({SandboxLevel.NONE}))
        limits = JobLimits(ControlGroups(), frozenset({"cam"}), root)
        planning = SandboxPlanning(root, node, None, Narrowing((), (), "x86_64", ""), limits)
        sdk = SdkCopy(Path(shoal.__file__).parent, root / "sdk", lambda: "copy")
        self.outlines = StartOutlines(sdk, {"PATH": "/usr/bin:/bin"}, planning, lambda: self.now)

    def of(
        self, job: Job, environment: str = "/environment", secrets: Path | None = None
    ) -> object:
        """The outline of a job."""
        return self.outlines.of(job, environment, DOOR, str(self._root / "attempts"), secrets)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_outline_is_one_of_a_job_in_an_environment_for_a_moment(node: Node) -> None:
    job, alike = Job("work", ("/bin/true",)), Job("work", ("/bin/true",))
    first = node.of(job)
    node.now = 0.2
    assert node.of(job) is first
    assert node.of(alike) is not first
    assert node.of(job, "/another") is not first
    node.now = 0.3
    assert node.of(job) is not first


def test_a_program_that_has_gone_is_told_once_the_outline_is_old(
    node: Node, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    job = Job("work", (str(program),))
    node.of(job)
    program.unlink()
    node.of(job)
    node.now = 1.0
    with pytest.raises(ProgramError, match="is not a file of the bundle"):
        node.of(job)


def test_what_is_one_attempts_alone_or_comes_and_goes_is_not_kept(
    node: Node, tmp_path: Path
) -> None:
    job = Job("work", ("/bin/true",))
    secret = node.of(job, secrets=tmp_path / "secrets")
    assert node.of(job, secrets=tmp_path / "secrets") is not secret
    assert node.of(job) is not secret
    camera = Job("work", ("/bin/true",), resources=Resources(devices=("cam",)))
    assert node.of(camera) is not node.of(camera)


def test_no_job_gets_the_outline_of_another_that_has_gone(node: Node) -> None:
    """Objects that have gone leave their number to others."""
    for number in range(200):
        job = Job(f"job-{number}", (f"/bin/{'true' if number % 2 else 'sh'}",))
        outline = node.outlines.of(job, "/environment", DOOR, "/attempts")
        assert outline.job is job
        assert outline.sandbox.plan is NO_PLAN
        del job

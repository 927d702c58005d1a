"""By what the claims of a job bind it on a node, for nodes that have control groups and nodes that have none."""

import resource
from pathlib import Path

import pytest

from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.device_nodes import device_nodes
from edge_agent.sandbox.job_limits import JOB_OOM_SCORE, ClaimError, JobLimits, node_claims
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from shoal.limits import PROCESSES_DEFAULT
from shoal.sandbox import Claim, Sandbox, SandboxLevel
from shoal.spec import Job, Resources

MIB = 1 << 20
V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
CLAIMS = Resources(0.5, 64 * MIB, processes=32, disk_bytes=MIB)


def job(*enforce: Claim, resources: Resources = CLAIMS) -> Job:
    return Job("j", ("true",), resources=resources, sandbox=Sandbox(enforce=frozenset(enforce)))


def no_groups(tmp_path: Path) -> ControlGroups:
    """What an agent has of a machine that shows no control groups."""
    groups = ControlGroups.open("none", tmp_path)
    assert groups.enforces == {}
    assert "no hierarchy that is mounted here has it" in groups.refused
    return groups


def test_without_groups_resource_limits_bind_what_they_can(tmp_path: Path) -> None:
    limits = JobLimits(no_groups(tmp_path))
    plan, group = limits.bound(job(), SandboxLevel.USER, own_user=True)
    assert group is None
    assert plan == SandboxPlan(
        oom_score=JOB_OOM_SCORE,
        limits=(
            (resource.RLIMIT_DATA, 64 * MIB),
            (resource.RLIMIT_NPROC, 32),
            (resource.RLIMIT_FSIZE, MIB),
        ),
    )


def test_processes_of_a_user_that_others_have_too_are_not_limited_by_it(tmp_path: Path) -> None:
    plan, _ = JobLimits(no_groups(tmp_path)).bound(job(), SandboxLevel.CONFINED, own_user=False)
    assert resource.RLIMIT_NPROC not in dict(plan.limits)


def test_a_job_that_claims_nothing_has_a_bound_of_processes_alone(tmp_path: Path) -> None:
    plan, _ = JobLimits(no_groups(tmp_path)).bound(
        job(resources=Resources()), SandboxLevel.USER, own_user=True
    )
    assert plan.limits == ((resource.RLIMIT_NPROC, PROCESSES_DEFAULT),)


def test_at_level_none_only_what_the_job_names_binds_it(tmp_path: Path) -> None:
    limits = JobLimits(no_groups(tmp_path))
    assert limits.bound(job(), SandboxLevel.NONE, own_user=False) == (NO_PLAN, None)
    named, _ = limits.bound(job(Claim.DISK), SandboxLevel.NONE, own_user=False)
    assert named.limits == ((resource.RLIMIT_FSIZE, MIB),)


def test_what_has_to_bind_and_cannot_be_made_to_starts_nothing(tmp_path: Path) -> None:
    limits = JobLimits(no_groups(tmp_path))
    with pytest.raises(ClaimError, match=r"its cpus binds it.*no hierarchy"):
        limits.bound(job(Claim.CPUS), SandboxLevel.USER, own_user=True)
    with pytest.raises(ClaimError, match="processes"):
        limits.bound(job(Claim.PROCESSES), SandboxLevel.NONE, own_user=False)


def test_what_a_node_can_enforce() -> None:
    assert node_claims({}, own_users=False) == {Claim.MEMORY: "rlimit", Claim.DISK: "watch"}
    assert node_claims({}, own_users=True)[Claim.PROCESSES] == "rlimit"
    both = {Claim.MEMORY: "cgroup v2", Claim.CPUS: "cgroup v2"}
    assert node_claims(both, own_users=False) == {**both, Claim.DISK: "watch"}


def test_a_group_of_a_unit_of_systemd_itself_is_left_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "sys/fs/cgroup/system.slice/shoal-agent.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.type").write_text("domain\n")
    (own / "cgroup.procs").write_text("1\n")
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(f"{V2}\n")
    (proc / "cgroup").write_text("0::/system.slice/shoal-agent.service\n")
    groups = ControlGroups.open("unit", tmp_path)
    assert groups.enforces == {}
    assert "DelegateSubgroup=agent" in groups.refused
    assert not [path for path in own.iterdir() if path.is_dir()]


def test_device_nodes_are_those_of_classes_that_the_node_offers(tmp_path: Path) -> None:
    """The devices of this machine stand in: what is no device node is none."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").write_text("no device")
    assert device_nodes(("video",), ("video",), tmp_path) == ()
    assert device_nodes(("null",), ("null",)) == (Path("/dev/null"),)
    assert device_nodes(("null", "../null", "nul?", "shm"), ("../null", "nul?", "shm")) == ()

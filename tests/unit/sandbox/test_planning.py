"""The door of an attempt: its level, its user, the groups of its devices, and what is refused in words."""

import os
import stat
import subprocess
from pathlib import Path
from types import MappingProxyType

import pytest

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.long_work import done_at_once
from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.job_folders import hand_over
from edge_agent.sandbox.job_limits import JobLimits
from edge_agent.sandbox.job_users import NoUserError
from edge_agent.sandbox.narrowing import Narrowing
from edge_agent.sandbox.planning import AttemptDoor, SandboxPlanning, SandboxRefusedError
from edge_agent.sandbox.user_range import UserRange
from shoal.names import AttemptRef
from shoal.sandbox import NodeSandbox, Sandbox, SandboxLevel
from shoal.spec import Job, Resources
from tests.kit.job_users import job_users
from tests.kit.until import until_sync

NONE, USER, CONFINED = SandboxLevel
REF = AttemptRef("default", "p", "work", 1, 1)
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def planning(root: Path, default: SandboxLevel, *levels: SandboxLevel) -> SandboxPlanning:
    """That of a node with these levels, whose files lie below a folder."""
    state = root / "state"
    state.mkdir(exist_ok=True, mode=0o700)
    node = NodeSandbox(
        default,
        frozenset({default, *levels}),
        refused=MappingProxyType({CONFINED: "bubblewrap is not installed"}),
    )
    memory = root / "memory"
    memory.mkdir(exist_ok=True)
    memory.chmod(0o1777)
    users = job_users(UserRange(3_300_000, 8), root / "registry", state, 0.0, memory)
    limits = JobLimits(ControlGroups(), frozenset({"cam"}), root)
    return SandboxPlanning(state, node, users, Narrowing((), (), "x86_64", ""), limits)


def job(level: SandboxLevel = NONE, *devices: str) -> Job:
    return Job("work", ("true",), sandbox=Sandbox(level), resources=Resources(devices=devices))


def test_a_job_gets_what_it_asks_for_or_more_and_never_less(tmp_path: Path) -> None:
    ours = planning(tmp_path, USER)
    ours.open()
    assert ours.door(REF, job()) == AttemptDoor(USER, 3_300_000)
    assert ours.door(REF, job(USER)) == AttemptDoor(USER, 3_300_000)
    with pytest.raises(
        SandboxRefusedError, match="confined, and this node cannot do that: bubblewrap is not"
    ):
        ours.door(REF, job(CONFINED))
    assert planning(tmp_path, NONE).level_of(job()) is NONE


def test_the_state_is_opened_for_the_first_job_with_a_user(tmp_path: Path) -> None:
    ours = planning(tmp_path, NONE, USER)
    ours.open()
    assert ours.door(REF, job()) == AttemptDoor(NONE)
    assert stat.S_IMODE(ours.state.stat().st_mode) == 0o700
    assert ours.door(REF, job(USER)).uid == 3_300_000
    assert stat.S_IMODE(ours.state.stat().st_mode) == 0o711


def test_a_registry_that_cannot_be_had_stops_no_agent_that_needs_none(tmp_path: Path) -> None:
    (tmp_path / "registry").touch()
    with pytest.raises(NoUserError, match="registry of users"):
        planning(tmp_path, USER).open()
    lenient = planning(tmp_path, NONE, USER)
    lenient.open()
    assert lenient.door(REF, job()) == AttemptDoor(NONE)
    with pytest.raises(SandboxRefusedError, match=r"registry of users .* cannot be used"):
        lenient.door(REF, job(USER))


@ROOT
def test_a_job_has_the_groups_of_its_devices_and_never_roots(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name, gid, mode in (("cam0", 44, 0o660), ("cam1", 0, 0o660), ("cam2", 45, 0o666)):
        node = tmp_path / "dev" / name
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(node, -1, gid)
        node.chmod(mode)
    ours = planning(tmp_path, USER)
    ours.open()
    folder = AttemptFolder(ours.state / "attempts" / "default.p.work.1-1")
    folder.work.mkdir(parents=True)
    door = ours.door(REF, job())
    done_at_once(hand_over(folder, door.uid))
    for devices, groups in (((), ()), (("cam",), (44,)), (("video",), ())):
        outline = ours.outline(door, job(NONE, *devices), folder.path.parent, ())
        plan = ours.plan(door, outline, folder)
        assert (plan.uid, plan.gid, plan.groups) == (3_300_000, 3_300_000, groups)
        assert plan.no_new_privileges


@ROOT
def test_an_attempt_that_is_over_is_closed_and_its_user_given_back(tmp_path: Path) -> None:
    ours = planning(tmp_path, USER)
    ours.open()
    folder = AttemptFolder(ours.state / "attempts" / "default.p.work.1-1")
    folder.work.mkdir(parents=True)
    assert ours.close(folder) == -1
    door = ours.door(REF, job())
    done_at_once(hand_over(folder, door.uid))
    assert ours.close(folder) == door.uid
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    ours.let_go(folder.path.name)
    assert list((tmp_path / "registry").iterdir()) == []


@ROOT
def test_what_runs_yet_is_ended_before_the_folder_is_read_and_before_the_user_is_anothers(
    tmp_path: Path,
) -> None:
    """The keeper has ended everything; but it may have gone, and another process may have become the user since."""
    ours = planning(tmp_path, USER)
    ours.open()
    folder = AttemptFolder(ours.state / "attempts" / "default.p.work.1-1")
    folder.work.mkdir(parents=True)
    door = ours.door(REF, job())
    done_at_once(hand_over(folder, door.uid))
    words = ["/bin/sleep", "600"]
    for end in (lambda: ours.close(folder), lambda: ours.let_go(folder.path.name)):
        with subprocess.Popen(words, user=door.uid, group=door.uid, extra_groups=[]) as left:
            end()
            assert left.wait(30) == -9


@ROOT
def test_a_folder_is_closed_by_a_look_only_where_no_process_and_no_memory_is_left(
    tmp_path: Path,
) -> None:
    ours = planning(tmp_path, USER)
    ours.open()
    folder = AttemptFolder(ours.state / "attempts" / "default.p.work.1-1")
    folder.work.mkdir(parents=True)
    door = ours.door(REF, job())
    done_at_once(hand_over(folder, door.uid))
    words = ["/bin/sleep", "600"]
    with subprocess.Popen(words, user=door.uid, group=door.uid, extra_groups=[]) as left:
        assert not ours.close_at_once(folder, door.uid)
        assert ours.close(folder) == door.uid
        assert left.wait(30) == -9
    folder.path.chmod(0o711)
    until_sync(lambda: ours.close_at_once(folder, door.uid) or ours.close(folder) < 0, 30, "a look")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    left_in_memory = tmp_path / "memory" / "left"
    left_in_memory.touch()
    os.chown(left_in_memory, door.uid, door.uid)
    folder.path.chmod(0o711)
    assert not ours.close_at_once(folder, door.uid)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o711
    ours.close(folder)
    assert not left_in_memory.exists()

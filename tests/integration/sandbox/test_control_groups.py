"""Control groups on the kernel of this machine; root makes them, where it may."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.sandbox.control_groups import ControlGroups, GroupError, GroupLimits, device_word
from edge_agent.sandbox.group_counts import GroupCounts
from edge_agent.sandbox.group_folder import group_counts, kill_group, processes_of
from shoal.sandbox import Claim
from tests.kit.group_name import group_name
from tests.kit.until import until_sync

MIB = 1 << 20
TAKES_MEMORY = "held = [b'x' * (8 << 20) for _ in range(40)]"
FORKS = """
import os, signal
made = 0
try:
    for _ in range(40):
        if os.fork() == 0:
            signal.pause()
        made += 1
except BlockingIOError:
    raise SystemExit(100 + made)
"""
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


@pytest.fixture
def groups() -> Iterator[ControlGroups]:
    """The groups of an agent of this test; nothing of them is left behind it."""
    opened = ControlGroups.open(group_name())
    if set(opened.enforces) != {Claim.MEMORY, Claim.CPUS, Claim.PROCESSES}:
        opened.close()
        pytest.skip(f"no control groups can be made here: {opened.refused}")
    try:
        yield opened
    finally:
        opened.sweep(())
        opened.close()


def inside(join: Sequence[str], code: str) -> subprocess.Popen[str]:
    """A Python program that puts itself into a group first."""
    first = f"for one in {list(join)!r}:\n    open(one, 'w').write('0')\n"
    words = [sys.executable, "-c", first + code]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_memory_beyond_the_claim_is_killed_and_counted_and_a_neighbour_goes_on(
    groups: ControlGroups,
) -> None:
    bound = groups.make("greedy", GroupLimits(memory_bytes=64 * MIB))
    beside = groups.make("modest", GroupLimits(memory_bytes=64 * MIB))
    with inside(bound.join, TAKES_MEMORY) as greedy, inside(beside.join, "print(7)") as modest:
        assert greedy.wait(60) == -signal.SIGKILL
        assert modest.communicate(timeout=60)[0] == "7\n"
    counts = group_counts(bound.kill)
    assert (counts.memory_kills, counts.bounded_memory) == (1, True)
    assert group_counts(beside.kill).memory_kills == 0


def test_processes_beyond_the_claim_are_refused_and_counted(groups: ControlGroups) -> None:
    bound = groups.make("many", GroupLimits(processes=8))
    with inside(bound.join, FORKS) as many:
        assert many.wait(60) == 100 + 7, "with itself there are eight"
    assert group_counts(bound.kill).refused_processes >= 1
    kill_group(bound.kill)
    until_sync(lambda: not kill_group(bound.kill), 20, "that the group is empty")


def test_a_fork_bomb_ends_at_one_blow(groups: ControlGroups) -> None:
    bound = groups.make("bomb", GroupLimits(processes=64))
    with inside(bound.join, FORK_BOMB) as bomb:
        pids = Path(next(one for one in bound.kill if "pids" in one or len(bound.kill) == 1))
        until_sync(
            lambda: len(processes_of(pids)) == 64, 60, "that the bomb is as large as it may be"
        )
        kill_group(bound.kill)
        until_sync(lambda: not processes_of(pids), 20, "that nothing is left of it")
        assert bomb.wait(20) == -signal.SIGKILL


def test_cores_beyond_the_claim_are_not_given(groups: ControlGroups) -> None:
    bound = groups.make("busy", GroupLimits(cpus=0.2))
    code = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    begin = time.monotonic()
    with inside(bound.join, code) as busy:
        used = float(busy.communicate(timeout=60)[0])
    passed = time.monotonic() - begin
    assert used <= 0.2 * passed + 0.1, "a tenth of a second is the period"


def test_a_limit_that_is_given_again_may_be_higher_or_lower(groups: ControlGroups) -> None:
    bound, *_ = (
        groups.make("changes", GroupLimits(memory_bytes=size * MIB, cpus=0.5, processes=size))
        for size in (64, 128, 32)
    )
    with inside(bound.join, "held = b'x' * (48 << 20)") as program:
        assert program.wait(60) == -signal.SIGKILL


def test_a_device_that_was_not_asked_for_is_refused_even_to_root(
    groups: ControlGroups, tmp_path: Path
) -> None:
    """No camera and no GPU is here, so the node is made: the kernel looks at its number alone."""
    if not groups.devices:
        pytest.skip("devices are kept from jobs by version 1 alone, and by root")
    node = tmp_path / "zero"
    os.mknod(node, 0o020666, os.makedev(1, 5))  # harmless by itself, and not refused by its driver
    other = tmp_path / "kmsg"
    os.mknod(other, 0o020666, os.makedev(1, 11))
    code = f"open({str(node)!r}, 'rb').read(1)\ntry: open({str(other)!r}, 'rb')\nexcept PermissionError: print('no')"
    none = groups.make("none", GroupLimits(devices=()))
    with inside(none.join, code) as program:
        assert program.communicate(timeout=60)[0] == "no\n"
    assert device_word(other) == "c 1:11 rw"
    asked = groups.make("asked", GroupLimits(devices=(device_word(other),)))
    with inside(asked.join, code) as program:
        assert program.communicate(timeout=60) == ("", "")


def test_the_next_agent_removes_what_it_does_not_know(groups: ControlGroups) -> None:
    kept = groups.make("kept", GroupLimits(processes=8))
    left = groups.make("left", GroupLimits(processes=8))
    with inside(left.join, "import signal; signal.pause()") as stays:
        until_sync(lambda: processes_of(Path(left.kill[0])), 20, "that it is in its group")
        groups.sweep({"kept"})
        assert stays.wait(20) == -signal.SIGKILL
    until_sync(lambda: groups.remove("left"), 20, "that its group is gone")
    assert all(Path(folder).is_dir() for folder in kept.kill)
    assert groups.remove("kept")
    assert groups.remove("never made")


def test_groups_of_an_agent_that_is_gone_are_removed_and_those_of_one_that_lives_are_not(
    groups: ControlGroups,
) -> None:
    alive, gone, busy = (ControlGroups.open(group_name()) for _ in range(3))
    mine = [one.make("x", GroupLimits(processes=8)) for one in (alive, gone, busy)]
    with inside(mine[2].join, "import signal; signal.pause()") as runs:
        until_sync(lambda: processes_of(Path(mine[2].kill[0])), 20, "that it is in its group")
        gone.close()
        busy.close()
        groups.sweep(())
        assert [Path(one.kill[0]).exists() for one in mine] == [True, False, True]
        runs.kill()
        runs.wait(20)
    alive.close()

    def nothing_left() -> bool:
        groups.sweep(())
        return not any(Path(one.kill[0]).exists() for one in mine)

    until_sync(nothing_left, 20, "that nothing is left")


def test_a_limit_that_the_kernel_refuses_makes_no_group(groups: ControlGroups) -> None:
    with pytest.raises(GroupError, match=r"cgroup|group"):
        groups.make("wrong", GroupLimits(devices=("no device",), processes=1))
    assert groups.remove("wrong")


def test_a_group_goes_to_the_next_attempt_with_its_limits_and_to_no_other(
    groups: ControlGroups,
) -> None:
    limits = GroupLimits(memory_bytes=64 * MIB, cpus=0.5, processes=8)
    first = groups.make("first", limits)
    with inside(first.join, "print(7)") as program:
        assert program.communicate(timeout=60)[0] == "7\n"
        beside = groups.make("beside", limits)
        assert not set(beside.kill) & set(first.kill)
    assert groups.remove("first")
    other = groups.make("other", replace(limits, processes=9))
    assert not set(other.kill) & set(first.kill)
    assert groups.make("next", limits) == first
    assert groups.remove("first"), "the attempt that had it before has nothing to remove"
    assert all(Path(folder).is_dir() for folder in first.kill)


WRITES_A_FILE = "open({path!r}, 'wb').write(bytes(16 << 20))"


@pytest.mark.parametrize("kind", ["memory", "processes", "left", "lowered", "charged"])
def test_a_group_that_is_not_as_new_goes_to_no_attempt(
    groups: ControlGroups, kind: str, tmp_path: Path
) -> None:
    """What one job left in its group would be told of the next one, or bind it."""
    limits = GroupLimits(memory_bytes=64 * MIB, cpus=0.5, processes=8)
    bound = groups.make("first", limits)
    code = {
        "memory": TAKES_MEMORY,
        "processes": FORKS,
        "left": "import signal; signal.pause()",
        "lowered": "pass",
        "charged": WRITES_A_FILE.format(path=str(tmp_path / "file")),
    }[kind]
    with inside(bound.join, code) as program:
        match kind:
            case "left":
                until_sync(lambda: groups.processes("first"), 20, "that it is in its group")
            case "lowered":
                program.wait(60)
                for folder in bound.kill:  # as to end what is left of an attempt
                    most = Path(folder, "pids.max")
                    if most.exists():
                        most.write_text("0")
            case "charged":
                program.wait(60)
                charged = [Path(folder, "memory.usage_in_bytes") for folder in bound.kill]
                charged += [Path(folder, "memory.current") for folder in bound.kill]
                assert max(int(one.read_text()) for one in charged if one.exists()) > 16 * MIB
            case _:
                program.wait(60)
        if kind in {"left", "processes"}:
            groups.remove("first")
            program.wait(60)
        else:
            until_sync(lambda: groups.remove("first"), 20, "that it is gone")
    after = groups.make("next", limits)
    assert not set(after.kill) & set(bound.kill)
    assert group_counts(after.kill) == GroupCounts(0, 0)
    with inside(after.join, "print(7)") as program:
        assert program.communicate(timeout=60)[0] == "7\n"


def test_the_next_agent_knows_which_attempt_has_which_group(groups: ControlGroups) -> None:
    limits = GroupLimits(processes=8)
    groups.make("free", limits)
    used = groups.make("used", limits)
    assert groups.remove("free")
    with inside(used.join, "import signal; signal.pause()") as runs:
        until_sync(lambda: groups.processes("used"), 20, "that it is in its group")
        name = Path(used.kill[0]).parent.name.removeprefix("shoal-")
        after = ControlGroups.open(name)
        try:
            assert after.processes("used") == (runs.pid,)
            after.sweep({"used"})
            assert runs.poll() is None
            assert after.make("used", limits) == used
            left = {path.name for path in Path(used.kill[0]).parent.iterdir() if path.is_dir()}
            assert left == {Path(used.kill[0]).name}
            new = after.make("new", limits)
            assert not set(new.kill) & set(used.kill)
            runs.kill()
            runs.wait(20)
            assert after.remove("used")
            assert after.remove("new")
        finally:
            after.sweep(())
            after.close()


def test_a_second_program_of_an_attempt_may_fork_after_the_first_was_ended(
    groups: ControlGroups,
) -> None:
    """A build has several, and to end one of them its group is closed to new processes."""
    limits = GroupLimits(processes=8)
    bound = groups.make("build", limits)
    with inside(bound.join, "import signal; signal.pause()") as first:
        until_sync(lambda: groups.processes("build"), 20, "that it is in its group")
        kill_group(bound.kill)
        first.wait(20)
    again = groups.make("build", limits)
    with inside(again.join, FORKS) as second:
        assert second.wait(60) == 100 + 7


def test_what_no_attempt_takes_for_long_is_removed(groups: ControlGroups) -> None:
    limits = GroupLimits(processes=8)
    one = groups.make("one", limits)
    assert groups.remove("one")
    groups.trim()
    assert groups.make("two", limits) == one
    assert groups.remove("two")
    groups.trim()
    assert Path(one.kill[0]).exists()
    groups.trim()
    assert not Path(one.kill[0]).exists()

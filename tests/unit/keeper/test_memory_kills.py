"""Which programs the kernel ended for want of memory, on trees of files as the kernel shows them."""

from pathlib import Path

import pytest

from edge_agent.keeper.memory_kills import MemoryKills

V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1 = "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _tree(root: Path, mount: str, groups: str) -> None:
    _write(root / "proc/self/cgroup", groups)
    _write(root / "proc/self/mountinfo", f"{mount}\n")
    _write(root / "proc/vmstat", "pgfree 7\noom_kill 40\n")


@pytest.mark.parametrize(
    ("mount", "groups", "file", "text"),
    [
        (V2, "0::/a\n", "sys/fs/cgroup/a/memory.events", "oom 3\noom_kill {}\noom_group_kill 0\n"),
        (V1, "4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill {}\n"),
        (V1, "", "proc/vmstat", "oom_kill {}\n"),
    ],
    ids=["version 2", "version 1", "the whole machine"],
)
def test_a_kill_is_for_want_of_memory_if_the_kernel_counted_one_since_the_program_began(
    tmp_path: Path, mount: str, groups: str, file: str, text: str
) -> None:
    _tree(tmp_path, mount, groups)
    counter = _write(tmp_path / file, text.format(5))
    kills = MemoryKills(tmp_path)
    for name in "abcdef":
        kills.begin(name)
    assert not kills.ended("a", 1, killed=True)
    counter.write_text(text.format(7))
    assert not kills.ended("b", 2, killed=False)
    assert kills.ended("c", 3, killed=True)
    assert kills.ended("d", 4, killed=True)
    assert not kills.ended("e", 5, killed=True), "two were counted, and both are known"
    kills.begin("g")
    counter.write_text(text.format(8))
    assert kills.ended("f", 6, killed=True)
    assert not kills.ended("g", 7, killed=True)


def test_what_a_child_of_another_program_suffered_before_says_nothing(tmp_path: Path) -> None:
    _tree(tmp_path, V2, "0::/a\n")
    counter = _write(tmp_path / "sys/fs/cgroup/a/memory.events", "oom_kill 0\n")
    kills = MemoryKills(tmp_path)
    kills.begin("a")
    counter.write_text("oom_kill 1\n")
    kills.begin("b")
    assert not kills.ended("b", 2, killed=True)
    assert kills.ended("a", 1, killed=True)


def test_where_the_group_does_not_count_the_log_of_the_kernel_names_the_process(
    tmp_path: Path,
) -> None:
    """As on the kernel 4.9 of a TX2, whose /proc/vmstat does not count either."""
    _tree(tmp_path, V2, "0::/\n")
    _write(tmp_path / "proc/vmstat", "pgfree 7\n")
    log = _write(tmp_path / "dev/kmsg", "3,1,0,-;Killed process 11 (old) total-vm:1kB\n")
    kills = MemoryKills(tmp_path)
    for name in "abc":
        kills.begin(name)
    with log.open("a") as file:
        file.write("4,2,1,-;Out of memory: Kill process 12 (python) score 900\n")
        file.write("3,3,1,-;Killed process 12 (python) total-vm:1kB, anon-rss:1kB\n")
        file.write("3,4,1,-;Memory cgroup out of memory: Killed process 13 (python), UID 0\n")
    assert not kills.ended("a", 11, killed=True)
    assert kills.ended("b", 12, killed=True)
    assert kills.ended("c", 13, killed=True)
    kills.begin("d")
    assert not kills.ended("d", 12, killed=True), "another program with the number of one before"


def test_a_machine_that_says_nothing_is_never_out_of_memory(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path)
    kills.begin("a")
    assert not kills.ended("a", 1, killed=True)


def test_a_number_that_was_just_read_is_not_read_again_for_the_next_start(tmp_path: Path) -> None:
    """Else a thousand starts a second would each read it; what was ended in between may count for them, too."""
    _tree(tmp_path, V2, "0::/a\n")
    counter = _write(tmp_path / "sys/fs/cgroup/a/memory.events", "oom_kill 0\n")
    now = 100.0
    kills = MemoryKills(tmp_path, lambda: now, fresh_seconds=0.01)
    kills.begin("a")
    counter.write_text("oom_kill 1\n")
    kills.begin("b")
    now += 0.02
    kills.begin("c")
    assert not kills.ended("c", 3, killed=True)
    assert kills.ended("b", 2, killed=True)
    assert not kills.ended("a", 1, killed=True), "one was counted, and it is known"

"""What a container leaves an agent, on trees of files as the kernel shows them."""

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from edge_agent.cgroup_limits import CgroupLimits, cgroup_limits
from edge_agent.fingerprint import capacity

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "31 23 0:27 {top} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "32 23 0:28 {top} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
DISK = "22 1 8:1 / / rw - ext4 /dev/sda1 rw"
V1_GROUPS = (
    "7:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n"
)
NO_LIMIT = "9223372036854771712\n"


def _tree(
    root: Path, groups: str, mounts: tuple[str, ...], files: Mapping[str, str], top: str = "/"
) -> Path:
    """Lay out a root folder: what /proc says, and files below /sys/fs/cgroup."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("".join(f"{mount.format(top=top)}\n" for mount in mounts))
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_in_a_container(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000\n", "memory.max": "268435456\n"}
    root = _tree(tmp_path, "0::/\n", (DISK, V2), files)
    assert cgroup_limits(root) == CgroupLimits(0.5, 268435456)


def test_version_2_without_a_namespace_of_its_own(tmp_path: Path) -> None:
    files = {"cpu.max": "150000 100000\n", "memory.max": "max\n"}
    root = _tree(
        tmp_path,
        "0::/system.slice/docker-abc.scope\n",
        (V2,),
        files,
        "/system.slice/docker-abc.scope",
    )
    assert cgroup_limits(root) == CgroupLimits(1.5, None)


def test_version_2_a_group_above_limits_too(tmp_path: Path) -> None:
    files = {
        "system.slice/shoal.service/cpu.max": "max 100000\n",
        "system.slice/shoal.service/memory.max": "2147483648\n",
        "system.slice/cpu.max": "200000 100000\n",
        "system.slice/memory.max": "1073741824\n",
    }
    root = _tree(tmp_path, "0::/system.slice/shoal.service\n", (V2,), files)
    assert cgroup_limits(root) == CgroupLimits(2.0, 1073741824)


def test_version_1_in_a_container(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "1073741824\n",
    }
    root = _tree(tmp_path, V1_GROUPS, (DISK, V1_CPU, V1_MEMORY), files, "/docker/abc")
    assert cgroup_limits(root) == CgroupLimits(2.0, 1073741824)


def test_version_1_shows_another_mount_than_the_group(tmp_path: Path) -> None:
    """A namespace of groups: the path is that of the namespace, the root of the mount that of the host."""
    files = {"memory/memory.limit_in_bytes": "1048576\n"}
    root = _tree(tmp_path, "7:memory:/\n", (V1_MEMORY,), files, "/docker/abc")
    assert cgroup_limits(root) == CgroupLimits(None, 1048576)


def test_version_1_without_limits(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": NO_LIMIT,
    }
    root = _tree(tmp_path, "7:memory:/\n5:cpu,cpuacct:/\n0::/\n", (V1_CPU, V1_MEMORY), files)
    assert cgroup_limits(root) == CgroupLimits(None, None)


def test_both_versions_at_once(tmp_path: Path) -> None:
    unified = V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    files = {"memory/memory.limit_in_bytes": "1048576\n", "unified/cgroup.procs": "1\n"}
    root = _tree(tmp_path, V1_GROUPS, (unified, V1_CPU, V1_MEMORY), files, "/docker/abc")
    assert cgroup_limits(root) == CgroupLimits(None, 1048576)


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "", "memory.max": ""},
        {"cpu.max": "a b\n", "memory.max": "-5\n"},
        {"cpu.max": "0 0\n", "memory.max": "\xff\n"},
        {"cpu.max": "100000\n"},
        {"cpu.max": f"{'9' * 400} 1\n", "memory.max": f"{'9' * 5000}\n"},
        {"cpu.max": "\u0663 \u0662\n", "memory.max": "\u0663\n"},
        {},
    ],
)
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, files: Mapping[str, str]) -> None:
    nowhere = V2.replace("/sys/fs/cgroup", "nowhere"), V2.replace("/sys/fs/cgroup", "/a\\000b")
    mounts = (V2, "nonsense", "1 2 3 - cgroup2", " - ", DISK, *nowhere)
    root = _tree(tmp_path, "0::/../../outside\n7\n\n", mounts, files)
    assert cgroup_limits(root) == CgroupLimits(None, None)


def test_without_proc_nothing_is_limited(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path) == CgroupLimits(None, None)


def test_the_capacity_is_the_least_of_machine_and_groups(tmp_path: Path) -> None:
    files = {"cpu.max": "25000 100000\n", "memory.max": "1048576\n"}
    small = capacity(_tree(tmp_path / "small", "0::/\n", (V2,), files))
    assert (small.cpus, small.memory_bytes) == (0.25, 1048576)
    files = {"cpu.max": "99900000 100000\n", "memory.max": f"{1 << 60}\n"}
    large = capacity(_tree(tmp_path / "large", "0::/\n", (V2,), files))
    assert large.memory_bytes == psutil.virtual_memory().total
    assert large.cpus < 999

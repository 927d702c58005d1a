"""What is read of a control group, and what is left where the kernel refuses, on folders as the kernel shows them."""

from pathlib import Path

import pytest

from edge_agent.sandbox.group_counts import GroupCounts
from edge_agent.sandbox.group_folder import group_counts, kill_group, processes_of


def _folder(path: Path, **files: str) -> str:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("_", ".", 1)).write_text(text)
    return str(path)


def test_version_1_counts_in_several_folders(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (memory / "memory.limit_in_bytes").write_text("67108864\n")
    (memory / "memory.max_usage_in_bytes").write_text("67100672\n")
    pids = _folder(tmp_path / "pids", pids_events="max 5\n")
    assert group_counts([str(memory), pids]) == GroupCounts(2, 5, bounded_memory=True)


def test_version_2_tells_its_own_bound_from_that_of_a_group_above(tmp_path: Path) -> None:
    own = _folder(tmp_path / "own", memory_events="low 0\nmax 9\noom 1\noom_kill 1\n")
    above = _folder(tmp_path / "above", memory_events="low 0\nmax 0\noom 0\noom_kill 1\n")
    assert group_counts([own]) == GroupCounts(1, 0, bounded_memory=True)
    assert group_counts([above]) == GroupCounts(1, 0, bounded_memory=False)


@pytest.mark.parametrize("text", ["", "max\n", "max -1\n", "max x\n", "maximum 3\n", "\xff"])
def test_what_cannot_be_read_counts_nothing(tmp_path: Path, text: str) -> None:
    folder = _folder(tmp_path / "pids", pids_events=text)
    assert group_counts([folder, str(tmp_path / "gone")]) == GroupCounts()


def test_a_group_that_is_gone_has_no_processes(tmp_path: Path) -> None:
    assert kill_group([str(tmp_path / "gone")]) == ()
    assert processes_of(tmp_path / "gone") == ()


def test_no_file_is_made_where_the_kernel_has_none(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "cpu", cgroup_procs="")
    assert kill_group([folder]) == ()
    assert [path.name for path in Path(folder).iterdir()] == ["cgroup.procs"]

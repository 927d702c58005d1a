"""Which files are archived, and that none is left out without a word (K5)."""

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from edge_agent.long_work import done_at_once
from edge_agent.removal import remove_tree
from edge_agent.tree import PlainFile
from edge_agent.uploads.collect import Collected, collect, locate
from shoal.names import AttemptRef
from tests.kit.nasty_tree import deep_folder

REF = AttemptRef("default", "p", "a", 1, 1)


def made(folder: Path, *names: str) -> Path:
    work = folder / "work"
    for name in names:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, errors="surrogateescape")
    (folder / "stderr").touch()
    return work


def collected(work: Path, patterns: Sequence[str]) -> Collected:
    return done_at_once(collect(work, patterns, work.parent, REF))


def paths(found: Collected) -> list[str]:
    return [artifact.path for artifact in found.artifacts]


def notes(work: Path) -> str:
    return (work.parent / "stderr").read_text()


NAMES = ("a.txt", "b.csv", "results/x", "results/d/y.csv", "results/d/e/z", "other/x", "x[1]")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["results/**"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["results"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["./results/"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["results/*"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["*.txt", "**/*.csv"], ["a.txt", "b.csv", "results/d/y.csv"]),
        (["**/x"], ["other/x", "results/x"]),
        (["results/?"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["[ab].*"], ["a.txt", "b.csv"]),
        (["[!a].*"], ["b.csv"]),
        (["x[[]1]"], ["x[1]"]),
        (["x[1]"], ["x[1]"]),
        (["**"], sorted(NAMES)),
        (["nothing"], []),
        ([], []),
        (["a(txt", "a+"], []),
    ],
)
def test_patterns(tmp_path: Path, patterns: list[str], expected: list[str]) -> None:
    found = collected(made(tmp_path, *NAMES), patterns)
    assert [path for path in paths(found) if path != "stderr"] == expected, "stderr has the notes"
    assert not found.problem


def test_sizes_and_hashes_and_logs(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x")
    (tmp_path / "stdout").write_text("hello")
    found = collected(work, ["results/**"])
    assert [(artifact.path, artifact.size_bytes) for artifact in found.artifacts] == [
        ("results/x", 9),
        ("stdout", 5),
    ]
    assert found.artifacts[1].sha256 == hashlib.sha256(b"hello").hexdigest()
    assert locate(work, tmp_path, found.artifacts[0]) == PlainFile(work, "results/x")
    assert locate(work, tmp_path, found.artifacts[1]) == PlainFile(tmp_path, "stdout")


@pytest.mark.parametrize(
    "name", ["a\nb.txt", "a\tb", "a\\b", "\x01\x7f", "é☃", " ", "-", "x" * 255, "#%?&+;'\"<>*[]"]
)
def test_k5_any_name_that_is_text_is_archived(tmp_path: Path, name: str) -> None:
    work = made(tmp_path, f"results/{name}")
    for pattern in ("results/**", "**", f"results/{name}"):
        found = collected(work, [pattern])
        assert paths(found) == [f"results/{name}"]
        assert not found.problem


def test_k5_what_cannot_be_archived_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x", "scratch/y", f"results/{'d/' * 500}deep")
    (work / "results" / os.fsdecode(b"\xff")).write_text("x")
    (work / "results/out").symlink_to("/etc/hostname")
    (work / "results/etc").symlink_to("/etc")
    (work / "results/folder").symlink_to("../scratch")
    found = collected(work, ["results/**"])
    assert paths(found) == ["results/x"]
    for words in (
        "5 results are not archived",
        "'results/\\xff' cannot be archived: key",
        "is not UTF-8",
        "at most 1024 are allowed",
        "'results/out' is a link to '/etc/hostname', which is not in the job's folder",
        "'results/etc' is a link to '/etc', which is not in the job's folder",
        "'results/folder' is a link to the folder 'scratch': archive that folder",
        "what was archived is kept (1 files)",
    ):
        assert words in found.problem


def test_k5_what_has_no_content_is_said_in_the_jobs_stderr(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x", "deep/y")
    (work / "results/in").symlink_to("x")
    (work / "results/none").symlink_to("nothing")
    os.mkfifo(work / "results/pipe")
    os.mknod(work / "results/s", 0o600 | stat.S_IFSOCK)
    found = collected(work, ["results/**"])
    assert paths(found) == ["results/in", "results/x", "stderr"]
    assert not found.problem
    assert set(notes(work).splitlines()) == {
        "shoal: 'results/none' is a link to nothing that could be archived",
        "shoal: 'results/pipe' is not archived: it is a FIFO",
        "shoal: 'results/s' is not archived: it is a socket",
    }


def test_k5_a_link_to_a_folder_whose_files_are_archived_anyway_is_fine(tmp_path: Path) -> None:
    work = made(tmp_path, "results/run-3/x", "other/y.csv")
    (work / "results/latest").symlink_to("run-3")
    (work / "loop").symlink_to(".")
    found = collected(work, ["results/**", "**/*.csv"])
    assert paths(found) == ["other/y.csv", "results/run-3/x"]
    assert not found.problem
    assert not notes(work)


def test_k5_a_link_to_a_folder_on_the_way_to_a_pattern_is_named(tmp_path: Path) -> None:
    work = made(tmp_path, "other/y.csv")
    (work / "runs").mkdir()
    (work / "runs/last").symlink_to("../other")
    found = collected(work, ["runs/*/y.csv"])
    assert not found.problem
    assert "'runs/last' is a link to the folder 'other', and nothing in it" in notes(work)


def test_a_file_with_the_name_of_a_log_is_named(tmp_path: Path) -> None:
    work = made(tmp_path, "stdout", "x")
    found = collected(work, ["**"])
    assert paths(found) == ["x"]
    assert "'stdout' has the name under which the job's log is archived" in found.problem


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_r2_a_log_or_a_folder_that_the_job_has_replaced_is_named(tmp_path: Path, kind: str) -> None:
    work = made(tmp_path)
    for path in (tmp_path / "stdout", work):
        match kind:
            case "link":
                path.symlink_to("/etc/passwd")
            case "fifo":
                os.mkfifo(path)
            case _:
                path.mkdir()
    found = collected(work, ["**"])
    assert found.artifacts == ()
    assert "stdout' (the job's log) cannot be read: it is a" in found.problem
    assert ("'.' is the job's folder no more" in found.problem) == (kind != "folder")


def test_r2_a_tree_deeper_than_any_path_is_long_is_gone_through(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x")
    deep_folder(work / "results", "d", 1_200, "lost")
    try:
        found = collected(work, ["results/**"])
    finally:
        done_at_once(remove_tree(work))  # pytest itself cannot
    assert paths(found) == ["results/x"]
    assert "one result is not archived: 'results/d/d/" in found.problem


def test_k5_the_walk_agrees_with_a_reference(tmp_path: Path) -> None:
    """Every file of a tree is archived or not as `fnmatch` says of its names, one at a time."""
    names = ["a", "b.csv", "ab"]
    tree = [f"{x}{i}/{y}{i}/{z}" for x in names for y in names for z in names for i in range(3)]
    work = made(tmp_path, *tree)
    for pattern in ("*/*/*", "a?/*/*.csv", "*0/ab*/a", "a0", "*1/*2", "*1/*1/?"):
        parts = pattern.split("/")
        expected = [
            name
            for name in sorted(tree)
            if all(map(fnmatchcase, name.split("/")[: len(parts)], parts))
        ]
        assert paths(collected(work, [pattern])) == expected


def test_t7_a_pattern_with_many_stars_takes_no_time(tmp_path: Path) -> None:
    work = made(tmp_path, f"results/{'a' * 250}")
    begin = time.perf_counter()
    assert not collected(work, ["results/*a*a*a*a*a*a*a*a*b"]).artifacts
    assert time.perf_counter() - begin < 5


def test_x7_what_a_program_wrote_beside_its_results_is_named(tmp_path: Path) -> None:
    work = made(tmp_path, "main.py", "results/x", "out.csv", "frames/1.png", "__pycache__/m.pyc")
    (work / "link").symlink_to("main.py")
    found = done_at_once(collect(work, ["results/**"], tmp_path, REF, {"main.py", "results"}))
    assert (paths(found), found.problem) == (["results/x", "stderr"], "")
    said = notes(work)
    assert said.startswith("shoal: not archived, since no pattern of `archive` leads there: ")
    assert all(name in said for name in ("'out.csv'", "'frames/'"))
    assert not any(name in said for name in ("main.py", "link", "pycache"))
    (tmp_path / "stderr").write_text("")
    collected(work, ["results/**"])
    assert notes(work) == "", "an agent that did not start the program does not know"


def test_k5_results_that_nothing_archives_are_named(tmp_path: Path) -> None:
    work = made(tmp_path, "results/kept", "out/a.csv")
    found = done_at_once(
        collect(work, ["out/*.csv", "absent.csv", "gone*"], tmp_path, REF, {"results", "out"})
    )
    assert (paths(found), found.problem) == (["out/a.csv", "stderr"], "")
    assert notes(work) == (
        "shoal: 'absent.csv' of `archive` is not there\n"
        "shoal: not archived, since no pattern of `archive` leads there: 'results/'; "
        "write to results/, or add what to keep to `archive`\n"
    )


def test_k5_results_that_became_something_else_fail_the_attempt(tmp_path: Path) -> None:
    work = made(tmp_path, "other/z")
    (work / "results").write_text("important")
    assert "'results' is no folder any more" in collected(work, ["results/**"]).problem
    (work / "results").unlink()
    (work / "results").symlink_to("other")
    assert "'results' is a link to the folder 'other'" in collected(work, ["results/**"]).problem

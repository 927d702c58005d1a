"""Which files are archived."""

import hashlib
import os
from pathlib import Path

import pytest

from edge_agent.uploads.collect import CollectError, collect, locate


def made(folder: Path, *names: str) -> Path:
    work = folder / "work"
    for name in names:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return work


NAMES = ("a.txt", "b.csv", "results/x", "results/d/y.csv", "results/d/e/z", "other/x", "x[1]")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["results/**"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["results"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["results/*"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["*.txt", "**/*.csv"], ["a.txt", "b.csv", "results/d/y.csv"]),
        (["**/x"], ["other/x", "results/x"]),
        (["results/?"], ["results/d/e/z", "results/d/y.csv", "results/x"]),
        (["[ab].*"], ["a.txt", "b.csv"]),
        (["[!a].*"], ["b.csv"]),
        (["x[[]1]"], ["x[1]"]),
        (["**"], sorted(NAMES)),
        (["nothing"], []),
        ([], []),
        (["a(txt", "a+"], []),
    ],
)
def test_patterns(tmp_path: Path, patterns: list[str], expected: list[str]) -> None:
    work = made(tmp_path, *NAMES)
    assert [artifact.path for artifact in collect(work, patterns, tmp_path)] == expected


def test_sizes_and_hashes_and_logs(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x")
    (tmp_path / "stdout").write_text("hello")
    (tmp_path / "stderr").write_text("")
    found = collect(work, ["results/**"], tmp_path)
    assert [(artifact.path, artifact.size_bytes) for artifact in found] == [
        ("results/x", 9),
        ("stdout", 5),
    ]
    assert found[1].sha256 == hashlib.sha256(b"hello").hexdigest()
    assert locate(work, tmp_path, found[0]) == work / "results/x"
    assert locate(work, tmp_path, found[1]) == tmp_path / "stdout"


def test_links_stay_inside_and_pipes_are_left_alone(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x", "deep/y")
    (work / "results/in").symlink_to("x")
    (work / "results/out").symlink_to("/etc/hostname")
    (work / "results/none").symlink_to("nothing")
    (work / "results/folder").symlink_to("../deep")
    os.mkfifo(work / "results/pipe")
    paths = [artifact.path for artifact in collect(work, ["results/**"], tmp_path)]
    assert paths == ["results/in", "results/x"]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    work = made(tmp_path, "results/x")
    (work / "results" / os.fsdecode(b"\xff")).write_text("x")
    with pytest.raises(CollectError, match="UTF-8"):
        collect(work, ["results/**"], tmp_path)


def test_a_file_with_the_name_of_a_log_is_refused(tmp_path: Path) -> None:
    work = made(tmp_path, "stdout")
    with pytest.raises(CollectError, match="'stdout'"):
        collect(work, ["**"], tmp_path)

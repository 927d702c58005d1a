"""The examples do what their README says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uv

from shoal.job import AUTO, testing
from tests.integration.jobsdk.one_by_one import EXAMPLES, run_example

SUMS = [225, 2800, 11375, 29700, 61525]


def test_the_sums_of_cubes_are_right_from_the_first(tmp_path: Path) -> None:
    run = run_example("fission_sums", tmp_path)
    assert [AUTO.decode(memoryview(one)) for one in run.records["product.products"]] == [
        k**3 for k in range(1, 26)
    ]
    text = "".join(f"{one}\n" for one in SUMS)
    assert run.results["sums"].stdout == text
    assert (run.results["sums"].results / "sums.txt").read_text() == text


def test_the_last_sum_may_have_fewer_numbers(tmp_path: Path) -> None:
    run = run_example("fission_sums", tmp_path, variables={"COUNT": "12"})
    assert run.results["sums"].stdout.split() == ["225", "2800", str(11**3 + 12**3)]


@pytest.mark.parametrize("compiler", [True, False], ids=["C", "Python"])
def test_a_program_that_knows_files_alone_squares_numbers(
    tmp_path: Path, *, compiler: bool
) -> None:
    """Case F6: `-i PATH -o PATH`, in C or, without a compiler, in Python."""
    home = tmp_path / "square"
    shutil.copytree(EXAMPLES / "fission_fifo", home)
    result = testing.run_program(
        ["sh", "square.sh", "-i", "{inputs.numbers.path}", "-o", "{outputs.squares.path}"],
        {"numbers": range(1000)},
        ["squares"],
        formats={"numbers": "u32", "squares": "u32"},
        fifo=["numbers", "squares"],
        environment={} if compiler else {"PATH": str(_without_a_compiler(tmp_path / "bin"))},
        folder=home,
    )
    assert result.outputs["squares"] == [number * number for number in range(1000)]
    assert (home / "square").exists() is compiler


def _without_a_compiler(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, path in (("sh", "/bin/sh"), ("python", sys.executable)):
        (folder / name).symlink_to(path)
    return folder


def test_plain_programs_count_words(tmp_path: Path) -> None:
    run = run_example("words", tmp_path)
    counted = [line.split() for line in run.results["count"].stdout.splitlines()]
    assert counted == [["9", "the"], ["4", "tide"], ["3", "shoal"], ["3", "turned"], ["3", "was"]]
    assert (run.results["count"].results / "top.txt").is_file()
    assert len(run.records["split.words"]) == 59


@pytest.fixture(scope="session")
def environment_of_people_counter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that the example's recipe was installed into."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin" / "python"
    requirements = EXAMPLES / "people_counter" / "requirements.txt"
    for command in (
        ["venv", "--quiet", str(folder), "--clear"],
        ["pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)],
    ):
        subprocess.run([uv.find_uv_bin(), *command], check=True, timeout=500, env=dict(os.environ))
    return str(python)


@pytest.mark.timeout(600)  # installs OpenCV
def test_people_are_counted_in_the_order_of_the_video(
    environment_of_people_counter: str, tmp_path: Path
) -> None:
    run = run_example(
        "people_counter", tmp_path, python=environment_of_people_counter, most_records=4
    )
    results = run.results["counter"].results
    header, *lines = (results / "people.csv").read_text().splitlines()
    assert header == "frame,seconds,people,boxes"
    assert [line.split(",")[:2] for line in lines] == [
        ["0", "0.00"],
        ["1", "0.10"],
        ["2", "0.20"],
        ["3", "0.30"],
    ]
    assert all(1 <= int(line.split(",")[2]) <= 6 for line in lines)
    assert (results / "contact_sheet.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert "4 frames" in run.results["counter"].stdout
    assert run.results["camera"].progress[-1] == "frame 100 of 100"

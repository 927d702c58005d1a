"""Folders of simulations: what is replaced, and what is left alone."""

from pathlib import Path

import pytest

from compose.simulate import anywhere, jobs_of, without_output
from compose.simulate_output import MARK, OutputFolder, OutputTakenError
from shoal import spec
from shoal.bundle import file_names, scan
from shoal.specfile.load import load


def test_a_folder_of_an_earlier_simulation_is_replaced(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "a" / "simulated")
    folder.clear()
    (folder.path / "job").mkdir()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == [MARK]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    OutputFolder(tmp_path / "out").clear()
    assert (tmp_path / "out" / MARK).is_file()


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_text("mine")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "folder", "link", "dangling"):
        with pytest.raises(OutputTakenError, match="--out"):
            OutputFolder(tmp_path / name).clear()
    assert (tmp_path / "folder" / "thesis").read_text() == "mine"
    with pytest.raises(OutputTakenError, match="--out"):
        OutputFolder(tmp_path / "file" / "below").clear()


def test_files_of_simulations_are_no_part_of_the_next_bundle(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("{name: p, bundle: ., jobs: {job: {run: 'true'}}}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    found = load(tmp_path / "p.yaml")
    inside = without_output(found, tmp_path / "out").bundle
    assert inside is not None
    assert set(file_names(scan(inside))) == {"p.yaml"}
    assert without_output(found, tmp_path.parent / "elsewhere") == found


def test_what_only_real_boards_have_is_not_asked_for() -> None:
    job = spec.Job(
        "camera",
        ("a",),
        replicas=2,
        place=spec.Place({"role": "camera"}, ("node-1",)),
        resources=spec.Resources(0.5, 10**12, ("video",)),
    )
    pipeline = anywhere(spec.Pipeline("p", (job,)))
    [changed] = pipeline.jobs
    assert changed.resources == spec.Resources(0.5)
    assert changed.place == spec.Place({}, ("node-1",))
    assert len(jobs_of(pipeline)) == 2

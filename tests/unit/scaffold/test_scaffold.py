"""The files of a new pipeline, and the names that it may have."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shoal import names
from shoal.bundle import file_names, scan
from shoal.cli.main import cli
from shoal.scaffold import ScaffoldNameError, scaffold
from shoal.specfile.load import load


def _new(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["new", *words])
    return result.exit_code, result.output


def test_a_new_folder_holds_a_valid_specification_named_after_it(tmp_path: Path) -> None:
    """Case F1."""
    folder = tmp_path / "projects" / "hello"
    assert _new(str(folder))[0] == 0
    found = load(folder / "pipeline.yaml")
    assert found.pipeline.name == "hello"
    assert {path.name for path in folder.iterdir()} == set(scaffold("hello"))


def test_tests_and_readme_stay_at_home(tmp_path: Path) -> None:
    _new(str(tmp_path / "hello"))
    bundle = load(tmp_path / "hello" / "pipeline.yaml").bundle
    assert bundle is not None
    assert set(file_names(scan(bundle))) == {
        "numbers_source.py",
        "pipeline.yaml",
        "square.py",
        "table.py",
    }


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    assert _new(str(tmp_path / "hello"))[0] == 0


def test_nothing_is_overwritten_and_the_error_names_what_exists(tmp_path: Path) -> None:
    """Case F1."""
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "square.py").write_text("mine")
    (folder / "table.py").symlink_to("nowhere")
    status, said = _new(str(folder))
    assert status == 1
    assert "square.py, table.py" in said
    assert (folder / "square.py").read_text() == "mine"
    assert not (folder / "pipeline.yaml").exists()


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    _new(str(folder))
    (folder / "README.md").write_text("mine")
    assert _new(str(folder))[0] == 1
    assert (folder / "README.md").read_text() == "mine"


def test_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("mine")
    status, said = _new(str(tmp_path / "hello"))
    assert status == 1
    assert "no folder" in said


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("People Counter", "'people-counter'"),
        ("7zip", "'zip'"),
        ("a_b", "'a-b'"),
        ("42", "such as"),
    ],
)
def test_a_name_that_no_pipeline_can_have_is_refused_with_a_better_one(
    tmp_path: Path, name: str, better: str
) -> None:
    status, said = _new(str(tmp_path / name))
    assert status == 2
    assert better in said
    assert not (tmp_path / name).exists()


@given(st.text(max_size=80))
def test_any_name_is_taken_or_refused(name: str) -> None:
    if names.ID_PATTERN.fullmatch(name):
        assert f"name: {name}\n" in scaffold(name)["pipeline.yaml"]
    else:
        with pytest.raises(ScaffoldNameError, match=";"):
            scaffold(name)

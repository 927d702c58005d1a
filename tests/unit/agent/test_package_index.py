"""What pip was told, uv is told too."""

from pathlib import Path

from edge_agent.environments.package_index import installer_environ, pip_files


def test_files_and_variables_are_translated_and_variables_win(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = http://a/simple\nfind-links = {tmp_path} http://w\n"
        "[install]\ntrusted_host = a b\n"
    )
    environ = {"PIP_INDEX_URL": "http://b/simple", "HOME": "/h"}
    result = installer_environ(environ, [tmp_path / "pip.conf"])
    assert result == {
        **environ,
        "UV_DEFAULT_INDEX": "http://b/simple",
        "UV_FIND_LINKS": f"{tmp_path},http://w",
        "UV_INSECURE_HOST": "a b",
    }


def test_folders_that_are_not_there_are_passed_over_as_pip_does(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    environ = {"PIP_FIND_LINKS": f"{absent} file://{tmp_path} file://{absent}"}
    assert installer_environ(environ, [])["UV_FIND_LINKS"] == f"file://{tmp_path}"
    assert "UV_FIND_LINKS" not in installer_environ({"PIP_FIND_LINKS": str(absent)}, [])


def test_what_uv_was_told_itself_stays() -> None:
    environ = {"PIP_INDEX_URL": "http://a", "UV_INDEX_URL": "http://mine", "PIP_CERT": "/c"}
    result = installer_environ(environ, [])
    assert "UV_DEFAULT_INDEX" not in result
    assert result["SSL_CERT_FILE"] == "/c"


def test_several_indexes_are_searched_as_pip_does() -> None:
    result = installer_environ({"PIP_EXTRA_INDEX_URL": "http://a  http://b"}, [])
    assert result["UV_INDEX"] == "http://a http://b"
    assert result["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_bytes(b"\xff[")
    assert installer_environ({}, [tmp_path / "bad.conf", tmp_path / "absent"]) == {}


def test_the_files_of_pip_in_its_order() -> None:
    files = pip_files({"HOME": "/h", "PIP_CONFIG_FILE": "/own.conf"}, Path("/venv"))
    assert files[-1] == Path("/own.conf")
    assert Path("/venv/pip.conf") in files
    assert Path("/h/.config/pip/pip.conf") in files
    assert pip_files({"PIP_CONFIG_FILE": "/dev/null"}, Path("/venv")) == ()

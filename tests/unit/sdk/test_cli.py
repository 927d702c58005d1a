"""The command teaches, refuses with remedies, and checks files without a controller."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner, Result

from shoal.cli import main
from shoal.cli.cluster_record import (
    ClusterRecord,
    ClusterRunsError,
    holding,
    running_clusters,
)
from shoal.cli.controller_option import DEFAULT_ADDRESS

GOOD = """\
name: demo
jobs:
  a: {run: x, outputs: [o]}
  b: {run: y, inputs: {i: a.o}, replicas: 2}
"""
BAD = "name: Demo\njobs:\n  a: {run: x, outptus: [o]}\n"


def shoal(*words: str) -> Result:
    return CliRunner().invoke(main.cli, words)


def command_names() -> list[str]:
    return main.cli.list_commands(click.Context(main.cli))


def test_help_lists_every_command() -> None:
    said = shoal("--help").output
    for name in command_names():
        assert f"\n  {name}" in said
    assert "\n      shoal run pipeline.yaml\n" in said


def test_help_and_a_client_without_identity_do_not_wait_for_cryptography() -> None:
    for words in (("-m", "shoal.cli", "--help"), ("-c", "import shoal.client")):
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", *words],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert "import time:" in ended.stderr
        assert "cryptography" not in ended.stderr


@pytest.mark.parametrize(
    "name",
    [
        "artifacts", "authority", "cancel", "drain", "events", "explain", "get", "identities", "keys",
        "login", "logout", "logs", "members", "nodes", "run", "status", "submit", "token", "validate",
        "whoami",
    ],
)  # fmt: skip
def test_every_command_teaches_by_example(name: str) -> None:
    result = shoal(name, "--help")
    assert result.exit_code == 0
    assert f"\n      shoal {name}" in result.output


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("stauts",), 2, "there is no command 'stauts'; did you mean 'status'?"),
        (("run",), 2, "shoal run -- ls -l"),
        (("run", "--"), 2, "there is no command after --"),
        (("run", "--timeout", "soon", "--", "ls"), 2, "'soon' is not a duration"),
        (("run", "--memory", "big", "--", "ls"), 2, "'big' is not a size"),
        (("run", "--env", "KEY", "--", "ls"), 2, "'KEY' is not KEY=VALUE"),
        (("run", "--bundle", "/none", "--", "ls"), 2, "does not exist"),
        (("run", "--env", "SHOAL_JOB=x", "--", "ls"), 2, "are set by the system"),
        (("run", "--archive", "/etc/*", "--", "ls"), 2, "is an absolute path"),
        (("run", "--name", "Bad", "--", "ls"), 2, "'Bad' is not a valid id"),
        (("status", "--controller", "nowhere"), 1, "write HOST:PORT, as in 127.0.0.1:7470"),
        (("status", "--controller", "127.0.0.1:1"), 1, "no controller answers at 127.0.0.1:1"),
        (("explain", "p", "--controller", "127.0.0.1:1"), 1, "add the job, as in p/JOB"),
        (("logs", "A/b", "--controller", "127.0.0.1:1"), 1, "'A' is not a valid id"),
    ],
)
def test_a_mistake_is_met_with_a_remedy(words: tuple[str, ...], status: int, said: str) -> None:
    result = shoal(*words)
    assert said in result.output
    assert result.exit_code == status


def test_validate_says_that_a_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    result = shoal("validate", str(path))
    assert result.output == f"{path}: demo is valid: 3 jobs, 1 stream, no bundle\n"
    assert result.exit_code == 0
    document = json.loads(shoal("validate", "--json", str(path)).output)
    assert document["valid"] is True
    assert [job["name"] for job in document["pipeline"]["jobs"]] == ["a", "b"]


def test_validate_names_every_mistake_of_every_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(BAD)
    result = shoal("validate", str(bad), str(good), str(tmp_path / "gone.yaml"))
    assert result.exit_code == 2
    assert f"{bad}:1:7: name: pipeline 'Demo' is not a valid id" in result.stderr
    assert f"{bad}:3:15: jobs.a.outptus: there is no 'outptus' here; did you mean" in result.stderr
    assert "gone.yaml:1:1: there is no such file; known are bad.yaml, good.yaml" in result.stderr
    assert f"{good}: demo is valid" in result.stdout
    document = json.loads(shoal("validate", "--json", str(bad)).output)
    assert [finding["mark"]["line"] for finding in document["findings"]] == [1, 3]


def test_a_bad_file_is_not_sent(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD)
    for command in ("run", "submit"):
        result = shoal(command, str(bad), "--controller", "127.0.0.1:1")
        assert result.exit_code == 2
        assert "2 mistakes; nothing was submitted" in result.stderr


def test_options_of_a_command_do_not_go_with_a_file(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    result = shoal("run", "--archive", "*.csv", str(good))
    assert result.exit_code == 2
    assert "--archive is for a command after --" in result.output
    assert "write `archive: [PATTERN]` under the job" in result.output


def test_the_controller_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert f"answers at {DEFAULT_ADDRESS}" in shoal("nodes").output
    with holding("one") as one:
        assert f"answers at {DEFAULT_ADDRESS}" in shoal("nodes").output  # it has not said anything
        one.write(ClusterRecord("one", os.getpid(), "/files", "127.0.0.1:2"))
        assert "answers at 127.0.0.1:2" in shoal("nodes").output
        monkeypatch.setenv("SHOAL_CONTROLLER", "127.0.0.1:3")
        assert "answers at 127.0.0.1:3" in shoal("nodes").output
        assert "answers at 127.0.0.1:4" in shoal("nodes", "--controller", "127.0.0.1:4").output
        assert "answers at 127.0.0.1:2" in shoal("nodes", "--cluster", "one").output
        monkeypatch.setenv("SHOAL_CLUSTER", "one")
        assert "SHOAL_CONTROLLER and SHOAL_CLUSTER both say" in shoal("nodes").output
        assert "answers at 127.0.0.1:4" in shoal("nodes", "--controller", "127.0.0.1:4").output


def test_u5_a_cluster_is_chosen_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with holding("one") as one, holding("two") as two:
        one.write(ClusterRecord("one", 0, "/files", "127.0.0.1:2"))
        two.write(ClusterRecord("two", 0, "/others", "127.0.0.1:3"))
        unsaid = shoal("nodes")
        assert unsaid.exit_code == 2
        assert "one (127.0.0.1:2, files in /files); two (127.0.0.1:3, files" in unsaid.output
        assert "Choose one with --cluster NAME, or with the variable SHOAL_CLUSTER" in unsaid.output
        assert "answers at 127.0.0.1:3" in shoal("nodes", "--cluster", "two").output
        both = shoal("nodes", "--cluster", "two", "--controller", "127.0.0.1:4")
        assert both.exit_code == 2
        assert "--controller and --cluster both say" in both.output
        assert "leave one out" in both.output
        monkeypatch.setenv("SHOAL_CLUSTER", "two")
        assert "answers at 127.0.0.1:3" in shoal("nodes").output
        assert "answers at 127.0.0.1:2" in shoal("nodes", "--cluster", "one").output
        unknown = shoal("nodes", "--cluster", "three")
        assert unknown.exit_code == 2
        assert "no cluster 'three' runs here; those that run: one, two" in unknown.output
        for words, said in (
            ((), "Name those that shall end, or give --all"),
            (("three",), "no cluster 'three' runs here; those that run: one, two"),
            (("one", "--all"), "not both"),
            (("--name", "three"), "no cluster 'three' runs here; those that run: one, two"),
        ):
            refused = shoal("down", *words)
            assert refused.exit_code == 2
            assert said in refused.output
    assert "no cluster of `shoal up` runs here" in shoal("down").output
    assert "start it with: shoal up --name two" in shoal("nodes").output


def test_u5_a_record_counts_for_as_long_as_its_writer_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "shoal/clusters/one.json"
    with holding("one") as held:
        held.write(ClusterRecord("one", 7, "/f", "127.0.0.1:2"))
        left = path.read_text()
        with pytest.raises(ClusterRunsError) as caught, holding("one"):
            pass
    assert caught.value.running == ClusterRecord("one", 7, "/f", "127.0.0.1:2")
    assert not path.exists()
    path.write_text(left)  # as after a kill
    assert running_clusters() == ()
    for broken in ("", "[]", '{"pid": "x"}', "{}", "nonsense"):
        with holding("one"):
            path.write_text(broken)
            [found] = running_clusters()
            assert (found.name, found.controller) == ("one", "")


def test_u5_the_cluster_of_a_command_of_a_group_is_named_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with holding("one") as one, holding("two") as two:
        one.write(ClusterRecord("one", 7, "/f", "127.0.0.1:2"))
        two.write(ClusterRecord("two", 8, "/g", "127.0.0.1:3"))
        assert "2 clusters" in shoal("nodes", "forget", "n").output
        assert "at 127.0.0.1:3" in shoal("nodes", "forget", "--cluster", "two", "n").output
        before = shoal("nodes", "--cluster", "two", "forget", "n")
    assert before.exit_code == 2
    assert "--cluster has no effect before 'forget'" in before.output


def test_a_plugin_that_does_not_load_says_so_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "broken-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[{main.PLUGIN_GROUP}]\nbroken = shoal.no_such_module:command\n"
    )
    cast("Any", monkeypatch).syspath_prepend(tmp_path)  # it has no types
    assert "broken" in shoal("--help").output
    result = shoal("broken")
    assert result.exit_code == 1
    assert "shoal.no_such_module:command cannot be loaded: ModuleNotFoundError" in result.output

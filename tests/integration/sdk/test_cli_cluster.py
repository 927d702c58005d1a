"""`shoal up` in one terminal, everything else in another: real controller, agents and programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

SHOAL = str(Path(sys.executable).parent / "shoal")
TWO_JOBS = """\
name: lines
jobs:
  source:
    run: [sh, -c, "seq 1 1000; echo done >&2"]
    outputs: {numbers: {format: lines, as: stdout}}
  sum:
    run: [sh, -c, "awk '{s += $1} END {print s}' | tee results/sum"]
    inputs: {numbers: {from: source.numbers, format: lines, as: stdin}}
"""

TWICE = """\
name: twice
jobs:
  speaker:
    run: [sh, -c, "echo I am $SHOAL_REPLICA"]
    replicas: 2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a user whose `shoal up` runs."""
    home = tmp_path_factory.mktemp("home")
    with (
        (home / "up.log").open("w") as log,
        subprocess.Popen(
            [SHOAL, "up", "--agents", "2", "--port", "0", "--mqtt", "none"],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as up,
    ):
        try:
            assert up.stdout is not None
            said = ""
            while "ready" not in said:
                line = up.stdout.readline()
                assert line, f"{said}\n{(home / 'up.log').read_text()}"
                said += line
            yield home
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(timeout=60)


def environment(home: Path) -> dict[str, str]:
    found = {key: value for key, value in os.environ.items() if key != "SHOAL_CONTROLLER"}
    return {**found, "XDG_STATE_HOME": str(home)}


def shoal(home: Path, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHOAL, *words],
        env=environment(home),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def latest(home: Path) -> str:
    return shoal(home, "status").stdout.splitlines()[1].split()[0]


def test_a_file_that_a_command_writes_ends_in_a_manifest(home: Path) -> None:
    ended = shoal(home, "run", "--", "sh", "-c", "echo hello > results/x")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    # sha256 of "hello\n"
    digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert f"sh   results/x      6  {digest}" in ended.stderr
    name = latest(home)
    fetched = shoal(home, "get", name, "results/*", "-o", str(home / "got"))
    assert fetched.returncode == 0, fetched.stderr
    assert (home / "got/sh/results/x").read_text() == "hello\n"


def test_a_command_counts_the_lines_of_a_file(home: Path) -> None:
    (home / "README.md").write_text("line\n" * 321)
    ended = shoal(home, "run", "--stdin", "README.md", "--", "wc", "-l")
    assert ended.stdout.strip() == "321", ended.stderr
    piped = shoal(home, "run", "--stdin", "-", "--", "tr", "a-z", "A-Z", stdin="through\n")
    assert piped.stdout == "THROUGH\n"


def test_a_bundle_is_where_the_command_runs(home: Path) -> None:
    project = home / "project"
    (project / "deep").mkdir(parents=True)
    (project / "deep/data.txt").write_text("from the bundle")
    (project / "main.py").write_text(
        "import os, pathlib\nprint(pathlib.Path('deep/data.txt').read_text(), os.environ['WHO'])\n"
    )
    ended = shoal(home, "run", "--bundle", "project", "--env", "WHO=me", "--", "python", "main.py")
    assert ended.stdout == "from the bundle me\n", ended.stderr


def test_a_failing_command_fails_us_with_its_reason(home: Path) -> None:
    ended = shoal(home, "run", "--", "sh", "-c", "echo out; echo trouble >&2; exit 3")
    assert ended.returncode == 1
    assert ended.stdout == "out\n"
    assert "failed: EXIT 3: sh ended with exit status 3\n" in ended.stderr
    assert ended.stderr.count("trouble") == 1


ODD_NAMES = (
    "a\nb.txt",
    "tab\there",
    "x" * 250,
    "y" * 255,
    "run[2024-01-15].csv",
    "\x1b[2J",
    "ü%0A",
)


def test_k5_k6_k8_results_of_any_name_are_archived_and_fetched(home: Path) -> None:
    make = f"[open('results/' + name, 'w').write(name) for name in {ODD_NAMES!r}]"
    ended = shoal(home, "run", "--name", "odd", "--", "python", "-c", make)
    assert ended.returncode == 0, ended.stderr
    assert "results/a\\nb.txt" in ended.stderr
    assert "\x1b[2J" not in ended.stderr
    fetched = shoal(home, "get", latest(home), "-o", str(home / "odd"))
    assert fetched.returncode == 0, fetched.stderr
    assert "odd/results/tab\\there" in fetched.stdout
    found = {path.name: path.read_text() for path in (home / "odd/odd/results").iterdir()}
    assert found == {name: name for name in ODD_NAMES}
    one = shoal(home, "get", latest(home), "*/run[2024-01-15].csv", "-o", str(home / "one"))
    assert one.stdout.count("\n") == 1, one.stderr


def test_k5_a_pattern_with_a_bracket_that_is_no_class(home: Path) -> None:
    script = "echo 1 > 'run[2024-01-15].csv'; echo 2 > run2.csv"
    ended = shoal(home, "run", "--archive", "run[2024-01-15].csv", "--", "sh", "-c", script)
    assert ended.returncode == 0, ended.stderr
    assert "leads there: 'run2.csv'" in ended.stderr
    archived = shoal(home, "artifacts", latest(home)).stdout
    assert "run[2024-01-15].csv" in archived
    assert "run2.csv" not in archived


def test_k6_what_cannot_be_archived_is_named_and_the_rest_can_be_fetched(home: Path) -> None:
    script = "import os; open(b'results/\\xff', 'w'); open('results/kept', 'w').write('kept')"
    ended = shoal(home, "run", "--name", "partly", "--", "python", "-c", script)
    assert ended.returncode == 1
    assert "failed: ARCHIVE" in ended.stderr
    assert "'results/\\xff' cannot be archived" in ended.stderr
    assert "results/kept" in ended.stderr
    fetched = shoal(home, "get", latest(home), "-o", str(home / "partly"))
    assert fetched.returncode == 0, fetched.stderr
    assert (home / "partly/partly/results/kept").read_text() == "kept"


def test_k13_everything_that_a_command_prints_is_printed(home: Path) -> None:
    """More than the controller keeps of either output."""
    size = 40_000_000
    script = f"yes 0123456789 | head -c {size}; yes e | head -c {size // 2} >&2"
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        words = [SHOAL, "run", "--name", "loud", "--", "sh", "-c", script]
        ended = subprocess.run(
            words, env=environment(home), stdout=out, stderr=err, timeout=100, check=False
        )
    assert ended.returncode == 0
    expected = (b"0123456789\n" * (size // 11 + 1))[:size]
    assert (home / "out").read_bytes() == expected
    assert (home / "err").read_bytes().count(b"e\n") >= size // 4
    name = latest(home)
    with (home / "out").open("wb") as out:
        subprocess.run(
            [SHOAL, "logs", name],
            env=environment(home), stdout=out, stderr=subprocess.DEVNULL, timeout=100, check=True,
        )  # fmt: skip
    assert (home / "out").read_bytes() == expected
    last = shoal(home, "logs", "--tail", "2", name).stdout.encode()
    assert last == b"0123456789\n" + expected.rpartition(b"\n")[2]


def test_k13_everything_that_a_job_printed_before_it_failed_is_printed(home: Path) -> None:
    """More than the controller keeps; the rest comes from the archive, after the end."""
    script = "yes 0123456789 | head -c 20000000; exit 3"
    ended = shoal(home, "run", "--name", "lost", "--", "sh", "-c", script)
    assert ended.returncode == 1
    assert len(ended.stdout) == 20_000_000
    assert "are printed" not in ended.stderr
    again = shoal(home, "logs", latest(home))
    assert again.returncode == 0
    assert again.stdout == ended.stdout


def test_a_command_that_takes_too_long_is_ended(home: Path) -> None:
    ended = shoal(home, "run", "--timeout", "1s", "--", "sleep", "1000")
    assert ended.returncode == 1
    assert "failed: TIMEOUT" in ended.stderr


def test_a_pipeline_streams_between_jobs(home: Path, tmp_path: Path) -> None:
    spec = tmp_path / "lines.yaml"
    spec.write_text(TWO_JOBS)
    assert "2 jobs, 1 stream," in shoal(home, "validate", str(spec)).stdout
    ended = shoal(home, "run", str(spec))
    assert ended.returncode == 0, ended.stderr
    assert "sum     results/sum" in ended.stdout
    name = latest(home)
    assert shoal(home, "logs", name).stdout == "sum | 500500\n"
    assert shoal(home, "logs", f"{name}/source").stderr == "done\n"
    shown = shoal(home, "status", name).stdout
    assert f"default/pipelines/{name}/succeeded" in shown
    assert f"{name}/succeeded" in shoal(home, "events", name).stdout
    cancelled = shoal(home, "cancel", name).stdout
    assert cancelled == f"pipelines/{name} succeeded before, so nothing is cancelled\n"


def test_a_job_that_fits_nowhere_is_explained(home: Path) -> None:
    name = shoal(home, "run", "-d", "--cpus", "1000", "--", "true").stdout.strip()
    name = name.removeprefix("pipelines/")
    explained = shoal(home, "explain", f"{name}/true").stdout
    assert "node-1" in explained
    assert "1000 cpus" in explained
    ended = shoal(home, "cancel", "--wait", "--reason", "no such node", name)
    assert ended.stdout == f"pipelines/{name} cancelled\n"
    assert "no such node" in shoal(home, "status", name).stdout


def test_nodes_and_members_are_listed(home: Path) -> None:
    nodes = shoal(home, "nodes").stdout
    assert "node-1  ready" in nodes
    assert "node-2  ready" in nodes
    members = shoal(home, "members").stdout
    assert "role=controller" in members
    assert members.count("role=agent") == 2


def test_a_drained_node_gets_nothing(home: Path) -> None:
    shoal(home, "drain", "node-1")
    assert "node-1  drained" in shoal(home, "nodes").stdout
    ended = shoal(home, "run", "--", "true")
    assert "on node-2" in ended.stderr
    assert shoal(home, "drain", "--undo", "node-1").stdout == "node-1 is in use again\n"


def test_errors_of_the_controller_are_one_sentence(home: Path) -> None:
    for words in (("status", "nothing"), ("logs", "nothing"), ("get", "nothing"), ("cancel", "no")):
        ended = shoal(home, *words)
        assert ended.returncode == 1
        assert ended.stderr.startswith("Error: ")
        assert len(ended.stderr.splitlines()) == 1


def test_a_second_cluster_in_the_same_folder_is_refused_and_the_first_goes_on(home: Path) -> None:
    state = str(home / "shoal/up")
    second = shoal(home, "up", "--port", "0", "--mqtt", "none", "--name", "b", "--state", state)
    assert second.returncode == 2
    assert "a cluster runs already" in second.stderr
    assert "--state" in second.stderr
    ended = shoal(home, "run", "--", "true")
    assert ended.returncode == 0, ended.stderr


def test_the_logs_of_all_attempts_of_all_pipelines_are_collected(home: Path) -> None:
    """Case F18: what failed attempts printed, too, and more than the controller keeps."""
    flaky = (
        "{name: flaky, jobs: {bad: {run: [sh, -c, 'echo try $SHOAL_ATTEMPT; exit 3'], retry: 2}}}"
    )
    (home / "flaky.yaml").write_text(flaky)
    assert shoal(home, "run", "flaky.yaml").returncode == 1
    bad = latest(home)
    long = "{name: long, jobs: {long: {run: [sh, -c, 'yes | head -c 20000000']}}}"
    (home / "long.yaml").write_text(long)
    assert shoal(home, "run", "--no-logs", "long.yaml").returncode == 0
    kept = latest(home)
    assert shoal(home, "logs", "--attempt", "2", bad).stdout == "try 2\n"
    said = shoal(home, "logs", "--all", "--tail", "10").stdout
    assert f"{bad}/bad | try 1\n{bad}/bad#2 | try 2\n" in said
    both = shoal(home, "logs", bad)
    assert (both.stdout, both.stderr) == ("try 1\ntry 2\n", "--- attempt 2 of bad ---\n")
    assert shoal(home, "logs", "--tail", "2", kept).stdout == "y\ny\n"
    assert shoal(home, "logs", "--all", "--save", "collected").returncode == 0
    saved = shoal(home, "logs", "--all", "--save", "collected")
    assert saved.returncode == 0, saved.stderr  # what is there already is replaced
    folder = home / "collected"
    assert (folder / bad / "bad/1/stdout").read_text() == "try 1\n"
    assert (folder / bad / "bad/2/stdout").read_text() == "try 2\n"
    assert (folder / kept / "long/1/stdout").stat().st_size == 20_000_000
    assert saved.stdout.splitlines() == sorted(
        str(path.relative_to(home)) for path in folder.rglob("std*")
    )
    (home / "taken").write_text("a file")
    refused = shoal(home, "logs", bad, "--save", "taken/here")
    assert refused.returncode == 1
    assert "choose another folder with --save" in refused.stderr


def test_logs_have_times_and_can_be_had_from_a_moment_on(home: Path) -> None:
    slow = "printf 'one\ntw'; sleep 0.5; echo o; sleep 1; echo three"
    assert shoal(home, "run", "--name", "slow", "--", "sh", "-c", slow).returncode == 0
    lines = shoal(home, "logs", "--timestamps", "slow").stdout.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["one", "two", "three"]
    one, two, three = (datetime.fromisoformat(line.split()[0]) for line in lines)
    assert one <= two < three
    assert 1.3 < (three - two).total_seconds() < 15
    assert timedelta(0) < datetime.now(UTC) - three < timedelta(minutes=5)
    for moment, wanted in ((one, "one\ntwo\nthree\n"), (three, "three\n")):
        assert shoal(home, "logs", "--since", moment.isoformat(), "slow").stdout == wanted
    assert shoal(home, "logs", "--since", "1h", "--tail", "2", "slow").stdout == "two\nthree\n"
    assert shoal(home, "logs", "--since", "1ms", "slow").stdout == ""


def test_b2_what_commands_keep_says_so_where_it_cannot_be_written(home: Path) -> None:
    (home / "a-file").write_text("a file")
    (home / "copied.yaml").write_text(TWO_JOBS)
    sent = shoal(home, "submit", "copied.yaml", "--save", "a-file/here")
    assert sent.returncode == 1
    assert "was submitted, and cannot be saved: a-file" in sent.stderr
    assert "choose another folder with --save" in sent.stderr
    name = shoal(home, "submit", "copied.yaml").stdout.strip().removeprefix("pipelines/")
    copied = shoal(home, "record", name, "source.numbers", "-o", "a-file/copy")
    assert copied.returncode == 1
    assert "a-file/copy.part cannot be written: " in copied.stderr
    assert "name a file that this user may write" in copied.stderr
    assert "Traceback" not in sent.stderr + copied.stderr


@pytest.mark.parametrize("words", ["", "--all p", "--all -f", "p --save x --tail 1"])
def test_what_logs_cannot_do_is_refused_with_what_can(home: Path, words: str) -> None:
    assert shoal(home, "logs", *words.split()).returncode == 2


def test_the_name_of_a_spec_gives_the_logs_and_files_of_all_its_replicas(home: Path) -> None:
    (home / "twice.yaml").write_text(TWICE)
    assert shoal(home, "run", "twice.yaml").returncode == 0
    name = latest(home)
    said = shoal(home, "logs", f"{name}/speaker")
    assert sorted(said.stdout.splitlines()) == ["speaker-0 | I am 0", "speaker-1 | I am 1"]
    fetched = shoal(home, "get", f"{name}/speaker", "stdout", "-o", "fetched")
    assert (home / "fetched" / "speaker-1" / "stdout").read_text() == "I am 1\n", fetched.stderr


def test_a_pipeline_runs_with_the_values_that_it_was_given(home: Path) -> None:
    (home / "greet.yaml").write_text(
        "name: greet\n"
        "parameters: {who: {}, times: {type: integer, default: 1}}\n"
        "jobs:\n"
        "  a:\n"
        "    run: [sh, -c, 'for n in $(seq ${{ parameters.times }}); do echo \"$1 $WHO\"; done', sh,\n"
        '          "${{ parameters.who }}"]\n'
        '    variables: {WHO: "${{ parameters.who }}"}\n'
    )
    (home / "greet.toml").write_text("times = 2\n")
    who = 'x\'; echo "$(id)"; `id` \\'
    ended = shoal(home, "run", "--values", "greet.toml", "--set", f"who={who}", "greet.yaml")
    assert ended.stdout == f"{who} {who}\n" * 2, ended.stderr
    assert ended.returncode == 0
    name = latest(home)
    shown = shoal(home, "status", name).stdout.splitlines()
    assert shown[1:3] == [f"with who={who!r}", "with times=2"]
    document = json.loads(shoal(home, "status", "--json", name).stdout)
    assert document["spec"]["parameters"] == {"who": who, "times": 2}


def test_other_values_are_another_submission(home: Path) -> None:
    (home / "idle.yaml").write_text(
        "name: idle\nparameters: {n: {type: integer, default: 1}}\n"
        "jobs: {a: {run: 'true ${{ parameters.n }}', resources: {cpus: 0.1}}}\n"
    )
    first = shoal(home, "submit", "idle.yaml")
    again = shoal(home, "submit", "--set", "n=1", "idle.yaml")
    other = shoal(home, "submit", "--set", "n=2", "idle.yaml")
    assert first.stdout == again.stdout
    assert "was submitted before and is the same" in again.stderr
    assert other.stdout not in {"", first.stdout}

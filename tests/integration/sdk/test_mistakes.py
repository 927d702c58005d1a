"""The table of mistakes: every answer of the real command names the thing, the value and the remedy.

The commands run in this process, against a cluster of `shoal up` that all rows share. No row changes it.
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shoal.cli.main import cli
from tests.integration.sdk.mistakes import compat, identities, parameters
from tests.integration.sdk.mistakes.machines import ALL as OF_MACHINES
from tests.integration.sdk.mistakes.mistake import Mistake, SpecMistake
from tests.integration.sdk.mistakes.options import OPTIONS
from tests.integration.sdk.mistakes.pipelines import PIPELINES
from tests.integration.sdk.mistakes.specification import SPECIFICATIONS

ROWS = (*OPTIONS, *parameters.OPTIONS, *PIPELINES, *OF_MACHINES, *identities.ALL)
SPECS = (*SPECIFICATIONS, *parameters.SPECIFICATIONS, *compat.SPECIFICATIONS)
FILES = {
    "good.yaml": "name: good\njobs:\n  a: {run: x, outputs: [o]}\n  b: {run: y, inputs: {i: a.o}}\n",
    "other.yaml": "name: other\njobs:\n  a: {run: x}\n",
    "bad.yaml": "name: bad\njobs:\n  a: {run: x, env: {A: b}}\n",
    "hand.yaml": "name: hand\njobs:\n  me: {local: true, outputs: [o]}\n  b: {run: y, inputs: {i: me.o}}\n",
    "local.yaml": "name: local\njobs:\n"
    "  me: {local: true, run: cat, outputs: {o: {format: lines, as: stdout}}}\n"
    "  b: {run: cat, inputs: {i: {from: me.o, format: lines, as: stdin}}}\n",
    "twin.yaml": "name: twin\njobs:\n  a: {run: x, place: {require: {moon: full}}}\n",
    "stuck.yaml": "name: stuck\njobs:\n"
    "  camera: {run: x, outputs: [frames], place: {require: {moon: full}}}\n"
    "  detector: {run: y, replicas: 2, inputs: {frames: camera.frames}}\n",
    "wide.yaml": "name: wide\njobs:\n  detector: {run: x, replicas: 2, outputs: [o]}\n"
    "  b: {run: y, inputs: {i: detector.o}}\n",
    "nothing.yaml": "",
    "main.py": "print(1)",
    "requirements.txt": "",
    "project/pipeline.yaml": "name: project\nbundle: .\njobs:\n  a: {run: sh tool.sh}\n",
    "project/tool.sh": "echo $LIMIT | tee results/limit",
    "several/a.yaml": "name: a\njobs: {a: {run: x}}\n",
    "several/b.yaml": "name: b\njobs: {a: {run: x}}\n",
    "empty/README": "",
    "taken/ended/results/x": "mine",
    "blocked/ended/results/x/y": "mine",
}


def shoal(*words: str) -> Result:
    return CliRunner().invoke(cli, words, prog_name="shoal")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with files of every kind, in which a cluster of one agent runs."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    log = folder / "up.log"
    with pytest.MonkeyPatch.context() as patch, log.open("w") as err:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state-home")))
        for name in ("SHOAL_CONTROLLER", "SHOAL_NAMESPACE", "SHOAL_IDENTITY", "SHOAL_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("COLUMNS", "200")
        patch.chdir(folder)
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "shoal.cli",
                "up",
                "--agents",
                "1",
                "--port",
                "0",
                "--mqtt",
                "none",
            ],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        ) as up:
            try:
                assert up.stdout is not None
                said = ""
                while "ready" not in said:
                    line = up.stdout.readline()
                    assert line, f"{said}\n{log.read_text()}"
                    said += line
                yield folder
            finally:
                up.send_signal(signal.SIGINT)
                up.wait(timeout=60)


@pytest.fixture(scope="module")
def pipelines(home: Path) -> Mapping[str, str]:
    """Ids of pipelines by what became of them."""
    assert home.is_dir()
    ended = shoal("run", "--name", "ended", "--", "sh", "-c", "echo hello | tee results/x")
    assert ended.exit_code == 0, ended.output
    failed = shoal("run", "--name", "failed", "--", "sh", "-c", "exit 3")
    assert failed.exit_code == 1, failed.output
    for name in ("stuck", "twin", "twin"):
        submitted = shoal("submit", "--force", f"{name}.yaml")
        assert submitted.exit_code == 0, submitted.output
    rows = shoal("status").stdout.splitlines()[1:]
    return {row.split("-")[0]: row.split()[0] for row in rows}


def filled(text: str, pipelines: Mapping[str, str]) -> str:
    """Put the ids of pipelines into their places."""
    for name, identity in pipelines.items():
        text = text.replace(f"{{{name}}}", identity)
    return text


def check(result: Result, status: int, parts: tuple[str, ...]) -> None:
    said = result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert "Traceback" not in said
    assert result.exit_code == status, said
    assert [part for part in parts if part not in said] == [], said
    assert all(len(part) for part in parts), "a row needs the thing, the value and the remedy"


def test_the_table_has_what_it_says() -> None:
    assert len(ROWS) + len(SPECS) >= 200
    assert len({row.words for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.words)
def test_a_mistake_is_answered_with_thing_value_and_remedy(
    row: Mistake, pipelines: Mapping[str, str]
) -> None:
    result = shoal(*shlex.split(filled(row.words, pipelines)))
    parts = tuple(filled(part, pipelines) for part in (row.thing, row.value, row.remedy))
    check(result, row.status, parts)


@pytest.mark.parametrize("row", SPECS, ids=lambda row: row.text)
def test_a_mistake_in_a_specification_has_a_place_and_a_remedy(
    row: SpecMistake, home: Path
) -> None:
    text = row.text if row.text.startswith("name:") else f"name: p\n{row.text}"
    (home / "spec.yaml").write_text(text)
    result = shoal("validate", "spec.yaml")
    check(result, 2, ("spec.yaml:", row.field or ":", row.value, row.remedy))
    places = [line for line in result.output.splitlines() if line.startswith("spec.yaml:")]
    assert all(place.split(":")[1].isdigit() and place.split(":")[2].isdigit() for place in places)


def test_u1_name_and_env_work_with_a_specification_and_a_folder_is_one(
    pipelines: Mapping[str, str], home: Path
) -> None:
    ended = shoal("run", "--name", "renamed", "--env", "LIMIT=20", "project")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == "20\n"
    latest = shoal("status", "latest").stdout.split()[0]
    assert latest.startswith("renamed-")
    assert shoal("status", "rena").stdout.split()[0] == latest
    assert shoal("logs", "latest/a").stdout == "20\n"
    assert "results/limit" in shoal("artifacts", "pipelines/rena").stdout


def test_what_is_the_same_is_not_fetched_again_and_what_was_changed_is_kept(
    pipelines: Mapping[str, str], home: Path
) -> None:
    assert shoal("get", "ended", "results/x", "-o", "got").exit_code == 0
    file = home / "got/ended/results/x"
    first = file.stat().st_ino
    assert shoal("get", "ended", "results/x", "-o", "got").exit_code == 0
    assert file.stat().st_ino == first
    file.write_text("mine")
    refused = shoal("get", "ended", "-o", "got")
    assert refused.exit_code == 1
    assert file.read_text() == "mine"
    assert not (home / "got/ended/stdout").exists(), "nothing is fetched beside it either"
    assert shoal("get", "ended", "results/x", "-o", "got", "--force").exit_code == 0
    assert file.read_text() == "hello\n"


def test_one_wrong_name_cancels_nothing(pipelines: Mapping[str, str]) -> None:
    assert shoal("cancel", pipelines["stuck"], "nonsense").exit_code == 1
    assert "queued" in shoal("status", pipelines["stuck"]).stdout

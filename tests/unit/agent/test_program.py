"""How a program is started: arguments, environment, descriptors."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_agent.attempt_folder import AttemptFolder, keeper_id, parse_keeper_id
from edge_agent.keeper.client import StartRequest
from edge_agent.keeper.launch import Port
from edge_agent.program import ProgramError, ProgramOutline
from shoal.names import AttemptRef
from shoal.secret import SecretForm, SecretUse
from shoal.session.assignment import Assignment
from shoal.spec import (
    Job,
    Output,
    PortAttachment,
    PortBinding,
    PortFormat,
    Recovery,
    StandIn,
    StreamInput,
)

REF = AttemptRef("default", "p", "work-1", 2, 7)


def attempt_in(folder: Path) -> AttemptFolder:
    attempt = AttemptFolder(folder / "attempt")
    attempt.work.mkdir(parents=True, exist_ok=True)
    return attempt


def outline(folder: Path, job: Job, **environ: str) -> ProgramOutline:
    return ProgramOutline(
        job,
        f"{folder}/environment",
        f"{folder}/sdk",
        {"PATH": "/usr/bin:/bin", "HOME": "/h", "SECRET": "s", **environ},
    )


def requested(folder: Path, job: Job, secrets: Mapping[str, bytes] | None = None) -> StartRequest:
    assignment = Assignment(REF, job, replica=1, replicas=2, secrets=secrets or {})
    return outline(folder, job).request(assignment, attempt_in(folder), secrets=folder / "memory")


def test_a_job_gets_its_variables_and_none_of_the_agents_own(tmp_path: Path) -> None:
    job = Job(
        "work",
        ("/bin/true",),
        variables={"MODE": "fast", "PATH": "/own", "PYTHONPATH": "/lib", "SHOAL_NAME": "forged"},
        recovery=Recovery.RESUME,
    )
    request = requested(tmp_path, job)
    env = dict(request.env)
    assert "SECRET" not in env
    assert env["HOME"] == "/h"
    assert env["MODE"] == "fast"
    assert env["PATH"] == f"{tmp_path}/environment/bin:/own"
    assert env["PYTHONPATH"] == f"{tmp_path}/sdk:/lib"
    assert env["SHOAL_NAME"] == "pipelines/p/jobs/work-1/attempts/2"
    assert (env["SHOAL_JOB"], env["SHOAL_REPLICA"], env["SHOAL_REPLICAS"]) == ("work", "1", "2")
    assert (env["SHOAL_ATTEMPT"], env["SHOAL_EPOCH"], env["SHOAL_RECOVERY"]) == ("2", "7", "resume")
    assert env["SHOAL_RESULTS"] == f"{tmp_path}/attempt/work/results"
    assert request.attempt == "default.p.work-1.7-2"


def test_ports_are_numbered_from_3_or_are_standard_input_and_output(tmp_path: Path) -> None:
    stdio = PortBinding(PortFormat.LINES, PortAttachment.STDIO)
    job = Job(
        "work",
        ("/bin/true",),
        streams=(
            StreamInput("text", "a", "out", stdio),
            StreamInput("frames", "b", "out", block_count=4),
        ),
        outputs=(
            Output("found", PortBinding(PortFormat.BYTES, record_bytes=8)),
            Output("said", stdio),
        ),
    )
    request = requested(tmp_path, job)
    assert list(request.ports) == [
        Port("text", "in", 0),
        Port("frames", "in", 3),
        Port("found", "out", 4),
        Port("said", "out", 1),
    ]
    assert json.loads(request.env["SHOAL_PORTS"]) == {
        "inputs": {
            "text": {"fd": 0, "format": "lines", "block_count": 1},
            "frames": {"fd": 3, "format": "blocks", "block_count": 4},
        },
        "outputs": {
            "found": {"fd": 4, "format": "bytes:8"},
            "said": {"fd": 1, "format": "lines"},
        },
    }


def test_fifos_have_a_path_in_the_attempts_folder_and_no_number(tmp_path: Path) -> None:
    """Case F6."""
    fifo = PortBinding(PortFormat.U32, PortAttachment.FIFO)
    job = Job(
        "work",
        ("/bin/true",),
        streams=(StreamInput("numbers", "a", "out", fifo), StreamInput("frames", "b", "out")),
        outputs=(Output("found", fifo),),
    )
    request = requested(tmp_path, job)
    numbers, found = (f"{tmp_path}/attempt/ports/{name}" for name in ("numbers", "found"))
    assert list(request.ports) == [
        Port("numbers", "in", path=numbers, record_bytes=4),
        Port("frames", "in", 3),
        Port("found", "out", path=found, record_bytes=4),
    ]
    ports = json.loads(request.env["SHOAL_PORTS"])
    assert ports["inputs"]["numbers"] == {"path": numbers, "format": "u32", "block_count": 1}
    assert ports["outputs"] == {"found": {"path": found, "format": "u32"}}


def test_a_job_is_told_what_stands_in_for_an_optional_input(tmp_path: Path) -> None:
    speed = StreamInput("speed", "a", "out", optional=StandIn("[0]", repeat=True, buffer=3))
    request = requested(tmp_path, Job("work", ("/bin/true",), streams=(speed,)))
    assert json.loads(request.env["SHOAL_PORTS"])["inputs"]["speed"]["optional"] == {
        "default": [0],
        "repeat": True,
        "buffer": 3,
        "drop": "oldest",
    }


def test_a_program_that_is_nowhere_is_named_with_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"'no-such-program'.*PATH="):
        requested(tmp_path, Job("work", ("no-such-program",)))


def test_the_environment_comes_before_the_node(tmp_path: Path) -> None:
    program = tmp_path / "environment/bin/true"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert requested(tmp_path, Job("work", ("true", "-x"))).argv == [str(program), "-x"]


def test_a_program_of_the_bundle_is_named_with_a_slash(tmp_path: Path) -> None:
    job = Job("work", ("./go",))
    go = attempt_in(tmp_path).work / "go"
    with pytest.raises(ProgramError, match="not a file of the bundle"):
        requested(tmp_path, job)
    go.write_text("#!/bin/sh\n")
    with pytest.raises(ProgramError, match=r"chmod \+x"):
        requested(tmp_path, job)
    go.chmod(0o755)
    assert requested(tmp_path, job).argv == [str(go)]


@pytest.mark.parametrize("stdin", ["absent", "../out", "link"])
def test_standard_input_is_a_file_of_the_bundle(tmp_path: Path, stdin: str) -> None:
    folder = attempt_in(tmp_path)
    (folder.path / "out").write_text("secret")
    (folder.work / "link").symlink_to("../out")
    with pytest.raises(ProgramError, match="not a file of the bundle"):
        requested(tmp_path, Job("work", ("/bin/true",), stdin=stdin))


def test_a_name_at_the_keeper_can_be_read_back() -> None:
    assert parse_keeper_id(keeper_id(REF)) == REF
    for other in ("stream-worker", "a.b.c", "a.b.c.d", "a.b.c.1-x", "A.b.c.1-1", ""):
        assert parse_keeper_id(other) is None


def with_secrets(folder: Path, *uses: SecretUse, **values: bytes) -> StartRequest:
    return requested(folder, Job("work", ("/bin/true",), secrets=uses), values)


def test_a_secret_is_a_variable_or_the_path_of_a_file_and_not_in_what_is_shown(
    tmp_path: Path,
) -> None:
    request = with_secrets(
        tmp_path,
        SecretUse("LAB", "token"),
        SecretUse("KEY", "key", SecretForm.FILE),
        token="pässword".encode(),
        key=b"\0\xff",
    )
    assert request.env["LAB"] == "pässword"
    assert request.env["KEY"] == f"{tmp_path}/memory/KEY"
    assert "ssword" not in repr(request)
    assert not any("ssword" in word for word in request.argv)


def test_a_secret_that_cannot_be_handed_over_is_told_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="'token' for LAB is not on this node"):
        with_secrets(tmp_path, SecretUse("LAB", "token"))
    with pytest.raises(ProgramError, match="as: file") as refused:
        with_secrets(tmp_path, SecretUse("LAB", "token"), token=b"hid\0den")
    assert "hid" not in str(refused.value)


def test_attempts_with_one_outline_have_each_its_own_variables(tmp_path: Path) -> None:
    """A variable of the job wins over those of the attempt's places, and no attempt sees those of another."""
    made = ProgramOutline(
        Job("work", ("/bin/true",), variables={"TMPDIR": "/own"}),
        "/environment",
        "/sdk",
        {"HOME": "/h"},
        own_places=True,
    )
    first, second = (
        made.request(
            Assignment(AttemptRef("default", pipeline, "work", 1, 1), Job("work", ("/bin/true",))),
            AttemptFolder(tmp_path / pipeline),
            user=user,
        )
        for pipeline, user in (("one", -1), ("two", 70_001))
    )
    assert (first.env["HOME"], first.env["TMPDIR"]) == (f"{tmp_path}/one/home", "/own")
    assert "USER" not in first.env
    assert (second.env["HOME"], second.env["USER"]) == (f"{tmp_path}/two/home", "job-70001")
    assert second.env["SHOAL_RESULTS"] == f"{tmp_path}/two/work/results"
    assert (first.env["SHOAL_PIPELINE"], second.env["SHOAL_PIPELINE"]) == ("one", "two")

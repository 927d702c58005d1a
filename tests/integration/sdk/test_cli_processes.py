"""The `shoal` command as its users have it: processes, pipes, signals and exit statuses."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline, Resources
from shoal.v1.pipeline_pb2 import Reason
from shoal.view import PipelineView
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.tcp_proxy import TcpProxy

SHOAL = Path(sys.executable).parent / "shoal"
TWO_JOBS = """\
name: pair
jobs:
  a: {run: x, outputs: [o]}
  b: {run: y, inputs: {i: a.o}}
"""
PATIENT = {"lease_seconds": 600}
"""An agent whose part a test plays says nothing while a command starts."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a process."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The folder in which the controller keeps what is archived."""
    return tmp_path / "controller/archive"


@pytest.fixture
async def client(archive: Path) -> AsyncIterator[Client]:
    """A client of the controller that the commands talk to."""
    async with (
        running_controller(archive.parent, **PATIENT) as controller,
        Client(controller.grpc) as opened,
    ):
        yield opened


async def newest(client: Client) -> PipelineView:
    return await anext(client.list())


async def count(client: Client) -> int:
    return len([pipeline async for pipeline in client.list()])


async def start(address: str, *words: str, stdin: int | None = None) -> Process:
    return await asyncio.create_subprocess_exec(
        str(SHOAL),
        *words,
        env={**os.environ, "SHOAL_CONTROLLER": address},
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
    )


async def end(process: Process, stdin: bytes | None = None) -> Ended:
    try:
        async with asyncio.timeout(60):
            stdout, stderr = await process.communicate(stdin)
    finally:
        if process.returncode is None:  # a failure of this test is no other test's
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def shoal(client: Client, *words: str) -> Ended:
    return await end(await start(client.address, *words))


async def said(process: Process, words: bytes) -> bytes:
    """Wait until a command has said this on stderr, and return all that it said so far."""
    assert process.stderr is not None
    return await asyncio.wait_for(process.stderr.readuntil(words), 60)


async def carry_out(
    client: Client, job: str, stdout: bytes = b"", stderr: bytes = b"", reason: Reason | None = None
) -> None:
    """Run a job on node-1: print this, and end."""
    async with connected_agent(client.address) as agent:
        ref = (await agent.assignment(job)).ref
        await agent.observe(ref, JobState.RUNNING)
        await agent.log(ref, stdout)
        await agent.log(ref, stderr, stream=2)
        if reason is None:
            artifacts = await agent.upload(ref, {"stdout": stdout})
            await agent.observe(ref, JobState.SUCCEEDED, artifacts=artifacts)
        else:
            await agent.observe(ref, JobState.FAILED, reason=reason)


async def run(
    client: Client,
    *words: str,
    stdin: bytes | None = None,
    stdout: bytes = b"",
    stderr: bytes = b"",
    reason: Reason | None = None,
) -> Ended:
    """Run a command line of `shoal run`, and carry its job out."""
    process = await start(client.address, "run", *words, stdin=None if stdin is None else PIPE)
    job = words[words.index("--") + 1]
    ended, _ = await asyncio.gather(
        end(process, stdin), carry_out(client, job, stdout, stderr, reason)
    )
    return ended


async def test_only_what_the_command_prints_is_on_stdout(
    client: Client, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("x\n" * 42)
    ended = await run(
        client, "--stdin", str(tmp_path / "README.md"), "--", "wc", "-l", stdout=b"42\n"
    )
    assert ended.stdout == "42\n"
    assert ended.status == 0
    assert hashlib.sha256(b"42\n").hexdigest() in ended.stderr
    pipeline = await newest(client)
    assert f"{pipeline.name} succeeded, event {pipeline.final_event_id}" in ended.stderr
    assert pipeline.spec.jobs[0].run == ("wc", "-l")
    assert pipeline.spec.jobs[0].stdin == "README.md"
    assert (archive / "bundles/sha256" / pipeline.spec.bundle_digest).exists()


async def test_our_own_stdin_goes_to_the_command(client: Client, archive: Path) -> None:
    ended = await run(client, "--stdin", "-", "--", "cat", stdin=b"through a pipe", stdout=b"ok\n")
    assert ended.stdout == "ok\n"
    [bundle] = (archive / "bundles/sha256").iterdir()
    assert b"through a pipe" in bundle.read_bytes()


async def test_a_failure_is_shown_with_its_reason(client: Client) -> None:
    message = "the program ended with status 3\nTraceback: oh no"
    ended = await run(
        client,
        *("--", "python", "-m", "main"),
        stderr=b"Traceback: oh no\n",
        reason=Reason(code="EXIT", number=3, message=message),
    )
    assert ended.status == 1
    assert "failed: EXIT 3: the program ended with status 3\n" in ended.stderr
    assert ended.stderr.count("Traceback: oh no") == 1
    assert f"{(await newest(client)).name} failed" in ended.stderr


async def test_the_end_of_stderr_is_shown_when_logs_are_not(client: Client) -> None:
    ended = await run(
        client,
        *("--no-logs", "--", "python", "-m", "main"),
        stderr=b"Traceback: oh no\n",
        reason=Reason(code="EXIT", number=3, message="the program ended with status 3"),
    )
    assert "failed: EXIT 3" in ended.stderr
    assert "Traceback: oh no" in ended.stderr


async def test_how_it_ended_as_json(client: Client) -> None:
    ended = await run(client, "--json", "--", "wc", stdout=b"42\n")
    document = json.loads(ended.stdout)
    assert document["state"] == "SUCCEEDED"
    assert document["jobs"][0]["manifest"]["artifacts"][0]["size_bytes"] == 3


async def test_detaching_returns_at_once(client: Client) -> None:
    ended = await shoal(client, "run", "--detach", "--", "sleep", "1000")
    assert (ended.status, ended.stdout) == (0, f"{(await newest(client)).name}\n")


async def test_ctrl_c_leaves_the_pipeline_and_twice_cancels_it(client: Client) -> None:
    process = await start(client.address, "run", "--", "sleep", "1000")
    await said(process, b"sleep: ")
    first = (await newest(client)).id
    process.send_signal(signal.SIGINT)
    told = await said(process, b"to cancel it\n")
    assert f"leaving {first} to run on its own; press Ctrl-C again".encode() in told
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert f"cancelling {first}" in ended.stderr
    assert ended.status == 1
    assert (await client.get(first)).state is PipelineState.CANCELLED

    process = await start(client.address, "run", "--", "sleep", "1000")
    await said(process, b"sleep: ")
    second = (await newest(client)).id
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert f"{second} goes on; see: shoal status {second}" in ended.stderr
    assert ended.status == 130
    assert (await client.get(second)).state is PipelineState.QUEUED


async def test_waiting_survives_a_restart_of_the_controller(tmp_path: Path) -> None:
    spec = tmp_path / "pair.yaml"
    spec.write_text(TWO_JOBS)
    async with TcpProxy("127.0.0.1:1") as proxy:
        async with running_controller(tmp_path / "controller", **PATIENT) as first:
            proxy.turn(first.grpc)
            process = await start(proxy.address, "run", str(spec))
            async with connected_agent(first.grpc) as agent:
                refs = [(await agent.assignment(job)).ref for job in ("a", "b")]
                for ref in refs:
                    await agent.observe(ref, JobState.RUNNING)
                await said(process, b"b: running")
        async with running_controller(tmp_path / "controller", **PATIENT) as second:
            proxy.turn(second.grpc)
            async with ScriptedAgent(second.grpc) as agent:
                await agent.hello(*(observed(ref, JobState.RUNNING) for ref in refs))
                for ref in refs:
                    await agent.observe(ref, JobState.SUCCEEDED)
            ended = await end(process)
    assert ended.status == 0
    assert "a: succeeded\n" in ended.stderr
    assert "b: succeeded\n" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_what_was_submitted_is_submitted_once(
    client: Client, archive: Path, tmp_path: Path
) -> None:
    for number in range(7):
        text = TWO_JOBS.replace("pair", f"task-{number}") + "bundle: data\n"
        (tmp_path / f"task-{number}.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("one")
    first = await shoal(client, "submit", str(tmp_path), "--save", str(tmp_path / "sent"))
    assert first.status == 0
    assert len(first.stdout.splitlines()) == await count(client) == 7
    assert len(list((tmp_path / "sent").iterdir())) == 7
    assert len(list((archive / "bundles/sha256").iterdir())) == 1
    again = await shoal(client, "submit", str(tmp_path))
    assert again.stdout == first.stdout
    assert again.stderr.count("was submitted before and is the same") == 7
    assert await count(client) == 7
    (tmp_path / "data/file").write_text("two")
    await shoal(client, "submit", str(tmp_path))
    assert await count(client) == 14
    await shoal(client, "submit", "--force", str(tmp_path))
    assert await count(client) == 21


async def test_tables_and_documents(client: Client) -> None:
    await run(client, "--", "wc", stdout=b"42\n")
    done = (await newest(client)).id
    greedy = Pipeline("greedy", (Job("say", ("true",), resources=Resources(cpus=64)),))
    waiting = (await client.submit(greedy)).pipeline.id
    for words, wanted in (
        (("status",), done),
        (("status", done), "succeeded"),
        (("nodes",), "node-1"),
        (("members",), "role=controller"),
        (("events",), "shoal.pipeline.succeeded"),
        (("explain", f"{waiting}/say"), "Node node-1 is unfit"),
        (("artifacts", done), hashlib.sha256(b"42\n").hexdigest()),
        (("drain", "node-1"), "node-1 is drained"),
        (("drain", "--undo", "node-1"), "node-1 is in use again"),
        (("cancel", "--wait", waiting), f"pipelines/{waiting} cancelled"),
        (("logs", done), "42\n"),
        (("status", "--watch", done), ""),
    ):
        ended = await shoal(client, *words)
        assert ended.status == 0, ended.stderr
        assert wanted in ended.stdout
    for words in (("status",), ("nodes",)):
        ended = await shoal(client, *words, "--json")
        for line in ended.stdout.splitlines():
            json.loads(line)


async def test_events_are_followed_each_once_and_listed_by_type_and_time(client: Client) -> None:
    spec = Pipeline("one", (Job("say", ("true",)),))
    first = (await client.submit(spec)).pipeline
    await client.cancel(first.name, "enough")
    following = await start(client.address, "events", "-f", "--type", "shoal.pipeline.*")
    assert following.stdout is not None
    lines = [(await asyncio.wait_for(following.stdout.readline(), 60)).decode()]
    second = (await client.submit(spec)).pipeline
    await client.cancel(second.name, "enough")
    lines.append((await asyncio.wait_for(following.stdout.readline(), 60)).decode())
    following.send_signal(signal.SIGINT)
    await end(following)
    assert [line.split()[2:] for line in lines] == [
        ["shoal.pipeline.cancelled", f"default/{one.name}/cancelled/1"] for one in (first, second)
    ]
    listed = await shoal(client, "events", "--json", "--limit", "3")
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [event["sequence"] for event in found] == [2, 3, 4]
    since = found[-1]["time"]
    later = await shoal(client, "events", "--json", "--since", since, "--type", "shoal.pipeline.*")
    assert [json.loads(line)["id"] for line in later.stdout.splitlines()] == [found[-1]["id"]]
    wrong = await shoal(client, "events", "-f", "--until", "5m")
    assert wrong.status == 2
    assert "leave out --until" in wrong.stderr


async def test_logs_of_several_jobs_carry_their_names(client: Client, tmp_path: Path) -> None:
    spec = tmp_path / "pair.yaml"
    spec.write_text(TWO_JOBS)
    await shoal(client, "submit", str(spec))
    async with connected_agent(client.address) as agent:
        for job in ("a", "b"):
            await agent.log((await agent.assignment(job)).ref, f"I am {job}".encode())
    ended = await shoal(client, "logs", (await newest(client)).id)
    assert ended.stdout == "a | I am a\nb | I am b\n"


async def test_artifacts_are_downloaded_and_checked(
    client: Client, archive: Path, tmp_path: Path
) -> None:
    await run(client, "--", "wc", stdout=b"42\n")
    pipeline = await newest(client)
    ended = await shoal(client, "get", pipeline.id, "-o", str(tmp_path / "got"))
    assert (tmp_path / "got/wc/stdout").read_bytes() == b"42\n"
    assert ended.stdout == f"{tmp_path}/got/wc/stdout\n"
    (tmp_path / "taken").write_text("a file\n")
    ended = await shoal(client, "get", pipeline.id, "-o", str(tmp_path / "taken/here"))
    assert ended.status == 1
    assert f"{tmp_path}/taken" in ended.stderr
    assert "choose another folder" in ended.stderr
    manifest = pipeline.jobs[0].manifest
    assert manifest is not None
    (archive / manifest.artifacts[0].key).write_bytes(b"43\n")
    ended = await shoal(client, "get", pipeline.id, "-o", str(tmp_path / "bad"))
    assert ended.status == 1
    assert "the archive's copy is damaged" in ended.stderr
    assert not list((tmp_path / "bad").rglob("*stdout*"))


async def test_ctrl_c_ends_what_only_looks(client: Client) -> None:
    await shoal(client, "run", "--detach", "--", "sleep", "1000")
    process = await start(client.address, "status", "--watch", (await newest(client)).id)
    await said(process, b"sleep: ")
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.status == 130
    assert "Traceback" not in ended.stderr


async def line_with(process: Process, *words: str) -> str:
    """Read what a command prints until a line has these words."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := (await process.stdout.readline()).decode():
            if all(word in line for word in words):
                return line
    raise AssertionError(f"no line has {words}")


async def test_everything_is_watched_until_ctrl_c(client: Client) -> None:
    """Pipelines and nodes as they change, a line for each change where there is no terminal."""
    await shoal(client, "run", "--detach", "--name", "before", "--", "sleep", "9")
    watching = await start(client.address, "status", "--watch")
    documents = await start(client.address, "status", "--watch", "--json")
    nodes = await start(client.address, "nodes", "--watch")
    await line_with(watching, "before-", "0/1")
    await line_with(nodes, "node", "cores")
    await shoal(client, "run", "--detach", "--name", "after", "--", "sleep", "9")
    await line_with(watching, "after-", "queued, 0 of 1 job done")
    await carry_out(client, "before")
    await line_with(watching, "-", "succeeded, 1 of 1 job done")
    await line_with(documents, '"state": "SUCCEEDED"')
    await line_with(nodes, "node-1", "ready, 1 attempt")
    await line_with(nodes, "node-1", "away, ")
    for process in (watching, documents, nodes):
        process.send_signal(signal.SIGINT)
        ended = await end(process)
        assert (ended.status, ended.stderr) == (130, "")


@pytest.mark.parametrize("words", ["status", "run -- seq 100000", "logs {name}"])
async def test_a_reader_that_goes_away_is_no_accident(client: Client, words: str) -> None:
    numbers = b"".join(b"%d\n" % number for number in range(100_000))
    await run(client, "--no-logs", "--", "seq", "100000", stdout=numbers)
    process = await asyncio.create_subprocess_shell(
        f"{SHOAL} {words} | head -1".format(name=(await newest(client)).id),
        env={**os.environ, "SHOAL_CONTROLLER": client.address},
        stdout=PIPE,
        stderr=PIPE,
    )
    ending = asyncio.create_task(end(process))
    if words.startswith("run"):
        await carry_out(client, "seq", numbers)
    ended = await ending
    assert len(ended.stdout.splitlines()) == 1
    assert "Traceback" not in ended.stderr


async def test_scale_names_a_job_and_a_number() -> None:
    wrong = await end(await start("127.0.0.1:1", "scale", "p-1", "detector"))
    assert wrong.status == 2
    assert "'detector' is not JOB=REPLICAS; write for example: detector=4" in wrong.stderr


@pytest.mark.parametrize("words", [("--help",), ("--grpc", "127.0.0.1:0"), ()])
async def test_u9_a_foreign_package_in_the_place_of_ours_is_told(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """As python-control's `control` in the same environment."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "__init__.py").write_text("version = 'foreign'")
    process = await asyncio.create_subprocess_exec(
        SHOAL, "controller", *words, stderr=PIPE, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert f"The package 'control' lies in {tmp_path / 'control'}" in said.decode()
    assert "in an environment of their own (docs/packages.md)" in said.decode()
    assert "Traceback" not in said.decode()


def test_bash_completes_commands_and_options() -> None:
    script = """
        eval "$(shoal completion bash)"
        COMP_WORDS=(shoal sta) COMP_CWORD=1
        _shoal_completion shoal && echo "${COMPREPLY[@]}"
        COMPREPLY=() COMP_WORDS=(shoal record --dur) COMP_CWORD=2
        _shoal_completion shoal && echo "${COMPREPLY[@]}"
    """
    environ = {**os.environ, "PATH": f"{SHOAL.parent}:{os.environ['PATH']}"}
    said = subprocess.run(
        ["bash", "-c", script], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["status", "--duration"]
    for shell in ("zsh", "fish"):
        done = subprocess.run(
            [SHOAL, "completion", shell], capture_output=True, text=True, check=True, timeout=60
        )
        assert f"shoal completion {shell}" in done.stdout, "the line that installs it"

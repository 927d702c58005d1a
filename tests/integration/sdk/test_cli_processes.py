"""The `shoal` command as its users have it: processes, pipes, signals and exit statuses."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from shoal import view
from shoal.model import Artifact, JobState, PipelineState, Reason, ReasonCode
from shoal.spec import Pipeline
from tests.kit.memory_controller import MemoryController
from tests.kit.until import until

SHOAL = Path(sys.executable).parent / "shoal"
TWO_JOBS = """\
name: pair
jobs:
  a: {run: x, outputs: [o]}
  b: {run: y, inputs: {i: a.o}}
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a process."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
async def controller() -> AsyncIterator[MemoryController]:
    async with MemoryController() as running:
        yield running


async def start(controller: MemoryController, *words: str, stdin: int | None = None) -> Process:
    return await asyncio.create_subprocess_exec(
        str(SHOAL),
        *words,
        env={**os.environ, "SHOAL_CONTROLLER": controller.address},
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


async def shoal(controller: MemoryController, *words: str) -> Ended:
    return await end(await start(controller, *words))


def carry_out(
    controller: MemoryController, stdout: bytes, stderr: bytes = b"", reason: Reason | None = None
) -> None:
    """Let the next pipeline run on node-1, print this, and end."""

    async def run(pipeline: view.PipelineView) -> None:
        (job,) = pipeline.jobs
        attempt = view.AttemptView(f"{job.name}/attempts/1", 1, 1, JobState.RUNNING, "node-1")
        job = replace(job, state=JobState.RUNNING, node="node-1", attempts=(attempt,))
        controller.put(replace(pipeline, state=PipelineState.RUNNING, jobs=(job,)))
        controller.say(view.LogChunk(attempt.name, view.LogStream.STDOUT, 0, stdout))
        controller.say(view.LogChunk(attempt.name, view.LogStream.STDERR, 0, stderr))
        if reason is None:
            digest = hashlib.sha256(stdout).hexdigest()
            artifact = Artifact("stdout", len(stdout), digest, f"{attempt.name}/stdout")
            manifest = view.Manifest("m", attempt.name, 1, (artifact,))
            job = replace(job, state=JobState.SUCCEEDED, manifest=manifest)
            state = PipelineState.SUCCEEDED
        else:
            job = replace(job, state=JobState.FAILED, reason=reason)
            state = PipelineState.FAILED
        controller.put(replace(pipeline, state=state, jobs=(job,), final_event_id="event-1"))

    controller.on_submit = run


async def test_only_what_the_command_prints_is_on_stdout(
    controller: MemoryController, tmp_path: Path
) -> None:
    carry_out(controller, b"42\n")
    (tmp_path / "README.md").write_text("x\n" * 42)
    ended = await shoal(controller, "run", "--stdin", str(tmp_path / "README.md"), "--", "wc", "-l")
    assert ended.stdout == "42\n"
    assert ended.status == 0
    assert hashlib.sha256(b"42\n").hexdigest() in ended.stderr
    assert "pipelines/wc-1 succeeded, event event-1" in ended.stderr
    (pipeline,) = controller.pipelines.values()
    assert pipeline.spec.jobs[0].run == ("wc", "-l")
    assert pipeline.spec.jobs[0].stdin == "README.md"
    assert pipeline.spec.bundle_digest in controller.bundles


async def test_our_own_stdin_goes_to_the_command(controller: MemoryController) -> None:
    carry_out(controller, b"ok\n")
    process = await start(controller, "run", "--stdin", "-", "--", "cat", stdin=PIPE)
    ended = await end(process, b"through a pipe")
    assert ended.stdout == "ok\n"
    assert b"through a pipe" in next(iter(controller.bundles.values()))


async def test_a_failure_is_shown_with_its_reason(controller: MemoryController) -> None:
    reason = Reason(ReasonCode.EXIT, 3, "the program ended with status 3\nTraceback: oh no")
    carry_out(controller, b"", b"Traceback: oh no\n", reason)
    ended = await shoal(controller, "run", "--", "python", "main.py")
    assert ended.status == 1
    assert "failed: EXIT 3: the program ended with status 3\n" in ended.stderr
    assert ended.stderr.count("Traceback: oh no") == 1
    assert "pipelines/python-1 failed" in ended.stderr


async def test_the_end_of_stderr_is_shown_when_logs_are_not(controller: MemoryController) -> None:
    reason = Reason(ReasonCode.EXIT, 3, "the program ended with status 3")
    carry_out(controller, b"", b"Traceback: oh no\n", reason)
    ended = await shoal(controller, "run", "--no-logs", "--", "python", "main.py")
    assert "failed: EXIT 3" in ended.stderr
    assert "Traceback: oh no" in ended.stderr


async def test_how_it_ended_as_json(controller: MemoryController) -> None:
    carry_out(controller, b"42\n")
    ended = await shoal(controller, "run", "--json", "--", "wc")
    document = json.loads(ended.stdout)
    assert document["state"] == "SUCCEEDED"
    assert document["jobs"][0]["manifest"]["artifacts"][0]["size_bytes"] == 3


async def test_detaching_returns_at_once(controller: MemoryController) -> None:
    ended = await shoal(controller, "run", "--detach", "--", "sleep", "1000")
    assert (ended.status, ended.stdout) == (0, "pipelines/sleep-1\n")


async def test_ctrl_c_leaves_the_pipeline_and_twice_cancels_it(
    controller: MemoryController,
) -> None:
    process = await start(controller, "run", "--", "sleep", "1000")
    await until(lambda: controller.watches == 1, 20, "the watch")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.readuntil(b"to cancel it\n"), 10)
    assert b"leaving sleep-1 to run on its own; press Ctrl-C again" in said
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert "cancelling sleep-1" in ended.stderr
    assert ended.status == 1
    assert controller.pipelines["sleep-1"].state is PipelineState.CANCELLED

    process = await start(controller, "run", "--", "sleep", "1000")
    await until(lambda: controller.watches == 2, 20, "the second watch")
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert "sleep-2 goes on; see: shoal status sleep-2" in ended.stderr
    assert ended.status == 130
    assert controller.pipelines["sleep-2"].state is PipelineState.QUEUED


async def test_waiting_survives_a_restart_of_the_controller(
    controller: MemoryController, tmp_path: Path
) -> None:
    spec = tmp_path / "pair.yaml"
    spec.write_text(TWO_JOBS)
    process = await start(controller, "run", str(spec))
    await until(lambda: controller.watches == 1, 20, "the watch")
    await controller.stop()
    await controller.start()
    controller.finish("pair-1", PipelineState.SUCCEEDED, JobState.SUCCEEDED)
    ended = await end(process)
    assert ended.status == 0
    assert "a: succeeded\n" in ended.stderr
    assert "b: succeeded\n" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_what_was_submitted_is_submitted_once(
    controller: MemoryController, tmp_path: Path
) -> None:
    for number in range(7):
        text = TWO_JOBS.replace("pair", f"task-{number}") + "bundle: data\n"
        (tmp_path / f"task-{number}.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("one")
    first = await shoal(controller, "submit", str(tmp_path), "--save", str(tmp_path / "sent"))
    assert first.status == 0
    assert len(first.stdout.splitlines()) == len(controller.pipelines) == 7
    assert len(list((tmp_path / "sent").iterdir())) == 7
    assert len(controller.bundles) == 1
    again = await shoal(controller, "submit", str(tmp_path))
    assert again.stdout == first.stdout
    assert again.stderr.count("was submitted before and is the same") == 7
    assert len(controller.pipelines) == 7
    (tmp_path / "data/file").write_text("two")
    await shoal(controller, "submit", str(tmp_path))
    assert len(controller.pipelines) == 14
    await shoal(controller, "submit", "--force", str(tmp_path))
    assert len(controller.pipelines) == 21


async def test_tables_and_documents(controller: MemoryController) -> None:
    carry_out(controller, b"42\n")
    await shoal(controller, "run", "--", "wc")
    controller.events = [view.Event("event-1", "shoal.pipeline.succeeded", "pipelines/wc-1")]
    for words, wanted in (
        (("status",), "wc-1"),
        (("status", "wc-1"), "succeeded"),
        (("nodes",), "node-2"),
        (("members",), "role=agent"),
        (("events",), "shoal.pipeline.succeeded"),
        (("explain", "wc-1/wc"), "node-1 has room"),
        (("artifacts", "wc-1"), hashlib.sha256(b"42\n").hexdigest()),
        (("drain", "node-1"), "node-1 is drained"),
        (("drain", "--undo", "node-1"), "node-1 is in use again"),
        (("cancel", "--wait", "wc-1"), "pipelines/wc-1 cancelled"),
        (("logs", "wc-1"), "42\n"),
        (("status", "--watch", "wc-1"), ""),
    ):
        ended = await shoal(controller, *words)
        assert ended.status == 0, ended.stderr
        assert wanted in ended.stdout
    for words in (("status",), ("nodes",)):
        ended = await shoal(controller, *words, "--json")
        for line in ended.stdout.splitlines():
            json.loads(line)


async def test_logs_of_several_jobs_carry_their_names(
    controller: MemoryController, tmp_path: Path
) -> None:
    spec = tmp_path / "pair.yaml"
    spec.write_text(TWO_JOBS)
    await shoal(controller, "submit", str(spec))
    for job in ("a", "b"):
        attempt = f"pipelines/pair-1/jobs/{job}/attempts/1"
        controller.say(view.LogChunk(attempt, view.LogStream.STDOUT, 0, f"I am {job}".encode()))
    ended = await shoal(controller, "logs", "pair-1")
    assert ended.stdout == "a | I am a\nb | I am b\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


async def test_artifacts_are_downloaded_and_checked(
    controller: MemoryController, tmp_path: Path
) -> None:
    carry_out(controller, b"42\n")
    await shoal(controller, "run", "--", "wc")
    (tmp_path / "served").mkdir()
    (tmp_path / "served/object").write_bytes(b"42\n")

    def handler(*arguments: Any) -> _Quiet:
        return _Quiet(*arguments, directory=str(tmp_path / "served"))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            key = "pipelines/wc-1/jobs/wc/attempts/1/stdout"
            controller.urls[key] = f"http://127.0.0.1:{server.server_port}/object"
            ended = await shoal(controller, "get", "wc-1", "-o", str(tmp_path / "got"))
            assert (tmp_path / "got/wc/stdout").read_bytes() == b"42\n"
            assert ended.stdout == f"{tmp_path}/got/wc/stdout\n"
            (tmp_path / "served/object").write_bytes(b"43\n")
            ended = await shoal(controller, "get", "wc-1", "-o", str(tmp_path / "bad"))
            assert ended.status == 1
            assert "the archive's copy is damaged" in ended.stderr
            assert not list((tmp_path / "bad").rglob("*stdout*"))
            (tmp_path / "taken").write_text("a file\n")
            ended = await shoal(controller, "get", "wc-1", "-o", str(tmp_path / "taken/here"))
            assert ended.status == 1
            assert f"{tmp_path}/taken" in ended.stderr
            assert "choose another folder" in ended.stderr
        finally:
            server.shutdown()
            thread.join()


async def test_ctrl_c_ends_what_only_looks(controller: MemoryController) -> None:
    await shoal(controller, "run", "--detach", "--", "sleep", "1000")
    process = await start(controller, "status", "--watch", "sleep-1")
    await until(lambda: controller.watches == 1, 20, "the watch")
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.status == 130
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", ["status", "run -- seq 100000", "logs seq-1"])
async def test_a_reader_that_goes_away_is_no_accident(
    controller: MemoryController, words: str
) -> None:
    carry_out(controller, b"".join(b"%d\n" % number for number in range(100_000)))
    await shoal(controller, "run", "--no-logs", "--", "seq", "100000")
    process = await asyncio.create_subprocess_shell(
        f"{SHOAL} {words} | head -1",
        env={**os.environ, "SHOAL_CONTROLLER": controller.address},
        stdout=PIPE,
        stderr=PIPE,
    )
    ended = await end(process)
    assert len(ended.stdout.splitlines()) == 1
    assert "Traceback" not in ended.stderr


async def test_scale_waits_until_the_replicas_are_changed(controller: MemoryController) -> None:
    pipeline = view.PipelineView("p-1", "default", PipelineState.RUNNING, Pipeline("p", ()))
    controller.put(pipeline)
    ended = await end(await start(controller, "scale", "p-1", "detector=3"))
    assert ended == Ended(
        0,
        "job detector of pipelines/p-1 has 3 replicas from now on; "
        "each of those before ends after round 1\n",
        "",
    )
    wrong = await end(await start(controller, "scale", "p-1", "detector"))
    assert wrong.status == 2
    assert "'detector' is not JOB=REPLICAS; write for example: detector=4" in wrong.stderr

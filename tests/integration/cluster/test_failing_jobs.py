"""What goes wrong inside a job or a request, on a real cluster: a clear end, and nothing hangs."""

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState, ReasonCode
from shoal.specfile.mark import SpecFileError
from shoal.view import LogStream
from tests.kit.cluster import (
    all_events,
    contents,
    describe,
    job_of,
    printed,
    running_cluster,
    submit,
    when,
)
from tests.kit.object_server import ObjectServer
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_DEADLINE = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """A cluster for all tests of this file: none of them may end anything."""
    async with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


async def test_what_a_job_writes_to_results_is_archived_under_a_manifest(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Cases E6 and E7: the simplest job there is."""
    _, client = board
    spec = """
        name: hello
        jobs:
          hello: {run: "sh -c 'mkdir results/sub; echo hello > results/sub/x; echo said'"}
    """
    submitted = await submit(client, tmp_path, spec, {})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert await contents(client, ended, "results/sub/x", tmp_path / "x") == b"hello\n"
    assert await printed(client, ended.name) == "said\n"


async def test_a_job_that_exits_3_fails_its_pipeline_with_its_words_and_its_neighbours_are_told(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case E6."""
    _, client = board
    spec = """
        name: broken
        bundle: .
        jobs:
          bad:
            run: sh -c 'echo 1; echo "it broke here" >&2; exit 3'
            outputs: {numbers: {format: lines, as: stdout}}
          reader:
            run: sh -c 'cat; sleep 600'
            inputs: {numbers: {from: bad.numbers, format: lines, as: stdin}}
          other:
            run: sleep 600
    """
    submitted = await submit(client, tmp_path, spec, {})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.FAILED, describe(ended)
    bad = job_of(ended, "bad")
    assert (bad.state, bad.reason.code, bad.reason.number) == (JobState.FAILED, ReasonCode.EXIT, 3)
    assert "it broke here" in bad.reason.message
    assert "it broke here" in await printed(client, bad.name, LogStream.STDERR)
    for name in ("reader", "other"):
        neighbour = job_of(ended, name)
        assert neighbour.state is JobState.CANCELLED
        assert neighbour.reason.code is ReasonCode.NEIGHBOUR
        assert "bad" in neighbour.reason.message
    final = [event for event in await all_events(client, ended.name) if event.subject == ended.name]
    assert [event.id for event in final].count(ended.final_event_id) == 1


async def test_k16_passwords_of_addresses_stand_in_no_reason_status_event_or_log(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """By way of a download, of the installer's words, of a program's last words, of the command."""
    cluster, client = board
    async with ObjectServer() as server:
        place = server.url("").rstrip("/").replace("://", "://user:s3cr3t@")
        url = f"{place}/x-1.0-py3-none-any.whl?X-Amz-Signature=s3cr3t"
        digest = "0" * 64
        jobs = {
            "fetched": f"run: 'true', environment: {{url: '{url}', sha256: '{digest}'}}",
            "by-uv": f"run: 'true', environment: {{url: '{url}'}}",
            "source": f"run: 'true', inputs: {{x: {{source: '{url}', path: x}}}}",
            "said": f"run: [sh, -c, 'echo {url} >&2; exit 3']",
        }
        for name, job in jobs.items():
            spec = f"name: {name}\nbundle: .\njobs:\n  {name}: {{{job}}}\n"
            submitted = await submit(client, tmp_path / name, spec, {})
            ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
            reason = job_of(ended, name).reason
            assert reason.code is not ReasonCode.NONE, describe(ended)
            assert "user:***@127.0.0.1" in reason.message, describe(ended)
            events = await all_events(client, ended.name)
            command = [sys.executable, "-m", "shoal.cli", "status", ended.name, "--json"]
            status = await asyncio.to_thread(
                subprocess.run,
                [*command, "--controller", cluster.controller_address],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert '"name"' in status.stdout, status
            for text in (reason.message, str(events), status.stdout, status.stderr):
                assert "s3cr3t" not in text
        index = f"run: 'true', environment: {{pip: [-i, '{place}/simple', shoal-no-such]}}"
        with pytest.raises(SpecFileError, match="--index-credentials") as refused:
            await submit(client, tmp_path / "index", f"name: i\njobs: {{a: {{{index}}}}}\n", {})
        assert "user:***@127.0.0.1" in str(refused.value)
        assert "s3cr3t" not in str(refused.value)
    logs = [path for path in cluster.config.state.rglob("*.log") if path.stat().st_size]
    assert len(logs) >= 4
    assert [path for path in logs if "s3cr3t" in path.read_text()] == []


async def test_a_timeout_ends_the_whole_process_group(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case E6: nothing of the job's processes is left, the stubborn ones neither."""
    _, client = board
    spec = """
        name: slow
        bundle: .
        jobs:
          slow: {run: sh slow.sh, timeout: 2s}
    """
    mark = f"60{random.Random(str(tmp_path)).randrange(10**6)}"
    code = f"trap '' TERM\nsleep {mark} &\nsetsid sleep {mark} &\nsleep {mark}\n"
    submitted = await submit(client, tmp_path, spec, {"slow.sh": code})
    await until(lambda: len(_sleeping(mark)) == 3, _DEADLINE, "the job's three processes run")
    await until(lambda: len(_sleeping(mark)) == 3, _DEADLINE, "the job's three processes run")
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    slow = job_of(ended, "slow")
    assert (slow.state, slow.reason.code) == (JobState.FAILED, ReasonCode.TIMEOUT), describe(ended)
    [attempt] = slow.attempts
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    await until(lambda: not _sleeping(mark), what="no process of the job is left")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ('printf 1234567 >"$1"', ReasonCode.STREAM, "3 bytes into a record of 4"),
        ('printf 1234567 >"$1"; exit 3', ReasonCode.EXIT, "exit status 3"),
        ('printf 1234 >x; mv x "$1"', ReasonCode.STREAM, "file of its own in the place of"),
        ('cat "$1"', ReasonCode.TIMEOUT, "timeout of 1 s"),
    ],
    ids=["half a record", "dies with half a record", "a file in its place", "blocks"],
)
async def test_a_program_that_misuses_its_fifo_fails_with_a_reason(
    board: tuple[LocalCluster, Client], tmp_path: Path, script: str, code: ReasonCode, words: str
) -> None:
    """Case F6."""
    _, client = board
    spec = """
        name: misuse
        bundle: .
        jobs:
          numbers:
            run: sh numbers.sh {outputs.numbers.path}
            timeout: 1s
            outputs: {numbers: {format: u32, as: fifo}}
          reader:
            run: cat {inputs.numbers.path}
            inputs: {numbers: {from: numbers.numbers, format: u32, as: fifo}}
    """
    submitted = await submit(client, tmp_path, spec, {"numbers.sh": script})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    numbers = job_of(ended, "numbers")
    assert (numbers.state, numbers.reason.code) == (JobState.FAILED, code), describe(ended)
    assert words in numbers.reason.message
    assert job_of(ended, "reader").state is JobState.CANCELLED


async def test_a_bad_requirement_fails_with_the_installers_words_and_no_code_starts(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case E5."""
    _, client = board
    spec = """
        name: uninstallable
        bundle: .
        jobs:
          job: {run: python job.py, environment: {requirements: requirements.txt}}
    """
    files = {
        "requirements.txt": "./no_such_wheel-1.0-py3-none-any.whl\n",
        "job.py": "print('started')\n",
    }
    submitted = await submit(client, tmp_path, spec, files)
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    job = job_of(ended, "job")
    assert (job.state, job.reason.code) == (JobState.FAILED, ReasonCode.INSTALL), describe(ended)
    assert "no_such_wheel" in job.reason.message
    assert await printed(client, ended.name) == ""


async def test_a_malformed_specification_names_every_mistake(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case F8: all at once, with line and remedy."""
    _, client = board
    spec = """
        name: Wrong Name
        jobs:
          a: {run: cat, inputs: {x: {from: b.nothing}}, retries: 3}
          b: {run: 'true', outputs: {numbers: {}}}
    """
    with pytest.raises(SpecFileError) as caught:
        await submit(client, tmp_path, spec, {})
    said = str(caught.value)
    for word in ("Wrong Name", "nothing", "retries", "retry"):
        assert word in said


async def test_the_same_request_twice_is_one_pipeline_and_another_spec_is_refused(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case S1."""
    _, client = board
    spec = "{name: once, jobs: {job: {run: 'true'}}}"
    first = await submit(client, tmp_path, spec, {}, request_id="key-1")
    again = await submit(client, tmp_path, spec, {}, request_id="key-1")
    assert (first.repeated, again.repeated) == (False, True)
    assert again.pipeline.id == first.pipeline.id
    other = "{name: once, jobs: {job: {run: 'false'}}}"
    with pytest.raises(ShoalError) as caught:
        await submit(client, tmp_path, other, {}, request_id="key-1")
    assert caught.value.code == "ALREADY_EXISTS"
    assert "run" in str(caught.value) + str(caught.value.metadata)


async def test_random_datagrams_on_the_gossip_port_stop_nothing(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Counted drops: members stay alive, and work goes on."""
    cluster, client = board
    host, _, port = cluster.gossip_address.partition(":")
    noise = random.Random(20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(2000):
            sender.sendto(noise.randbytes(noise.randrange(1400)), (host, int(port)))
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(noise.randbytes(2000))
        writer.close()
    submitted = await submit(client, tmp_path, "{name: still, jobs: {job: {run: 'true'}}}", {})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    members = await client.members(everyone=True)
    assert {member.state.name for member in members} == {"ALIVE"}
    assert len(members) == 4


async def test_a_cancelled_pipeline_ends_everywhere(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """What runs is ended, what is queued never starts."""
    _, client = board
    spec = "{name: endless, jobs: {a: {run: sleep 600}, b: {run: sleep 600}}}"
    submitted = await submit(client, tmp_path, spec, {})
    name = submitted.pipeline.id
    await when(
        client, name, lambda pipeline: all(job.state is JobState.RUNNING for job in pipeline.jobs)
    )
    await client.cancel(name, "enough")
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.CANCELLED, describe(ended)
    assert {job.state for job in ended.jobs} == {JobState.CANCELLED}


async def test_programs_of_any_kind_stand_in_one_pipeline(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case F6: `lines` on stdin and stdout, `u32` on a descriptor, rounds and `block_count` in the SDK."""
    _, client = board
    spec = """
        name: mixed
        bundle: .
        jobs:
          count:
            run: seq 1 1000
            outputs: {numbers: {format: lines, as: stdout}}
          square:
            run: awk '{ print $1 * $1; fflush() }'
            inputs: {numbers: {from: count.numbers, format: lines, as: stdin}}
            outputs: {squares: {format: lines, as: stdout}}
          sort:
            run: sh -c 'sort -n | tail -1 > results/last'
            inputs: {squares: {from: square.squares, format: lines, as: stdin}}
          binary:
            run: python binary.py {outputs.numbers.fd}
            outputs: {numbers: {format: u32}}
          sums:
            run: python sums.py
            inputs: {numbers: {from: binary.numbers, block_count: 5}}
    """
    files = {
        "binary.py": (
            "import struct, sys\n"
            "with open(int(sys.argv[1]), 'wb') as port:\n"
            "    for k in range(1, 26):\n"
            "        port.write(struct.pack('=I', k ** 3))\n"
        ),
        "sums.py": (
            "import struct\n"
            "from shoal import job\n"
            "class Sums:\n"
            "    def setup(self): self.out = open('results/sums', 'w')\n"
            "    def run(self, numbers):\n"
            "        self.out.write('%d\\n' % sum(struct.unpack('=I', n)[0] for n in numbers))\n"
            "    def finish(self): self.out.close()\n"
            "job.run(Sums)\n"
        ),
    }
    submitted = await submit(client, tmp_path, spec, files)
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert await contents(client, ended, "results/last", tmp_path / "last") == b"1000000\n"
    sums = await contents(client, ended, "results/sums", tmp_path / "sums")
    assert sums == b"225\n2800\n11375\n29700\n61525\n"


def _sleeping(mark: str) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", mark.encode()]:
            found.append(entry.name)
    return found


async def test_r7_too_many_results_end_the_attempt_with_a_reason(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """230,000 empty files broke the session for ever; what no manifest takes is refused."""
    _, client = board
    spec = """
        name: many
        jobs:
          many: {run: "sh -c 'cd results && seq 50100 | xargs touch'"}
    """
    submitted = await submit(client, tmp_path / "many", spec, {})
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=4 * _DEADLINE)
    reason = job_of(ended, "many").reason
    assert (reason.code, ended.state) == (ReasonCode.ARCHIVE, PipelineState.FAILED), describe(ended)
    assert "holds 50100 files" in reason.message
    assert "at most 50000" in reason.message
    assert "tar -cf" in reason.message

"""Streams as files (F13): recorded across deaths without a gap, and replayed with the same result."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import yaml

from shoal.affix import beside
from shoal.bundle import pack
from shoal.local.record_file import RecordFile
from shoal.model import JobState, PipelineState
from shoal.specfile.load import load
from shoal.view import PipelineView
from tests.integration.cluster.test_tap import FOLLOW, SPEC
from tests.kit.cluster import contents, describe, job_of, read_twice, running_cluster, submit, when
from tests.kit.tree import ROOT
from tests.kit.until import until

_DEADLINE = 60.0
SHOAL = str(Path(sys.executable).parent / "shoal")


def recorded(part: Path) -> int:
    """How many records a file has by now."""
    if not part.exists() or not part.stat().st_size:
        return 0
    file = RecordFile(part, writable=False)
    file.close()
    return file.next


async def test_f13_a_recording_follows_its_producer_and_goes_on_after_a_kill(
    tmp_path: Path,
) -> None:
    """The recorder is killed, then the producer's board: every record is in the file, once."""
    lines = tmp_path / "lines"
    lines.touch()
    target = tmp_path / "said.records"
    part = tmp_path / "said.records.part"

    def say(first: int, last: int) -> None:
        with lines.open("a") as file:
            file.writelines(f"line {k}\n" for k in range(first, last))

    async with running_cluster(tmp_path / "cluster") as (cluster, client):

        async def start(to: Path = target, *more: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(SHOAL, "record", name, "source.said", "-o", str(to), "--from-start", *more),
                *("--controller", cluster.controller_address),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
            )

        spec = SPEC.format(lines=lines)
        submitted = await submit(client, tmp_path / "job", spec, {"follow.py": FOLLOW})
        name = submitted.pipeline.id
        say(0, 100)
        running = await when(
            client, name, lambda now: all(job.state is JobState.RUNNING for job in now.jobs)
        )
        process = await start()
        await until(lambda: recorded(part) == 100, 30, "the first hundred")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        say(100, 200)
        process = await start()
        await until(lambda: recorded(part) == 200, 30, "two hundred")
        await _closed_early(start, tmp_path)
        await cluster.kill_board(job_of(running, "source").node)
        say(200, 300)
        await until(lambda: recorded(part) == 300, 30, "three hundred")
        with lines.open("a") as file:
            file.write("END\n")
        async with asyncio.timeout(_DEADLINE):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        ended = await client.wait(name, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert not part.exists()
    whole = RecordFile(target, writable=False)
    assert (whole.base, whole.total) == (0, 300)
    blocks = map(whole.read, range(whole.place(300)))
    texts = [payload for block in blocks if block is not None for payload in block.payloads()]
    whole.close()
    assert texts == [b"line %d" % k for k in range(300)]
    assert whole.digest in err.decode()


async def _closed_early(
    start: Callable[..., Awaitable[asyncio.subprocess.Process]], folder: Path
) -> None:
    """U6: of a stream that does not end, Ctrl-C, --count and --duration each make a whole recording."""
    files = [folder / name for name in ("count", "duration", "interrupt")]
    counting = await start(files[0], "--count", "150")
    timed = await start(files[1], "--duration", "3s")
    pressed = await start(files[2])
    copied = beside(files[2], ".part")
    await until(lambda: recorded(copied) == 200, 30, "it records all that there is")
    pressed.send_signal(signal.SIGINT)
    # How far the timed one comes in its time is a matter of the machine.
    least = (150, 1, 200)
    most = (150, 200, 200)
    for process, file, low, high in zip(
        (counting, timed, pressed), files, least, most, strict=True
    ):
        async with asyncio.timeout(_DEADLINE):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        whole = RecordFile(file, writable=False)
        whole.close()
        assert whole.base == 0
        assert whole.total is not None
        assert low <= whole.total <= high
        assert whole.digest in err.decode()
        assert not beside(file, ".part").exists()


def _gated(gate: Path) -> tuple[str, ...]:
    """The command of a source that begins once a file is there."""
    return ("sh", "-c", f"until test -e {gate}; do sleep 0.05; done; exec python count.py")


async def test_u6_a_pipeline_is_recorded_while_it_runs(tmp_path: Path) -> None:
    """From its first record to its end, or to Ctrl-C if it has none."""
    example = ROOT / "examples" / "fission_sums"
    target, endless = tmp_path / "products.records", tmp_path / "said.records"
    # A pipeline that has ended before its recording began is not recorded.
    gate, waiting = tmp_path / "gate", tmp_path / "waiting"
    shutil.copytree(example, waiting)
    spec = yaml.safe_load((waiting / "pipeline.yaml").read_text())
    spec["jobs"]["first"]["run"] = list(_gated(gate))
    (waiting / "pipeline.yaml").write_text(yaml.safe_dump(spec))
    lines = tmp_path / "lines"
    lines.write_text("one\ntwo\n")
    folder = tmp_path / "follow"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(SPEC.format(lines=lines))
    (folder / "follow.py").write_text(FOLLOW)
    async with running_cluster(tmp_path / "cluster") as (cluster, client):

        async def start(*words: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(SHOAL, "run", "--json", *words, "--controller", cluster.controller_address),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )

        sums: list[bytes] = []
        for words, taken in (
            (("--record", f"product.products={target}"), waiting),
            (("--replay", f"product.products={target}"), example),
        ):
            process = await start(*words, str(taken))
            if taken == waiting:

                async def submitted() -> PipelineView | None:
                    return await anext(client.list(), None)

                view = await until(submitted, 30, "the pipeline is submitted")
                assert view is not None
                await read_twice(client, f"{view.name}/jobs/product", "products")
                gate.touch()
            async with asyncio.timeout(_DEADLINE):
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            ended = await client.get(json.loads(out)["name"])
            sums.append(await contents(client, ended, "results/sums.txt", tmp_path / ended.id))
            if taken == waiting:
                assert f"{target}: records 0 to " in err.decode()
        assert sums[0] == sums[1]

        process = await start("--record", f"source.said={endless}", str(folder))
        part = beside(endless, ".part")
        await until(lambda: recorded(part) == 2, 30, "both lines")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(_DEADLINE):
            _, err = await process.communicate()
        assert process.returncode == 130, err.decode()
        assert f"{endless}: records 0 to 1 of source.said" in err.decode()
        whole = RecordFile(endless, writable=False)
        whole.close()
        assert (whole.base, whole.total) == (0, 2)


async def test_f13_a_recorded_network_gives_the_same_result_again(tmp_path: Path) -> None:
    """The products of three sources are recorded; without the sources, the sums are the same."""
    example = ROOT / "examples" / "fission_sums" / "pipeline.yaml"
    read = load(example)
    assert read.bundle is not None
    gate = tmp_path / "gate"
    jobs = tuple(
        replace(
            job,
            variables={"COUNT": "3000"},
            run=_gated(gate) if job.name == "first" else job.run,
        )
        for job in read.pipeline.jobs
    )
    target = tmp_path / "products.records"
    async with running_cluster(tmp_path / "cluster") as (cluster, client):
        command = ("--controller", cluster.controller_address)
        nodes = [node.name for node in await client.nodes()]
        for node in nodes:
            await client.drain(node)
        with pack(read.bundle) as packed:
            await client.ensure_bundle(packed)
        pipeline = replace(read.pipeline, jobs=jobs, bundle_digest=packed.digest)
        first = (await client.submit(pipeline)).pipeline
        # It waits for the job, and is there when the first record passes.
        recording = await asyncio.create_subprocess_exec(
            *(SHOAL, "record", first.id, "product.products", "-o", str(target), *command),
            stderr=asyncio.subprocess.PIPE,
        )
        part = target.with_name("products.records.part")
        await until(part.exists, 30, "the recorder runs")
        for node in nodes:
            await client.drain(node, drained=False)
        await read_twice(client, f"{first.name}/jobs/product", "products")
        gate.touch()
        async with asyncio.timeout(_DEADLINE):
            _, err = await recording.communicate()
        assert recording.returncode == 0, err.decode()
        ended = await client.wait(first.id, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)

        again = await asyncio.create_subprocess_exec(
            *(SHOAL, "run", "--json", "--replay", f"product.products={target}", str(example)),
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_DEADLINE):
            out, err = await again.communicate()
        assert again.returncode == 0, err.decode()
        second = await client.get(json.loads(out)["name"])
        assert [job.id for job in second.jobs] == ["product", "sums"]
        sums = [
            await contents(client, one, "results/sums.txt", tmp_path / one.id)
            for one in (ended, second)
        ]
    assert sums[0] == sums[1]
    assert sums[0].split()[:5] == [b"225", b"2800", b"11375", b"29700", b"61525"]
    assert sums[0].count(b"\n") == 600

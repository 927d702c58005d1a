"""The example networks on a real cluster: what they end with, and that a dead board changes nothing."""

import asyncio
import dataclasses
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal import spec
from shoal.bundle import BundleFolder, pack
from shoal.client import Client
from shoal.graph import graph_of
from shoal.model import JobState, PipelineState
from shoal.specfile.load import load
from shoal.view import PipelineView
from tests.kit.cluster import (
    contents,
    describe,
    job_of,
    running_cluster,
    submit,
    submit_file,
    when,
)
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_EXAMPLES = Path(__file__).parents[3] / "examples"
_DEADLINE = 90.0
_COUNT = 25
_HALF = 12
_SUMS = "225\n2800\n11375\n29700\n61525\n"

# Runs a program of the bundle whose sources stand still in the middle until the gate is open.
_GATED = """
import os, runpy, sys
from shoal import job

source, gate, half = job.source, os.environ["GATE"], int(os.environ["HALF"])

def gated(function):
    def records():
        for number, record in enumerate(function()):
            if number == half and not os.path.exists(gate + ".open"):
                open(gate).read()
            yield record
    records.__module__ = function.__module__
    return source(records)

job.source = gated
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

_WORDS = "".join(
    f"{count} {word}\n"
    for word, count in sorted(
        Counter(
            re.findall("[a-z]+", (_EXAMPLES / "word_count" / "poem.txt").read_text().lower())
        ).items(),
        key=lambda one: (-one[1], one[0]),
    )
)


@dataclass(frozen=True)
class Network:
    """An example, what it ends with, and which job's board dies in the middle.

    `files` says what artifacts hold, by the job's name and the path; `sources` are held up after
    `half` of their records, which have to arrive at `sink`.
    """

    example: str
    files: dict[tuple[str, str], str]
    sources: tuple[str, ...]
    victim: str
    sink: str
    half: int = _HALF
    held: int = _HALF
    gated: Callable[[spec.Job], tuple[str, ...]] = field(
        default=lambda job: ("python", "gated.py", *job.run[1:])
    )


_NETWORKS = (
    Network(
        "fission_sums",
        {("sums", "results/sums.txt"): _SUMS},
        sources=("first", "second", "third"),
        victim="product",
        sink="sums",
    ),
    Network(
        "fission_join",
        {
            ("joined", "results/join.csv"): "".join(
                f"{k},{k},{k},{k**3}\n" for k in range(1, _COUNT + 1)
            ),
            ("reduced", "results/reduce.csv"): _SUMS,
        },
        sources=("first", "second", "third"),
        victim="reduce",
        sink="joined",
    ),
    Network(
        "fission_line",
        {("table", "results/numbers.csv"): "".join(f"{k}\n" for k in range(_COUNT))},
        sources=("count",),
        victim="table",
        sink="table",
    ),
    Network(
        "fission_ints",
        {
            ("reader", "results/numbers.txt"): "".join(f"{k}\n" for k in range(_COUNT))
            + f"sum {sum(range(_COUNT))}\n"
        },
        sources=("count",),
        victim="reader",
        sink="reader",
    ),
    Network(
        "fission_fifo",
        {("table", "results/squares.txt"): "".join(f"{k * k}\n" for k in range(_COUNT))},
        sources=("count",),
        victim="square",
        sink="table",
    ),
    Network(
        "fission_flag",
        {
            ("table", "results/sums.csv"): "".join(
                f"{k},{total},{int(total >= 10)}\n"
                for k, total in enumerate(accumulate(range(_COUNT)))
            )
        },
        sources=("count",),
        victim="total",
        sink="table",
    ),
    Network(
        "sort",
        {("largest", "results/largest"): "1000002\n"},
        sources=("numbers",),
        victim="shuffle",
        sink="largest",
        half=500_000,
        # sort reads to the end before it writes, and awk writes when its buffer is full.
        held=400_000,
        gated=lambda _: (
            *("sh", "-c"),
            'seq 1 $HALF; test -e "$GATE.open" || cat "$GATE"; seq $((HALF + 1)) 1000000',
        ),
    ),
    Network(
        "word_count",
        {("total", "results/counts.txt"): _WORDS},
        sources=("read",),
        victim="count-1",
        sink="split",
        half=5,
        held=5,
        gated=lambda _: (
            *("sh", "-c"),
            'head -n $HALF poem.txt; test -e "$GATE.open" || cat "$GATE"; tail -n +6 poem.txt',
        ),
    ),
)
_BY_NAME = pytest.mark.parametrize("network", _NETWORKS, ids=lambda network: network.example)
_LOSSES = (*_NETWORKS, dataclasses.replace(_NETWORKS[-1], victim="split"))
"""A consumer by key is lost, and the producer by key, too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """A board for each loss, and two more."""
    folder = tmp_path_factory.mktemp("cluster")
    async with running_cluster(folder, agents=len(_LOSSES) + 2) as running:
        yield running


async def test_a_million_lines_are_sorted_over_three_boards(
    cluster: tuple[LocalCluster, Client],
) -> None:
    """Issue: the `seq | awk | sort | tail` of its Shows."""
    _, client = cluster
    submitted = await submit_file(client, _EXAMPLES / "sort" / "pipeline.yaml")
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert len({job.node for job in ended.jobs}) == 3, describe(ended)


@_BY_NAME
async def test_a_network_ends_with_what_its_readme_says(
    cluster: tuple[LocalCluster, Client], network: Network, tmp_path: Path
) -> None:
    """Cases F4 to F10 on several boards; F6 by descriptor, by FIFO path, by stdin and stdout."""
    _, client = cluster
    submitted = await submit_file(client, _EXAMPLES / network.example / "pipeline.yaml")
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    await _check(client, ended, network, tmp_path)
    drawn = graph_of(ended.spec, ended.jobs)
    assert {box.state for box in drawn.boxes} == {JobState.SUCCEEDED}
    assert all(len(job.attempts) == 1 for job in ended.jobs), describe(ended)


_OPTIONAL = """
    name: optional
    bundle: .
    jobs:
      frames:
        run: python frames.py
        variables: {{SEEN: "{seen}"}}
        resources: {{cpus: 0.25}}
        outputs: [frames]
      speeds:
        run: python speeds.py
        variables: {{GATE: "{gate}"}}
        resources: {{cpus: 0.25}}
        outputs: [speed]
      fuse:
        run: python fuse.py
        variables: {{SEEN: "{seen}", EARLY: "{early}"}}
        resources: {{cpus: 0.25}}
        inputs:
          frames: frames.frames
          speed: {{from: speeds.speed, optional: true, default: [0, km/h], repeat: true}}
"""
_OPTIONAL_FILES = {
    # Ten frames, then as many as it takes until a speed was seen, and five more.
    "frames.py": (
        "import os\n"
        "from shoal import job\n"
        "@job.source\n"
        "def frames():\n"
        "    yield from ['early'] * 10\n"
        "    while not os.path.exists(os.environ['SEEN']):\n"
        "        yield 'between'\n"
        "    yield from ['late'] * 5\n"
    ),
    "speeds.py": (
        "import os\n"
        "from shoal import job\n"
        "@job.source\n"
        "def speeds():\n"
        "    open(os.environ['GATE']).read()\n"
        "    yield [50, 'km/h']\n"
    ),
    "fuse.py": (
        "import os\n"
        "from shoal import job\n"
        "class Fuse:\n"
        "    def setup(self): self.out, self.rounds = open('results/fused', 'w'), 0\n"
        "    def run(self, frames, speed):\n"
        "        self.out.write('%s %d %s\\n' % (frames, *speed))\n"
        "        self.rounds += 1\n"
        "        if self.rounds == 10: open(os.environ['EARLY'], 'w').close()\n"
        "        if speed[0]: open(os.environ['SEEN'], 'w').close()\n"
        "    def finish(self): self.out.close()\n"
        "job.run(Fuse)\n"
    ),
}


async def test_rounds_do_not_wait_for_an_optional_input(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case F11: the default before its first record, then the last one again."""
    _, client = cluster
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    early = tmp_path / "early"
    text = _OPTIONAL.format(gate=gate, seen=tmp_path / "seen", early=early)
    submitted = await submit(client, tmp_path / "bundle", text, _OPTIONAL_FILES)
    name = submitted.pipeline.id
    await until(early.exists, _DEADLINE, "ten rounds without a speed")
    with gate.open("wb") as opened:
        opened.write(b"open")
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    fused = (await contents(client, ended, "results/fused", tmp_path / "fused")).decode()
    lines = fused.splitlines()
    assert lines[:10] == ["early 0 km/h"] * 10
    assert lines[-5:] == ["late 50 km/h"] * 5


_ONE_NAME = """
    name: one-name
    bundle: .
    jobs:
      source:
        run: seq 1 9
        resources: {cpus: 0.25}
        outputs: {numbers: {format: lines, as: stdout}}
      raw:
        run: sort -nr
        resources: {cpus: 0.25}
        inputs: {numbers: {from: source.numbers, format: lines, as: stdin}}
        outputs: {numbers: {format: lines, as: stdout}}
      code:
        run: python twice.py
        resources: {cpus: 0.25}
        inputs: {numbers: raw.numbers}
        outputs: [numbers]
      sink:
        run: [sh, -c, cat > results/numbers]
        resources: {cpus: 0.25}
        inputs: {numbers: {from: code.numbers, format: lines, as: stdin}}
"""
_ONE_NAME_FILES = {
    "twice.py": "from shoal import job\n@job.main\ndef twice(numbers): return b'%d' % (2 * int(numbers))\n"
}


async def test_an_input_and_an_output_may_have_one_name(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    _, client = cluster
    submitted = await submit(client, tmp_path / "bundle", _ONE_NAME, _ONE_NAME_FILES)
    ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    found = await contents(client, ended, "results/numbers", tmp_path / "numbers")
    assert found.split() == [b"%d" % (2 * number) for number in range(9, 0, -1)]


_LATEST = """
    name: latest
    bundle: .
    jobs:
      camera:
        run: python camera.py
        place: {{prefer: [node-1]}}
        resources: {{cpus: 0.25}}
        outputs: [frames]
      view:
        run: python view.py
        variables: {{GATE: "{gate}"}}
        place: {{prefer: [node-2]}}
        resources: {{cpus: 0.25}}
        inputs: {{frames: {{from: camera.frames, promise: latest}}}}
"""
_LATEST_FILES = {
    # Far more than what sockets, credit and backlogs would hold together.
    "camera.py": (
        "from shoal import job\n"
        "@job.source\n"
        "def camera():\n"
        "    for number in range(4000):\n"
        "        yield b'%05d' % number + bytes(9000)\n"
    ),
    "view.py": (
        "import os\n"
        "from shoal import job\n"
        "@job.stream\n"
        "def view():\n"
        "    port, seen = job.inputs['frames'], []\n"
        "    for frame in port:\n"
        "        if not seen: open(os.environ['GATE']).read()\n"
        "        seen.append(int(bytes(frame[:5])))\n"
        "    with open('results/seen', 'w') as out:\n"
        "        out.write('%s %s' % (port.dropped, ' '.join(map(str, seen))))\n"
    ),
}


async def test_who_wants_the_newest_holds_nobody_up(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case F10: a stuck viewer, a camera that ends all the same, gaps that are counted."""
    _, client = cluster
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    text = _LATEST.format(gate=gate)
    name = (await submit(client, tmp_path / "bundle", text, _LATEST_FILES)).pipeline.id
    # The camera has sent everything while the viewer is stuck with its first frame.
    over = await when(
        client,
        name,
        lambda now: any(stream.ended for stream in job_of(now, "camera").streams),
    )
    [sent] = job_of(over, "camera").streams
    assert (sent.records, sent.retained_bytes < 20_000) == (4000, True)
    assert sent.dropped > 3900
    await asyncio.to_thread(gate.write_bytes, b"open")
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    told = (await contents(client, ended, "results/seen", tmp_path / "seen")).decode().split()
    dropped, seen = int(told[0]), [int(one) for one in told[1:]]
    assert seen == sorted(set(seen))
    assert seen[-1] == 3999
    assert len(seen) + dropped == 4000
    [got] = job_of(ended, "view").streams
    assert (got.records, got.dropped) == (len(seen), dropped)


@pytest.mark.parametrize("network", _LOSSES, ids=lambda one: f"{one.example}-{one.victim}")
async def test_a_network_that_loses_a_board_in_the_middle_ends_the_same(
    cluster: tuple[LocalCluster, Client], network: Network, tmp_path: Path
) -> None:
    """Case F16: no record lost, none made up."""
    boards, client = cluster
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pipeline = await _with_a_gate(client, network, tmp_path / "bundle", gate)
    name = (await client.submit(pipeline)).pipeline.id
    middle = await when(client, name, lambda now: _arrived(now, network) >= network.held)
    victim = job_of(middle, network.victim).node
    await boards.kill_board(victim)
    moved = {job.id for job in middle.jobs if job.node == victim}
    await when(client, name, lambda now: all(_elsewhere(now, job, victim) for job in moved))
    gate.with_name("gate.open").touch()
    await asyncio.to_thread(_wake, gate)
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    await _check(client, ended, network, tmp_path)
    attempts = job_of(ended, network.victim).attempts
    assert [attempt.state for attempt in attempts] == [JobState.LOST, JobState.SUCCEEDED]
    assert attempts[0].node == victim != attempts[1].node


async def _check(client: Client, ended: PipelineView, network: Network, folder: Path) -> None:
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    for (job, path), expected in network.files.items():
        alone = dataclasses.replace(ended, jobs=(job_of(ended, job),))
        assert (await contents(client, alone, path, folder / "artifact")).decode() == expected


async def _with_a_gate(client: Client, network: Network, folder: Path, gate: Path) -> spec.Pipeline:
    """Read an example and let its sources stand still in the middle; nothing else is changed."""
    example = load(_EXAMPLES / network.example / "pipeline.yaml")
    shutil.copytree(_EXAMPLES / network.example, folder)
    (folder / "gated.py").write_text(_GATED)
    with pack(BundleFolder(folder)) as packed:
        await client.ensure_bundle(packed)
    jobs = tuple(
        dataclasses.replace(
            job,
            run=network.gated(job),
            variables={**job.variables, "GATE": str(gate), "HALF": str(network.half)},
        )
        if job.name in network.sources
        else job
        for job in example.pipeline.jobs
    )
    return dataclasses.replace(example.pipeline, jobs=jobs, bundle_digest=packed.digest)


def _arrived(pipeline: PipelineView, network: Network) -> int:
    """How many records have arrived at the sink."""
    return min(
        (stream.records for stream in job_of(pipeline, network.sink).streams if not stream.output),
        default=0,
    )


def _elsewhere(pipeline: PipelineView, job: str, lost: str) -> bool:
    view = job_of(pipeline, job)
    return view.state in {JobState.RUNNING, JobState.DRAINING} and view.node not in {"", lost}


def _wake(gate: Path) -> None:
    """Wake every source that waits; one that comes later finds the gate open."""
    descriptor = os.open(gate, os.O_RDWR | os.O_NONBLOCK)
    os.close(descriptor)

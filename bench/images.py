"""G11, and the image of the agent: what it adds to its base, how soon it has a session, what it takes while idle.

The image is built from the shipped file on Debian 12 (the shipped base cannot be pulled everywhere). In each round a
container of it joins a controller with a token (`docker run`), is stopped and started again, and is then left alone
for IDLE seconds. Memory is the sum of PSS of all its processes: before its first job, after one, and after one with a
stream, which the stream worker is started for. CPU is that of all of them over those seconds. The peer, Dask's worker
with its nanny, does the same in the same rounds, in an image of its own on the same base. It is the nearest daemon of
PyPI that takes work for a machine.

Not like for like: Dask's worker has no identity, no gossip, no records between machines, keeps nothing on disk, and
its jobs die with it. Ours runs two processes, with streams three, of which all but the first outlive the agent.

Run it with `make bench-images`; ROUNDS and IDLE say how much. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.identity import Role
from shoal.model import PipelineState
from shoal.spec import Job, Output, Pipeline, Resources, StreamInput
from tests.kit.controller_process import ControllerProcess
from tests.kit.docker import Docker, docker_daemon
from tests.kit.ports import free_port

ROUNDS = int(os.environ.get("ROUNDS", "3"))
IDLE_SECONDS = float(os.environ.get("IDLE", "30"))
ADDED_MB_MAX = 200.0
SESSION_SECONDS_MAX = 3.0
IDLE_MIB_MAX = 80.0
POLL_SECONDS = 0.02
START_SECONDS = 120.0
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
SECRET = ("--secret", f"id=ca,src={AUTHORITIES}") if AUTHORITIES.exists() else ()
PEER = """
ARG BASE
FROM ${BASE}
RUN --mount=type=secret,id=ca if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && python3 -m venv --without-pip /opt/dask && python3 -m venv /opt/pip \
    && /opt/pip/bin/python -m pip --python /opt/dask/bin/python install --quiet --no-cache-dir distributed \
    && rm -rf /opt/pip
USER 1000:1000
ENV HOME=/tmp
ENTRYPOINT ["/opt/dask/bin/dask"]
"""
TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


async def main() -> int:
    """Measure, and print a table and the result."""
    with docker_daemon() as docker, tempfile.TemporaryDirectory() as folder:
        run = uuid.uuid4().hex[:8]
        base = docker.base()
        ours, theirs = f"shoal-bench-agent:{run}", f"shoal-bench-dask:{run}"
        words = ("build", "--quiet", "--build-arg", f"BASE={base}", *SECRET)
        try:
            docker(*words, "--file", "edge_agent/Dockerfile", "--tag", ours, ".", seconds=150)
            docker(*words, "--tag", theirs, "-", stdin=PEER, seconds=150)
            added = {name: _added(docker, name, base) for name in (ours, theirs)}
            rounds: list[tuple[Figures, Figures]] = []
            async with _controller(Path(folder)) as (controller, client):
                for _ in range(ROUNDS):
                    one = await _agent(docker, ours, controller, client)
                    rounds.append((one, await _worker(docker, theirs)))
        finally:
            for name in (ours, theirs):
                docker("image", "rm", "--force", name)
    _tell(added[ours], added[theirs], [one for one, _ in rounds], [two for _, two in rounds])
    return 0


def _tell(added: float, peer_added: float, ours: list[Figures], peers: list[Figures]) -> None:
    names = {
        "first_seconds": f"docker run to session, s (bar {SESSION_SECONDS_MAX:g})",
        "again_seconds": "docker start to session, s",
        "idle_mib": f"idle, PSS, MiB (bar {IDLE_MIB_MAX:g})",
        "worked_mib": "idle after a job, PSS, MiB",
        "streamed_mib": "idle after a job with a stream, PSS, MiB",
        "idle_cpu": "idle, % of a core",
    }
    print(f"{'median (least to most)':46}{'agent':>24}{'Dask worker':>24}{'ratio':>8}")
    label = f"added to the base, MB (bar {ADDED_MB_MAX:g})"
    print(f"{label:46}{added:24.1f}{peer_added:24.1f}{added / peer_added:8.2f}")
    medians: dict[str, tuple[float, float]] = {}
    for key, name in names.items():
        columns = ([one[key] for one in ours], [two[key] for two in peers])
        medians[key] = (statistics.median(columns[0]), statistics.median(columns[1]))
        shown = [f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in columns]
        ratio = medians[key][0] / medians[key][1] if medians[key][1] else float("nan")
        print(f"{name:46}{shown[0]:>24}{shown[1]:>24}{ratio:8.2f}")
    bars = {
        "added": added <= ADDED_MB_MAX,
        "first_seconds": medians["first_seconds"][0] <= SESSION_SECONDS_MAX,
        "idle_mib": medians["idle_mib"][0] <= IDLE_MIB_MAX,
    }
    for key, met in bars.items():
        print(f"bar of {key}: {'met' if met else 'NOT met'}")
    result = {
        "bench": "images",
        "ours": {"added_mb": added, **{key: pair[0] for key, pair in medians.items()}},
        "peer": {"added_mb": peer_added, **{key: pair[1] for key, pair in medians.items()}},
        "ratio": medians["idle_mib"][0] / medians["idle_mib"][1],
        "met": bars,
        "rounds": ROUNDS,
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result))


def _added(docker: Docker, image: str, base: str) -> float:
    """What an image has beyond its base, in megabytes."""
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (image, base)
    ]
    return (sizes[0] - sizes[1]) / 1e6


@contextlib.asynccontextmanager
async def _controller(folder: Path) -> AsyncIterator[tuple[ControllerProcess, Client]]:
    options = ("--no-insecure", "--newcomers", "127.0.0.1:0")
    async with ControllerProcess(folder, *options) as controller:
        operator = read_credentials(folder / "state" / "identity" / "operator")
        async with Client(controller.grpc, credentials=operator) as client:
            yield controller, client


async def _agent(
    docker: Docker, image: str, controller: ControllerProcess, client: Client
) -> Figures:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    word, _ = await client.create_token(Role.NODE, name_pattern=name)

    async def there() -> bool:
        return any(node.name == name and node.connected for node in await client.nodes())

    async def away() -> bool:
        return not await there()

    async def work(*, stream: bool) -> None:
        # It prints, so that there is an artifact to store.
        program, cpus = ("python", "-c", "print(1)"), Resources(cpus=0.25)
        jobs: tuple[Job, ...] = (Job("noop", program, resources=cpus),)
        if stream:
            source = Job("source", program, outputs=(Output("out"),), resources=cpus)
            inputs = (StreamInput("in", "source", "out"),)
            jobs = (source, Job("sink", program, streams=inputs, resources=cpus))
        submitted = await client.submit(Pipeline(f"noop-{name}", jobs))
        pipeline = await client.wait(submitted.pipeline.name, deadline_seconds=60)
        if pipeline.state is not PipelineState.SUCCEEDED:
            raise RuntimeError(f"the job ended as {pipeline.state.name}")

    words = (
        "--env", f"SHOAL_TOKEN={word}", image,
        "agent", "--name", name, "--controller", controller.grpc,
        "--newcomers", controller.addresses["newcomers"], "--join", controller.gossip,
        "--gossip", "127.0.0.1:0", "--streams", f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    try:
        return await _figures(docker, name, words, there, away, work)
    finally:
        with contextlib.suppress(Exception):
            await client.forget_node(name)


async def _worker(docker: Docker, image: str) -> Figures:
    name = f"shoal-bench-{uuid.uuid4().hex[:8]}"
    scheduler, page = free_port(), free_port()
    place = f"tcp://127.0.0.1:{scheduler}"
    docker(
        "run", "--detach", "--network", "host", "--name", f"{name}-scheduler", image, "scheduler",
        "--host", "127.0.0.1", "--port", str(scheduler),
        "--dashboard-address", f"127.0.0.1:{page}",
    )  # fmt: skip

    def count() -> int:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{page}/json/counts.json"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(json.load(answer)["workers"])
        return -1

    async def is_(number: int) -> bool:
        return await asyncio.to_thread(count) == number

    async def work(*, stream: bool) -> None:
        del stream  # it has none, and does the same again
        program = f"from distributed import Client; Client({place!r}).submit(abs, -1).result()"
        python = ("exec", f"{name}-scheduler", "/opt/dask/bin/python", "-c", program)
        await asyncio.to_thread(docker, *python)

    try:
        await _until(lambda: is_(0))
        words = (image, "worker", place, "--no-dashboard", "--local-directory", "/tmp")  # noqa: S108 - of its container
        return await _figures(docker, name, words, lambda: is_(1), lambda: is_(0), work)
    finally:
        docker("rm", "--force", "--volumes", f"{name}-scheduler")


async def _figures(
    docker: Docker,
    name: str,
    words: tuple[str, ...],
    there: Callable[[], Awaitable[bool]],
    away: Callable[[], Awaitable[bool]],
    work: Callable[..., Awaitable[None]],
) -> Figures:
    """Measure one container, which is gone afterwards."""
    try:
        began = time.monotonic()
        await asyncio.to_thread(
            docker, "run", "--detach", "--network", "host", "--name", name, *words
        )
        first = await _until(there) - began
        await asyncio.to_thread(docker, "stop", "--time", "30", name)
        await _until(away)
        began = time.monotonic()
        await asyncio.to_thread(docker, "start", name)
        again = await _until(there) - began
        await asyncio.sleep(IDLE_SECONDS / 2)  # until what a start leaves behind is done
        cpu, began = _cpu_seconds(docker, name), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        cpu = (_cpu_seconds(docker, name) - cpu) / (time.monotonic() - began)
        idle = _pss_mib(docker, name)
        await work(stream=False)
        await asyncio.sleep(IDLE_SECONDS / 2)
        worked = _pss_mib(docker, name)
        await work(stream=True)
        await asyncio.sleep(IDLE_SECONDS / 2)
        return {
            "first_seconds": first,
            "again_seconds": again,
            "idle_mib": idle,
            "worked_mib": worked,
            "streamed_mib": _pss_mib(docker, name),
            "idle_cpu": 100 * cpu,
        }
    finally:
        docker("rm", "--force", "--volumes", name)


async def _until(holds: Callable[[], Awaitable[bool]]) -> float:
    """Wait until it holds; returns when that was."""
    async with asyncio.timeout(START_SECONDS):
        while not await holds():  # noqa: ASYNC110 - it is asked of other processes
            await asyncio.sleep(POLL_SECONDS)
    return time.monotonic()


def _processes(docker: Docker, name: str) -> list[Path]:
    pids = docker("top", name, "-eo", "pid").split()[1:]
    return [Path("/proc") / pid for pid in pids]


def _pss_mib(docker: Docker, name: str) -> float:
    total = 0
    for process in _processes(docker, name):
        lines = (process / "smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _cpu_seconds(docker: Docker, name: str) -> float:
    total = 0
    for process in _processes(docker, name):
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

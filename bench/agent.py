"""G10 and G11: how soon a job starts whose environment is there, and what an agent takes while it has no work.

G10: a job asks for one package of FILES modules from an index of this run. The first job builds; of the next JOBS
ones the time is measured from the assignment, as a controller sends it, to the first line of the job's own code. The
peers do what systems without kept environments do for each job: `python -m venv` and pip, and uv with a warm cache,
then the same program.

G11: an agent that has joined a controller with a token, gossips and keeps its session is left alone for IDLE seconds.
CPU is that of all of its processes. So is memory, once as PSS, and once as it would be alone on its machine: what is
shared with processes of others, such as the controller of this run, counts in full there, and the bar is for that. The
peer, Dask's worker with its nanny, is the nearest daemon of PyPI that takes work for a machine.

Not like for like: Dask's worker has no identity, no gossip, keeps nothing on disk, and its jobs die with it. An
environment of ours is looked at file by file before each use, and a fresh one is not; the peers' times leave out
fetching and laying out the bundle, and logs that are stored.

Run it with `make bench-agent`; ROUNDS, JOBS, IDLE and FILES say how much. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.identity import Role
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.spec import Environment, Job, RequirementsStep
from tests.kit.agent_process import AgentProcess
from tests.kit.bundle_archive import tar_of, wheel_of
from tests.kit.child_process import ChildProcess
from tests.kit.controller_process import ControllerProcess
from tests.kit.object_server import ObjectServer
from tests.kit.package_index import PackageIndex
from tests.kit.ports import free_port
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

ROUNDS = int(os.environ.get("ROUNDS", "3"))
JOBS = int(os.environ.get("JOBS", "30"))
IDLE_SECONDS = float(os.environ.get("IDLE", "30"))
FILES = int(os.environ.get("FILES", "2000"))
START_MS_MAX, START_MS_STRETCH = 150.0, 40.0
IDLE_MB_MAX, IDLE_PERCENT_MAX = 80.0, 0.5
PEER = Path("build") / "bench-dask"
UV = Path(sys.executable).with_name("uv")
TICKS = os.sysconf("SC_CLK_TCK")
PROGRAM = "import time\nprint(time.monotonic())\nimport bulk_0\n"

Figures = dict[str, float]


async def main() -> int:
    """Measure, and print a table and the result."""
    peer = _peer_python()
    starts: list[float] = []
    first: list[float] = []
    theirs: dict[str, list[float]] = {"venv and pip": [], "uv": []}
    idle: list[tuple[Figures, Figures]] = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            async with PackageIndex() as index:
                index.add(*_bulk())
                environ = _environ(index)
                builds, again = await _starts(environ)
                first.append(builds)
                starts += again
                for name, values in theirs.items():
                    values.append(await asyncio.to_thread(_fresh, name, Path(folder), environ))
            idle.append((await _idle_agent(Path(folder)), await _idle_worker(peer)))
        print(f"round {number + 1}: {again[len(again) // 2]:.1f} ms, {idle[-1]}", flush=True)
    _tell(first, sorted(starts), theirs, idle)
    return 0


def _tell(
    first: list[float],
    starts: list[float],
    theirs: dict[str, list[float]],
    idle: list[tuple[Figures, Figures]],
) -> None:
    p50, p99 = statistics.median(starts), starts[min(len(starts) - 1, int(len(starts) * 0.99))]
    print(f"\nG10: from the assignment to the job's code, {FILES} files, ms")
    print(f"{'agent, environment there: p50':44}{p50:10.1f}")
    print(f"{'                          p99':44}{p99:10.1f}")
    print(f"{'agent, first job of a recipe':44}{_median(first):10.1f}")
    for name, values in theirs.items():
        print(f"{name:44}{_median(values):10.1f}{_median(values) / p50:9.0f} times")
    print(f"\nG11: idle for {IDLE_SECONDS:g} s, median (least to most)")
    print(f"{'':44}{'agent':>22}{'Dask worker':>22}")
    medians: dict[str, tuple[float, float]] = {}
    for key, name in (
        ("alone_mb", "memory of all processes, alone, MB"),
        ("pss_mb", "the same beside this run's processes (PSS), MB"),
        ("cpu_percent", "CPU of all processes, % of a core"),
        ("processes", "processes"),
    ):
        columns = [[pair[side][key] for pair in idle] for side in (0, 1)]
        medians[key] = (_median(columns[0]), _median(columns[1]))
        shown = [f"{_median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in columns]
        print(f"{name:44}{shown[0]:>22}{shown[1]:>22}")
    met = {
        "G10": p50 <= START_MS_MAX,
        "G10 stretch": p50 <= START_MS_STRETCH,
        "G11 memory": medians["alone_mb"][0] <= IDLE_MB_MAX,
        "G11 CPU": medians["cpu_percent"][0] <= IDLE_PERCENT_MAX,
    }
    for key, held in met.items():
        print(f"bar of {key}: {'met' if held else 'NOT met'}")
    result = {
        "bench": "agent",
        "ours": {
            "start_ms_p50": p50,
            "start_ms_p99": p99,
            "first_start_ms": _median(first),
            **{key: pair[0] for key, pair in medians.items()},
        },
        "peer": {
            **{f"{name} ms": _median(values) for name, values in theirs.items()},
            **{key: pair[1] for key, pair in medians.items()},
        },
        "ratio": _median(theirs["uv"]) / p50,
        "met": met,
        "rounds": ROUNDS,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result))


# ---- G10


def _bulk() -> tuple[str, bytes]:
    """A wheel with many modules."""
    extra = {f"bulk_{number}.py": f"NUMBER = {number}\n#{'x' * 900}\n" for number in range(FILES)}
    return wheel_of("bulk", "1.0", "NUMBER = -1\n", extra)


def _environ(index: PackageIndex) -> dict[str, str]:
    own = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return {
        **own,
        "PIP_INDEX_URL": index.url,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_DEFAULT_INDEX": index.url,
    }


async def _starts(environ: dict[str, str]) -> tuple[float, list[float]]:
    """Milliseconds from the assignment to the job's code: of the first job, and of the others."""
    bundle = tar_of({"main.py": PROGRAM, "requirements.txt": "bulk==1.0\n"})
    recipe = Environment(steps=(RequirementsStep("requirements.txt"),))
    job = Job("job", ("python", "main.py"), environment=recipe)
    found: list[float] = []
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--log-level", "INFO", environ=environ) as agent,
    ):
        await until(lambda: controller.sessions > 0, 30, "a session")
        digest, url = objects.add(bundle)
        for number in range(1, JOBS + 2):
            ref = AttemptRef("default", "p", "job", number, number)
            began = time.monotonic()
            controller.assign(Assignment(ref, job, bundle_digest=digest, bundle_url=url))
            await until(functools.partial(_ended, controller, ref), 120, "the end of a job")
            started = float(objects.objects[f"{ref.prefix}/out/stdout"])
            found.append((started - began) * 1e3)
            controller.remove(ref)
            await until(lambda: agent.attempts() == [], 30, "an idle agent")
    return found[0], found[1:]


def _ended(controller: ScriptedController, ref: AttemptRef) -> bool:
    state = controller.state(ref)
    if state is None or not state.terminal:
        return False
    if state is not JobState.SUCCEEDED:
        raise RuntimeError(f"the job ended as {state.name}: {controller.reason(ref)}")
    return True


def _fresh(name: str, folder: Path, environ: dict[str, str]) -> float:
    """Milliseconds from nothing to the job's code with an environment made for it alone."""
    (folder / "main.py").write_text(PROGRAM)
    (folder / "requirements.txt").write_text("bulk==1.0\n")
    variables = {**environ, "UV_CACHE_DIR": str(folder / "uv-cache")}
    place = folder / "environment"
    python = str(place / "bin" / "python")
    if name == "uv":
        commands = [
            [str(UV), "venv", "--quiet", "--python", sys.executable, str(place)],
            [str(UV), "pip", "install", "--quiet", "--python", python, "-r", "requirements.txt"],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(place)],
            [python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"],
        ]
    milliseconds = 0.0
    for _ in range(2):  # the first fills the cache
        shutil.rmtree(place, ignore_errors=True)
        began = time.monotonic()
        for command in commands:
            subprocess.run(command, cwd=folder, env=variables, check=True, timeout=300)
        said = subprocess.run(
            [python, "main.py"], cwd=folder, check=True, capture_output=True, timeout=60
        ).stdout
        milliseconds = (float(said) - began) * 1e3
    shutil.rmtree(place)
    return milliseconds


# ---- G11


async def _idle_agent(folder: Path) -> Figures:
    place = folder / "controller"
    place.mkdir()
    name = "bench"
    state = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    async with _controller(place) as (controller, client):
        word, _ = await client.create_token(Role.NODE, name_pattern=name)
        agent = ChildProcess(folder / "agent.log")
        agent.run(
            [
                sys.executable, "-m", "shoal.cli", "agent", "--state", str(state), "--name", name,
                "--controller", controller.grpc, "--newcomers", controller.addresses["newcomers"],
                "--join", controller.gossip, "--gossip", "127.0.0.1:0",
                "--streams", f"127.0.0.1:{free_port()}", "--stop-jobs", "--sandbox", "none",
            ],
            {**os.environ, "SHOAL_TOKEN": word},
        )  # fmt: skip

        async def there() -> bool:
            return any(node.name == name and node.connected for node in await client.nodes())

        try:
            await until(there, 60, "the agent's session")
            return await _idle(lambda: _with(os.fsencode(str(state))))
        finally:
            await asyncio.to_thread(agent.end, signal.SIGTERM)
            shutil.rmtree(state, ignore_errors=True)


@contextlib.asynccontextmanager
async def _controller(folder: Path) -> AsyncIterator[tuple[ControllerProcess, Client]]:
    options = ("--no-insecure", "--newcomers", "127.0.0.1:0")
    async with ControllerProcess(folder, *options) as controller:
        operator = read_credentials(folder / "state" / "identity" / "operator")
        async with Client(controller.grpc, credentials=operator) as client:
            yield controller, client


async def _idle_worker(python: Path) -> Figures:
    dask = str(python.with_name("dask"))
    scheduler, page = free_port(), free_port()
    place = f"tcp://127.0.0.1:{scheduler}"

    def workers() -> int:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{page}/json/counts.json"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(json.load(answer)["workers"])
        return -1

    with tempfile.TemporaryDirectory() as folder:
        first, second = (ChildProcess(Path(folder) / f"{name}.log") for name in ("a", "b"))
        dashboard = f"127.0.0.1:{page}"
        host = ("--host", "127.0.0.1", "--port", str(scheduler), "--dashboard-address", dashboard)
        first.run([dask, "scheduler", *host])
        try:
            await until(lambda: workers() == 0, 60, "the scheduler")
            process = second.run(
                [dask, "worker", place, "--no-dashboard", "--local-directory", folder]
            )
            await until(lambda: workers() == 1, 60, "the worker")
            return await _idle(lambda: _family(process.pid))
        finally:
            await asyncio.to_thread(second.end, signal.SIGTERM)
            await asyncio.to_thread(first.end, signal.SIGTERM)


async def _idle(processes: Callable[[], Sequence[Path]]) -> Figures:
    await asyncio.sleep(IDLE_SECONDS / 2)  # until what a start leaves behind is done
    cpu, began = _cpu_seconds(processes()), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    cpu = (_cpu_seconds(processes()) - cpu) / (time.monotonic() - began)
    found = processes()
    return {**_memory(found), "cpu_percent": 100 * cpu, "processes": len(found)}


def _with(word: bytes) -> list[Path]:
    """Processes with a word in their command line."""
    found: list[Path] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and word in (entry / "cmdline").read_bytes():
                found.append(entry)
    return found


def _family(pid: int) -> list[Path]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path("/proc") / str(one) for one in sorted(found)]


def _cpu_seconds(processes: Iterable[Path]) -> float:
    total = 0
    for process in processes:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:13])
    return total / TICKS


def _memory(processes: Iterable[Path]) -> Figures:
    """Memory in MB: PSS, and what it would be without any other process to share pages with.

    Private pages count for each process. Pages of one part of a file count once, by the process that has the most of
    it, and pages that several of them inherited from one parent count as in PSS.
    """
    private = pss = inherited = 0
    shared: dict[str, int] = {}
    for process in processes:
        mapping, values = "", dict[str, int]()
        for line in [*(process / "smaps").read_text().splitlines(), "end-0 "]:
            words = line.split()
            if words[0].endswith(":"):
                values[words[0][:-1]] = int(words[1]) if words[1].isdecimal() else 0
                continue
            if values:
                of_others = values["Shared_Clean"] + values["Shared_Dirty"]
                private += values["Private_Clean"] + values["Private_Dirty"]
                pss += values["Pss"]
                if mapping:
                    shared[mapping] = max(shared.get(mapping, 0), of_others)
                elif of_others:
                    inherited += values["Pss"] - values["Private_Clean"] - values["Private_Dirty"]
            values = {}
            named = len(words) > 5 and words[5].startswith("/")
            mapping = f"{words[5]} {words[2]}" if named else ""
    kilobyte = 1024 / 1e6
    alone = private + inherited + sum(shared.values())
    return {"pss_mb": pss * kilobyte, "alone_mb": alone * kilobyte}


def _peer_python() -> Path:
    """Make the peer's own environment, once."""
    python = PEER / "bin" / "python"
    if not (PEER / "done").exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "distributed"], check=True)
        (PEER / "done").touch()
    return python.absolute()


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""What runs one process a job elsewhere, each in an environment of its own: Dask, Ray, HyperQueue.

Each peer's program runs as many jobs as it is told, each of which starts `/bin/true` and waits for it, on WORKERS
workers of this machine, warm. It prints one JSON object: jobs a second, and the CPU that it and all below it used: of
its control group where there is one (`bench/cpu_group.py`), else by /proc. None of them is durable: HyperQueue has a
journal, but its package of PyPI, which is what its Python interface starts, has no way to switch it on (0.27).
"""

from __future__ import annotations

import inspect
import json
import subprocess
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cpu_group import cpu_seconds

WORKERS: Final = 3
SLOTS: Final = 8
"""Jobs of a worker at a time, where a worker does several."""

_SECONDS: Final = 1_800.0

_BEGIN: Final = f"""
import ctypes, json, os, subprocess, sys, time
from pathlib import Path

{inspect.getsource(cpu_seconds)}
JOBS, WORKERS, SLOTS = int(sys.argv[1]), {WORKERS}, {SLOTS}
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # what leaves its parent stays below this process

def cpu():
    if len(sys.argv) > 2:
        return cpu_seconds(Path(sys.argv[2]))
    ticks, parents = {{}}, {{}}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = open(f"/proc/{{name}}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)] = int(fields[1])
            ticks[int(name)] = sum(map(int, fields[11:15]))
    ours, grown = {{os.getpid()}}, True
    while grown:
        more = {{pid for pid, parent in parents.items() if parent in ours}} - ours
        grown = bool(more)
        ours |= more
    return sum(ticks[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")

def job(number):
    return subprocess.run(["/bin/true"]).returncode

def measured(run):
    run(20 * WORKERS)
    before, begin = cpu(), time.monotonic()
    run(JOBS)
    seconds = time.monotonic() - begin
    print(json.dumps({{"per_second": JOBS / seconds, "cpu_ms": (cpu() - before) * 1e3 / JOBS}}))
"""

_DASK: Final = """
from dask.distributed import Client, LocalCluster

def main():
    cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=SLOTS, processes=True, dashboard_address=None)
    client = Client(cluster)
    measured(lambda jobs: client.gather([client.submit(job, n, pure=False) for n in range(jobs)]))
    client.close()
    cluster.close()

if __name__ == "__main__":
    main()
"""

_RAY: Final = """
import ray

def main():
    ray.init(num_cpus=WORKERS, include_dashboard=False, object_store_memory=100 << 20, logging_level="error")
    remote = ray.remote(job)
    measured(lambda jobs: ray.get([remote.remote(n) for n in range(jobs)]))
    ray.shutdown()

if __name__ == "__main__":
    main()
"""

_HYPERQUEUE: Final = """
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

def main():
    with LocalCluster() as cluster:
        for _ in range(WORKERS):
            cluster.start_worker(WorkerConfig(cores=SLOTS))
        client = cluster.client()

        def run(jobs):
            graph = Job()
            for _ in range(jobs):
                graph.program(["/bin/true"], stdout=None, stderr=None)
            client.wait_for_jobs([client.submit(graph)])

        measured(run)

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: what it is called, the package that it comes in, and its program."""

    name: str
    package: str
    program: str

    def python(self) -> Path:
        """Make its environment, once, and return its interpreter."""
        folder = Path("build") / f"bench-{self.name}"
        python = folder / "bin" / "python"
        if not (folder / "done").exists():
            venv.create(folder, with_pip=True)
            words = [str(python), "-m", "pip", "install", "--quiet", self.package]
            subprocess.run(words, check=True, capture_output=True, text=True)
            (folder / "done").touch()
        return python.absolute()

    def measure(self, jobs: int, group: Path | None) -> Mapping[str, float]:
        """Run so many jobs, and return `per_second` and `cpu_ms` (CPU milliseconds a job), by this group's file.

        Raises:
            CalledProcessError: it failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "peer.py"
            program.write_text(_BEGIN + self.program)
            done = subprocess.run(
                [self.python(), program, str(jobs), *([group] if group else [])],
                check=True,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                cwd=folder,
            )
        measured: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
        return measured


PEERS: Final = (
    Peer("dask", "distributed", _DASK),
    Peer("ray", "ray", _RAY),
    Peer("hyperqueue", "hyperqueue", _HYPERQUEUE),
)

"""A local job's program: started as on a board, with the same variables and the same bytes at its ports."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal import spec
from shoal.errors import ShoalError
from shoal.job import block as job_block
from shoal.job import worker_end
from shoal.job.block import DATA, HEADER
from shoal.job.error import PortError
from shoal.local import launch
from shoal.local.checked_block import Records, pack
from shoal.program_ports import PortsDocument
from shoal.program_ports import described as described_ports

_READ_BYTES = 256 * 1024


class ProgramFailedError(ShoalError):
    """A local job's program did not end well, or could not be started."""

    def __init__(self, message: str) -> None:
        super().__init__("LOCAL_JOB", message)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a local program runs: namespace and id of its pipeline, folders, and its terminal.

    `folder` is its working folder, `results` where it leaves files, `sdk` what `PYTHONPATH` begins
    with. With `terminal` it reads the standard input of this process.
    """

    namespace: str
    pipeline: str
    folder: Path
    results: Path
    sdk: Path
    terminal: bool = False


class ProgramPort:
    """Our end of one port of a program."""

    def __init__(self, name: str, binding: spec.PortBinding) -> None:
        self.name = name
        self.raw = (
            None
            if binding.format is spec.PortFormat.BLOCKS
            else worker_end.RawFormat(binding.format_name)
        )
        """The format, where the program does not speak blocks."""
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ours.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def start(self, first: int, recovery: spec.Recovery, block_count: int) -> None:
        """Say where the port begins."""
        if self.raw is None:
            await self._send(worker_end.start_block(first, recovery.value, block_count))

    async def write(self, records: Records) -> None:
        """Hand records over; what a program takes no more is dropped.

        Raises:
            PortError: A record does not fit the format of the port.
        """
        if self.raw is None:
            size = len(records.body)
            await self._send(HEADER.pack(DATA, 0, 0, records.count, records.first, size, 0))
            await self._send(records.body)
        else:
            await self._send(self.raw.render(records.first, records.payloads()))

    async def end(self, total: int) -> None:
        """Show the program the end."""
        if self.raw is None:
            await self._send(job_block.encode_mark(job_block.END, total))
        with contextlib.suppress(OSError):
            self.ours.shutdown(socket.SHUT_WR)

    async def read_records(
        self,
        first: int,
        take: Callable[[Records], Awaitable[None]],
        progress: Callable[[str], None],
    ) -> None:
        """Read what the program sends, numbered from `first`, until the end of file.

        Raises:
            ProgramFailedError: It breaks the format of the port.
        """
        end = worker_end.WorkerEnd(first, progress, output=True)
        try:
            if self.raw is None:
                while data := await self._receive():
                    for block in end.feed(data):
                        await take(Records(block.first, block.total, bytes(block.body)))
                return
            while data := await self._receive():
                first = await self._take_all(first, self.raw.feed(data), take)
            await self._take_all(first, self.raw.finish(), take)
        except PortError as error:
            raise ProgramFailedError(f"port {self.name}: {error}") from error

    async def read_acknowledgements(
        self, acknowledged: Callable[[int], None], progress: Callable[[str], None]
    ) -> None:
        """Read how far the program is with an input, until the end of file."""
        end = worker_end.WorkerEnd(0, progress, output=False)
        with contextlib.suppress(PortError):
            while data := await self._receive():
                if self.raw is None:
                    end.feed(data)
                    acknowledged(end.next)

    def close(self) -> None:
        """Let go of both ends."""
        self.ours.close()
        self.theirs.close()

    async def _take_all(
        self, first: int, records: Sequence[bytes], take: Callable[[Records], Awaitable[None]]
    ) -> int:
        for packed in pack(first, records):
            await take(packed)
        return first + len(records)

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._loop.sock_sendall(self.ours, data)

    async def _receive(self) -> bytes:
        try:
            return await self._loop.sock_recv(self.ours, _READ_BYTES)
        except OSError:
            return b""


async def start(
    job: spec.Job,
    pipeline: spec.Pipeline,
    ports: Mapping[str, ProgramPort],
    around: Surroundings,
    environ: Mapping[str, str],
) -> asyncio.subprocess.Process:
    """Start the program of a local job; its ends of the ports are its own from then on.

    Raises:
        ProgramFailedError: It cannot be started.
    """
    numbers = {name: port.theirs.fileno() for name, port in ports.items()}
    stdio = spec.PortAttachment.STDIO
    stdin: Any = None if around.terminal else subprocess.DEVNULL
    stdout: Any = None
    for stream in job.streams:
        if stream.binding.attachment is stdio:
            stdin = numbers[stream.name]
    for output in job.outputs:
        if output.binding.attachment is stdio:
            stdout = numbers[output.name]
    described = _ports(job, pipeline, numbers)
    argv = worker_end.expanded(
        job.run,
        {way: {name: {"fd": numbers[name]} for name in known} for way, known in described.items()},
    )
    around.results.mkdir(parents=True, exist_ok=True)
    variables = _variables(job, described, around, environ)
    if (
        shutil.which(around.folder / argv[0] if "/" in argv[0] else argv[0], path=variables["PATH"])
        is None
    ):
        raise ProgramFailedError(
            f"the program {argv[0]!r} of {job.name} is not on this machine: install it, or write "
            f"./{argv[0]} for a file in {around.folder}"
        )
    with contextlib.ExitStack() as stack:
        if job.stdin and job.stdin != spec.TERMINAL:
            stdin = stack.enter_context((around.folder / job.stdin).open("rb"))
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__),
                *(str(os.getpid()), str(int(signal.SIGTERM)), *argv),
                stdin=stdin,
                stdout=stdout,
                env=variables,
                cwd=around.folder,
                pass_fds=tuple(numbers.values()),
            )
        except OSError as error:
            raise ProgramFailedError(
                f"the program {argv[0]!r} of {job.name} cannot be started: {error}"
            ) from error
    for port in ports.values():
        port.theirs.close()
    return process


@contextlib.contextmanager
def library(folder: Path) -> Iterator[Path]:
    """Make a folder for PYTHONPATH that holds `shoal.job` alone, as on a board."""
    package = Path(job_block.__file__).resolve().parents[1]
    place = folder / "sdk"
    (place / "shoal").mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "job"):
        link = place / "shoal" / name
        link.unlink(missing_ok=True)
        link.symlink_to(package / name)
    yield place


def _variables(
    job: spec.Job, ports: PortsDocument, around: Surroundings, environ: Mapping[str, str]
) -> dict[str, str]:
    """Say what docs/architecture.md, section 3, lists; everything else is the user's own."""
    own = dict(job.variables)
    paths = [str(around.sdk), own.pop("PYTHONPATH", environ.get("PYTHONPATH", ""))]
    path = own.pop("PATH", environ.get("PATH", ""))
    return {
        **environ,
        "PYTHONUNBUFFERED": "1",
        **own,
        # `python` is there, whatever the user has: the one that runs this.
        "PATH": os.pathsep.join(filter(None, [path, str(Path(sys.executable).parent)])),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **worker_end.variables(
            around.namespace, around.pipeline, job.name, job.recovery.value, around.results, ports
        ),
    }


def _ports(job: spec.Job, pipeline: spec.Pipeline, numbers: Mapping[str, int]) -> PortsDocument:
    stdio = {
        one.name: number
        for number, ports in ((0, job.streams), (1, job.outputs))
        for one in ports
        if one.binding.attachment is spec.PortAttachment.STDIO
    }

    def place(_direction: str, name: str) -> dict[str, object]:
        return {"fd": stdio.get(name, numbers[name])}

    def peers(direction: str, name: str) -> list[spec.PortFormat]:
        if direction == "inputs":
            [stream] = [one for one in job.streams if one.name == name]
            outputs = pipeline.job(stream.job).outputs
            return [one.binding.format for one in outputs if one.name == stream.port]
        return [stream.binding.format for _, stream in pipeline.readers(job.name, name)]

    return described_ports(job, place, peers)

"""A local job's program: started as on a board, with the same variables and the same bytes at its ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal import spec
from shoal.errors import ShoalError
from shoal.job import block as job_block
from shoal.job.block import ACK, DATA, HEADER, PROGRESS, START
from shoal.job.block_reader import BlockReader
from shoal.job.error import PortError
from shoal.local import launch
from shoal.local.block import Records, pack
from shoal.local.cutter import CutError, Cutter, plain

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

    def __init__(self, name: str, binding: spec.PortBinding, *, output: bool) -> None:
        self.name = name
        self.binding = binding
        self.output = output
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ours.setblocking(False)
        self._reader = BlockReader()
        self._loop = asyncio.get_running_loop()

    @property
    def blocks(self) -> bool:
        """Whether the program speaks blocks here."""
        return self.binding.format is spec.PortFormat.BLOCKS

    async def start(self, first: int, recovery: spec.Recovery, block_count: int) -> None:
        """Say where the port begins."""
        if self.blocks:
            said = {"recovery": recovery.value, "epoch": 1, "block_count": block_count}
            await self._send(job_block.encode_text(START, first, json.dumps(said)))

    async def write(self, records: Records) -> None:
        """Hand records over; what a program takes no more is dropped."""
        if self.blocks:
            size = len(records.body)
            await self._send(HEADER.pack(DATA, 0, 0, records.count, records.first, size, 0))
            await self._send(records.body)
        else:
            await self._send(plain(self.binding, records))

    async def end(self, total: int) -> None:
        """Show the program the end."""
        if self.blocks:
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
        cutter = None if self.blocks else Cutter(self.binding)
        following = first
        try:
            while data := await self._receive():
                if cutter is not None:
                    for records in pack(following, cutter.feed(data)):
                        await take(records)
                        following = records.end
                    continue
                for block in self._reader.feed(data):
                    if block.kind == PROGRESS:
                        progress(str(block.body, "utf-8", "replace"))
                    elif block.kind == DATA:
                        if block.first != following:
                            raise ProgramFailedError(
                                f"port {self.name}: record {block.first} came where {following} "
                                "was due"
                            )
                        following += block.total
                        await take(Records(block.first, block.total, bytes(block.body)))
            if cutter is not None:
                for records in pack(following, cutter.finish()):
                    await take(records)
        except (CutError, PortError) as error:
            raise ProgramFailedError(f"port {self.name}: {error}") from error

    async def read_acknowledgements(
        self, acknowledged: Callable[[int], None], progress: Callable[[str], None]
    ) -> None:
        """Read how far the program is with an input, until the end of file."""
        with contextlib.suppress(PortError):
            while data := await self._receive():
                if not self.blocks:
                    continue
                for block in self._reader.feed(data):
                    if block.kind == ACK:
                        acknowledged(block.first)
                    elif block.kind == PROGRESS:
                        progress(str(block.body, "utf-8", "replace"))

    def close(self) -> None:
        """Let go of both ends."""
        self.ours.close()
        self.theirs.close()

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
    argv = [_expanded(word, job, numbers) for word in job.run]
    around.results.mkdir(parents=True, exist_ok=True)
    variables = _variables(job, pipeline, numbers, around, environ)
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
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *argv),
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


def _expanded(word: str, job: spec.Job, numbers: Mapping[str, int]) -> str:
    for stream in job.streams:
        word = word.replace(f"{{inputs.{stream.name}.fd}}", str(numbers[stream.name]))
    for output in job.outputs:
        word = word.replace(f"{{outputs.{output.name}.fd}}", str(numbers[output.name]))
    return word


def _variables(
    job: spec.Job,
    pipeline: spec.Pipeline,
    numbers: Mapping[str, int],
    around: Surroundings,
    environ: Mapping[str, str],
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
        "SHOAL_NAMESPACE": around.namespace,
        "SHOAL_PIPELINE": around.pipeline,
        "SHOAL_JOB": job.name,
        "SHOAL_REPLICA": "0",
        "SHOAL_REPLICAS": "1",
        "SHOAL_ATTEMPT": "1",
        "SHOAL_EPOCH": "1",
        "SHOAL_NAME": f"pipelines/{around.pipeline}/jobs/{job.name}/attempts/1",
        "SHOAL_RECOVERY": job.recovery.value,
        "SHOAL_RESULTS": str(around.results),
        "SHOAL_PORTS": json.dumps(_ports(job, pipeline, numbers), separators=(",", ":")),
    }


def _ports(
    job: spec.Job, pipeline: spec.Pipeline, numbers: Mapping[str, int]
) -> dict[str, dict[str, dict[str, object]]]:
    stdio = spec.PortAttachment.STDIO
    inputs: dict[str, dict[str, object]] = {}
    for stream in job.streams:
        producer = pipeline.job(stream.job)
        formats = [one.binding.format for one in producer.outputs if one.name == stream.port]
        inputs[stream.name] = {
            "fd": 0 if stream.binding.attachment is stdio else numbers[stream.name],
            "format": _format(stream.binding),
            "block_count": stream.block_count,
            **_stand_in(stream.optional),
            **_codec(formats),
        }
    outputs: dict[str, dict[str, object]] = {}
    for output in job.outputs:
        formats = [
            stream.binding.format
            for other in pipeline.jobs
            for stream in other.streams
            if (stream.job, stream.port) == (job.name, output.name)
        ]
        outputs[output.name] = {
            "fd": 1 if output.binding.attachment is stdio else numbers[output.name],
            "format": _format(output.binding),
            **_codec(formats),
        }
    return {"inputs": inputs, "outputs": outputs}


def _codec(peers: list[spec.PortFormat]) -> dict[str, object]:
    return {"codec": "raw"} if peers and spec.PortFormat.BLOCKS not in peers else {}


def _stand_in(optional: spec.StandIn | None) -> dict[str, object]:
    if optional is None:
        return {}
    return {
        "optional": {
            "default": json.loads(optional.default_json),
            "repeat": optional.repeat,
            "buffer": optional.buffer,
            "drop": optional.drop.value,
        }
    }


def _format(binding: spec.PortBinding) -> str:
    if binding.format is spec.PortFormat.BYTES:
        return f"bytes:{binding.record_bytes}"
    return str(binding.format.value)

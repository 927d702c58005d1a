"""Call a job in a test: feed its ports, collect what comes out, without a cluster.

```python
from shoal.job import testing

result = testing.call(detector.detect, inputs={"frames": [frame]}, outputs=["found"])
assert result.outputs["found"] == [[(10, 20, 64, 128)]]

result = testing.run_program(
    ["sort", "-n"], inputs={"numbers": ["3", "1"]}, outputs=["sorted"],
    formats={"numbers": "lines", "sorted": "lines"}, stdio=["numbers", "sorted"],
)
assert result.outputs["sorted"] == ["1", "3"]
```

The job talks over real sockets with the same bytes as on a board; only the other end is here.
"""

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import (
    IO,
    Any,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

from shoal.job.block import END, HEADED, Buffer, data_head, encode_mark
from shoal.job.codec import AUTO, Codec, codec_for
from shoal.job.entry import program_of
from shoal.job.error import JobError, PortError
from shoal.job.fifo_relay import ENDED
from shoal.job.headers import Headers, decode_headers, encode_headers
from shoal.job.job_context import Context
from shoal.job.process import Process, exchange
from shoal.job.program import Program
from shoal.job.reducers import Reduce
from shoal.job.worker_end import (
    RawFormat,
    WorkerEnd,
    expanded,
    from_record,
    start_block,
    to_record,
    variables,
)

_READ_BYTES = 256 * 1024
_POLL_SECONDS = 0.05
_RELAY = (sys.executable, "-I", "-S", str(Path(__file__).with_name("fifo_relay.py")))


class DeadlineError(JobError):
    """The job did not end in time."""


class Record(NamedTuple):
    """A value that comes with headers, for `inputs`: `Record(frame, {"alarm": 1})`."""

    value: Any
    headers: Mapping[str, Any]


class Result(NamedTuple):
    """What a job did.

    Attributes:
        outputs: Values by output port, in order.
        ended: By output port, whether the job said that this was all.
        acknowledged: By input port, how many records the job said are processed.
        progress: What the job said of its progress, in order.
        results: The job's `results/` folder.
        exit_code: Of a program; 0 for `call`. Negative: the number of the signal that ended it.
        stdout: Of a program, as text.
        stderr: Of a program, as text.
        headers: By output port, the headers of each of its values; `{}` for none.
    """

    outputs: Dict[str, List[Any]]
    ended: Dict[str, bool]
    acknowledged: Dict[str, int]
    progress: List[str]
    results: Path
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    headers: Mapping[str, List[Headers]] = {}


def call(
    target: Any,
    inputs: Optional[Mapping[str, Iterable[Any]]] = None,
    outputs: Sequence[str] = (),
    *,
    codecs: Optional[Mapping[str, Union[str, Codec]]] = None,
    reduce: Optional[Reduce] = None,
    block_count: Union[int, Mapping[str, int]] = 1,
    optional: Optional[Mapping[str, Mapping[str, Any]]] = None,
    recovery: str = "restart",
    first_round: int = 0,
    results: Union[str, "os.PathLike[str]", None] = None,
    environment: Optional[Mapping[str, str]] = None,
    deadline_seconds: float = 60,
) -> Result:
    """Run a function or class as a job in this process.

    Args:
        target: What `job.main`, `job.source` or `job.stream` was put around, or could be.
        inputs: Values by input port; they may be endless if the job ends by itself. A `Record`
            is a value with headers.
        outputs: Names of the output ports.
        codecs: Codec by port; those that the job names itself are known.
        reduce: Reducers by header, on top of those that the job names itself.
        block_count: How many records are handed over at a time.
        optional: Input ports that rounds do not wait for, with what the specification says of them:
            `{"speed": {"default": 0, "repeat": True}}`.
        recovery: `restart` or `resume`.
        first_round: Where a resumed attempt begins; `inputs` holds what comes from there on.
        results: Folder for the job's results; a temporary one by default.
        environment: More variables, such as SHOAL_REPLICA.
        deadline_seconds: After this long its streams break off.

    Raises:
        DeadlineError: The job did not end in time.
        Exception: Whatever the job raised.
    """
    program = program_of(target)
    named = dict(program.codecs)
    named.update(codecs or {})
    bench = _Bench(inputs or {}, outputs, {}, named, block_count, recovery, first_round)
    bench.optional = optional or {}
    folder = _results_folder(results)
    process = Process(Context(bench.environment(folder, (), environment)))
    fds = bench.hand_over()
    serving = threading.Thread(
        target=bench.serve, args=(time.monotonic() + deadline_seconds, None), daemon=True
    )
    serving.start()
    before = exchange(process)
    try:
        reducers = dict(program.reduce)
        reducers.update(reduce or {})
        Program(program.target, program.style, named, reducers).run(process)
    except JobError as error:
        if bench.late:
            raise DeadlineError(bench.lateness(deadline_seconds)) from error
        raise
    finally:
        exchange(before)
        if process.opened:
            process.streams.close()
        else:
            for fd in fds:
                os.close(fd)
        bench.stop()
        serving.join(10)
        bench.close()
    if bench.late:
        # Its ports were closed then, which a job may take for an end like any other.
        raise DeadlineError(bench.lateness(deadline_seconds))
    bench.check()
    return bench.result(folder)


def run_program(
    argv: Sequence[str],
    inputs: Optional[Mapping[str, Iterable[Any]]] = None,
    outputs: Sequence[str] = (),
    *,
    formats: Optional[Mapping[str, str]] = None,
    stdio: Sequence[str] = (),
    fifo: Sequence[str] = (),
    codecs: Optional[Mapping[str, Union[str, Codec]]] = None,
    block_count: Union[int, Mapping[str, int]] = 1,
    optional: Optional[Mapping[str, Mapping[str, Any]]] = None,
    recovery: str = "restart",
    first_round: int = 0,
    results: Union[str, "os.PathLike[str]", None] = None,
    environment: Optional[Mapping[str, str]] = None,
    folder: Union[str, "os.PathLike[str]", None] = None,
    deadline_seconds: float = 60,
) -> Result:
    """Run any program as a job in a process of its own.

    Args:
        argv: Program and arguments; `{inputs.NAME.fd}` and `{outputs.NAME.fd}` become numbers,
            `{inputs.NAME.path}` and `{outputs.NAME.path}` the paths of FIFOs.
        inputs: Values by input port: str or bytes for `lines`, JSON values for `jsonl`, int for
            `u32`, bytes for `bytes:N`, anything that the codec takes for `blocks`; with `blocks` a
            `Record` is a value with headers.
        outputs: Names of the output ports.
        formats: Format by port name; `blocks` by default.
        stdio: Ports that are the program's standard input or output.
        fifo: Ports that are FIFOs, of a format other than `blocks`.
        codecs: Codec by port of format `blocks`.
        block_count: How many records are handed over at a time.
        optional: Input ports that rounds do not wait for, with what the specification says of them:
            `{"speed": {"default": 0, "repeat": True}}`.
        recovery: `restart` or `resume`.
        first_round: Where a resumed attempt begins.
        results: Folder for the job's results; a temporary one by default.
        environment: More variables.
        folder: The program's working folder.
        deadline_seconds: After this long it is killed.

    Raises:
        DeadlineError: It did not end in time.
        JobError: It broke the format of a port.
    """
    bench = _Bench(
        inputs or {}, outputs, formats or {}, codecs or {}, block_count, recovery, first_round
    )
    bench.optional = optional or {}
    results_folder = _results_folder(results)
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[2])]
        + [one for one in [os.environ.get("PYTHONPATH", "")] if one]
    )
    variables["PYTHONUNBUFFERED"] = "1"
    with contextlib.ExitStack() as stack:
        stack.callback(bench.close)
        relays = bench.make_fifos(fifo, stack) if fifo else []
        variables.update(bench.environment(results_folder, stdio, environment))
        stdin, stdout = bench.stdio(stdio)
        out = stack.enter_context(tempfile.TemporaryFile())
        err = stack.enter_context(tempfile.TemporaryFile())
        with subprocess.Popen(
            bench.expand(argv),
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=stdout if stdout is not None else out,
            stderr=err,
            env=variables,
            cwd=None if folder is None else str(folder),
            pass_fds=bench.fds(),
        ) as process:
            bench.release()
            try:
                bench.serve(time.monotonic() + deadline_seconds, _Running(process, relays))
                if bench.late:
                    raise DeadlineError(bench.lateness(deadline_seconds) + "\n" + _text(err))
            finally:
                process.kill()
                exit_code = process.wait()
        bench.check()
        return bench.result(results_folder)._replace(
            exit_code=exit_code, stdout=_text(out), stderr=_text(err)
        )


class _Running:
    """A program with the relays of its FIFOs, which end after it.

    Args:
        process: The program.
        relays: One process for each FIFO.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", relays: Sequence["subprocess.Popen[bytes]"]
    ) -> None:
        self._process = process
        self._relays = relays
        self._told = False

    def poll(self) -> bool:
        """Whether everything is over, and all that was written has passed.

        Raises:
            JobError: A relay died.
        """
        if self._process.poll() is None:
            return False
        for relay in () if self._told else self._relays:
            with contextlib.suppress(BrokenPipeError):
                cast(IO[bytes], relay.stdin).write(ENDED)
        self._told = True
        if any(relay.poll() is None for relay in self._relays):
            return False
        if any(relay.returncode for relay in self._relays):
            raise JobError("the relay of a FIFO died, so records may be missing")
        return True

    def wait(self, seconds: float) -> None:
        """Wait that long at most for what ends next."""
        for process in (self._process, *self._relays):
            if process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                return


class _Port:
    """The worker's side of one port."""

    def __init__(self, name: str, direction: str, port_format: str, codec: Codec) -> None:
        self.name = name
        self.direction = direction
        self.format = port_format
        self.codec = codec
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ours.setblocking(False)
        self.fd = self.theirs.fileno()
        self.path = ""
        self.backlog: Deque[memoryview] = deque()
        self.values: Optional[Iterator[Any]] = None
        self.sequence = 0
        self.raw = RawFormat(port_format) if port_format != "blocks" else None
        self.end: Optional[WorkerEnd] = None
        self.received: List[Any] = []
        self.headers: List[Headers] = []
        self.open = True

    def begin(self, first: int, start: bytes, progress: List[str]) -> None:
        """Say where the port begins."""
        self.sequence = first
        if self.raw is None:
            self.end = WorkerEnd(first, progress.append, output=self.direction == "out")
            self.queue(start)

    def place(self, fd: int) -> Dict[str, Any]:
        """Where the program finds it, for SHOAL_PORTS and the command."""
        return {"path": self.path} if self.path else {"fd": fd}

    def queue(self, piece: Buffer) -> None:
        """Send this some time."""
        self.backlog.append(memoryview(piece))

    def next_piece(self) -> None:
        """Queue the next record, or the end."""
        if self.values is None:
            return
        for value in self.values:
            if self.raw is None:
                given = value if isinstance(value, Record) else Record(value, {})
                head = encode_headers(given.headers) if given.headers else b""
                record = b"".join([head, *self.codec.encode(given.value)])
                length = len(record) | (HEADED if head else 0)
                self.queue(data_head(self.sequence, [length]) + record)
            else:
                record = to_record(self.format, value)
                self.queue(self.raw.render(self.sequence, [record]))
            self.sequence += 1
            return
        self.values = None
        if self.raw is None:
            self.queue(encode_mark(END, self.sequence))

    def write(self) -> None:
        """Write what fits."""
        while True:
            if not self.backlog:
                if self.values is None:
                    break
                self.next_piece()
                if not self.backlog:
                    continue
            try:
                count = self.ours.send(self.backlog[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the job has enough of this input
                self.backlog.clear()
                self.values = None
                return
            if count == len(self.backlog[0]):
                self.backlog.popleft()
            else:
                self.backlog[0] = self.backlog[0][count:]
        if self.direction == "in" and self.raw is not None:
            self.ours.shutdown(socket.SHUT_WR)

    @property
    def has_more(self) -> bool:
        """Whether something is to be written."""
        return bool(self.backlog) or self.values is not None

    def read(self) -> None:
        """Read what is there."""
        while self.open:
            try:
                data = self.ours.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            self.open = bool(data)
            try:
                if self.end is not None:
                    self._take_blocks(self.end, data)
                elif self.raw is not None and self.direction == "out":
                    records = self.raw.feed(data) if data else self.raw.finish()
                    self.received += [from_record(self.format, record) for record in records]
            except PortError as error:
                raise JobError("port {!r}: {}".format(self.name, error)) from error

    def _take_blocks(self, end: WorkerEnd, data: bytes) -> None:
        if not data:
            end.finish()
        for block in end.feed(data):
            texts = block.headers()
            for index, one in enumerate(block.records()):
                self.received.append(self.codec.decode(memoryview(one)))
                text = texts.get(index)
                self.headers.append(decode_headers(text) if text is not None else {})


class _Bench:
    """All ports of one job, from the worker's side."""

    def __init__(
        self,
        inputs: Mapping[str, Iterable[Any]],
        outputs: Sequence[str],
        formats: Mapping[str, str],
        codecs: Mapping[str, Union[str, Codec]],
        block_count: Union[int, Mapping[str, int]],
        recovery: str,
        first_round: int,
    ) -> None:
        self.late = False
        self.optional: Mapping[str, Mapping[str, Any]] = {}
        self._codecs = codecs
        self._counts: Dict[str, int] = {}
        self._recovery = recovery
        said: List[str] = []
        self._progress = said
        self._error: Optional[Exception] = None
        self._stopped = threading.Event()
        self._inputs: Dict[str, _Port] = {}
        self._outputs: Dict[str, _Port] = {}
        for name, values in inputs.items():
            count = block_count if isinstance(block_count, int) else block_count.get(name, 1)
            port = _Port(name, "in", formats.get(name, "blocks"), self._codec("inputs", name))
            port.begin(first_round * count, start_block(first_round * count, recovery, count), said)
            port.values = iter(values)
            self._inputs[name] = port
            self._counts[name] = count
        for name in outputs:
            port = _Port(name, "out", formats.get(name, "blocks"), self._codec("outputs", name))
            port.begin(first_round, start_block(first_round, recovery, 1), said)
            self._outputs[name] = port

    def _codec(self, direction: str, name: str) -> Codec:
        wanted = self._codecs.get("{}.{}".format(direction, name), self._codecs.get(name, AUTO))
        return codec_for(wanted)

    def environment(
        self, results: Path, stdio: Sequence[str], more: Optional[Mapping[str, str]]
    ) -> Dict[str, str]:
        """The variables that the agent would set."""
        ports: Dict[str, Dict[str, Any]] = {"inputs": {}, "outputs": {}}
        for name, port in self._inputs.items():
            ports["inputs"][name] = {
                "format": port.format,
                "block_count": self._counts[name],
            }
            ports["inputs"][name].update(port.place(0 if name in stdio else port.fd))
            if name in self.optional:
                said = {"default": None, "repeat": False, "buffer": 0, "drop": "oldest"}
                said.update(self.optional[name])
                ports["inputs"][name]["optional"] = said
        for name, port in self._outputs.items():
            ports["outputs"][name] = {"format": port.format}
            ports["outputs"][name].update(port.place(1 if name in stdio else port.fd))
        set_by_agent = variables("default", "test", "job", self._recovery, results, ports)
        return {**set_by_agent, **(more or {}), "SHOAL_PORTS": json.dumps(ports)}

    def expand(self, argv: Sequence[str]) -> List[str]:
        """The argument vector with the numbers of the descriptors and the paths of the FIFOs in it."""
        places = {
            way: {name: port.place(port.fd) for name, port in ports.items()}
            for way, ports in (("inputs", self._inputs), ("outputs", self._outputs))
        }
        return expanded(argv, places)

    def stdio(self, names: Sequence[str]) -> Tuple[Optional[int], Optional[int]]:
        """The descriptors that become the program's standard input and output."""
        stdin = [port.fd for name, port in self._inputs.items() if name in names]
        stdout = [port.fd for name, port in self._outputs.items() if name in names]
        return (stdin[0] if stdin else None, stdout[0] if stdout else None)

    def fds(self) -> List[int]:
        """The job's ends, without those of FIFOs."""
        return [port.fd for port in self._ports() if not port.path]

    def make_fifos(
        self, names: Sequence[str], stack: contextlib.ExitStack
    ) -> List["subprocess.Popen[bytes]"]:
        """Make these ports FIFOs in a temporary folder; return their relays, which the stack ends.

        Raises:
            JobError: A port of that name has blocks, or there is none.
        """
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-ports-")))
        ports = {port.name: port for port in self._ports()}
        return [self._relay(name, ports, folder, stack) for name in names]

    def _relay(
        self, name: str, ports: Mapping[str, _Port], folder: Path, stack: contextlib.ExitStack
    ) -> "subprocess.Popen[bytes]":
        port = ports.get(name)
        if port is None or port.raw is None:
            raise JobError(
                "{!r} is to be a FIFO, and it is no port with one of the formats lines, jsonl, u32 "
                "and bytes:N".format(name)
            )
        port.path = str(folder / name)
        os.mkfifo(port.path)
        fifo = os.open(port.path, os.O_RDWR | os.O_NONBLOCK)
        try:
            relay = subprocess.Popen(
                [
                    *(*_RELAY, port.direction, port.path),
                    *(str(port.fd), str(fifo), str(port.raw.size)),
                ],
                stdin=subprocess.PIPE,
                bufsize=0,
                pass_fds=(port.fd, fifo),
            )
        finally:
            os.close(fifo)
        stack.callback(relay.wait)
        # Without the other end of its control a relay ends by itself.
        stack.callback(cast(IO[bytes], relay.stdin).close)
        return relay

    def hand_over(self) -> List[int]:
        """The job's ends, which belong to the caller from now on."""
        return [port.theirs.detach() for port in self._ports()]

    def release(self) -> None:
        """The job has its ends now; close ours of them."""
        for port in self._ports():
            port.theirs.close()

    def stop(self) -> None:
        """The job is over: read what is left, then end."""
        self._stopped.set()

    def close(self) -> None:
        """Give all descriptors back."""
        for port in self._ports():
            port.ours.close()
            port.theirs.close()

    def serve(self, give_up_at: float, process: Optional[_Running]) -> None:
        """Feed and read all ports until the job is over."""
        try:
            self._serve(give_up_at, process)
        except Exception as error:  # noqa: BLE001 - raised by check() in the thread that waits
            self._error = error
        if process is None and (self.late or self._error is not None):
            for port in self._ports():
                port.ours.close()  # so that the job finds out

    def check(self) -> None:
        """Say what went wrong.

        Raises:
            JobError: The job broke the format of a port.
        """
        if self._error is not None:
            raise self._error

    def lateness(self, deadline_seconds: float) -> str:
        """The message of a `DeadlineError`."""
        return "the job did not end within {:g} s; not ended: {}".format(
            deadline_seconds,
            ", ".join(
                name
                for name, port in self._outputs.items()
                if port.end is None or not port.end.ended
            )
            or "nothing but the job itself",
        )

    def result(self, folder: Path) -> Result:
        """What the job did."""
        return Result(
            outputs={name: port.received for name, port in self._outputs.items()},
            ended={
                name: port.end is not None and port.end.ended
                for name, port in self._outputs.items()
            },
            acknowledged={
                name: port.end.next if port.end is not None else 0
                for name, port in self._inputs.items()
            },
            progress=self._progress,
            results=folder,
            headers={name: port.headers for name, port in self._outputs.items()},
        )

    def _ports(self) -> List[_Port]:
        return [*self._inputs.values(), *self._outputs.values()]

    def _serve(self, give_up_at: float, process: Optional[_Running]) -> None:
        with selectors.DefaultSelector() as selector:
            for port in self._ports():
                selector.register(port.ours, selectors.EVENT_READ | selectors.EVENT_WRITE, port)
            while True:
                over = self._stopped.is_set() if process is None else process.poll()
                if time.monotonic() > give_up_at:
                    self.late = True
                    return
                if not over and not selector.get_map():
                    if process is None:
                        self._stopped.wait(_POLL_SECONDS)
                    else:
                        process.wait(_POLL_SECONDS)
                    continue
                for key, events in selector.select(0 if over else _POLL_SECONDS):
                    port = cast(_Port, key.data)
                    if events & selectors.EVENT_READ:
                        port.read()
                    if port.open and events & selectors.EVENT_WRITE:
                        port.write()
                        if not port.has_more:
                            selector.modify(port.ours, selectors.EVENT_READ, port)
                    if not port.open:
                        selector.unregister(port.ours)
                if over:
                    for port in self._ports():
                        if port.open:
                            port.read()
                    return


def _results_folder(wanted: Union[str, "os.PathLike[str]", None]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="shoal-results-") if wanted is None else str(wanted))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return str(file.read(), "utf-8", "replace")


PYTHON = sys.executable
"""The interpreter of the test, for `run_program([PYTHON, "counter.py"], …)`."""

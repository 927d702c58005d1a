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
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import (
    IO,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
    cast,
)

from shoal.job import worker_end
from shoal.job.block import END, HEADED, data_head, encode_mark
from shoal.job.codec import AUTO, Codec, codec_for
from shoal.job.entry import program_of
from shoal.job.error import JobError, PortError
from shoal.job.fifo_relay import ENDED
from shoal.job.headers import Headers, decode_headers, encode_headers
from shoal.job.job_context import Context
from shoal.job.process import Process, exchange
from shoal.job.program import Program
from shoal.job.reducers import Reduce

_READ_BYTES = 256 * 1024
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
            is a value with headers. Those of each port are taken in a thread of their own.
        outputs: Names of the output ports.
        codecs: Codec by port; those that the job names itself are known.
        reduce: Reducers by header, on top of those that the job names itself.
        block_count: How many records are handed over at a time.
        optional: Input ports that rounds do not wait for, with what the specification says of them:
            `{"speed": {"default": 0, "repeat": True}}`.
        recovery: `restart` or `resume`.
        first_round: Where a resumed attempt begins; `inputs` holds what comes from there on.
        results: Folder for the job's results; a temporary one by default.
        environment: More variables, such as SHOAL_REPLICA, as `os.environ` has them while the job runs.
        deadline_seconds: After this long its streams break off.

    Raises:
        DeadlineError: The job did not end in time.
        Exception: Whatever the job raised.
    """
    program = program_of(target)
    named = dict(program.codecs)
    named.update(codecs or {})
    reducers = dict(program.reduce)
    reducers.update(reduce or {})
    bench = _Bench(inputs, outputs, None, named, block_count, optional, recovery, first_round)
    folder = _results_folder(results)
    process = Process(Context(bench.environment(folder, (), environment)))
    fds = bench.hand_over()
    bench.serve()
    late = threading.Timer(deadline_seconds, bench.give_up)
    late.start()
    before = exchange(process)
    try:
        with _variables(environment or {}):
            Program(program.target, program.style, named, reducers).run(process)
    except JobError as error:
        if bench.late:
            raise DeadlineError(bench.lateness(deadline_seconds)) from error
        raise
    finally:
        late.cancel()
        exchange(before)
        if process.opened:
            process.streams.close()
        else:
            for fd in fds:
                os.close(fd)
        bench.finish()
    if bench.late:
        # Its ports were closed then, which a job may take for an end like any other.
        raise DeadlineError(bench.lateness(deadline_seconds))
    return bench.result(folder)


@contextlib.contextmanager
def _variables(more: Mapping[str, str]) -> Iterator[None]:
    """Let this process have more variables for a while."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
    bench = _Bench(inputs, outputs, formats, codecs, block_count, optional, recovery, first_round)
    results_folder = _results_folder(results)
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[2])]
        + [one for one in [os.environ.get("PYTHONPATH", "")] if one]
    )
    variables["PYTHONUNBUFFERED"] = "1"
    with contextlib.ExitStack() as stack:
        stack.callback(bench.finish)
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
            bench.serve(process.kill)
            try:
                _wait(process, relays, deadline_seconds)
            except subprocess.TimeoutExpired:
                late = bench.lateness(deadline_seconds)
                raise DeadlineError(late + "\n" + _text(err)) from None
            finally:
                process.kill()
                exit_code = process.wait()
        bench.finish()
        return bench.result(results_folder)._replace(
            exit_code=exit_code, stdout=_text(out), stderr=_text(err)
        )


def _wait(
    process: "subprocess.Popen[bytes]",
    relays: Sequence["subprocess.Popen[bytes]"],
    deadline_seconds: float,
) -> None:
    """Wait until a program is over, and the relays of its FIFOs after it.

    Raises:
        TimeoutExpired: They are not in time.
        JobError: A relay died.
    """
    give_up_at = time.monotonic() + deadline_seconds
    process.wait(deadline_seconds)
    for relay in relays:
        with contextlib.suppress(BrokenPipeError):
            cast(IO[bytes], relay.stdin).write(ENDED)
    for relay in relays:
        if relay.wait(max(0.0, give_up_at - time.monotonic())):
            raise JobError("the relay of a FIFO died, so records may be missing")


class _Port:
    """The worker's side of one port: a thread hands over what it has, another takes what comes.

    Args:
        name: Of the port.
        said: What SHOAL_PORTS says of it besides its place.
        codec: Of format `blocks`.
        first: Sequence of its first record, from 0.
        start: What the job is told first, in format `blocks`.
        progress: Gets what the job says of its progress.
        values: What is handed over; None for an output.
    """

    def __init__(
        self,
        name: str,
        said: Dict[str, Any],
        codec: Codec,
        first: int,
        start: bytes,
        progress: List[str],
        values: Optional[Iterable[Any]],
    ) -> None:
        self.name = name
        self.said = said
        self.end = worker_end.WorkerEnd(first, progress.append, output=values is None)
        self.values = values
        self.format = str(said["format"])
        self.raw = None if self.format == "blocks" else worker_end.RawFormat(self.format)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.fd = self.theirs.fileno()
        self.path = ""
        self.received: List[Any] = []
        self.headers: List[Headers] = []
        self._codec = codec
        self._first = first
        self._start = start

    def place(self, fd: int) -> Dict[str, Any]:
        """Where the program finds it, for SHOAL_PORTS and the command."""
        return {"path": self.path} if self.path else {"fd": fd}

    def feed(self) -> None:
        """Hand everything over, or what the job wants of it."""
        for piece in self._pieces():
            try:
                self.ours.sendall(piece)
            except OSError:  # the job has enough of this input
                return
        if self.raw is not None and self.values is not None:
            with contextlib.suppress(OSError):
                self.ours.shutdown(socket.SHUT_WR)

    def take(self) -> None:
        """Read everything that the job writes.

        Raises:
            JobError: It breaks the format of the port.
        """
        data = b"begin"
        while data:
            try:
                data = self.ours.recv(_READ_BYTES)
            except OSError:
                data = b""
            try:
                if self.raw is None:
                    self._take_blocks(data)
                elif self.values is None:
                    records = self.raw.feed(data) if data else self.raw.finish()
                    self.received += [
                        worker_end.from_record(self.format, record) for record in records
                    ]
            except PortError as error:
                raise JobError("port {!r}: {}".format(self.name, error)) from error

    def _pieces(self) -> Iterator[bytes]:
        if self.raw is None:
            yield self._start
        if self.values is None:
            return
        sequence = self._first
        for value in self.values:
            yield self._encoded(sequence, value)
            sequence += 1
        if self.raw is None:
            yield encode_mark(END, sequence)

    def _encoded(self, sequence: int, value: Any) -> bytes:
        if self.raw is not None:
            return self.raw.render(sequence, [worker_end.to_record(self.format, value)])
        given = value if isinstance(value, Record) else Record(value, {})
        head = encode_headers(given.headers) if given.headers else b""
        record = b"".join([head, *self._codec.encode(given.value)])
        return data_head(sequence, [len(record) | (HEADED if head else 0)]) + record

    def _take_blocks(self, data: bytes) -> None:
        if not data:
            self.end.finish()
        for block in self.end.feed(data):
            texts = block.headers()
            for index, one in enumerate(block.records()):
                self.received.append(self._codec.decode(memoryview(one)))
                text = texts.get(index)
                self.headers.append(decode_headers(text) if text is not None else {})


class _Bench:
    """All ports of one job, from the worker's side."""

    def __init__(
        self,
        inputs: Optional[Mapping[str, Iterable[Any]]],
        outputs: Sequence[str],
        formats: Optional[Mapping[str, str]],
        codecs: Optional[Mapping[str, Union[str, Codec]]],
        block_count: Union[int, Mapping[str, int]],
        optional: Optional[Mapping[str, Mapping[str, Any]]],
        recovery: str,
        first_round: int,
    ) -> None:
        self.late = False
        self._recovery = recovery
        self._progress: List[str] = []
        self._error: Optional[Exception] = None
        self._threads: List[threading.Thread] = []
        self._ports: Dict[str, Dict[str, _Port]] = {"inputs": {}, "outputs": {}}

        def add(way: str, name: str, count: int, values: Optional[Iterable[Any]] = None) -> None:
            named = codecs or {}
            wanted = named.get("{}.{}".format(way, name), named.get(name, AUTO))
            said: Dict[str, Any] = {"format": (formats or {}).get(name, "blocks")}
            if values is not None:
                said["block_count"] = count
                if optional and name in optional:
                    usual = {"default": None, "repeat": False, "buffer": 0, "drop": "oldest"}
                    said["optional"] = {**usual, **optional[name]}
            first = first_round * count
            start = worker_end.start_block(first, recovery, count)
            self._ports[way][name] = _Port(
                name, said, codec_for(wanted), first, start, self._progress, values
            )

        for name, values in (inputs or {}).items():
            count = block_count if isinstance(block_count, int) else block_count.get(name, 1)
            add("inputs", name, count, values)
        for name in outputs:
            add("outputs", name, 1)

    def environment(
        self, results: Path, stdio: Sequence[str], more: Optional[Mapping[str, str]]
    ) -> Dict[str, str]:
        """The variables that the agent would set."""
        ports = {
            way: {
                name: {**port.said, **port.place(number if name in stdio else port.fd)}
                for name, port in self._ports[way].items()
            }
            for number, way in enumerate(("inputs", "outputs"))
        }
        set_by_agent = worker_end.variables(
            "default", "test", "job", self._recovery, results, ports
        )
        return {**set_by_agent, **(more or {}), "SHOAL_PORTS": json.dumps(ports)}

    def expand(self, argv: Sequence[str]) -> List[str]:
        """The argument vector with the numbers of the descriptors and the paths of the FIFOs in it."""
        places = {
            way: {name: port.place(port.fd) for name, port in ports.items()}
            for way, ports in self._ports.items()
        }
        return worker_end.expanded(argv, places)

    def stdio(self, names: Sequence[str]) -> List[Optional[int]]:
        """The descriptors that become the program's standard input and output."""
        return [
            next((port.fd for name, port in ports.items() if name in names), None)
            for ports in self._ports.values()
        ]

    def fds(self) -> List[int]:
        """The job's ends, without those of FIFOs."""
        return [port.fd for port in self._all() if not port.path]

    def make_fifos(
        self, names: Sequence[str], stack: contextlib.ExitStack
    ) -> List["subprocess.Popen[bytes]"]:
        """Make these ports FIFOs in a temporary folder; return their relays, which the stack ends.

        Raises:
            JobError: A port of that name has blocks, or there is none.
        """
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-ports-")))
        ports = {port.name: port for port in self._all()}
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
                    *(*_RELAY, "out" if port.values is None else "in", port.path),
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
        return [port.theirs.detach() for port in self._all()]

    def release(self) -> None:
        """The job has its ends now; close ours of them."""
        for port in self._all():
            port.theirs.close()

    def serve(self, broken: Callable[[], None] = lambda: None) -> None:
        """Feed and read all ports until they are hung up; `broken` is called when a port fails."""

        def work(of_port: Callable[[], None]) -> None:
            try:
                of_port()
            except Exception as error:  # noqa: BLE001 - raised by result() in the thread that waits
                self._error = self._error or error
                self.hang_up()
                broken()

        for port in self._all():
            for of_port in (port.feed, port.take):
                self._threads.append(threading.Thread(target=work, args=(of_port,), daemon=True))
        for thread in self._threads:
            thread.start()

    def give_up(self) -> None:
        """The job is late: let it find out by its ports."""
        self.late = True
        self.hang_up()

    def hang_up(self) -> None:
        """End all ports; what lies in them is still read."""
        for port in self._all():
            with contextlib.suppress(OSError):
                port.ours.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """The job is over: read what is left, and give all descriptors back."""
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
        for port in self._all():
            port.ours.close()
            port.theirs.close()

    def lateness(self, deadline_seconds: float) -> str:
        """The message of a `DeadlineError`."""
        left = [name for name, port in self._ports["outputs"].items() if not port.end.ended]
        return "the job did not end within {:g} s; not ended: {}".format(
            deadline_seconds, ", ".join(left) or "nothing but the job itself"
        )

    def result(self, folder: Path) -> Result:
        """What the job did.

        Raises:
            JobError: The job broke the format of a port.
        """
        if self._error is not None:
            raise self._error
        inputs, outputs = self._ports["inputs"], self._ports["outputs"]
        return Result(
            outputs={name: port.received for name, port in outputs.items()},
            ended={name: port.end.ended for name, port in outputs.items()},
            acknowledged={
                name: port.end.next if port.raw is None else 0 for name, port in inputs.items()
            },
            progress=self._progress,
            results=folder,
            headers={name: port.headers for name, port in outputs.items()},
        )

    def _all(self) -> List[_Port]:
        return [port for ports in self._ports.values() for port in ports.values()]


def _results_folder(wanted: Union[str, "os.PathLike[str]", None]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="shoal-results-") if wanted is None else str(wanted))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return str(file.read(), "utf-8", "replace")


PYTHON = sys.executable
"""The interpreter of the test, for `run_program([PYTHON, "counter.py"], …)`."""

"""All ports of this process: rounds over the inputs, and what is written when."""

import threading
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from shoal.job.codec import AUTO, Codec, codec_for
from shoal.job.error import OutputClosedError, PortError, RoundError
from shoal.job.flusher import DONE, LATER, SOON, Flusher
from shoal.job.input_port import InputPort
from shoal.job.job_context import Context
from shoal.job.optional_port import OptionalPort
from shoal.job.output_port import GATHER_SECONDS, OutputPort
from shoal.job.port_socket import PortSocket, wait, wait_in_loop
from shoal.job.reducers import Reduce, Reducers
from shoal.job.round_headers import RoundHeaders
from shoal.job.stderr_log import Log

Codecs = Mapping[str, Union[str, Codec]]

PROGRESS_SECONDS = 0.1
"""Progress is sent at most this often, in seconds; the latest text wins."""
MAX_PROGRESS_CHARACTERS = 2000


class Streams:
    """The ports, by name; opened once in a process.

    Outputs are written before acknowledgements, so that an acknowledged round has left the process.

    Attributes:
        context: Which job it is.
        foreign: Ports with a raw format, and what is to be done with them.
        inputs: By name.
        outputs: By name.
        headers: Those of the present round.
        ended: Whether all is over.
        resumes: Whether a replacement goes on in the middle, so that rounds are counted.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.foreign: Dict[str, str] = {}
        self.inputs: Dict[str, InputPort] = {}
        self.outputs: Dict[str, OutputPort] = {}
        self.ended = False
        self.resumes = context.resumes
        self._log = Log()
        self._lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._started = False
        self._first_round = 0
        self._rounds = 0
        self._progress: Optional[str] = None
        self._progress_at = 0.0
        self._flushed_at = 0.0
        self._waiting = False
        self._error: Optional[PortError] = None
        self.headers = RoundHeaders(self._carry)
        self._flusher = Flusher(self._flush_in_background)
        for name, said in context.ports("inputs").items():
            if self._ours("input", name, said):
                socket = PortSocket("input port {!r}".format(name), int(said["fd"]))
                port = _input_port(name, socket, said)
                self.inputs[name] = port
        for name, said in context.ports("outputs").items():
            if self._ours("output", name, said):
                socket = PortSocket("output port {!r}".format(name), int(said["fd"]))
                out = OutputPort(name, socket, _codec(said), self._lock)
                out.follow(self.start, self._flusher.arm)
                self.outputs[name] = out
        check = self._check_outputs if self.resumes and self.outputs else None
        for port in self.inputs.values():
            port.follow(self._wait_for, self._wait_for_async, check)

    def use_codecs(self, codecs: Codecs) -> None:
        """Set the codecs of ports by name; `inputs.NAME` or `outputs.NAME` where both have one.

        Raises:
            PortError: There is no such port.
            CodecError: There is no such codec.
        """
        for key, wanted in codecs.items():
            direction, _, name = key.rpartition(".")
            ports: List[Union[InputPort, OutputPort]] = []
            if direction in ("", "inputs") and match(name, self.inputs):
                ports.append(self.inputs[match(name, self.inputs)])
            if direction in ("", "outputs") and match(name, self.outputs):
                ports.append(self.outputs[match(name, self.outputs)])
            if not ports:
                raise PortError(
                    "codecs names the port {!r}, and this job has none of that name: {}".format(
                        key, self.describe()
                    )
                )
            for port in ports:
                port.codec = codec_for(wanted)

    def describe(self) -> str:
        """Which ports there are, for errors."""
        return "its inputs are {}, its outputs are {}".format(
            ", ".join(sorted(self.inputs)) or "none", ", ".join(sorted(self.outputs)) or "none"
        )

    def start(self) -> None:
        """Wait until the worker has said on every port where it begins; happens once.

        Raises:
            PortError: The other end broke the format or went away, or the inputs do not begin at the same round.
        """
        if self._started:
            return
        with self._start_lock:
            while True:
                late = [port.socket for port in self._all() if not port.start()]
                if not late:
                    break
                wait(late, ())
            self._first_round = self._common_round()
            self._started = True

    @property
    def first_round(self) -> int:
        """The round that this attempt begins with, from 0; above 0 only with `recovery: resume`."""
        self.start()
        return self._first_round

    def use_reducers(self, reduce: Optional[Reduce]) -> None:
        """Set how the headers of several records become one map.

        Raises:
            HeaderError: There is no such reducer.
        """
        self.headers.reducers = Reducers(reduce)
        for port in self.inputs.values():
            port.reducers = self.headers.reducers

    def count_rounds(self, count: int) -> None:
        """So many rounds more begin."""
        self._rounds += count

    def check_rounds(self) -> None:
        """All rounds that have begun were processed, and their outputs were sent.

        Raises:
            RoundError: With `recovery: resume`, an output has more or fewer records than rounds.
        """
        if self.resumes:
            self._check_outputs(self._rounds)

    def flush(self) -> bool:
        """Write what can be written without waiting; whether nothing is left.

        Raises:
            PortError: The other end of a port went away.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            self._flushed_at = time.monotonic()
            return self._write()

    def progress(self, text: str) -> None:
        """Say how far the job is; the latest text wins."""
        self._progress = text[:MAX_PROGRESS_CHARACTERS]
        self._flusher.arm()

    def end(self) -> None:
        """Write everything, acknowledge everything, and say on every output that this was all.

        Raises:
            PortError: The other end of a port went away before it had everything.
        """
        if self.ended:
            return
        try:
            self._end()
        except OutputClosedError:
            # The end is not waited for.
            self._flusher.stop()
        self.ended = True
        self.close()

    def _end(self) -> None:
        self.start()
        self._flusher.stop()
        if self._error is not None:
            raise self._error
        if self.resumes:
            rounds = [port.rounds_begun for port in self.inputs.values()] or [self._rounds]
            self._check_outputs(max(rounds))
        for port in self.inputs.values():
            port.processed = port.position
        self._progress_at = 0.0
        with self._lock:
            self._tell_progress()
            for out in self.outputs.values():
                out.queue_end()
        while not self.flush():
            wait((), self._unwritten())

    def close(self) -> None:
        """Give the descriptors back, without an end of the streams unless `end` has said it."""
        self._flusher.stop()
        for port in self._all():
            port.socket.close()

    def begin_batch(self, ports: Sequence[InputPort]) -> None:
        """Records are at hand: acknowledge those before, now or while job code is busy with these."""
        if time.monotonic() - self._flushed_at >= GATHER_SECONDS:
            self.flush()
        if not self._flusher.watching and any(port.waiting > port.block_count for port in ports):
            self._flusher.watch()

    def wait(self, readable: List[PortSocket]) -> None:
        """Write what there is, and wait until something can be read or written.

        Raises:
            PortError: The other end of a port went away.
        """
        self.flush()
        self._waiting = True
        wait(readable, self._unwritten())
        self._waiting = False

    async def wait_async(self, readable: List[PortSocket]) -> None:
        """`wait` for coroutines: other tasks run meanwhile."""
        self.flush()
        await wait_in_loop(readable, self._unwritten())

    def leave_the_rest(self, missing: List[InputPort], required: List[InputPort]) -> None:
        """An input is over: say so if others have more."""
        over = [port for port in missing if port.exhausted]
        for port in required:
            if port.waiting:
                self._log.warning(
                    "inputs end at different rounds; the rest is left",
                    ended=over[0].name,
                    rounds=self._rounds,
                    left=port.name,
                )

    def _wait_for(self, port: InputPort) -> bool:
        """Wait until a round of this port is ready; False if it is exhausted."""
        self.start()
        port.processed = port.position
        while not port.fill():
            self.wait([port.socket])
        self.begin_batch((port,))
        return not port.exhausted

    async def _wait_for_async(self, port: InputPort) -> bool:
        self.start()
        port.processed = port.position
        while not port.fill():
            await self.wait_async([port.socket])
        self.begin_batch((port,))
        return not port.exhausted

    def _carry(self, headers: Optional[Dict[str, Any]]) -> None:
        for out in self.outputs.values():
            out.carry(headers)

    def _check_outputs(self, rounds: int) -> None:
        for out in self.outputs.values():
            if out.sent == rounds:
                continue
            with self._lock:  # now the flusher is not in the middle of it
                sent = out.sent
            if sent != rounds:
                raise RoundError(
                    "after {} rounds of job {!r}, {} records were sent on output {!r}: with "
                    "`recovery: resume` every round sends exactly one record on every output "
                    "(return a value for it, or write `recovery: restart`)".format(
                        rounds, self.context.job, sent, out.name
                    )
                )

    def _common_round(self) -> int:
        rounds: Dict[str, int] = {}
        for port in self.inputs.values():
            if port.first % port.block_count:
                raise PortError(
                    "{}: it begins at record {}, which is in the middle of a round of {}".format(
                        port.socket.title, port.first, port.block_count
                    )
                )
            rounds[port.name] = port.first // port.block_count
        if not rounds:
            return max([out.first for out in self.outputs.values()] or [0])
        if len(set(rounds.values())) > 1:
            raise PortError("the inputs begin at different rounds: {}".format(rounds))
        return next(iter(rounds.values()))

    def _ours(self, direction: str, name: str, said: Mapping[str, Any]) -> bool:
        port_format = str(said.get("format", "blocks"))
        if port_format == "blocks":
            return True
        self.foreign[name] = (
            "{} port {!r} has the format {!r}: read and write {} yourself, or leave "
            "`format` out of the specification to use it with shoal.job".format(
                direction,
                name,
                port_format,
                said["path"] if "path" in said else "descriptor {}".format(said["fd"]),
            )
        )
        return False

    def _all(self) -> List[Union[InputPort, OutputPort]]:
        return [*self.inputs.values(), *self.outputs.values()]

    def _unwritten(self) -> List[PortSocket]:
        return [port.socket for port in self._all() if not port.socket.written]

    def _write(self) -> bool:
        """With the lock held: progress, then outputs, and acknowledgements when these have left."""
        processed = [(port, port.processed) for port in self.inputs.values()]
        told = self._tell_progress()
        done = True
        for out in self.outputs.values():
            done = out.write() and done
        sent = done
        for port, below in processed:
            if sent and port.socket.write():
                port.queue_ack(below)
            done = port.socket.write() and done
        return done and told

    def _tell_progress(self) -> bool:
        if self._progress is None:
            return True
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_SECONDS:
            return False
        text, self._progress = self._progress, None
        self._progress_at = now
        for out in self.outputs.values():
            if not out.ended:
                out.queue_progress(text)
                return True
        for port in self.inputs.values():
            port.queue_progress(text)
            return True
        self._log.info(text)
        return True

    def _flush_in_background(self) -> int:
        """What the flusher does: see to what job code left behind; how much of it is left."""
        try:
            with self._lock:
                now = time.monotonic()
                for out in self.outputs.values():
                    if out.waiting and now - out.written_at < GATHER_SECONDS:
                        return SOON  # job code writes by itself as long as it sends much
                if not self._write():
                    return LATER
        except PortError as error:
            self._error = error
            return DONE
        if self._waiting:
            return DONE  # and before it waits again, job code acknowledges by itself
        return LATER if any(port.waiting for port in self.inputs.values()) else DONE


def match(name: str, ports: Mapping[str, Any]) -> str:
    """The port that is meant by a Python name, where a hyphen is written as an underscore; or ''."""
    if name in ports:
        return name
    hyphenated = name.replace("_", "-")
    return hyphenated if hyphenated in ports else ""


def _input_port(name: str, socket: PortSocket, said: Mapping[str, Any]) -> InputPort:
    optional = said.get("optional")
    if optional:
        return OptionalPort(name, socket, _codec(said), optional)
    return InputPort(name, socket, _codec(said), int(said.get("block_count") or 1))


def _codec(said: Mapping[str, Any]) -> Codec:
    wanted = said.get("codec")
    return codec_for(str(wanted)) if wanted else AUTO

"""Runs job code: a function, a generator or a class, called once a round."""

import contextlib
import inspect
import sys
from typing import (
    Any,
    Awaitable,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    cast,
)

from shoal.job.error import OutputClosedError, PortError, RoundError
from shoal.job.input_port import InputPort
from shoal.job.optional_port import OptionalPort
from shoal.job.output_port import SENT
from shoal.job.outputs import Outputs
from shoal.job.process import Process
from shoal.job.reducers import Reduce
from shoal.job.rounds import Rounds
from shoal.job.stderr_log import Log
from shoal.job.stop import STATUS, STOP, StoppedError
from shoal.job.streams import Codecs, Streams, match

MAIN = "main"
SOURCE = "source"
STREAM = "stream"


class Program:
    """What `main`, `source` or `stream` were put around.

    Attributes:
        target: The function or class.
        style: `main`, `source` or `stream`.
        codecs: Codecs by port.
        reduce: Reducers by header.
    """

    def __init__(
        self, target: Any, style: str, codecs: Optional[Codecs], reduce: Optional[Reduce] = None
    ) -> None:
        self.target = target
        self.style = style
        self.codecs = dict(codecs or {})
        self.reduce = dict(reduce or {})

    def run(self, process: Process) -> None:
        """Run it on the ports of that process, to the end of its streams.

        Raises:
            OutsideShoalError: The program was started by hand.
            PortError: The function does not fit the ports, or the other end of one went away.
            RoundError: A round returned what the outputs cannot take.
            CodecError: A value cannot be sent, or a record cannot be read.
            SystemExit: SIGTERM asked a source to end, and its generator is closed.
            Exception: Whatever job code raises; then no stream ends.
        """
        process.managed = True
        streams = process.streams
        streams.use_codecs(self.codecs)
        streams.use_reducers(self.reduce)
        streams.headers.rounds = self.style != STREAM
        for message in streams.foreign.values():
            raise PortError(message)
        target = self.target
        setup: Optional[Callable[[], Any]] = None
        finish: Optional[Callable[[], Any]] = None
        if inspect.isclass(target):
            instance = target()
            setup = getattr(instance, "setup", None)
            finish = getattr(instance, "finish", None)
            target = getattr(instance, "run", None)
            if target is None:
                raise PortError(
                    "class {} has no method `run`: it is called once a round with the records of "
                    "every input".format(self.target.__name__)
                )
        code = _Code(streams, target, setup, finish, self.style)
        if code.is_async:
            _run_in_loop(code.run_async())
        else:
            code.run()
        if code.stopped:
            streams.close()
            sys.exit(STATUS)
        streams.end()


class _Code:
    """One function with its ports."""

    def __init__(
        self,
        streams: Streams,
        function: Callable[..., Any],
        setup: Optional[Callable[[], Any]],
        finish: Optional[Callable[[], Any]],
        style: str,
    ) -> None:
        self.streams = streams
        self.function = function
        self.setup = setup
        self.finish = finish
        self.style = style
        self.title = getattr(function, "__qualname__", repr(function))
        self.wants_first_round = False
        self.stopped = False
        self._closed = False
        self.positional: Tuple[str, ...] = ()
        self.names = self._names()
        outputs = list(streams.outputs.values())
        self._send = outputs[0].send if len(outputs) == 1 else None

    @property
    def is_async(self) -> bool:
        """Whether any of it has to run in an event loop."""
        return any(
            inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
            for one in (self.function, self.setup, self.finish)
        )

    def run(self) -> None:
        """Setup, all rounds, finish."""
        streams = self.streams
        if self.setup is not None:
            self.setup()
        with self._ending_well():
            if self.style == STREAM:
                self.function()
            elif not streams.inputs:
                self._run_source()
            else:
                self._run_rounds()
        if self.finish is not None:
            last = self.finish()
            if not self._closed:
                self._emit(last)

    async def run_async(self) -> None:
        """The same in an event loop."""
        streams = self.streams
        if self.setup is not None:
            await _settle(self.setup())
        with self._ending_well():
            if self.style == STREAM:
                await _settle(self.function())
            elif not streams.inputs:
                await self._run_source_async()
            else:
                await self._run_rounds_async()
        if self.finish is not None:
            last = await _settle(self.finish())
            if not self._closed:
                await self._emit_async(last)

    @contextlib.contextmanager
    def _ending_well(self) -> Iterator[None]:
        """What a program may end by before its streams do: its outputs are closed, or it is asked to end."""
        try:
            yield
        except OutputClosedError:
            self._closed = True
        except StoppedError:
            self._closed = self.stopped = True

    def _run_rounds(self) -> None:
        streams, call = self.streams, self._call()
        emit = self._emit_each if inspect.isgeneratorfunction(self.function) else self._emit
        ports = list(streams.inputs.values())
        if len(ports) == 1 and not isinstance(ports[0], OptionalPort):
            self._run_records(ports[0], call, emit)
            return
        headers = streams.headers
        for values in Rounds(streams, self.names):
            emit(call(*values))
            if headers.live:
                headers.clear()

    async def _run_rounds_async(self) -> None:
        call, headers = self._call(), self.streams.headers
        plain = inspect.iscoroutinefunction(self.function)
        async for values in Rounds(self.streams, self.names):
            result = call(*values)
            if plain:
                await self._emit_async(await result)
            elif inspect.isasyncgen(result):
                async for value in result:
                    await self._emit_async(value)
            elif inspect.isgenerator(result):
                for value in result:
                    await self._emit_async(value)
            else:
                await self._emit_async(await _settle(result))
            if headers.live:
                headers.clear()

    def _call(self) -> Callable[..., Any]:
        """The function, to be called with the values of all inputs in the order of `names`."""
        function, names = self.function, tuple(self.names.values())
        if self.positional[: len(names)] == names:
            return function
        # Python 3.6 has no `strict`.
        return lambda *values: function(**dict(zip(names, values)))  # noqa: B905

    def _run_records(
        self, port: InputPort, call: Callable[[Any], Any], emit: Callable[[Any], None]
    ) -> None:
        """Rounds of one input: the port counts them, and acknowledges while it is iterated over."""
        headers = self.streams.headers
        for record in port:
            if port.headed:
                headers.begin(port.headed)
            emit(call(record))
            if headers.live:
                headers.clear()

    def _run_source(self) -> None:
        skip = self._skip()
        result = self._call_source()
        if not inspect.isgenerator(result) and not _is_source(self.style, result):
            self._emit(result)
            self._warn_of_one(result)
            return
        try:
            with STOP.listening():
                if self._send is not None and not self.streams.resumes:
                    self._send_each(result, self._send)
                    return
                for value in result:
                    if skip:
                        skip -= 1
                        continue
                    self._emit(value)
                    self._finish_source_round()
                    STOP.check()
        finally:
            if inspect.isgenerator(result):
                result.close()  # it is left where it yielded, and cleans up there

    def _send_each(self, values: Iterable[Any], send: Callable[[Any], Any]) -> None:
        """What a source with one output yields, where its rounds are not counted."""
        headers = self.streams.headers
        for value in values:
            if value is None or type(value) is Outputs:
                self._emit(value)
            else:
                send(value)
            if headers.live:
                headers.clear()
            if STOP.asked:
                STOP.check()

    async def _run_source_async(self) -> None:
        skip = self._skip()
        result = self._call_source()
        if not inspect.isasyncgen(result):
            value = await _settle(result)
            await self._emit_async(value)
            self._warn_of_one(value)
            return
        try:
            with STOP.listening():
                async for value in result:
                    if skip:
                        skip -= 1
                        continue
                    await self._emit_async(value)
                    self._finish_source_round()
                    STOP.check()
        finally:
            await result.aclose()

    def _warn_of_one(self, value: Any) -> None:
        """Say that a source which returns is called once, because `yield` may have been meant."""
        if value is not None and self.streams.outputs:
            Log().warning(
                "{} has no inputs and returned, so its streams end after this one record; a source "
                "sends one with each `yield`".format(self.title)
            )

    def _finish_source_round(self) -> None:
        self.streams.count_rounds(1)
        self.streams.check_rounds()
        if self.streams.headers.live:
            self.streams.headers.clear()

    def _call_source(self) -> Any:
        if self.wants_first_round:
            return self.function(first_round=self.streams.first_round)
        return self.function()

    def _skip(self) -> int:
        """How many rounds of a source are not sent again, because its replacement begins later."""
        if not self.streams.outputs or self.wants_first_round:
            return 0
        return self.streams.first_round

    def _emit_each(self, results: Iterable[Any]) -> None:
        for result in results:
            self._emit(result)

    def _emit(self, result: Any) -> None:
        if self._send is not None and result is not None and type(result) is not Outputs:
            self._send(result)
            return
        for port, value in self._sorted(result).items():
            self.streams.outputs[port].send(value)

    async def _emit_async(self, result: Any) -> None:
        if self._send is not None and result is not None and type(result) is not Outputs:
            sending = self._send(result)
            if sending is not SENT:
                await sending
            return
        for port, value in self._sorted(result).items():
            await self.streams.outputs[port].send(value)

    def _sorted(self, result: Any) -> Dict[str, Any]:
        """What goes to which port.

        Raises:
            RoundError: The result does not fit the outputs.
        """
        outputs = self.streams.outputs
        if result is None:
            return {}
        if isinstance(result, Outputs) or (len(outputs) > 1 and isinstance(result, dict)):
            values: Dict[str, Any] = {}
            given = cast(Dict[str, Any], result)
            for name, value in given.items():
                port = match(name, outputs)
                if not port:
                    raise RoundError(
                        "{} returned a value for output {!r}, which this job does not have: "
                        "{}".format(self.title, name, self.streams.describe())
                    )
                values[port] = value
            return values
        if len(outputs) == 1:
            return {next(iter(outputs)): result}
        if not outputs:
            raise RoundError(
                "{} returned a value of type {}, and the job has no outputs: return nothing, or "
                "name an output in the specification".format(self.title, type(result).__name__)
            )
        raise RoundError(
            "{} returned a value of type {}, and the job has {} outputs: return a dict "
            "{{port: value}} with some of {}".format(
                self.title, type(result).__name__, len(outputs), ", ".join(sorted(outputs))
            )
        )

    def _names(self) -> Dict[str, str]:
        """Parameter of the function for each input port.

        Raises:
            PortError: They do not fit.
        """
        ports = self.streams.inputs
        parameters = dict(inspect.signature(self.function).parameters)
        if self.style == STREAM:
            _refuse_parameters(self.title, list(parameters.values()))
            return {}
        if self.style == SOURCE and ports:
            raise PortError(
                "{} is a source, and the job has inputs ({}): use @job.main".format(
                    self.title, ", ".join(sorted(ports))
                )
            )
        if not ports and "first_round" in parameters:
            self.wants_first_round = True
            del parameters["first_round"]
        self.positional = tuple(
            [one.name for one in parameters.values() if one.kind == one.POSITIONAL_OR_KEYWORD]
        )
        names: Dict[str, str] = {}
        for name, parameter in list(parameters.items()):
            port = match(name, ports)
            if port and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                names[port] = name
                del parameters[name]
        rest = [one for one in parameters.values() if one.kind == one.VAR_KEYWORD]
        missing = sorted(set(ports) - set(names))
        if missing and not rest:
            raise PortError(
                "{} has no parameter for the input {}: records are handed over by name, so write "
                "def {}({})".format(
                    self.title,
                    " and ".join(repr(name) for name in missing),
                    self.title.rpartition(".")[2],
                    ", ".join(sorted(name.replace("-", "_") for name in ports)),
                )
            )
        names.update({port: port.replace("-", "_") for port in missing})
        _refuse_parameters(self.title, list(parameters.values()), self.streams)
        return names


def _refuse_parameters(
    title: str, parameters: List[inspect.Parameter], streams: Optional[Streams] = None
) -> None:
    for one in parameters:
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            if streams is None:
                raise PortError(
                    "{} has the parameter {!r}: a function under @job.stream has none and reads "
                    "job.inputs; use @job.main to be called once a round".format(title, one.name)
                )
            raise PortError(
                "{} has the parameter {!r}, and the job has no input of that name: {}".format(
                    title, one.name, streams.describe()
                )
            )


def _is_source(style: str, result: Any) -> bool:
    return (
        style == SOURCE
        and isinstance(result, Iterable)
        and not isinstance(result, (str, bytes, Mapping))
    )


async def _settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _run_in_loop(coroutine: Awaitable[None]) -> None:
    import asyncio  # noqa: PLC0415 - slow to import, and most jobs do without

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(coroutine)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()

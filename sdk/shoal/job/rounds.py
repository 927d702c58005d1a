"""Rounds: the k-th records of all inputs, handed over together."""

from itertools import chain, islice
from typing import Any, AsyncIterator, Iterator, List, Mapping, Tuple

from shoal.job.error import PortError
from shoal.job.input_port import InputPort
from shoal.job.optional_port import OptionalPort
from shoal.job.streams import Streams

Round = Tuple[Any, ...]


class Rounds:
    """Iterate over it (`for` or `async for`): a tuple a round, one value for each input.

    A round counts as processed once the next one is asked for. It ends when an input that is not
    optional is exhausted.

    Args:
        streams: The ports.
        order: Inputs in the order in which their values are wanted.
    """

    def __init__(self, streams: Streams, order: Mapping[str, Any]) -> None:
        self._streams = streams
        self._ports = [streams.inputs[name] for name in order]
        self._required = [port for port in self._ports if not isinstance(port, OptionalPort)]
        self._optional = [port for port in self._ports if isinstance(port, OptionalPort)]

    def __iter__(self) -> Iterator[Round]:
        """Rounds until an input ends."""
        return chain.from_iterable(self._batches())

    async def __aiter__(self) -> AsyncIterator[Round]:
        """The same for coroutines: other tasks run while records are missing."""
        streams = self._streams
        streams.start()
        while True:
            missing = self._missing()
            if not missing:
                for values in self._batch():
                    yield values
                self._end_batch()
            elif self._is_over(missing):
                return
            else:
                await streams.wait_async([port.socket for port in missing + self._watched()])

    def _batches(self) -> Iterator[Iterator[Round]]:
        streams = self._streams
        streams.start()
        while True:
            missing = self._missing()
            if not missing:
                yield self._batch()
                self._end_batch()
            elif self._is_over(missing):
                return
            else:
                streams.wait([port.socket for port in missing + self._watched()])

    def _missing(self) -> List[InputPort]:
        return [port for port in self._required if not port.fill() or port.exhausted]

    def _watched(self) -> List[InputPort]:
        """Optional inputs that are read while the job waits for others, and have been read now."""
        for port in self._optional:
            if port.watched:
                port.collect()
        return [port for port in self._optional if port.watched]

    def _is_over(self, missing: List[InputPort]) -> bool:
        if any(port.exhausted for port in missing):
            self._streams.leave_the_rest(missing, self._required)
            return True
        return False

    def _batch(self) -> Iterator[Round]:
        """All rounds that are at hand, where these are plain records, or else the next one."""
        streams = self._streams
        streams.begin_batch(self._ports)
        if not self._optional and all(port.plain for port in self._required):
            count = min([port.waiting for port in self._required])
            streams.count_rounds(count)
            batches = [port.batch() for port in self._required]
            return islice(zip(*batches), count)  # noqa: B905 - Python 3.6 has no `strict`
        streams.count_rounds(1)
        return iter((self._next(),))

    def _end_batch(self) -> None:
        for port in self._ports:
            port.processed = port.position
        self._streams.check_rounds()

    def _next(self) -> Round:
        if not self._required:
            raise PortError(
                "job {!r} has optional inputs alone, and nothing says when a round is".format(
                    self._streams.context.job
                )
            )
        values = tuple(
            [
                port.take_now() if isinstance(port, OptionalPort) else port.take()
                for port in self._ports
            ]
        )
        headed = [headers for port in self._streams.inputs.values() for headers in port.headed]
        if headed:
            self._streams.headers.begin(headed)
        return values

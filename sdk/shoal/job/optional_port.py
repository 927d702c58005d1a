"""An input that rounds do not wait for: its next record, or what stands in for one."""

import json
from typing import Any, Mapping

from shoal.job.codec import Codec, Raw
from shoal.job.error import CodecError
from shoal.job.headers import Headed
from shoal.job.input_port import InputPort
from shoal.job.port_socket import PortSocket

OLDEST = "oldest"
NEWEST = "newest"


class OptionalPort(InputPort):
    """In rounds it never makes a round wait; iterated over, it is a port like any other.

    With `buffer` above 0, what came is read even while the job waits for other inputs, so that its
    producer is never held up, and all but so many records are dropped.
    """

    def __init__(
        self, name: str, socket: PortSocket, codec: Codec, stand_in: Mapping[str, Any]
    ) -> None:
        """Take the port over.

        Args:
            name: Name of the port.
            socket: Its descriptor.
            codec: How its records are read.
            stand_in: `default` (any value of JSON), `repeat`, `buffer`, `drop`.
        """
        super().__init__(name, socket, codec, 1)
        self.buffer = int(stand_in.get("buffer") or 0)
        # Read anew for each round, because job code may change what it gets.
        self._default = json.dumps(stand_in.get("default"))
        self._repeat = bool(stand_in.get("repeat"))
        self._drops_newest = stand_in.get("drop", OLDEST) == NEWEST
        self._last: Any = None

    @property
    def position(self) -> int:
        """With a `buffer`, what came counts as handed over, since it may be dropped at any time."""
        return self._arrived if self.buffer else super().position

    @property
    def watched(self) -> bool:
        """Whether records are read while the job waits for other inputs."""
        return self.buffer > 0 and not self.ended

    def collect(self) -> None:
        """Read what is there, without waiting: one record, or with a `buffer` everything.

        Raises:
            PortError: The other end broke the format or went away.
        """
        if not self.buffer:
            self.fill()
            return
        while not self.ended and self._read_block():
            while len(self._records) > self.buffer:
                if self._drops_newest:
                    self._records.pop()
                else:
                    self._records.popleft()
        # Nothing of it is asked for again but by a replacement, which gets everything.
        self.processed = self._arrived

    def take_now(self) -> Any:
        """The next record if one is there, else the last one or the default.

        Raises:
            CodecError: The record cannot be read.
            PortError: The other end broke the format or went away.
        """
        self.collect()
        if self._records:
            if self._repeat:
                record = self._records[0]
                self._last = bytes(record.payload if isinstance(record, Headed) else record)
            return self.take()
        self.headed = []  # what stands in for a record has none
        if self._last is None:
            return self._stand_in()
        return self.codec.decode(memoryview(bytearray(self._last)))

    def _stand_in(self) -> Any:
        """The default, of the kind that records have: bytes, if the other end is a plain program.

        Raises:
            CodecError: Records are bytes, and the default is neither a text nor nothing.
        """
        value = json.loads(self._default)
        if value is None or not isinstance(self.codec, Raw):
            return value
        if isinstance(value, str):
            return value.encode("utf-8")
        raise CodecError(
            "input {!r} has the default {}, and its records are bytes, because the other end is a "
            "program with a raw format: write a text, or decode them with codecs={{{!r}: 'json'}}".format(
                self.name, self._default, self.name
            )
        )

"""Where a stream of answers goes on after a cut, so that its reader sees no gap and nothing twice.

Rule: what was passed on is never passed on again, and what is asked for after a cut begins no later than what comes
next. Two kinds of stream can keep it, and a method has one of them by the fields of its messages:

- A **watch** has `since_revision` in its request and `revision` in its answers. After a cut it is asked for from the
  highest revision on that was passed on. The controller then sends the changes behind it, or a new snapshot where it
  does not know them any more: things as they are, with their mark at its end, as the contract says.
- A **log** has chunks with the offset of their first byte. After a cut each log is asked for from the byte on that
  comes next (`places`). A controller of before sends all of it; there are logs that are not named, since a request
  names 10,000: so bytes that were passed on are dropped, too, and a chunk of which a part is known is shortened.

Example: a log had passed bytes 0 to 99 of `…/attempts/1`, stdout. After the cut it is asked for from byte 100 on. If a
chunk comes with bytes 80 to 119 nevertheless, 20 bytes, 100 to 119, are passed on.

A sample of a stream (`TapPort`) is neither: what passes while none looks is not there, so its end is told.
"""

from abc import ABC, abstractmethod
from itertools import islice
from typing import Any, Final

from google.protobuf.message import Message

from shoal import limits
from shoal.v1.pipelines_service_pb2 import LogPlace, LogStream, ReadLogsRequest, ReadLogsResponse

_PLACES: Final = (
    ("since_revision", "revision"),
    ("after_sequence", "sequence"),
    ("resume_token", "resume_token"),
)
_LOGS_MAX: Final = 100_000
"""Logs of one stream whose place is remembered; a pipeline has fewer attempts."""


class Resumption(ABC):
    """Where one stream is.

    Attributes:
        endless: whether the end of the stream is a cut, too.
    """

    endless: bool

    @abstractmethod
    def request(self) -> Message:
        """Return what asks for what was not passed on yet."""

    @abstractmethod
    def unseen(self, response: Any) -> Message | None:
        """Return of an answer what was not passed on yet, which counts as passed on from now; None for nothing."""


class PlaceResumption(Resumption):
    """Goes on behind a place: a number, which only grows, or a token.

    Args:
        request: the first request.
        asked: the field of the request that says behind which place.
        told: the field of the answers that says which place it is now; 0 for none.
    """

    endless = True

    def __init__(self, request: Any, asked: str, told: str) -> None:
        self._request = type(request)()
        self._request.CopyFrom(request)
        self._asked = asked
        self._told = told

    def request(self) -> Message:
        """Return the request, from the last place on."""
        asked: Message = type(self._request)()
        asked.CopyFrom(self._request)
        return asked

    def unseen(self, response: Any) -> Message | None:
        """Return the answer: the controller says nothing twice but a snapshot."""
        place = getattr(response, self._told)
        if isinstance(place, str) or place > getattr(self._request, self._asked):
            setattr(self._request, self._asked, place)
        return response  # type: ignore[no-any-return]


class LogResumption(Resumption):
    """Goes on behind a byte of each log.

    Args:
        request: the first request.
    """

    endless = False

    def __init__(self, request: ReadLogsRequest) -> None:
        self._first = request
        self._known: dict[tuple[str, int, LogStream.ValueType], int] = {}
        self._passed = False
        for place in request.places[: limits.LOG_PLACES_MAX]:
            self._known[place.attempt, place.epoch, place.stream] = place.offset

    def request(self) -> Message:
        """Return the request; once something was passed on, from there on and without tails.

        The logs that grew last are named.
        """
        asked = ReadLogsRequest()
        asked.CopyFrom(self._first)
        if self._passed:
            asked.tail_lines = asked.tail_bytes = 0
            del asked.places[:]
            for key, offset in islice(reversed(self._known.items()), limits.LOG_PLACES_MAX):
                attempt, epoch, stream = key
                asked.places.append(
                    LogPlace(attempt=attempt, epoch=epoch, stream=stream, offset=offset)
                )
        return asked

    def unseen(self, response: ReadLogsResponse) -> Message | None:
        """Return the bytes of a chunk that were not passed on yet."""
        chunk = response.chunk
        key = (chunk.attempt, chunk.epoch, chunk.stream)
        known = self._known.pop(key, 0)
        end = chunk.offset + len(chunk.data)
        self._known[key] = max(known, end)  # as the one that grew last
        if end <= known:
            return None
        if chunk.offset < known:
            chunk.data = chunk.data[known - chunk.offset :]
            chunk.offset = known
        if len(self._known) > _LOGS_MAX:
            self._known.pop(next(iter(self._known)))
        self._passed = True
        return response


def resumption_of(request: Message, response: type[Message]) -> Resumption | None:
    """Return how a stream that is asked for is resumed; None if it cannot be."""
    if isinstance(request, ReadLogsRequest):
        return LogResumption(request)
    asked, told = request.DESCRIPTOR.fields_by_name, response.DESCRIPTOR.fields_by_name
    for field, place in _PLACES:
        if field in asked and place in told:
            return PlaceResumption(request, field, place)
    return None

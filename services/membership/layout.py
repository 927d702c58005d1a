"""A message on the wire as a table: the name and the kind of each of its fields, in order.

One table serves both directions and both dialects, so that what is written is what is read. Kinds
check a value against its bound when it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

from services.membership.dialect import Value
from services.membership.fields import (
    fields,
    flag,
    host_to_octets,
    number,
    octets,
    octets_to_host,
    text,
)

MessageT = TypeVar("MessageT")


@dataclasses.dataclass(frozen=True, slots=True)
class FieldKind:
    """How a field is read, given its value and its name, and how it is written."""

    read: Callable[[object, str], Any]
    write: Callable[[Any], Value] | None = None


def integer(most: int) -> FieldKind:
    """An integer from 0 to `most`."""
    return FieldKind(lambda value, name: number(value, most, name))


def packed(most: int) -> FieldKind:
    """At most so many bytes."""
    return FieldKind(lambda value, name: octets(value, most, name))


TEXT: Final = FieldKind(text)
FLAG: Final = FieldKind(flag)
HOST: Final = FieldKind(lambda value, name: octets_to_host(octets(value, 16, name)), host_to_octets)
"""An IP address in text, 4 or 16 bytes on the wire."""


class MessageLayout(Generic[MessageT]):
    """The fields of one dataclass of messages.

    Args:
        make: the dataclass.
        table: wire name and kind of each of its fields, in their order, which is that of
            positional arrays.
    """

    def __init__(self, make: Callable[..., MessageT], *table: tuple[str, FieldKind]) -> None:
        attributes = [field.name for field in dataclasses.fields(cast("Any", make))]
        self._make = make
        self._get: list[Callable[[MessageT], Any]] = [attrgetter(name) for name in attributes]
        self._reads = [(kind.read, name) for name, kind in table]
        self._writes = [(i, kind.write) for i, (_, kind) in enumerate(table) if kind.write]
        self.names = tuple(name.encode() for name, _ in table)
        """The wire names, in order."""
        self._by_name = sorted(range(len(table)), key=self.names.__getitem__)

    def read(self, value: object) -> MessageT:
        """Make the message of a decoded map or array.

        Raises:
            RefusedError: A field is wrong.
        """
        row = zip(self._reads, fields(value, self.names), strict=True)
        return self._make(*[read(item, name) for (read, name), item in row])

    def row(self, message: MessageT) -> list[Value]:
        """List what is written for a message, in order."""
        row: list[Value] = [get(message) for get in self._get]
        for index, write in self._writes:
            row[index] = write(row[index])
        return row

    def body(self, message: MessageT) -> Value:
        """Write a message as Serf does: a map of all its fields, by name."""
        row = self.row(message)
        return {self.names[index]: row[index] for index in self._by_name}

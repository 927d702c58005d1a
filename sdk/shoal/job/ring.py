"""Large records through memory that a job shares with the stream worker beside it.

A record that this job sends is put into the ring of its output, and only where it lies goes through
the socket. A record of another job on the same node may come as a reference into that job's ring,
and is handed over where it lies. docs/architecture.md, section 3, is the contract.
"""

import ctypes
import mmap
import os
import struct
import weakref
from bisect import bisect_left
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

from shoal.job.block import DATA, FREE, HEADED, HEADER, IN_RING, RING, Buffer
from shoal.job.block_reader import Rings
from shoal.job.error import PortError
from shoal.job.port_socket import WOULD_BLOCK, PortSocket, closed

RING_RECORD_BYTES = 128 * 1024
"""A record of at least this size goes through the ring, if it has room; smaller ones gain nothing."""
AHEAD_BYTES = 8 * 1024 * 1024
"""In the ring and not taken by the worker; while it is more than that, and a record, `send` waits."""

_SLOTS_MAX = 4096  # what the worker allows
_LOOK_MAX = 64
_ENTRY = struct.Struct("<IQ")  # number of a ring on its port, and offset of a slot or size
_SENT = struct.Struct("<IQ")  # length of a record, and offset of the slot
_LENT = struct.Struct("<IIQ")  # length of a record, number of the ring, and offset of the slot
_LENGTH = struct.Struct("<I")
_READ_BYTES = 64 * 1024
_DISCARD: Any = getattr(mmap, "MADV_DONTNEED", None)


class RingError(ValueError):
    """The other end refers to something that is no slot."""


class Room:
    """Which parts of a ring are free: the lowest is taken first, so that little memory is touched.

    Pure: offsets and lengths in bytes.
    """

    def __init__(self, size: int, page: int) -> None:
        self.size = size
        self._page = page
        self._starts: List[int] = []
        self._ends: Dict[int, int] = {}
        self._low = 0  # everything below is taken

    def __len__(self) -> int:
        """How many slots are taken."""
        return len(self._starts)

    def take(self, length: int) -> int:
        """The offset of a slot of that length; -1 if there is no room, or none that is found soon."""
        starts, ends = self._starts, self._ends
        length = -(-length // self._page) * self._page
        if not length or len(starts) >= _SLOTS_MAX:
            return -1
        at = self._low
        index = bisect_left(starts, at)
        looked = 0
        while index < len(starts):
            if starts[index] - at >= length:
                break
            if starts[index] == self._low:
                self._low = ends[self._low]
            looked += 1
            if looked > _LOOK_MAX:
                index = len(starts)
                at = ends[starts[-1]]
                break
            at = ends[starts[index]]
            index += 1
        if self.size - at < length:
            return -1
        starts.insert(index, at)
        ends[at] = at + length
        if at == self._low:
            self._low = at + length
        return at

    def free(self, offset: int) -> None:
        """Free a slot that was given back.

        Raises:
            RingError: There is none at this offset.
        """
        if self._ends.pop(offset, None) is None:
            raise RingError("no slot begins at {}".format(offset))
        del self._starts[bisect_left(self._starts, offset)]
        self._low = min(self._low, offset)


class OutputRing:
    """The ring of one output port, used with the port's lock held."""

    def __init__(self, socket: PortSocket, descriptor: int) -> None:
        """Take the descriptor over; the socket is where slots are given back.

        Raises:
            OSError: The memory cannot be reached.
        """
        self._socket = socket
        try:
            size = os.fstat(descriptor).st_size
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._room = Room(size, mmap.PAGESIZE)
        self._space = memoryview(bytearray(_READ_BYTES))
        self._have = 0
        self._put = 0
        self._waiting: Deque[int] = deque()  # bytes of the records that the worker has not taken
        self._waiting_bytes = 0

    @property
    def ahead(self) -> bool:
        """Whether the job is far ahead of the worker.

        Raises:
            PortError: The other end went away, or gives back what it has not got.
        """
        if self._far():
            self._collect()
        return self._far()

    def put(self, first: int, entry: int, pieces: Sequence[Buffer], size: int) -> Optional[bytes]:
        """Put a record into the ring; what to send instead of it, or None if there is no room.

        Args:
            first: Sequence of the record.
            entry: Its length as it stands in a table.
            pieces: The record.
            size: Its length in bytes.

        Raises:
            PortError: The other end gives back what it has not got.
        """
        self._collect()
        at = self._room.take(_LENGTH.size + size)
        if at < 0:
            return None
        memory = self._memory
        begin = at + _LENGTH.size
        memory[at:begin] = _LENGTH.pack(entry)
        for piece in pieces:
            end = begin + len(piece)
            memory[begin:end] = piece
            begin = end
        self._put += 1
        self._waiting.append(size)
        self._waiting_bytes += size
        return HEADER.pack(DATA, IN_RING, 0, 1, first, _SENT.size, 0) + _SENT.pack(entry, at)

    def _collect(self) -> None:
        """Read which slots were given back."""
        while True:
            count = self._socket.read(self._space[self._have :])
            if count == WOULD_BLOCK:
                return
            if count == 0:
                raise closed(self._socket)
            self._have += count
            self._have -= self._take_back(self._space[: self._have])

    def _take_back(self, data: memoryview) -> int:
        """Take what whole blocks say; how many bytes these were, and the rest is moved to the front."""
        at = 0
        while len(data) - at >= HEADER.size:
            kind, _, _, _, taken, length, _ = HEADER.unpack_from(data, at)
            end = at + HEADER.size + length
            if kind != FREE or length % _ENTRY.size or end - at > len(self._space):
                raise PortError("{}: a block of kind {} came".format(self._socket.title, kind))
            if end > len(data):
                break
            self._taken(taken)
            try:
                for _, offset in _ENTRY.iter_unpack(data[at + HEADER.size : end]):
                    self._room.free(offset)
            except RingError as error:
                raise PortError("{}: {}".format(self._socket.title, error)) from error
            at = end
        rest = len(data) - at
        if at and rest:
            self._space[:rest] = bytes(data[at:])
        return at

    def _taken(self, count: int) -> None:
        """Forget the records that the worker has taken, of which it has ever taken `count`."""
        if count > self._put:
            raise PortError(
                "{}: {} records taken of {}".format(self._socket.title, count, self._put)
            )
        while len(self._waiting) > self._put - count:
            self._waiting_bytes -= self._waiting.popleft()

    def _far(self) -> bool:
        return self._waiting_bytes > AHEAD_BYTES and len(self._waiting) > 1


def ring_of(socket: PortSocket) -> Optional[OutputRing]:
    """The ring that came with START on an output, if one did; no other comes."""
    socket.takes_descriptors = False
    if not socket.descriptors:
        return None
    try:
        return OutputRing(socket, socket.descriptors.popleft())
    except (OSError, ValueError):
        return None  # not enough address space, for one; records then go by the socket


def can_map() -> bool:
    """Whether this Python can take records where they lie: since 3.8, on Linux."""
    return _DISCARD is not None and hasattr(mmap.mmap, "madvise")


class InputRings(Rings):
    """The rings of an input's producers, as far as they are on this node.

    A record is a view of the producer's memory, which is private to this process from where it is
    written to: job code may change what it gets, and no other process sees it. The producer may use the
    memory again once the last view of it is gone, whatever held it.
    """

    def __init__(self, descriptors: Deque[int]) -> None:
        """Take rings over whose descriptors come in `descriptors`."""
        self._descriptors = descriptors
        self._rings: Dict[int, mmap.mmap] = {}
        self._held: Dict[Tuple[int, int], Any] = {}
        # A view may go in any thread and at any time; so nothing but this is touched then.
        self._gone: Deque[Tuple[int, int, int, int]] = deque()
        self._kept: Dict[Tuple[int, int], bool] = {}
        _IN_THIS_PROCESS.add(self)

    def introduce(self, body: Buffer) -> None:
        """Map a ring, or forget one that is gone.

        Raises:
            PortError: It came without its memory.
            OSError: The memory cannot be reached.
        """
        number, size = _ENTRY.unpack(body)
        if not size:
            self._rings.pop(number, None)
            return
        if not self._descriptors:
            raise PortError("ring {} came without its descriptor".format(number))
        descriptor = self._descriptors.popleft()
        try:
            self._rings[number] = mmap.mmap(
                descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        finally:
            os.close(descriptor)

    def body(self, reference: Buffer) -> memoryview:
        """The body of a block that lies in a ring: a record behind its length.

        Raises:
            RingError: It does not lie there.
        """
        entry, number, offset = _LENT.unpack(reference)
        length = _LENGTH.size + (entry & ~HEADED)
        ring = self._rings.get(number)
        if ring is None or offset % mmap.PAGESIZE or offset + length > len(ring):
            raise RingError("no record lies at {} of ring {}".format(offset, number))
        pages = -(-length // mmap.PAGESIZE)
        memory = _type_of(pages).from_buffer(ring, offset)
        key = (number, offset)
        gone = (number, offset, ctypes.addressof(memory), pages)
        append = self._gone.append
        self._held[key] = weakref.ref(memory, lambda _: append(gone))
        return memoryview(memory).cast("B")[:length]

    def given_back(self) -> bytes:
        """A block that names the slots that are not held any more; empty if there are none."""
        entries: List[bytes] = []
        while self._gone and len(entries) < _SLOTS_MAX:
            number, offset, address, pages = self._gone.popleft()
            self._held.pop((number, offset), None)
            if self._kept.pop((number, offset), False):
                continue
            ring = self._rings.get(number)
            if ring is not None and _PAGEMAP.written(address, pages):
                # What job code wrote is its own copy; without it the producer's is seen again.
                ring.madvise(_DISCARD, offset, pages * mmap.PAGESIZE)  # type: ignore[attr-defined,unused-ignore]
            entries.append(_ENTRY.pack(number, offset))
        if not entries:
            return b""
        body = b"".join(entries)
        return HEADER.pack(FREE, 0, 0, 0, 0, len(body), 0) + body

    def keep(self) -> None:
        """Never give back what is held now, because a forked process may look at it, too."""
        for key in list(self._held):
            self._kept[key] = True


def greeting() -> bytes:
    """What tells the worker that this job can take records where they lie."""
    return HEADER.pack(RING, 0, 0, 0, 0, 0, 0)


_TYPES: Dict[int, Any] = {}


def _type_of(pages: int) -> Any:
    """The type of so many pages of memory, of which weak references can be made."""
    found = _TYPES.get(pages)
    if found is None:
        if len(_TYPES) > 256:
            _TYPES.clear()
        members = {"_type_": ctypes.c_ubyte, "_length_": pages * mmap.PAGESIZE}
        found = _TYPES[pages] = type("Pages", (ctypes.Array,), members)
    return found


class _Pagemap:
    """Says which pages this process has written to, of those that are its own once it does.

    Each page has eight bytes in /proc/self/pagemap (proc_pid_pagemap(5)); in the highest, 0x80 and
    0x40 say that there is a page, and 0x20 that it is the file's and not the process's own.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        self._process = -1  # a forked one would look at its parent's
        self._clean = bytes([byte for byte in range(256) if not byte & 0xC0 or byte & 0x20])

    def written(self, address: int, pages: int) -> bool:
        """Whether any of so many pages from an address may have been written to."""
        try:
            if self._process != os.getpid():
                self._descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
                self._process = os.getpid()
            data = os.pread(self._descriptor, 8 * pages, 8 * (address // mmap.PAGESIZE))
        except OSError:
            return True
        return len(data) < 8 * pages or bool(data[7::8].translate(None, self._clean))


_PAGEMAP = _Pagemap()
_IN_THIS_PROCESS: "weakref.WeakSet[InputRings]" = weakref.WeakSet()


def _keep_all() -> None:
    for rings in _IN_THIS_PROCESS:
        rings.keep()


_register_at_fork: Any = getattr(os, "register_at_fork", None)
if _register_at_fork is not None:
    _register_at_fork(before=_keep_all)

"""Records up to the limit pass from memory to memory, and nowhere is a second copy made."""

import mmap
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from shoal.job import AUTO, RAW, Codec, CodecError
from shoal.job.block import MAX_RECORD_BYTES, START, encode_text
from shoal.job.input_port import InputPort
from shoal.job.output_port import OutputPort
from shoal.job.port_socket import PortSocket, wait

MEBIBYTE = 1024 * 1024


@pytest.fixture(name="ends")
def _ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def ports(ends: tuple[socket.socket, socket.socket], codec: Codec) -> tuple[OutputPort, InputPort]:
    """Two ports that are connected directly, and have begun."""
    out = OutputPort("out", PortSocket("out", ends[0].detach()), codec, threading.Lock())
    port = InputPort("in", PortSocket("in", ends[1].detach()), codec, 1)
    for one, other in ((out, port), (port, out)):
        other.socket.queue(encode_text(START, 0, "{}"))
        other.socket.write()
        assert one.start()
    return out, port


def receive(port: InputPort) -> Any:
    """Wait for one record and take it."""
    while not port.fill():
        wait((port.socket,), (), 30)
    return port.take()


def check(ends: tuple[socket.socket, socket.socket], codec: Codec, value: Any, size: int) -> Any:
    """Send a value through both ports, and return what came; `size` bytes may be used meanwhile."""
    out, port = ports(ends, codec)
    sending = threading.Thread(target=out.send, args=(value,))
    tracemalloc.start()
    try:
        sending.start()
        came = receive(port)
        sending.join(30)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        out.socket.close()
        port.socket.close()
    assert peak < size + MEBIBYTE
    return came


def test_an_array_at_the_limit_is_copied_by_nobody(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sent = np.zeros(MAX_RECORD_BYTES - 256, np.uint8)  # memory that is only there where it is used
    sent[-1] = 7
    came = check(ends, AUTO, sent, MAX_RECORD_BYTES)
    assert came.shape == sent.shape
    assert came[-1] == 7
    assert came.flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_large_record_is_sent_without_a_copy(
    kind: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    with mmap.mmap(-1, 8 * MEBIBYTE) as memory:
        memory[-1:] = b"7"
        value = kind(memory)
        came = check(ends, RAW, value, 16 * MEBIBYTE)  # where it comes, and bytes of that
        assert came == value
        if kind is memoryview:
            value.release()


def test_a_record_above_the_limit_is_refused_with_the_remedy(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    out, port = ports(ends, RAW)
    with (
        mmap.mmap(-1, MAX_RECORD_BYTES + 1) as memory,
        memoryview(memory) as value,
        pytest.raises(CodecError, match=r"268435457 bytes is over the limit .* in parts"),
    ):
        out.send(value)
    out.socket.close()
    port.socket.close()

"""Case F2: a link that loses everything for a while, and no other link with it."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from compose.simulate_link import cut, heal
from tests.kit.until import until_sync

_ECHO = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def echo(connection):
    while data := connection.recv(100):
        connection.sendall(data)
while True:
    threading.Thread(target=echo, args=[listener.accept()[0]], daemon=True).start()
"""
_TOTAL_RETRANSMITS = 100  # offset of tcpi_total_retrans in struct tcp_info, linux/tcp.h


class _Peer:
    """A process that sends back what it is sent, and a connection of ours to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))
        self.link = socket.create_connection(self.address)
        self.link.settimeout(40)
        assert self.said(b"first") == b"first"

    def said(self, data: bytes) -> bytes:
        self.link.sendall(data)
        return self.link.recv(100)

    def close(self) -> None:
        self.link.close()
        self.process.kill()
        with self.process:
            pass


@pytest.fixture
def peers() -> Iterator[tuple[_Peer, _Peer]]:
    both = _Peer(), _Peer()
    yield both
    for peer in both:
        peer.close()


def test_a_link_is_cut_and_heals_and_its_neighbour_does_not_notice(
    peers: tuple[_Peer, _Peer],
) -> None:
    lost, other = peers
    cut(os.getpid(), lost.process.pid)
    lost.link.sendall(b"late")
    with socket.socket() as fresh:
        fresh.setblocking(False)
        assert fresh.connect_ex(lost.address)
        until_sync(lambda: _sent_again(lost.link), what="the record was lost and sent again")
        until_sync(lambda: _sent_again(fresh), what="the connection was refused by silence")
        assert other.said(b"meanwhile") == b"meanwhile"
        heal(os.getpid(), lost.process.pid)
        assert lost.link.recv(100) == b"late"
        fresh.settimeout(40)
        fresh.sendall(b"fresh")
        assert fresh.recv(100) == b"fresh"
    assert lost.said(b"again") == b"again"


def test_a_process_that_is_gone_has_no_links() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    cut(os.getpid(), process.pid)
    heal(os.getpid(), process.pid)


def _sent_again(link: socket.socket) -> int:
    info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANSMITS + 4)
    (count,) = struct.unpack_from("=I", info, _TOTAL_RETRANSMITS)
    return int(count)

"""Run as a job: has all that the attacks are after, until it is stopped."""

import ctypes
import os
import signal
import socket
import sys
import threading
from pathlib import Path

CREATE = 0o1000  # IPC_CREAT


def main(token: str, segment: int) -> None:
    """Make it, say so, and wait."""
    secret = f"victim-secret-{token}"
    held = bytearray(f"in-memory-of-{token}".encode())
    os.umask(0)
    _file(Path("secret"), 0o600, secret)
    _file(Path("/dev/shm", f"{token}-own"), 0o600, secret)
    _file(Path("/dev/shm", f"{token}-open"), 0o666, secret)
    _file(Path("/tmp", token), 0o644, secret)
    os.mkfifo("fifo", 0o600)
    os.open("fifo", os.O_RDWR)
    _segment(segment, secret.encode())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0" + token)
    listening.listen()
    threading.Thread(target=_answer, args=(listening, secret.encode()), daemon=True).start()
    sys.stdout.write(f"ready, {len(held)} bytes\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    for path in (
        Path("/dev/shm", f"{token}-own"),
        Path("/dev/shm", f"{token}-open"),
        Path("/tmp", token),
    ):
        path.unlink()
    ctypes.CDLL(None).shmctl(ctypes.CDLL(None).shmget(segment, 0, 0), 0, None)


def _file(path: Path, mode: int, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, mode), "w") as file:
        file.write(text)


def _segment(key: int, text: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(key, 4096, CREATE | 0o666)
    if segment < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ctypes.memmove(libc.shmat(segment, None, 0), text, len(text))


def _answer(listening: socket.socket, secret: bytes) -> None:
    while True:
        with listening.accept()[0] as dialled:
            dialled.sendall(secret)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(sys.argv[1], int(sys.argv[2]))

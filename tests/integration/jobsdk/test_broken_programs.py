"""Programs that write nonsense on a port: their attempt fails with port, offset and reason."""

import struct
import sys
from pathlib import Path

from shoal.job.block import DATA, END, HEADED, HEADER, START, encode_data, encode_mark, encode_text
from tests.kit.board import Board, boards
from tests.kit.stream_worker import assignment, stream_output

WRITE = """
import json, os, socket, sys
number = json.loads(os.environ["SHOAL_PORTS"])["outputs"]["out"]["fd"]
with socket.socket(fileno=number) as port:
    port.recv(1 << 16)
    port.sendall(bytes.fromhex(sys.argv[1]))
"""

GOOD = encode_data(0, [b"one", b"two"])
AT = len(GOOD)


def block(count: int, body: bytes) -> bytes:
    """A block of data that says what it likes."""
    return HEADER.pack(DATA, 0, 0, count, 2, len(body), 0) + body


def table(*entries: int) -> bytes:
    """Record lengths."""
    return struct.pack(f"<{len(entries)}I", *entries)


BROKEN = {
    "cut-body": (
        block(1, table(5) + b"three")[:-2],
        f"at offset {AT}: the port ended 31 bytes into a block",
    ),
    "cut-header": (b"\x01\x00\x00", f"at offset {AT}: the port ended 3 bytes into a block"),
    "lengths": (
        block(2, table(5, 9) + b"three"),
        f"at offset {AT}: the record lengths add up to 14",
    ),
    "count": (block(9, table(5) + b"three"), f"at offset {AT}: 9 record lengths do not fit"),
    "kind": (bytes([77]) + bytes(23), f"at offset {AT}: kind 77 does not exist"),
    "headers": (
        block(1, table(HEADED | 3) + b"\xff\x01x"),
        f"at offset {AT}: record 2 has 3 bytes and says that 511 of them",
    ),
    "gap": (
        encode_data(3, [b"four"]),
        "at record 3: DATA begins with record 3, the next one is 2",
    ),
    "end": (encode_mark(END, 3), "END says 3 records in all, 2 came"),
    "start": (
        encode_text(START, 0, "{}"),
        "START is not for the job to send on an output",
    ),
}


async def failure_of(board: Board, name: str, written: bytes, program: Path) -> tuple[str, str]:
    """How a job fails that writes this after its first block, and then ends well."""
    job = assignment(name, outputs=[stream_output("out")])
    await board.run(job, [sys.executable, str(program), (GOOD + written).hex()])
    assert await board.conclude(job.ref)
    async with board.changed:
        await board.changed.wait_for(lambda: board.told(job.ref).failure.code)
    failure = board.told(job.ref).failure
    return failure.code, failure.message


async def test_what_is_no_block_fails_the_attempt_with_port_offset_and_reason(
    tmp_path: Path,
) -> None:
    path = tmp_path / "write.py"
    path.write_text(WRITE)
    async with boards(tmp_path / "b", 1) as (board,):
        for name, (written, words) in BROKEN.items():
            code, message = await failure_of(board, name, written, path)
            assert (name, code) == (name, "STREAM")
            assert "port out" in message
            assert words in message

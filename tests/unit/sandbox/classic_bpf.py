"""A second implementation of classic BPF as seccomp uses it: says what a filter answers to a system call."""

import struct
from typing import Final

_INSTRUCTION: Final = struct.Struct("<HBBI")
_CALL: Final = struct.Struct(
    "<iIQ6Q"
)  # struct seccomp_data: number, architecture, instruction pointer, arguments


def answer(program: bytes, architecture: int, number: int, first: int = 0) -> int:
    """Return what a filter answers: an action of seccomp(2) with its error number.

    Raises:
        ValueError: it is no such program, or it does not end.
    """
    call = _CALL.pack(number, architecture, 0, first, 0, 0, 0, 0, 0)
    steps = list(_INSTRUCTION.iter_unpack(program))
    held, place = 0, 0
    while place < len(steps):
        code, yes, no, value = steps[place]
        place += 1
        match code:
            case 0x20:
                [held] = struct.unpack_from("<I", call, value)
            case 0x15:
                place += yes if held == value else no
            case 0x35:
                place += yes if held >= value else no
            case 0x45:
                place += yes if held & value else no
            case 0x06:
                return int(value)
            case _:
                raise ValueError(f"instruction {place - 1} has the code {code:#x}")
    raise ValueError("it ends without an answer")

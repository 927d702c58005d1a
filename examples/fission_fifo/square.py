"""What square.c does, for boards without a C compiler: no library, just two files."""

import argparse
import struct
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("-i", type=Path, required=True)
parser.add_argument("-o", type=Path, required=True)
arguments = parser.parse_args()

with arguments.i.open("rb") as numbers, arguments.o.open("wb", buffering=0) as squares:
    while number := numbers.read(4):
        (value,) = struct.unpack("=I", number)
        squares.write(struct.pack("=I", value * value % 2**32))

"""What reader.c does, for boards without a C compiler: no library, just a file descriptor."""

import struct
import sys

with open(int(sys.argv[1]), "rb") as port:  # noqa: PTH123  # a descriptor has no path
    total = 0
    while number := port.read(4):
        (value,) = struct.unpack("=I", number)
        total += value
        print(value)
    print("sum", total)

"""Peer: a dora node that sends COUNT records of BYTES bytes, and writes to OUT when it began.

COUNT, BYTES and OUT are environment variables. It runs in the peers' environment.
"""

import importlib
import os
import time
from pathlib import Path
from typing import Any

COUNT, SIZE = int(os.environ["COUNT"]), int(os.environ["BYTES"])
dora: Any = importlib.import_module("dora")
arrow: Any = importlib.import_module("pyarrow")
SETTLING_SECONDS = 1.0  # dora's nodes find each other; what is sent before is lost


def main() -> None:
    """Send every record in a message of its own."""
    node = dora.Node()
    kind = arrow.uint8()
    filler = b"x" * (SIZE - 8)
    time.sleep(SETTLING_SECONDS)
    start = time.monotonic()
    for number in range(COUNT):
        record = arrow.py_buffer(number.to_bytes(8, "little") + filler)
        node.send_output("out", arrow.Array.from_buffers(kind, SIZE, [None, record]))
    Path(os.environ["OUT"], "sent").write_text(str(start))


main()

"""Peer: a dora node that takes records, and writes to OUT how many came, and when the last did.

OUT is an environment variable. It runs in the peers' environment.
"""

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

dora: Any = importlib.import_module("dora")


def main() -> None:
    """Take every record until the sender's output is closed."""
    records = wrong = expected = 0
    end = 0.0
    for event in dora.Node():
        if event["type"] != "INPUT":
            continue
        end = time.monotonic()
        value = event["value"]
        data = memoryview(value.buffers()[1])[value.offset : value.offset + 8]
        number = int.from_bytes(data, "little")
        wrong += number != expected
        expected = number + 1
        records += 1
    told = {"end": end, "records": records, "gaps": wrong}
    Path(os.environ["OUT"], "taken").write_text(json.dumps(told))


main()

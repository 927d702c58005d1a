"""docs/mqtt.md: the program that stands there runs as it stands there."""

import re
import signal
import sys
from pathlib import Path

import aiomqtt

from tests.kit.child_process import ChildProcess
from tests.kit.mosquitto import Mosquitto
from tests.kit.tree import ROOT
from tests.kit.until import until

TEXT = (ROOT / "docs" / "mqtt.md").read_text()


async def test_the_program_prints_each_event_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    words = [sys.executable, "-c", program, mosquitto.host, str(mosquitto.port)]
    log = tmp_path / "program.log"
    child = ChildProcess(log)
    child.run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(tmp_path), *words])
    try:
        await until(lambda: "billing" in mosquitto.log.read_text(), 30, "the program at the broker")
        await until(lambda: "Updates (QoS 1)" in mosquitto.log.read_text(), 30, "its subscription")
        async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
            for number in (1, 1, 2):
                update = f'{{"event_id": "u{number}", "status": "Done"}}'
                await client.publish("Updates", update, qos=1)
        await until(lambda: "u2 Done" in log.read_text(), 30, "the second event")
    finally:
        child.end(signal.SIGKILL, 10)
    assert log.read_text().splitlines() == ["u1 Done", "u2 Done"]

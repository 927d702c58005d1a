"""An agent in the image for aarch64, run by qemu, beside a controller and an agent of this machine.

Not shown: a board, its GPU, and the shipped BASE. Emulated programs run some ten times slower.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.identity import Role
from shoal.model import PipelineState
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import contents, describe, job_of, submit
from tests.kit.controller_process import ControllerProcess
from tests.kit.emulation import aarch64_programs
from tests.kit.programs import program
from tests.kit.until import until
from tests.lanes.arm64.conftest import AUTHORITIES, LOG, BoardImage, block_of, carry_out

pytestmark = pytest.mark.timeout(900)  # with the bases and the image, on a busy machine
NATIVE: Final = "native-1"
EMULATED: Final = "jetson-1"
RECORDS: Final = 500
PIPELINE: Final = f"""
name: both
bundle: .
jobs:
  sensor:
    run: python sensor.py
    place: {{require: {{node: {NATIVE}}}}}
    resources: {{cpus: 0.25}}
    outputs: [numbers]
  convert:
    run: python convert.py
    place: {{require: {{node: {EMULATED}}}}}
    resources: {{cpus: 0.25}}
    environment: {{requirements: requirements.txt}}
    inputs: {{numbers: sensor.numbers}}
    outputs: [found]
  report:
    run: python report.py
    place: {{require: {{node: {NATIVE}}}}}
    resources: {{cpus: 0.25}}
    inputs: {{found: convert.found}}
  system:
    run: host-python -I -S system.py  # nothing of it is compiled: little is imported
    place: {{require: {{node: {EMULATED}}}}}
    resources: {{cpus: 0.25}}
"""
FILES: Final = {
    "requirements.txt": "msgpack\n",
    "sensor.py": f"""
from shoal import job

@job.source
def sensor():
    yield from range({RECORDS})
""",
    "convert.py": """
import platform
import msgpack
from msgpack import _cmsgpack  # its part in C: a wheel for this processor was found
from shoal import job

@job.main
def convert(numbers):
    return [msgpack.unpackb(msgpack.packb(numbers)), platform.machine()]
""",
    "report.py": """
import json
from shoal import job

class Report:
    def setup(self):
        self.found = []

    def run(self, found):
        self.found.append(found)

    def finish(self):
        (job.context.results / "found.json").write_text(json.dumps(self.found))

job.run(Report)
""",
    "system.py": """
import ctypes  # asks for a library of the board
import sys

libc = ctypes.CDLL(None)
libc.gnu_get_libc_version.restype = ctypes.c_char_p
with open("results/system.txt", "w") as said:
    print(*sys.version_info[:2], libc.gnu_get_libc_version().decode(), sys.prefix, file=said)
""",
}


@pytest.fixture(scope="module")
def emulation() -> Iterator[None]:
    """The kernel of this machine runs programs for aarch64."""
    with aarch64_programs():
        yield


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a board whose Linux is not that of the container: Debian 13 with its Python and its C library."""
    root = tmp_path_factory.mktemp("board") / "root"
    words = [
        program("mmdebstrap"), "--quiet", "--architectures=arm64", "--variant=extract",
        "--include=python3,libc6,base-files", "trixie", str(root),
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run(words, check=True, timeout=600)
    LOG.info("another Linux to mount, made in %.1f s", time.monotonic() - began)
    return root


@contextlib.asynccontextmanager
async def emulated_agent(
    image: BoardImage, controller: ControllerProcess, board: Path, folder: Path
) -> AsyncIterator[str]:
    """Join a board as the page says, in the network of this machine; yields the container's name."""
    name = f"shoal-arm64-{uuid.uuid4().hex[:8]}"
    token = {"jetson.token": str(folder / "jetson.token")}
    carry_out(
        image.docker,
        "shoal token create",
        {"shoal token": f"{sys.executable} -m shoal.cli token", **token},
        {
            "SHOAL_CONTROLLER": controller.grpc,
            "SHOAL_IDENTITY": str(folder / "state" / "identity" / "operator"),
        },
    )
    trusted = f"--volume {AUTHORITIES}:{AUTHORITIES}:ro" if AUTHORITIES.exists() else ""
    options = (
        f"{controller.gossip} --newcomers {controller.addresses['newcomers']}"
        f" --gossip 127.0.0.1:0 --streams 127.0.0.1:0 --label node={EMULATED}"
    )
    began = {
        "docker run": f"docker run --platform linux/arm64 --volume {board}/usr:/host/usr:ro {trusted}",
        "--name shoal ": f"--name {name} ",
        "--volume shoal:": f"--volume {name}:",
        "--runtime nvidia ": "",
        "shoal-agent:arm64": image.name,
        "10.77.0.1:7470": controller.grpc,
        "10.77.0.1:7946": options,
        **token,
    }
    try:
        carry_out(image.docker, "docker run", began)
        yield name
    except BaseException:
        LOG.warning("the emulated agent said:\n%s", said_by(image, name))
        raise
    finally:
        image.docker("rm", "--force", name)
        image.docker("volume", "rm", "--force", name)


def said_by(image: BoardImage, name: str) -> str:
    """What the agent in a container has logged."""
    said = carry_out(image.docker, "docker logs", {"docker logs shoal": f"docker logs {name} 2>&1"})
    return str(said)


async def test_an_emulated_agent_joins_and_works_with_a_native_one(
    image: BoardImage, emulation: None, board: Path, tmp_path: Path
) -> None:
    del emulation
    options = ("--no-insecure", "--newcomers", "127.0.0.1:0")
    async with contextlib.AsyncExitStack() as stack:
        controller = await stack.enter_async_context(ControllerProcess(tmp_path, *options))
        operator = read_credentials(tmp_path / "state" / "identity" / "operator")
        client = await stack.enter_async_context(Client(controller.grpc, credentials=operator))
        began = time.monotonic()
        emulated = emulated_agent(image, controller, board, tmp_path)
        name = await stack.enter_async_context(emulated)
        word, _ = await client.create_token(Role.NODE, name_pattern=NATIVE)
        native = AgentProcess(
            controller.grpc, "--no-insecure", "--newcomers", controller.addresses["newcomers"],
            "--gossip", "127.0.0.1:0", "--join", controller.gossip, "--label", f"node={NATIVE}",
            name=NATIVE, environ={**os.environ, "SHOAL_TOKEN": word},
        )  # fmt: skip
        await stack.enter_async_context(native)

        async def both() -> bool:
            nodes = {node.name: node for node in await client.nodes() if node.connected}
            return {NATIVE, EMULATED} <= nodes.keys() and bool(nodes[EMULATED].stream_address)

        await until(both, 120, "both agents have a session")
        nodes = {node.name: node.architecture for node in await client.nodes()}
        assert nodes[EMULATED] == "aarch64"
        assert block_of("docker logs").missing(said_by(image, name)) == []
        LOG.info("joined with its token after %.1f s, emulated", time.monotonic() - began)

        began = time.monotonic()
        submitted = await submit(client, tmp_path / "both", PIPELINE, FILES)
        pipeline = await client.wait(submitted.pipeline.name, deadline_seconds=240)
        assert pipeline.state is PipelineState.SUCCEEDED, describe(pipeline)
        assert job_of(pipeline, "convert").node == EMULATED
        found = await contents(client, pipeline, "results/found.json", tmp_path / "found.json")
        assert json.loads(found) == [[number, "aarch64"] for number in range(RECORDS)]
        said = await contents(client, pipeline, "results/system.txt", tmp_path / "system.txt")
        assert said.split() == [b"3", b"13", b"2.41", b"/host/usr"]
        LOG.info("a job ran on the Python 3.13 and glibc 2.41 of another Linux below /host")
        LOG.info(
            "a job with requirements, and %d records to it and %d from it over streams: %.1f s",
            RECORDS, RECORDS, time.monotonic() - began,
        )  # fmt: skip

"""K11, U3: boards with static addresses on a switch that leads nowhere: no default route."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from services.runtime.process import ExitCode
from tests.kit.agent_process import AgentProcess
from tests.kit.namespaces import Lab, lab
from tests.kit.until import until

HOSTS = 3
PIPELINE = """
name: across
jobs:
  numbers:
    run: [seq, "1000"]
    place: {require: {board: two}}
    outputs: {n: {format: lines, as: stdout}}
  count:
    run: [sh, -c, "[ $(wc -l) = 1000 ]"]
    place: {require: {board: three}}
    inputs: {n: {from: numbers.n, format: lines, as: stdin}}
"""


class Board(AgentProcess):
    """An agent on a host of the lab, which listens on all of its addresses."""

    def __init__(self, net: Lab, host: int, *extra: str) -> None:
        super().__init__("", *extra, name=f"node-{host}")
        self._net = net
        self._host = host

    def argv(self) -> list[str]:
        words = [*super().argv(), "--gossip", "0.0.0.0:7946", "--streams", "0.0.0.0:7947"]
        return self._net.inside(self._host, *words)


@contextlib.asynccontextmanager
async def controller(net: Lab, folder: Path, host: str) -> AsyncIterator[str]:
    """A controller on the first host, of which nothing is said but where its API is."""
    ready = folder / "ready.json"
    words = [
        sys.executable, "-m", "shoal.cli", "controller", "--state", str(folder / "state"),
        "--ready-file", str(ready), "--grpc", f"{host}:7470", "--insecure",
    ]  # fmt: skip
    with (folder / "controller.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *net.inside(1, *words), stdout=log, stderr=log
        )
    try:
        await until(lambda: ready.exists() or process.returncode is not None, 30, "the ready file")
        assert process.returncode is None, (folder / "controller.log").read_text()
        yield f"{net.address(1)}:7470"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def shoal(net: Lab, *words: str) -> str:
    """Run the command on the first host, and return what it said."""
    done = await asyncio.to_thread(
        subprocess.run,
        net.inside(1, sys.executable, "-m", "shoal.cli", *words),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_k11_u2_u3_boards_without_a_default_route_reach_each_other(tmp_path: Path) -> None:
    join = ("--join", f"{Lab.address(1)}:7946")
    async with (
        lab(HOSTS) as net,
        controller(net, tmp_path, Lab.address(1)) as address,
        Board(net, 2, *join, "--label", "board=two"),
        Board(net, 3, *join, "--label", "board=three"),
    ):

        async def members() -> dict[str, str]:
            said = await shoal(net, "members", "--json", "--controller", address)
            rows = [json.loads(line) for line in said.splitlines()]
            return {row["name"]: f"{row['address']}:{row['port']}" for row in rows}

        expected = {
            "controller": f"{net.address(1)}:7946",
            "node-2": f"{net.address(2)}:7946",
            "node-3": f"{net.address(3)}:7946",
        }

        async def told() -> bool:
            return await members() == expected

        await until(told, 30, "three members with the addresses of the switch")
        spec = tmp_path / "p.yaml"
        spec.write_text(PIPELINE)
        await shoal(net, "run", str(spec), "--controller", address)  # ends with status 0


async def test_k11_two_networks_and_no_hint_refuse_to_start(tmp_path: Path) -> None:
    async with lab(1) as net:
        second = ("ip", "addr", "add", "10.78.0.1/24", "dev", "eth0")
        await asyncio.to_thread(subprocess.run, net.inside(1, *second), check=True)
        board = Board(net, 1)
        async with board:
            code, said = await board.call()
            assert code == ExitCode.REFUSED
            assert "several addresses, 10.77.0.1 (eth0), 10.78.0.1 (eth0)" in said
            assert "--advertise HOST" in said


async def test_k11_a_board_that_starts_without_a_network_is_a_member_once_it_has_one(
    tmp_path: Path,
) -> None:
    """After a power cut its agent is up before its Wi-Fi: it works on alone, and then tells its address."""
    async with lab(2) as net:
        away = ("ip", "addr", "flush", "dev", "eth0")
        back = ("ip", "addr", "add", f"{net.address(2)}/24", "dev", "eth0")
        await asyncio.to_thread(subprocess.run, net.inside(2, *away), check=True)
        known = ("--join", f"{net.address(1)}:7946", "--controller", f"{net.address(1)}:7470")
        board = Board(net, 2, *known)
        async with controller(net, tmp_path, "0.0.0.0") as address, board:  # noqa: S104 - in a lab
            await until(lambda: "works on alone" in board.log(), 30, "it says so")
            assert board.process is not None
            assert board.process.poll() is None
            await asyncio.to_thread(subprocess.run, net.inside(2, *back), check=True)

            async def told() -> bool:
                said = await shoal(net, "members", "--json", "--controller", address)
                rows = [json.loads(line) for line in said.splitlines()]
                return {"node-2": net.address(2)}.items() <= {
                    row["name"]: row["address"] for row in rows
                }.items()

            await until(told, 60, "the member has the address of the switch")
            await shoal(net, "run", "--controller", address, "--", "true")

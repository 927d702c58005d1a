"""A proxy in the environment is for the web: the parts of a cluster reach one another without it."""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Final

import pytest

from tests.kit.bundle_archive import wheel_of
from tests.kit.web_proxy import WebProxy

SHOAL: Final = (sys.executable, "-m", "shoal.cli")
_INDEX: Final = "http://packages.invalid/simple"
_SPEC: Final = """
name: behind-a-proxy
bundle: .
jobs:
  numbers:
    run: seq 100
    resources: {cpus: 2}
    outputs: {numbers: {format: lines, as: stdout}}
  total:
    run: python total.py
    resources: {cpus: 2}
    environment: {requirements: requirements.txt}
    inputs: {numbers: {from: numbers.numbers, format: lines, as: stdin}}
"""
_TOTAL: Final = """
import sys, pathlib
import adder
pathlib.Path("results").mkdir(exist_ok=True)
pathlib.Path("results/total").write_text(str(adder.total(sys.stdin)))
"""
_ADDER: Final = "def total(lines):\n    return sum(map(int, lines))\n"


async def shoal(variables: dict[str, str], *words: str) -> str:
    """Run a command to its end, which has to be a good one; returns what it said."""
    process = await asyncio.create_subprocess_exec(
        *SHOAL, *words, env=variables, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 300)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.timeout(900)
async def test_a_proxy_is_for_the_web_alone(tmp_path: Path) -> None:
    """Two agents on one machine stream, archive and are asked; what a job installs comes by the proxy."""
    name, wheel = wheel_of("adder", "1.0", _ADDER)
    pages = {
        f"{_INDEX}/adder/": f'<a href="{name}">{name}</a>'.encode(),
        f"{_INDEX}/adder/{name}": wheel,
    }
    folder = tmp_path / "pipeline"
    folder.mkdir()
    for file, text in (
        ("pipeline.yaml", _SPEC),
        ("total.py", _TOTAL),
        ("requirements.txt", "adder\n"),
    ):
        (folder / file).write_text(text)
    with tempfile.TemporaryDirectory(prefix="shoal-") as home:  # paths of sockets are short
        async with WebProxy(pages) as proxy:
            kept = {
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("SHOAL_", "UV_", "PIP_", "XDG_"))
            }
            variables = {
                **kept,
                **proxy.variables,
                "HOME": home,
                "SHOAL_CLUSTER": "proxy",
                "UV_DEFAULT_INDEX": _INDEX,
                "UV_CACHE_DIR": f"{home}/cache",
                "UV_NO_CONFIG": "1",
                "PIP_CONFIG_FILE": os.devnull,
            }
            up = ("up", "--detach", "--name", "proxy", "--agents", "2", "--cpus", "2")
            await shoal(variables, *up, "--mqtt", "none")
            try:
                assert "node-2  ready" in await shoal(variables, "nodes")
                assert proxy.asked == []
                said = await shoal(variables, "run", str(folder))
                assert " on node-1" in said
                assert " on node-2" in said
                await shoal(variables, "get", "latest/total", "-o", str(tmp_path / "got"))
                printed = await shoal(variables, "logs", "latest")
            finally:
                await shoal(variables, "down", "proxy")
    assert (tmp_path / "got" / "total" / "results" / "total").read_text() == "5050"
    assert "Traceback" not in printed
    assert set(proxy.asked) <= {f"{method} {page}" for page in pages for method in ("GET", "HEAD")}
    assert f"GET {_INDEX}/adder/{name}" in proxy.asked

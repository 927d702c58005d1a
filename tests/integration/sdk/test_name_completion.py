"""Shells complete the names of what there is: a real controller, the real command, a real bash."""

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.spec import Job, Output, Pipeline, Resources, StreamInput
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent

SHOAL = Path(sys.executable).parent / "shoal"
PAIR = Pipeline(
    "pair",
    (
        Job("a", ("x",), outputs=(Output("o"),)),
        Job("b", ("y",), streams=(StreamInput("i", "a", "o"),)),
    ),
)
PEOPLE = Pipeline("people", (Job("main", ("x",), resources=Resources(64.0)),))


async def completed(address: str, words: str, shell: str = "bash") -> list[str]:
    """What a shell is told to complete; the last word is the one that is being typed."""
    *before, typed = words.split(" ")
    environ = {**os.environ, "SHOAL_CONTROLLER": address}
    argv = [str(SHOAL)]
    if shell == "bash":
        script = (
            f'eval "$(shoal completion bash)"; COMP_WORDS=({words}) COMP_CWORD={len(before)}; '
            "_shoal_completion shoal; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        argv = ["bash", "-c", script]
        environ["PATH"] = f"{SHOAL.parent}:{os.environ['PATH']}"
    elif shell == "zsh":
        environ |= {"_SHOAL_COMPLETE": "zsh_complete", "COMP_WORDS": words}
        environ["COMP_CWORD"] = str(len(before))
    else:
        environ |= {"_SHOAL_COMPLETE": "fish_complete", "COMP_WORDS": " ".join(before)}
        environ["COMP_CWORD"] = typed
    process = await asyncio.create_subprocess_exec(*argv, env=environ, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert err == b"", "it would land in the line that is being typed"
    lines = [line for line in out.decode().splitlines() if line]
    if shell == "zsh":  # three lines for each: its type, the word, its help
        return lines[1::3]
    return [line.removeprefix("plain,") for line in lines]


async def test_names_are_completed_with_the_identity_that_commands_prove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = tmp_path / "identity" / "operator"
    async with running_controller(tmp_path, insecure=False) as controller:
        async with Client(controller.grpc, credentials=read_credentials(operator)) as client:
            people = (await client.submit(PEOPLE)).pipeline.id
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
        assert await completed(controller.grpc, "shoal status p") == []
        words = f"shoal status --identity {operator} p"
        assert await completed(controller.grpc, words) == [people]
        monkeypatch.setenv("SHOAL_IDENTITY", str(operator))
        assert await completed(controller.grpc, "shoal status p") == [people]


async def test_names_of_pipelines_jobs_ports_and_nodes_are_completed(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path, lease_seconds=600) as controller,
        Client(controller.grpc) as client,
        connected_agent(controller.grpc),
    ):
        pair, people = [(await client.submit(one)).pipeline.id for one in (PAIR, PEOPLE)]
        for words, wanted in (
            ("shoal status p", [people, pair]),
            ("shoal logs pe", [people]),
            (f"shoal logs {pair}/", [f"{pair}/a", f"{pair}/b"]),
            ("shoal explain pair/a", ["pair/a"]),
            ("shoal tap pair a", ["a.o"]),
            ("shoal cancel la", ["latest"]),
            (f"shoal cancel {people} p", [pair]),
            ("shoal nodes forget n", ["node-1"]),
            ("shoal status --namespace empty p", []),
        ):
            assert await completed(client.address, words) == wanted, words
        for shell in ("zsh", "fish"):
            assert await completed(client.address, "shoal status pa", shell) == [pair]
            assert await completed(client.address, "shoal drain n", shell) == ["node-1"]
        await client.cancel(people)
        assert await completed(client.address, "shoal cancel p") == [pair]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "silent", "nonsense"])
async def test_where_no_controller_answers_it_is_quick_and_says_nothing(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if address == "silent":  # the kernel takes connections, and no program says anything
            address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert await completed(address, "shoal logs p") == []
        assert time.monotonic() - began < 20

"""A board that joins while a stranger is really in between: the token's secret is not said to it.

The board takes the stranger's MAC address for the controller's, as after a forged ARP answer. The
stranger passes everything on to the controller but what goes to the port for newcomers: that it
answers itself, over TLS with a certificate of its own, and writes down all that it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.kit.certificate import write_certificate
from tests.kit.namespaces import Lab, lab
from tests.kit.until import until

CONTROLLER, BOARD, STRANGER = 1, 2, 3
NEWCOMERS: Final = 7472

IN_BETWEEN: Final = """
import asyncio, pathlib, ssl, sys

certificate, key, controller, bundle, heard = sys.argv[1:]
served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
served.load_cert_chain(certificate, key)
dialled = ssl.create_default_context()
dialled.check_hostname, dialled.verify_mode = False, ssl.CERT_NONE
host, port = controller.split(":")
log = open(heard, "ab", buffering=0)

async def pump(source, sink, told=None):
    while data := await source.read(65536):
        if told:
            told.write(data)
        sink.write(data)
        await sink.drain()
    sink.close()

async def serve(reader, writer):
    if bundle:
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        log.write(head)
        own = pathlib.Path(bundle).read_bytes()
        writer.write(
            b"HTTP/1.1 200 OK\\r\\nShoal-Cluster: c1\\r\\nConnection: close\\r\\n"
            b"Content-Length: %d\\r\\n\\r\\n" % len(own) + own
        )
        await writer.drain()
        writer.close()
        return
    source, sink = await asyncio.open_connection(host, port, ssl=dialled)
    await asyncio.gather(pump(reader, sink, log), pump(source, writer))

async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(port), ssl=served)
    print("in between", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def controller(net: Lab, folder: Path) -> AsyncIterator[None]:
    """A controller with an identity on its host."""
    ready = folder / "ready.json"
    words = [
        sys.executable, "-m", "shoal.cli", "controller", "--no-insecure",
        "--state", str(folder / "state"), "--ready-file", str(ready),
        "--grpc", f"{net.address(CONTROLLER)}:7470",
    ]  # fmt: skip
    with (folder / "controller.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *net.inside(CONTROLLER, *words), stdout=log, stderr=log
        )
    try:
        await until(lambda: ready.exists() or process.returncode is not None, 30, "the ready file")
        assert process.returncode is None, (folder / "controller.log").read_text()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def stranger(net: Lab, folder: Path, *, own_authority: bool) -> AsyncIterator[Path]:
    """A stranger between board and controller; yields the file of what it was told."""
    folder.mkdir()
    certificate, key = write_certificate(folder)
    heard = folder / "heard"
    for words in (
        ("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"),
        ("nft", "add", "table", "ip", "between"),
        ("nft", "add chain ip between pre { type nat hook prerouting priority -100; }"),
        ("nft", f"add rule ip between pre tcp dport {NEWCOMERS} redirect to :{NEWCOMERS}"),
    ):
        await run(net, STRANGER, *words)
    link = json.loads(await run(net, STRANGER, "ip", "-j", "link", "show", "eth0"))
    neighbour = ("dev", "eth0", "lladdr", str(link[0]["address"]), "nud", "permanent")
    await run(net, BOARD, "ip", "neigh", "replace", net.address(CONTROLLER), *neighbour)
    process = await asyncio.create_subprocess_exec(
        *net.inside(
            STRANGER, sys.executable, "-c", IN_BETWEEN, str(certificate), str(key),
            f"{net.address(CONTROLLER)}:{NEWCOMERS}", str(certificate) if own_authority else "",
            str(heard),
        ),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"in between\n"
        yield heard
    finally:
        process.kill()
        await process.wait()
        await run(net, STRANGER, "nft", "delete", "table", "ip", "between")
        await run(net, BOARD, "ip", "neigh", "del", net.address(CONTROLLER), "dev", "eth0")


async def run(net: Lab, host: int, *words: str) -> str:
    """Run a command on a host to its good end, and return what it said."""
    status, said = await ended(net, host, *words)
    assert status == 0, f"{words}: {said}"
    return said


async def ended(net: Lab, host: int, *words: str, home: Path | None = None) -> tuple[int, str]:
    """Run a command on a host to its end; returns its exit status and what it said."""
    at = ("env", f"HOME={home}", f"XDG_STATE_HOME={home}/state") if home else ()
    done = await asyncio.to_thread(
        subprocess.run,
        net.inside(host, *at, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(600)
async def test_the_secret_of_a_token_is_not_said_to_a_stranger_in_between(tmp_path: Path) -> None:
    shoal = (sys.executable, "-m", "shoal.cli")
    at = ("--controller", f"{Lab.address(CONTROLLER)}:7470")
    operator = ("--identity", str(tmp_path / "state" / "identity" / "operator"))
    async with lab(3) as net, controller(net, tmp_path):
        made = ("token", "create", "--role", "viewer", "--uses", "1", *at, *operator)
        status, said = await ended(net, CONTROLLER, *shoal, *made)
        assert status == 0, said
        word = next(line for line in said.splitlines() if line.startswith("shoal1."))
        token = tmp_path / "viewer.token"
        token.write_text(word)
        token.chmod(0o600)
        secret = word.rpartition(".")[2].encode()
        login = (*shoal, "login", *at, "--token-file", str(token))

        async with stranger(net, tmp_path / "relay", own_authority=False) as heard:
            status, said = await ended(net, BOARD, *login, home=tmp_path)
            assert status != 0
            assert "cannot prove that it is the controller" in said
            assert "The token was not sent" in said
            told = heard.read_bytes()
            assert b"GET /v1/authorities" in told  # it was in between
            assert secret not in told

        async with stranger(net, tmp_path / "impostor", own_authority=True) as heard:
            status, said = await ended(net, BOARD, *login, home=tmp_path)
            assert status != 0
            assert "does not show the authority of the token" in said
            told = heard.read_bytes()
            assert b"GET /v1/authorities" in told
            assert secret not in told

        # The token was not used: with nothing in between it is good.
        status, said = await ended(net, BOARD, *login, home=tmp_path)
        assert status == 0, said
        status, said = await ended(net, BOARD, *shoal, "nodes", *at, home=tmp_path)
        assert status == 0, said

"""An intake as a real process, and a gate before its queues that a test can close."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.kit.child_process import ChildProcess
from tests.kit.edge import Edge
from tests.kit.s3_servers import CREDENTIALS
from tests.kit.until import until


class RunningIntake(ChildProcess):
    """One intake with a state folder of its own.

    Args:
        edge: the cluster that it submits to, and its servers.
        folder: where its state and its log go.
        extra: further words of its command line; later ones win.
    """

    def __init__(self, edge: Edge, folder: Path, *extra: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "intake.log")
        self.state = folder / "state"
        self._edge = edge
        self._extra = extra

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Start it, again with the same state if it ran before, and wait until it receives."""
        edge = self._edge
        identity = edge.cluster.identity
        seen = self.log().count("intake ready") if self._log_path.exists() else 0
        process = self.run(
            [
                sys.executable, "-m", "shoal.cli", "intake",
                "--state", str(self.state),
                "--controller", edge.cluster.controller_address,
                *(("--insecure",) if identity is None else ("--identity", str(identity))),
                "--sqs-endpoint", edge.ministack.endpoint,
                "--mqtt", f"mqtt://{edge.broker.host}:{edge.broker.port}",
                "--bucket", edge.uploads,
                "--try-seconds", "0.05",
                *self._extra,
            ],
            {**os.environ, **CREDENTIALS},
        )  # fmt: skip
        await until(
            lambda: self.log().count("intake ready") > seen or process.poll() is not None,
            30,
            "the intake receives",
        )
        assert process.poll() is None, self.log()

    def kill(self) -> None:
        """End it without warning."""
        self.end(signal.SIGKILL)

    def letters(self) -> list[dict[str, Any]]:
        """What it has put aside in its folder."""
        folder = self.state / "dead-letters"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@dataclass(eq=False)
class QueueGate:
    """Passes requests on to SQS, or answers them with 503; by the action, such as `DeleteMessage`.

    Attributes:
        target: where SQS is.
        address: where it listens.
        calls: the actions that were asked for, passed on or not.
        delivered: how many messages passed, each delivery counted.
        shut: whether an action is refused.
    """

    target: str
    address: str = ""
    calls: list[str] = field(default_factory=list[str])
    delivered: int = 0
    shut: Callable[[str], bool] = lambda _action: False

    async def answer(self, request: web.Request) -> web.Response:
        """Pass one request on."""
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.calls.append(action)
        if self.shut(action):
            return web.Response(status=503)
        kept = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in {"host", "content-length", "expect"}
        }
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                self.target + request.path_qs,
                headers=kept,
                data=await request.read(),
            ) as answer,
        ):
            body = await answer.read()
            if action == "ReceiveMessage":
                self.delivered += body.count(b'"MessageId"')
            return web.Response(
                status=answer.status,
                body=body,
                content_type=answer.content_type,
            )


@contextlib.asynccontextmanager
async def queue_gate(edge: Edge) -> AsyncIterator[QueueGate]:
    """Serve a gate before the queues of a cluster."""
    gate = QueueGate(edge.ministack.endpoint)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", gate.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gate.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield gate
    finally:
        await runner.cleanup()

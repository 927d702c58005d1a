"""A real controller in the test's own process: real store, real gRPC, real gossip, ports of 0."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

from control.config import ControllerConfig
from control.controller import Controller, ControllerAddresses, ControllerProcess


def controller_config(state: Path, **settings: Any) -> ControllerConfig:
    """Return a configuration on loopback, every port free."""
    defaults: dict[str, Any] = {
        "state": state,
        "grpc": "127.0.0.1:0",
        "gossip": "127.0.0.1:0",
        "objects": "127.0.0.1:0",
        "gossip_preset": "local",
        "insecure": True,
    }
    return ControllerConfig(**{**defaults, **settings})


@contextlib.asynccontextmanager
async def running_controller(state: Path, **settings: Any) -> AsyncIterator[ControllerAddresses]:
    """Run a controller until the end of the block; its failure is the test's.

    `wall`, if it is given, is its clock of the world, in seconds since 1970; all else is configuration.
    """
    wall: Callable[[], float] = settings.pop("wall", time.time)
    ready: asyncio.Future[ControllerAddresses] = asyncio.get_running_loop().create_future()
    controller = Controller(
        controller_config(state, **settings),
        ControllerProcess(
            clock=time.monotonic,
            boottime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            wall=wall,
            rng=Random(1),
            token=lambda characters: secrets.token_hex(characters)[:characters],
        ),
        ready.set_result,
    )
    task = asyncio.create_task(controller.run())
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield ready.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

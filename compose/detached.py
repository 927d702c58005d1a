"""`shoal up --detach`: a cluster in a process of its own that outlives its terminal."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from compose.local_cluster import LOCK_NAME
from services.runtime.process import ExitCode, StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE, prepare_state_folder
from shoal.cli.cluster_record import running_cluster

_LOOK_SECONDS: Final = 0.05
_END_SECONDS: Final = 60.0
_LAST_LINE: Final = "ready:"


async def start_detached(name: str, state: Path, given: Mapping[str, Any]) -> int:
    """Start `shoal up` in a session of its own, and return once its cluster is ready or refused.

    What it says goes to `up.log` in the state folder, and what it says until it is ready to stdout.
    It ends with this call if that is cancelled.

    Args:
        name: of the cluster.
        state: its folder.
        given: the other options of `shoal up` by their names.

    Returns:
        The exit code: 0, or that of the process that was refused.

    Raises:
        StartRefusedError: its log cannot be written.
    """
    log = state / "up.log"
    try:
        prepare_state_folder(state, LOCK_NAME)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
    except OSError as error:
        raise StartRefusedError(
            f"the log {log} cannot be written: {error.strerror}; let this user write there, or "
            "choose another --state"
        ) from error
    with os.fdopen(descriptor, "ab") as file:
        begin = os.fstat(descriptor).st_size
        process = _spawn(file, _words(name, state, given), str(given["mqtt"]))
    try:
        while (code := process.poll()) is None:
            record = running_cluster(name)
            if record is not None and record.pid == process.pid and record.controller:
                break
            await asyncio.sleep(_LOOK_SECONDS)
    except asyncio.CancelledError:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, _END_SECONDS)
        raise
    said = log.read_bytes()[begin:].decode(errors="replace")
    click.echo(said.partition(_LAST_LINE)[0].rstrip("\n"), err=code is not None)
    if code is not None:
        return code
    click.echo(f"ready, in the background: end it with  shoal down {name}   (what it says: {log})")
    return ExitCode.OK


def _spawn(log: BinaryIO, words: Sequence[str], mqtt: str) -> subprocess.Popen[bytes]:
    # It outlives this process, so nothing here may wait for it, or end it when it is forgotten.
    return subprocess.Popen(
        [sys.executable, "-m", "shoal.cli", "up", *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        # Not on its command line: it may hold a password.
        env={**os.environ, "SHOAL_UP_MQTT": mqtt},
    )


def _words(name: str, state: Path, given: Mapping[str, Any]) -> tuple[str, ...]:
    words = ["--name", name, "--state", str(state)]
    for option in ("agents", "port", "archive", "cpus", "sandbox"):
        words += [f"--{option}", str(given[option])]
    return (*words, *(("--insecure",) if given["insecure"] else ()))

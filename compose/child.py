"""One process of a local cluster: started, watched, started again, and ended."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from services.runtime.log import fields
from services.runtime.state_folder import PRIVATE_FILE
from shoal.local import launch

LOG = logging.getLogger(__name__)

_END_SECONDS = 10.0


class ChildEndedError(Exception):
    """A process ended before it was ready."""


class Child:
    """A process with a log file of its own, which gets a signal when this process ends, however it does.

    Args:
        name: What people call it.
        argv: Asked for at each start, so that a restart may use ports that the first start found.
        log: File that its stdout and stderr are appended to.
        backoff_seconds: Wait before a start that follows an unexpected end.
        environ: Its environment variables; None means those of this process.
        orphaned: The signal, which may come more than once. Of a process of ours a second SIGTERM breaks
            the end off, and a second SIGHUP does not.
    """

    def __init__(
        self,
        name: str,
        argv: Callable[[], Sequence[str]],
        log: Path,
        *,
        backoff_seconds: float = 0.5,
        environ: Mapping[str, str] | None = None,
        orphaned: signal.Signals = signal.SIGHUP,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = argv
        self._backoff_seconds = backoff_seconds
        self._environ = environ
        self._orphaned = orphaned
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = True
        self._log_begin = 0

    @property
    def pid(self) -> int:
        """Process id of the process that runs now.

        Raises:
            ProcessLookupError: None runs.
        """
        if self._process is None or self._process.returncode is not None:
            raise ProcessLookupError(f"{self.name} does not run: see {self.log}")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether a process runs now."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it once; `supervise` starts it again."""
        self._wanted = True
        # It may hold what programs print, and the folder may be open to users of jobs.
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        with os.fdopen(descriptor, "ab") as log:
            self._log_begin = os.fstat(log.fileno()).st_size
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__),
                *(str(os.getpid()), str(int(self._orphaned)), *self._argv()),
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the cluster, which ends its processes in good order.
                start_new_session=True,
            )

    async def supervise(self) -> None:
        """Start it again whenever it ends unexpectedly; runs until cancelled."""
        while True:
            if self._process is not None:
                code = await self._process.wait()
                if self._wanted:
                    LOG.warning(
                        "a process ended and is started again",
                        extra=fields(process=self.name, exit_code=code, log=str(self.log)),
                    )
            await asyncio.sleep(self._backoff_seconds)
            if self._wanted and not self.running:
                await self.start()

    async def ready(self, path: Path, deadline_seconds: float) -> None:
        """Return once `path` exists.

        Raises:
            ChildEndedError: The process ended first, or the deadline passed; holds the end of its log.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                while not await asyncio.to_thread(path.exists):
                    if not self.running:
                        raise ChildEndedError(f"{self.name} ended at once:\n{self.tail()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ChildEndedError(
                f"{self.name} was not ready within {deadline_seconds:g} s:\n{self.tail()}"
            ) from None

    def tail(self, size_bytes: int = 4000) -> str:
        """The end of its log, but nothing that it wrote before its latest start."""
        try:
            said = self.log.read_bytes()[self._log_begin :]
            return said[-size_bytes:].decode(errors="replace")
        except OSError as error:
            return f"(no log at {self.log}: {error.strerror})"

    async def kill(self) -> None:
        """End it without warning, and do not start it again."""
        self._wanted = False
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """End it in good order, and do not start it again."""
        self._wanted = False
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, how)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            LOG.warning("killed a process that did not end", extra=fields(process=self.name))
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

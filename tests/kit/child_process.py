"""A program as a child of the test, whose words go to a log, ended by a signal at the end."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class ChildProcess:
    """A program that may be started again after it was ended.

    Args:
        log_path: where its stdout and stderr go, behind what earlier runs left there.
    """

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self.process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the program, in a folder if one is given."""
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=folder
            )
        return self.process

    def end(self, how: signal.Signals, seconds: float = 60) -> int:
        """End it, and return its exit code; 0 where it does not run."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def log(self) -> str:
        """What it wrote."""
        return self._log_path.read_text()

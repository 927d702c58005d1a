"""The job's log: one line a message on stderr, which Shoal keeps and follows live."""

import sys
from typing import Any, TextIO


class Log:
    """Writes `LEVEL message key=value …`; the agent adds time and job."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream

    def debug(self, message: str, **fields: Any) -> None:
        """What only the author wants to see."""
        self._write("DEBUG", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """What happens."""
        self._write("INFO", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """What a person should look at."""
        self._write("WARNING", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """What went wrong."""
        self._write("ERROR", message, fields)

    def _write(self, level: str, message: str, fields: Any) -> None:
        words = [level, message]
        for key, value in fields.items():
            text = str(value)
            if not text or any(character in text for character in ' "\n='):
                text = '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
            words.append("{}={}".format(key, text))
        line = " ".join(words).replace("\n", "\\n")
        stream: TextIO = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()

"""What the work of attempts waits for, told to people: after a moment, when it changes, and now and then.

Now and then, because words are lost with a session, and because time passes. One watcher does that for all attempts,
so that work which takes a millisecond costs no timer of its own.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

QUIET_SECONDS: Final = 1.0
"""What takes no longer is not worth a word."""
_SAY_AGAIN_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5


@dataclass(slots=True, eq=False)
class WorkWait:
    """The work of one attempt from its begin to its end.

    Args:
        say: tells a text to the controller, empty for none.
        began: when, by the loop's clock.
    """

    say: Callable[[str], None]
    began: float
    _text: str = ""
    _said: str = ""
    _next: float = 0.0

    def __post_init__(self) -> None:
        self._next = self.began + QUIET_SECONDS

    def wait_for(self, text: str) -> None:
        """Take up for what the work waits: why, and until when. A short wait is not worth a word."""
        changed, self._text = text != self._text, text
        if changed and asyncio.get_running_loop().time() - self.began >= QUIET_SECONDS:
            self._say_text()

    def tell(self, text: str) -> None:
        """Say a text at once, and again now and then."""
        self._text = self._said = text
        self.say(text)

    def look(self, now: float) -> None:
        """Say for what it waits, if it is time."""
        if now >= self._next:
            self._next = now + _SAY_AGAIN_SECONDS
            self._say_text()

    def end(self) -> None:
        """Take back what was said last, or it would stand beside what comes next."""
        if self._said:
            self.say("")

    def _say_text(self) -> None:
        if self._text:
            passed = asyncio.get_running_loop().time() - self.began
            self._said = f"{self._text}; {passed:.0f} s so far"
            self.say(self._said)


@dataclass(eq=False)
class Waits:
    """The waits of all attempts; let it `run`."""

    _waits: dict[WorkWait, None] = field(default_factory=dict[WorkWait, None])
    _some: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, say: Callable[[str], None], text: str = "") -> WorkWait:
        """Watch a wait from now on; `end` it. The text says for what the work waits first."""
        wait = WorkWait(say, asyncio.get_running_loop().time(), text)
        if not self._waits:
            self._some.set()
        self._waits[wait] = None
        return wait

    def end(self, wait: WorkWait) -> None:
        """Watch a wait no more; harmless when it is not watched."""
        self._waits.pop(wait, None)
        if not self._waits:
            self._some.clear()

    async def run(self) -> None:
        """Say what waits until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            await asyncio.sleep(_LOOK_SECONDS)
            now = loop.time()
            for wait in tuple(self._waits):
                wait.look(now)

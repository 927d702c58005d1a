"""Short work that touches the disk: a few system calls for one attempt, such as to make its folder.

It is done by one thread, in the order in which it is asked for. **Why not on the loop:** a disk that is busy may let a
single `mkdir` wait for seconds, and a node that says nothing meanwhile is taken for lost. **Why one thread:** several
fight for the interpreter at each system call, which costs more than the calls. All that is asked for in one turn of the
loop is handed over at once, and what is done meanwhile is handed back at once.

What is asked for *quietly* wakes the loop for no result: it is there when the loop looks for it, mostly because it was
woken for something else, and `_LATEST_SECONDS` after it was asked for at the latest. Work that is looked for and not
done yet is quiet no more. Example: the folder of an attempt is made while its entry of the journal becomes durable, and
both are needed, so the loop is woken once.

What may take long belongs to `edge_agent.long_work`, whose threads take turns.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar, cast

ValueT = TypeVar("ValueT")


@dataclass(slots=True, eq=False)
class _Piece:
    """One piece of work, and what came of it."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]
    quiet: bool = False
    value: object = None
    error: BaseException | None = None


_LATEST_SECONDS: Final = 0.05


class ShortWork:
    """Does short work on a thread of its own, which begins with the first of it; `close` it."""

    def __init__(self) -> None:
        self._asked: list[_Piece] = []
        self._orders: SimpleQueue[list[_Piece] | None] = SimpleQueue()
        self._finished: list[_Piece] = []
        self._woken = False
        """Whether the loop is on its way to take what is finished."""
        self._quiet: dict[asyncio.Future[Any], _Piece] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="short-work", daemon=True)

    def close(self) -> None:
        """Let the thread end once it has done what it was asked for."""
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        self._orders.put(None)

    def do(self, work: Callable[[], ValueT], *, quietly: bool = False) -> asyncio.Future[ValueT]:
        """Have work done; the future has what it returns or raises. Cancelling that stops nothing.

        Args:
            work: what is to be done.
            quietly: whether the loop is not to be woken for it; `look` for what it returns.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._thread.start()
        done: asyncio.Future[ValueT] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._hand_over)
        piece = _Piece(work, done, quietly)
        self._asked.append(piece)
        if quietly:
            self._quiet[done] = piece
            if self._timer is None:
                self._timer = loop.call_later(_LATEST_SECONDS, self._is_time)
        return done

    def look(self, done: asyncio.Future[Any]) -> bool:
        """Say whether work is done; what it returns or raises is in its future then, else the loop is woken for it."""
        piece = self._quiet.get(done)
        if piece is not None:
            with self._lock:
                piece.quiet = False
        self._resolve()
        return done.done()

    def _is_time(self) -> None:
        self._timer = None
        self._resolve()
        if self._quiet and self._loop is not None:
            self._timer = self._loop.call_later(_LATEST_SECONDS, self._is_time)

    def _hand_over(self) -> None:
        if self._asked:
            asked, self._asked = self._asked, []
            self._orders.put(asked)

    def _run(self) -> None:
        while (orders := self._orders.get()) is not None:
            for piece in orders:
                try:
                    piece.value = piece.work()
                except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                    piece.error = error
                self._hand_back(piece)

    def _hand_back(self, piece: _Piece) -> None:
        with self._lock:
            self._finished.append(piece)
            wakes = not (piece.quiet or self._woken)
            self._woken = self._woken or wakes
        if wakes:
            try:
                cast("asyncio.AbstractEventLoop", self._loop).call_soon_threadsafe(self._take)
            except RuntimeError:
                return  # the loop is closed, and nothing waits any more

    def _take(self) -> None:
        with self._lock:
            self._woken = False
        self._resolve()

    def _resolve(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, []
        for piece in finished:
            self._quiet.pop(piece.done, None)
            if piece.done.cancelled():
                continue
            if piece.error is None:
                piece.done.set_result(piece.value)
            else:
                piece.done.set_exception(piece.error)

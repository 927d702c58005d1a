"""Short work that touches the disk: a few system calls for one attempt, such as to make its folder.

It is done by one thread, in the order in which it is asked for. **Why not on the loop:** a disk that is busy may let a
single `mkdir` wait for seconds, and a node that says nothing meanwhile is taken for lost. **Why one thread:** several
fight for the interpreter at each system call, which costs more than the calls. All that is asked for in one turn of the
loop is handed over at once, and what is done meanwhile is handed back at once.

What may take long belongs to `edge_agent.long_work`, whose threads take turns.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar, cast

ValueT = TypeVar("ValueT")


@dataclass(slots=True)
class _Piece:
    """One piece of work, and what came of it."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]
    value: object = None
    error: BaseException | None = None


class ShortWork:
    """Does short work on a thread of its own, which begins with the first of it; `close` it."""

    def __init__(self) -> None:
        self._asked: list[_Piece] = []
        self._orders: SimpleQueue[list[_Piece] | None] = SimpleQueue()
        self._finished: list[_Piece] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="short-work", daemon=True)

    def close(self) -> None:
        """Let the thread end once it has done what it was asked for."""
        self._hand_over()
        self._orders.put(None)

    def do(self, work: Callable[[], ValueT]) -> asyncio.Future[ValueT]:
        """Have work done; the future has what it returns or raises. Cancelling that stops nothing."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._thread.start()
        done: asyncio.Future[ValueT] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._hand_over)
        self._asked.append(_Piece(work, done))
        return done

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
            first = not self._finished
            self._finished.append(piece)
        if first:
            try:
                cast("asyncio.AbstractEventLoop", self._loop).call_soon_threadsafe(self._resolve)
            except RuntimeError:
                return  # the loop is closed, and nothing waits any more

    def _resolve(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, []
        for piece in finished:
            if piece.done.cancelled():
                continue
            if piece.error is None:
                piece.done.set_result(piece.value)
            else:
                piece.done.set_exception(piece.error)

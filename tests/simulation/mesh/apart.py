"""Runs histories in a forked child that ends without tidying up.

A history leaves tasks of killed processes behind. If they were collected, their `finally` blocks
would run, in an order that no seed decides, and would do what a killed process does not do. So
nothing is collected while a history runs, and the child that ran it ends by `_exit`.
"""

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")


class ApartError(Exception):
    """What was run apart raised, or its process ended; the message has its traceback."""


def run_apart(work: Callable[[], ResultT]) -> ResultT:
    """Return what `work` returns in a child of its own; the result is pickled.

    Raises:
        ApartError: it raised.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise ApartError("the child ended without a result")
    good, value = pickle.loads(data)  # noqa: S301 - our own child wrote it
    if not good:
        raise ApartError(value)
    result: ResultT = value
    return result


def _work(work: Callable[[], object], writing: int) -> None:
    gc.disable()
    try:
        answer = pickle.dumps((True, work()))
    except BaseException:  # noqa: BLE001 - the parent is told
        answer = pickle.dumps((False, traceback.format_exc()))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(answer)
    sys.stdout.flush()
    os._exit(0)

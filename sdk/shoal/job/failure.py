"""How it is shown that job code raised: by its own frames, and by the records that it had been given.

Between the program's first line and its function lie the frames of this package, which say nothing of
the mistake. They are left out up to the last frame of the program. What is below that stays, unless the
error is a `JobError`, whose message says what to do: then a mistake of this package is seen in full.
"""

import os
import sys
import traceback
from types import TracebackType
from typing import List, Optional, Type

from shoal.job.error import CodecError, HeaderError, JobError, PortError
from shoal.job.input_port import InputPort
from shoal.job.process import Process
from shoal.job.streams import Streams

_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


def show_failures(process: Process) -> None:
    """Show what ends this program so from now on, unless the program shows it in a way of its own."""

    def show(
        kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]
    ) -> None:
        if not isinstance(error, Exception):
            sys.__excepthook__(kind, error, trace)
            return
        # Ports and codecs name the record themselves. The error comes last: the end is what is kept.
        named = isinstance(error, (CodecError, HeaderError, PortError))
        if process.opened and not named:
            sys.stderr.write(given(process.streams))
        sys.stderr.write(told(error))
        sys.stderr.flush()

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = show


def given(streams: Streams) -> str:
    """Say in a line which records a program was given last, or sent if it is given none."""
    said: List[str] = []
    for name, port in streams.inputs.items():
        if port.started and port.position > port.first:
            said.append("{} of the input {!r}".format(_last_round(port), name))
    if said:
        return "shoal.job: it was given {}\n".format(" and ".join(said))
    if not streams.inputs:
        for name, out in streams.outputs.items():
            said.append("record {} of the output {!r}".format(out.sent, name))
    return "shoal.job: next was {}\n".format(" and ".join(said)) if said else ""


def told(error: BaseException) -> str:
    """The traceback of an error, without the frames of this package that lead to it."""
    whole = traceback.TracebackException(type(error), error, error.__traceback__)
    _cut(whole, error)
    return "".join(whole.format())


def _last_round(port: InputPort) -> str:
    begin = port.position - 1 - (port.position - 1 - port.first) % port.block_count
    last = port.position - 1
    return "record {}".format(last) if begin == last else "records {} to {}".format(begin, last)


def _cut(whole: traceback.TracebackException, error: BaseException) -> None:
    frames = list(whole.stack)
    own = [not os.path.abspath(one.filename).startswith(_FOLDER) for one in frames]
    if any(own):
        last = len(own) - 1 - own[::-1].index(True)
        below = [] if isinstance(error, JobError) else frames[last + 1 :]
        whole.stack[:] = [one for one, kept in zip(frames, own) if kept] + below  # noqa: B905
    for linked, inner in (
        (whole.__cause__, error.__cause__),
        (whole.__context__, error.__context__),
    ):
        if linked is not None and inner is not None:
            _cut(linked, inner)

"""How job code begins: `main`, `source`, `stream`, `run`; and `end` and `progress`."""

import sys
from typing import Any, Callable, Optional, TypeVar, overload

from shoal.job.error import OutsideShoalError
from shoal.job.failure import show_failures
from shoal.job.process import current
from shoal.job.program import MAIN, SOURCE, STREAM, Program
from shoal.job.reducers import Reduce
from shoal.job.streams import Codecs

Target = TypeVar("Target", bound=Callable[..., Any])

ATTRIBUTE = "__shoal_program__"


@overload
def main(target: Target) -> Target: ...


@overload
def main(
    *, codecs: Optional[Codecs] = None, reduce: Optional[Reduce] = None
) -> Callable[[Target], Target]: ...


def main(
    target: Any = None, *, codecs: Optional[Codecs] = None, reduce: Optional[Reduce] = None
) -> Any:
    """Call this function (or `run` of this class) once a round, with the records of every input.

    Where its file is the program, the job runs right away and to its end, so put it last in the
    file. Where the file is imported, nothing happens: tests call the function.

    Args:
        target: A function, coroutine function, generator function (any number of outputs a round)
            or class with `run` and, if it likes, `setup` and `finish`.
        codecs: Codec by port name, where `auto` is not the right one.
        reduce: By header, how those of several records become that of the round: `or`, `and`,
            `min`, `max`, `sum`, `first`, `last`, or a function of a list of values.
    """
    return _decorate(target, MAIN, codecs, reduce)


@overload
def source(target: Target) -> Target: ...


@overload
def source(*, codecs: Optional[Codecs] = None) -> Callable[[Target], Target]: ...


def source(target: Any = None, *, codecs: Optional[Codecs] = None) -> Any:
    """Send what this generator yields: each yield is a round. See `main`.

    With `recovery: resume`, a replacement gets the number of its first round as the parameter
    `first_round`, if the generator has one; otherwise the rounds before it are made and dropped.
    """
    return _decorate(target, SOURCE, codecs)


@overload
def stream(target: Target) -> Target: ...


@overload
def stream(
    *, codecs: Optional[Codecs] = None, reduce: Optional[Reduce] = None
) -> Callable[[Target], Target]: ...


def stream(
    target: Any = None, *, codecs: Optional[Codecs] = None, reduce: Optional[Reduce] = None
) -> Any:
    """Call this function (or coroutine function) once; it uses `job.inputs` and `job.outputs` itself.

    When it returns, the outputs end. See `main`.
    """
    return _decorate(target, STREAM, codecs, reduce)


def run(target: Any, *, codecs: Optional[Codecs] = None, reduce: Optional[Reduce] = None) -> None:
    """Run a function or class as `main` does, here and now, to the end of the streams.

    Raises:
        JobError: The job and its ports do not fit, or the other end of a port went away.
        Exception: Whatever job code raises; then no stream ends, and the attempt fails.
    """
    program = program_of(target)
    if codecs:
        program.codecs.update(codecs)
    if reduce:
        program.reduce.update(reduce)
    _run(program)


def end() -> None:
    """End all outputs; only for programs that use `job.outputs` outside any function of the above."""
    current().streams.end()


def progress(text: str) -> None:
    """Say how far this job is, in a few words; shown by `shoal status`. Cheap: the latest wins."""
    current().streams.progress(text)


def program_of(target: Any) -> Program:
    """The program that a decorator made of the target, or `main`'s."""
    program = getattr(target, ATTRIBUTE, None)
    if isinstance(program, Program) and program.target is target:
        return program
    return Program(target, MAIN, None)


def _decorate(
    target: Any, style: str, codecs: Optional[Codecs], reduce: Optional[Reduce] = None
) -> Any:
    if target is None:

        def decorate(later: Any) -> Any:
            return _decorate(later, style, codecs, reduce)

        return decorate
    program = Program(target, style, codecs, reduce)
    setattr(target, ATTRIBUTE, program)
    if target.__module__ == "__main__":
        try:
            _run(program)
        except OutsideShoalError as error:
            sys.exit("{}: {}".format(sys.argv[0], error))
    return target


def _run(program: Program) -> None:
    process = current()
    show_failures(process)
    program.run(process)

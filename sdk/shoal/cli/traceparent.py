"""Where in a trace the command itself runs, as programs that start others say it."""

import os

import click

from shoal.trace_context import TraceContextError, parse_traceparent

_VARIABLE = "TRACEPARENT"


def given_traceparent() -> str:
    """Return `TRACEPARENT` of the environment; what is none is told and left out."""
    text = os.environ.get(_VARIABLE, "")
    if not text:
        return ""
    try:
        return str(parse_traceparent(text))
    except TraceContextError as error:
        click.echo(f"{_VARIABLE} is left out: {error}", err=True)
        return ""

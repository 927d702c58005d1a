"""Where a process serves its figures, as its operator says it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def metrics_option(example: str) -> Callable[[CommandT], CommandT]:
    """Give a command `--metrics`; `example` is the address that documents use."""
    return click.option(
        "--metrics",
        default="",
        show_default=False,
        metavar="HOST:PORT",
        help="Where to serve GET /metrics to Prometheus: plain on loopback, beyond it in a cluster with identity over "
        f"HTTPS to readers that prove one.  [default: nowhere; {example} is usual]",
    )

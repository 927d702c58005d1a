"""`job.context`, `job.inputs`, `job.outputs`, `job.headers`, `job.log`: what job code touches.

Python 3.6 has no `__getattr__` of modules, so these are objects that look at the current process
when they are used.
"""

from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    Mapping,
    MutableMapping,
    TypeVar,
    Union,
)

from shoal.job.error import PortError
from shoal.job.input_port import InputPort
from shoal.job.output_port import OutputPort
from shoal.job.process import current
from shoal.job.stderr_log import Log
from shoal.job.streams import match

if TYPE_CHECKING:
    from pathlib import Path

PortT = TypeVar("PortT", bound=Union[InputPort, OutputPort])


def _fact(name: str) -> Any:
    return property(lambda _: getattr(current().context, name))


class CurrentContext:
    """Which job this is; see `shoal.job.job_context.Context`."""

    namespace: str = _fact("namespace")
    """Namespace of the pipeline."""
    pipeline: str = _fact("pipeline")
    """Id of the pipeline."""
    name: str = _fact("name")
    """Hierarchical name, `pipelines/{p}/jobs/{j}/attempts/{n}`."""
    job: str = _fact("job")
    """Name of the job in the specification."""
    replica: int = _fact("replica")
    """Which replica this is, from 0."""
    replicas: int = _fact("replicas")
    """How many replicas the job has."""
    attempt: int = _fact("attempt")
    """Number of the attempt, from 1."""
    epoch: int = _fact("epoch")
    """Epoch of the placement; grows with each replacement."""
    results: "Path" = _fact("results")
    """Folder whose files are archived; exists."""
    recovery: str = _fact("recovery")
    """`restart` or `resume`: what a replacement does with its inputs."""

    @property
    def first_round(self) -> int:
        """The round that this attempt begins with, from 0; above 0 only with `recovery: resume`.

        Waits until the streams are connected.
        """
        return current().streams.first_round


class CurrentPorts(Mapping[str, PortT]):
    """The ports of one direction by name: `job.inputs["frames"]`, `job.outputs["found"]`."""

    def __init__(self, direction: str, ports: Callable[[], Dict[str, PortT]]) -> None:
        self._direction = direction
        self._ports = ports

    def __getitem__(self, name: str) -> PortT:
        ports = self._ports()
        found = match(name, ports)
        if found:
            return ports[found]
        raise PortError(_missing(self._direction, name))

    def __contains__(self, name: object) -> bool:
        return bool(match(str(name), self._ports()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ports())

    def __len__(self) -> int:
        return len(self._ports())


class CurrentHeaders(MutableMapping[str, Any]):
    """Headers of the present round: `job.headers["alarm"] = 1` goes with everything that it sends."""

    def __getitem__(self, name: str) -> Any:
        return current().streams.headers.current()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        current().streams.headers.current()[name] = value

    def __delitem__(self, name: str) -> None:
        del current().streams.headers.current()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(current().streams.headers.current())

    def __len__(self) -> int:
        return len(current().streams.headers.current())

    def __repr__(self) -> str:
        return repr(current().streams.headers.current())


class CurrentLog(Log):
    """The job's log, `job.log.info("message", key=value)`."""

    def __call__(self, message: str, **fields: Any) -> None:
        """The same as `info`."""
        self.info(message, **fields)


def _missing(direction: str, name: str) -> str:
    streams = current().streams
    foreign = streams.foreign.get(name)
    if foreign:
        return foreign
    return "this job has no {} port {!r}: {}".format(direction, name, streams.describe())


context = CurrentContext()
headers = CurrentHeaders()
inputs = CurrentPorts("input", lambda: current().streams.inputs)
outputs = CurrentPorts("output", lambda: current().streams.outputs)
log = CurrentLog()

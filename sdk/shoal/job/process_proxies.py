"""`job.context`, `job.inputs`, `job.outputs`, `job.headers`, `job.log`: what job code touches.

Python 3.6 has no `__getattr__` of modules, so these are objects that look at the current process
when they are used.
"""

from typing import TYPE_CHECKING, Any, Iterator, Mapping, MutableMapping

from shoal.job.error import PortError
from shoal.job.input_port import InputPort
from shoal.job.output_port import OutputPort
from shoal.job.process import current
from shoal.job.stderr_log import Log
from shoal.job.streams import match

if TYPE_CHECKING:
    from pathlib import Path


class CurrentContext:
    """Who this job is."""

    @property
    def namespace(self) -> str:
        """Namespace of the pipeline."""
        return current().context.namespace

    @property
    def pipeline(self) -> str:
        """Id of the pipeline."""
        return current().context.pipeline

    @property
    def name(self) -> str:
        """Hierarchical name, `pipelines/{p}/jobs/{j}/attempts/{n}`."""
        return current().context.name

    @property
    def job(self) -> str:
        """Name of the job in the specification."""
        return current().context.job

    @property
    def replica(self) -> int:
        """Which replica this is, from 0."""
        return current().context.replica

    @property
    def replicas(self) -> int:
        """How many replicas the job has."""
        return current().context.replicas

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1."""
        return current().context.attempt

    @property
    def epoch(self) -> int:
        """Epoch of the placement; grows with each replacement."""
        return current().context.epoch

    @property
    def results(self) -> "Path":
        """Folder whose files are archived; exists."""
        return current().context.results

    @property
    def recovery(self) -> str:
        """`restart` or `resume`: what a replacement does with its inputs."""
        return current().context.recovery

    @property
    def first_round(self) -> int:
        """The round that this attempt begins with, from 0; above 0 only with `recovery: resume`.

        Waits until the streams are connected.
        """
        return current().streams.first_round


class CurrentInputs(Mapping[str, InputPort]):
    """The input ports by name: `for record in job.inputs["frames"]`."""

    def __getitem__(self, name: str) -> InputPort:
        streams = current().streams
        found = match(name, streams.inputs)
        if found:
            return streams.inputs[found]
        raise PortError(_missing("input", name))

    def __contains__(self, name: object) -> bool:
        return bool(match(str(name), current().streams.inputs))

    def __iter__(self) -> Iterator[str]:
        return iter(current().streams.inputs)

    def __len__(self) -> int:
        return len(current().streams.inputs)


class CurrentOutputs(Mapping[str, OutputPort]):
    """The output ports by name: `job.outputs["found"].send(value)`."""

    def __getitem__(self, name: str) -> OutputPort:
        streams = current().streams
        found = match(name, streams.outputs)
        if found:
            return streams.outputs[found]
        raise PortError(_missing("output", name))

    def __contains__(self, name: object) -> bool:
        return bool(match(str(name), current().streams.outputs))

    def __iter__(self) -> Iterator[str]:
        return iter(current().streams.outputs)

    def __len__(self) -> int:
        return len(current().streams.outputs)


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

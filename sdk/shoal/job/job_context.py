"""Which job this is: what the agent says about it in the environment of the process."""

import json
from typing import TYPE_CHECKING, Any, Dict, Mapping

from shoal.job.error import OutsideShoalError, PortError

if TYPE_CHECKING:
    from pathlib import Path

OUTSIDE = (
    "{} is not set: this program is a job and gets its ports from Shoal; run it with `shoal run`, "
    "or call it in a test with shoal.job.testing"
)


class Context:
    """Names, numbers and places of this attempt; never changes.

    Attributes:
        namespace: Namespace of the pipeline.
        pipeline: Id of the pipeline.
        name: Hierarchical name, `pipelines/{p}/jobs/{j}/attempts/{n}`.
        job: Name of the job in the specification.
        replica: Which replica this is, from 0.
        replicas: How many there are.
        attempt: Number of the attempt, from 1.
        epoch: Epoch of the placement; grows with each replacement.
        recovery: `restart` or `resume`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        if "SHOAL_PORTS" not in environ:
            raise OutsideShoalError(OUTSIDE.format("SHOAL_PORTS"))
        self.namespace = environ.get("SHOAL_NAMESPACE", "default")
        self.pipeline = environ.get("SHOAL_PIPELINE", "")
        self.name = environ.get("SHOAL_NAME", "")
        self.job = environ.get("SHOAL_JOB", "")
        self.replica = _number(environ, "SHOAL_REPLICA", 0)
        self.replicas = _number(environ, "SHOAL_REPLICAS", 1)
        self.attempt = _number(environ, "SHOAL_ATTEMPT", 1)
        self.epoch = _number(environ, "SHOAL_EPOCH", 1)
        self.recovery = environ.get("SHOAL_RECOVERY", "restart")
        self._results = environ.get("SHOAL_RESULTS", "results")
        self._ports = _ports(environ["SHOAL_PORTS"])

    @property
    def results(self) -> "Path":
        """Folder whose files are archived; exists."""
        from pathlib import Path  # noqa: PLC0415 - slow to import, and most jobs do without

        return Path(self._results)

    @property
    def resumes(self) -> bool:
        """Whether a replacement goes on in the middle: one record per output and round."""
        return self.recovery == "resume"

    def ports(self, direction: str) -> Dict[str, Dict[str, Any]]:
        """What SHOAL_PORTS says of the `inputs` or `outputs`: name to fd, format and the like."""
        return dict(self._ports.get(direction, {}))


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise PortError("{} is {!r}: it must be a number".format(name, text)) from None


def _ports(text: str) -> Dict[str, Dict[str, Dict[str, Any]]]:
    try:
        ports = json.loads(text)
        for direction in ("inputs", "outputs"):
            for port in ports.get(direction, {}).values():
                if "path" not in port:
                    int(port["fd"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PortError(
            "SHOAL_PORTS is {!r}, which is no description of ports: {!r}".format(text, error)
        ) from error
    return dict(ports)

"""What the starts of all attempts of a job have alike, found out once in a while and not for each attempt.

Rule. An outline is found by the job, as one object, and the environment: the same job in the same environment runs at
the same level, by the same program, behind the same rules. It holds for `_HOLDS_SECONDS`: what it says of the node
(which program a name means, whether a user gets there, what lies beside hidden folders) is looked at anew then. Devices
come and go, and files of secrets are one attempt's alone, so outlines with these are not kept.

Why. To find the program and the rules takes ten times what an attempt adds of its own. A program that goes within that
time fails as the keeper executes it, with START and the words of the kernel.

Example: two hundred jobs `["python", "a.py"]` in a second need four outlines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.program import ProgramOutline
from edge_agent.sandbox.planning import AttemptDoor, SandboxOutline, SandboxPlanning
from edge_agent.sdk_copy import SdkCopy
from shoal.sandbox import SandboxLevel
from shoal.spec import Job

_HOLDS_SECONDS: Final = 0.25
_KEPT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class StartOutline:
    """What the starts of all attempts of a job in one environment have alike; `until` it is to be found out anew."""

    job: Job
    program: ProgramOutline
    sandbox: SandboxOutline
    until: float


class StartOutlines:
    """The outlines of a node, for several threads.

    Args:
        sdk: what job code imports.
        environ: the agent's own variables.
        sandbox: says what is done to programs before they begin.
        clock: seconds on a clock that only grows.
    """

    def __init__(
        self,
        sdk: SdkCopy,
        environ: Mapping[str, str],
        sandbox: SandboxPlanning,
        clock: Callable[[], float],
    ) -> None:
        self._sdk = sdk
        self._environ = environ
        self._sandbox = sandbox
        self._clock = clock
        # By identity, since a job cannot be hashed; what is kept keeps its job.
        self._kept: dict[tuple[int, str], StartOutline] = {}

    def of(
        self,
        job: Job,
        environment: str,
        door: AttemptDoor,
        attempts: str,
        secrets: Path | None = None,
    ) -> StartOutline:
        """Return the outline of a job in an environment.

        Args:
            job: what it is.
            environment: folder of its environment.
            door: what an attempt of it is given.
            attempts: the folder of all attempts.
            secrets: the folder with the files of its attempt's secrets.

        Raises:
            ProgramError: its program is not there, or it cannot be had as it is asked for.
            OSError: the SDK cannot be laid out.
        """
        key = id(job), environment
        found, now = self._kept.get(key), self._clock()
        if secrets is None and found is not None and found.job is job and now < found.until:
            return found
        sdk = self._sdk.path()
        found = StartOutline(
            job,
            ProgramOutline(
                job,
                environment,
                str(sdk),
                self._environ,
                user=door.uid,
                own_places=door.level is not SandboxLevel.NONE,
            ),
            self._sandbox.outline(
                door,
                job,
                Path(attempts),
                (Path(environment), sdk),
                () if secrets is None else (secrets,),
            ),
            now + _HOLDS_SECONDS,
        )
        if secrets is None and not job.resources.devices:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[key] = found
        return found

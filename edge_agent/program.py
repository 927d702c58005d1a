"""How a job's program is started: its arguments, its environment, its descriptors.

docs/architecture.md §3 has the variables. The agent's own environment stays with the agent: a job
gets the few variables that a program needs to find its way, and those that its spec names.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.keeper.client import StartRequest
from edge_agent.keeper.launch import Port
from edge_agent.variables import job_variables
from shoal.program_ports import described
from shoal.session.assignment import Assignment
from shoal.spec import PortAttachment, PortBinding, PortFormat

_STANDARD_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST_DESCRIPTOR: Final = 3


class ProgramError(Exception):
    """The program of a job cannot be started; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """What it takes to start the program of an attempt.

    `environment` is the folder of its environment, `sdk` the folder that holds `shoal/job`, and
    `environ` the agent's own variables.
    """

    assignment: Assignment
    folder: AttemptFolder
    environment: Path
    sdk: Path
    environ: Mapping[str, str]

    def request(self) -> StartRequest:
        """Return what the keeper is asked for, without a lease.

        Raises:
            ProgramError: the program or its standard input is not there.
        """
        job = self.assignment.job
        variables = self._variables()
        return StartRequest(
            attempt=keeper_id(self.assignment.ref),
            argv=[self._program(variables["PATH"]), *job.run[1:]],
            env=variables,
            cwd=self.folder.work,
            stdin=self._stdin(),
            stdout=self.folder.stdout,
            stderr=self.folder.stderr,
            ports=self._ports(),
            timeout_seconds=job.timeout_seconds,
            grace_seconds=job.grace_seconds,
        )

    def _ports(self) -> tuple[Port, ...]:
        job = self.assignment.job
        wanted: list[tuple[str, str, PortBinding]] = [
            *((stream.name, "in", stream.binding) for stream in job.streams),
            *((output.name, "out", output.binding) for output in job.outputs),
        ]
        ports: list[Port] = []
        following = _FIRST_DESCRIPTOR
        for name, direction, binding in wanted:
            match binding.attachment:
                case PortAttachment.STDIO:
                    ports.append(Port(name, direction, 0 if direction == "in" else 1))
                case PortAttachment.FIFO:
                    path = str(self.folder.ports / name)
                    size = binding.record_size
                    ports.append(Port(name, direction, path=path, record_bytes=size))
                case PortAttachment.FD:
                    ports.append(Port(name, direction, following))
                    following += 1
        return tuple(ports)

    def _variables(self) -> dict[str, str]:
        assignment = self.assignment
        job = assignment.job
        ref = assignment.ref
        places = {(port.direction, port.name): _place(port) for port in self._ports()}
        ports = described(
            job,
            lambda direction, name: places["in" if direction == "inputs" else "out", name],
            self._peers,
        )
        path = self.environ.get("PATH") or _STANDARD_PATH
        own = dict(job.variables)
        python_path = [str(self.sdk), *filter(None, [own.pop("PYTHONPATH", "")])]
        own_path = own.pop("PATH", path)
        return {
            **job_variables(self.environ),
            "PYTHONUNBUFFERED": "1",
            "VIRTUAL_ENV": str(self.environment),
            **own,
            "PATH": os.pathsep.join([str(self.environment / "bin"), own_path]),
            "PYTHONPATH": os.pathsep.join(python_path),
            "SHOAL_NAMESPACE": ref.namespace,
            "SHOAL_PIPELINE": ref.pipeline,
            "SHOAL_JOB": job.name,
            "SHOAL_REPLICA": str(assignment.replica),
            "SHOAL_REPLICAS": str(assignment.replicas),
            "SHOAL_ATTEMPT": str(ref.number),
            "SHOAL_EPOCH": str(ref.epoch),
            "SHOAL_NAME": ref.name,
            "SHOAL_RECOVERY": job.recovery.value,
            "SHOAL_RESULTS": str(self.folder.work / "results"),
            "SHOAL_PORTS": json.dumps(ports, separators=(",", ":")),
        }

    def _peers(self, direction: str, port: str) -> set[PortFormat]:
        output = direction == "outputs"
        return {
            lane.peer_format
            for lane in self.assignment.lanes
            if lane.output is output and lane.port == port
        }

    def _program(self, path: str) -> str:
        run = self.assignment.job.run
        if not run or not run[0]:
            raise ProgramError("the job has nothing to run: give `run` at least a program")
        name = run[0]
        if "/" in name:
            program = self.folder.work / name  # an absolute name stays what it is
            if not program.is_file():
                raise ProgramError(f"{name!r} is not a file of the bundle: correct `run` or add it")
            if not os.access(program, os.X_OK):
                raise ProgramError(
                    f"{name!r} may not be executed: set its mode (chmod +x) and bundle it again, "
                    f"or run it by its interpreter, as in [python, {name}]"
                )
            return str(program)
        found = shutil.which(name, path=path)
        if found is None:
            raise ProgramError(
                f"the program {name!r} is neither in the job's environment nor on this node "
                f"(PATH={path}): install it, or write ./{name} for a file of the bundle"
            )
        return found

    def _stdin(self) -> Path | None:
        name = self.assignment.job.stdin
        if not name:
            return None
        path = self.folder.work / name
        real = os.path.realpath(path)
        if not path.is_file() or not real.startswith(os.path.realpath(self.folder.work) + os.sep):
            raise ProgramError(f"stdin {name!r} is not a file of the bundle: correct or add it")
        return path


def _place(port: Port) -> dict[str, object]:
    return {"path": port.path} if port.path else {"fd": port.fd}

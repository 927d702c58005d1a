"""How a job's program is started: its arguments, its environment, its descriptors.

docs/architecture.md §3 has the variables. The agent's own environment stays with the agent: a job
gets the few variables that a program needs to find its way, and those that its spec names.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.keeper.client import StartRequest
from edge_agent.keeper.launch import Port
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from edge_agent.sandbox.reach import EXECUTE, barrier
from edge_agent.variables import job_variables
from shoal.program_ports import described
from shoal.secret import SecretForm, is_text
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
    `environ` the agent's own variables. `user` is the user that it runs as, -1 for the agent's own. With
    `own_places` its HOME and TMPDIR are those of its folder.
    `secrets` is the folder with those that it has as files.
    """

    assignment: Assignment
    folder: AttemptFolder
    environment: Path
    sdk: Path
    environ: Mapping[str, str] = field(repr=False)
    user: int = -1
    own_places: bool = False
    secrets: Path = Path()

    def request(self, sandbox: SandboxPlan = NO_PLAN) -> StartRequest:
        """Return what the keeper is asked for, without a lease.

        Args:
            sandbox: what is done to the program before it begins.

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
            sandbox=sandbox,
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
            **self._own_places(),
            "PYTHONUNBUFFERED": "1",
            "VIRTUAL_ENV": str(self.environment),
            **own,
            **self._secrets(),
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

    def _own_places(self) -> Mapping[str, str]:
        """Home, place for temporary files and user of a program above level none: the agent's are closed to it."""
        if not self.own_places:
            return {}
        places = {"HOME": str(self.folder.home), "TMPDIR": str(self.folder.tmp)}
        if self.user < 0:
            return places
        name = f"job-{self.user}"
        return {
            **places,
            "USER": name,
            "LOGNAME": name,
            "SHELL": "/bin/sh",
        }

    def _secrets(self) -> Mapping[str, str]:
        """The variables with secrets, or with the paths of files with them.

        Raises:
            ProgramError: a value is not known here, or cannot be in a variable.
        """
        found: dict[str, str] = {}
        for use in self.assignment.job.secrets:
            value = self.assignment.secrets.get(use.name)
            if value is None:
                raise ProgramError(
                    f"the value of the secret {use.name!r} for {use.variable} is not on this node (its log says "
                    "why): run the job again, so that it is sent again"
                )
            if use.form is SecretForm.FILE:
                found[use.variable] = str(self.secrets / use.variable)
            elif is_text(value):
                found[use.variable] = value.decode()
            else:
                raise ProgramError(
                    f"the secret {use.name!r} is no text without NUL characters, so {use.variable} cannot hold it: "
                    f"write {{name: {use.name}, as: file}}"
                )
        return found

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
            self._check_reach(program)
            return str(program)
        found = self._found(name, path)
        if found is None:
            raise ProgramError(
                f"the program {name!r} is neither in the job's environment nor on this node "
                f"(PATH={path}): install it, or write ./{name} for a file of the bundle"
            )
        self._check_reach(Path(found))
        return found

    def _found(self, name: str, path: str) -> str | None:
        """The first program of a name that the job's user can reach, else the first one."""
        if self.user < 0:
            return shutil.which(name, path=path)
        here = [shutil.which(name, path=folder) for folder in path.split(os.pathsep) if folder]
        found = [one for one in here if one is not None]
        reached = (one for one in found if self._barrier(Path(one)) is None)
        return next(reached, found[0] if found else None)

    def _check_reach(self, program: Path) -> None:
        """Refuse what the job's user would not be let at, in words that say where and what helps.

        Raises:
            ProgramError: something is closed to it.
        """
        closed = None if self.user < 0 else self._barrier(program)
        if closed is not None:
            raise ProgramError(
                f"the job runs as user {self.user}, to which {closed} is closed on the way to {program}: let others "
                f"pass there (chmod o+x), or take an interpreter that all may use (`python: system`)"
            )

    def _barrier(self, program: Path) -> Path | None:
        # What is in the job's own folder is given to it before it starts.
        if program.is_relative_to(self.folder.path):
            return None
        return barrier(program, self.user, EXECUTE)

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

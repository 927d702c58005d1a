"""How a job's program is started: its arguments, its environment, its descriptors.

docs/architecture.md §3 has the variables. The agent's own environment stays with the agent: a job
gets the few variables that a program needs to find its way, and those that its spec names.
"""

import json
import os
import shutil
from collections.abc import Mapping
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
from shoal.spec import Job, PortAttachment, PortBinding, PortFormat

_STANDARD_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST_DESCRIPTOR: Final = 3
_TMP: Final = "tmp"
_NO_PORTS: Final = json.dumps({"inputs": {}, "outputs": {}}, separators=(",", ":"))


class ProgramError(Exception):
    """The program of a job cannot be started; the message says what to change."""


class ProgramOutline:
    """What the programs of all attempts of a job have alike, of those that run in one environment at one level.

    Args:
        job: what is run.
        environment: the folder of its environment.
        sdk: the folder that holds `shoal/job`.
        environ: the agent's own variables.
        user: a user as which one of them runs, -1 for the agent's own; others of that kind get to the same programs.
        own_places: whether HOME and TMPDIR are those of the attempt's folder.

    Raises:
        ProgramError: the program is not there, or closed to its user.
    """

    def __init__(
        self,
        job: Job,
        environment: str,
        sdk: str,
        environ: Mapping[str, str],
        *,
        user: int = -1,
        own_places: bool = False,
    ) -> None:
        own = dict(job.variables)
        python_path = [sdk, *filter(None, [own.pop("PYTHONPATH", "")])]
        path = own.pop("PATH", environ.get("PATH") or _STANDARD_PATH)
        self._job = job
        self._own_places = own_places
        self._given = frozenset(own)
        """Variables of the job that win over those of its attempt."""
        self._path = os.pathsep.join([f"{environment}/bin", path])
        self._last = {
            "PATH": self._path,
            "PYTHONPATH": os.pathsep.join(python_path),
            "SHOAL_JOB": job.name,
            "SHOAL_RECOVERY": job.recovery.value,
        }
        self._variables = {
            **job_variables(environ),
            "PYTHONUNBUFFERED": "1",
            "VIRTUAL_ENV": environment,
            **own,
            **self._last,
            "SHOAL_PORTS": _NO_PORTS,
        }
        self._has_ports = bool(job.streams or job.outputs)
        name = job.run[0] if job.run else ""
        if not name:
            raise ProgramError("the job has nothing to run: give `run` at least a program")
        self._brought = "/" in name and not name.startswith("/")
        """Whether the program is a file of the bundle."""
        self._argv = list(job.run)
        if not self._brought:
            self._argv[0] = self._program(name, user)

    def request(
        self,
        assignment: Assignment,
        folder: AttemptFolder,
        user: int = -1,
        secrets: Path | None = None,
        sandbox: SandboxPlan = NO_PLAN,
    ) -> StartRequest:
        """Return what the keeper is asked for an attempt, without a lease.

        Args:
            assignment: says which attempt it is.
            folder: where it lives.
            user: as which it runs, -1 for the agent's own.
            secrets: the folder with the secrets that it has as files.
            sandbox: what is done to the program before it begins.

        Raises:
            ProgramError: a file of the bundle, a value of a secret or its standard input is not there.
        """
        job, here = self._job, folder.text
        work = f"{here}/work"
        argv = self._argv
        if self._brought:
            # It lies in the job's own folder, and so is given to its user.
            argv = [_executable(str(folder.work / argv[0]), argv[0]), *argv[1:]]
        ports = self._ports(here) if self._has_ports else ()
        return StartRequest(
            keeper_id(assignment.ref),
            argv,
            self._variables_of(assignment, here, ports, user, secrets),
            work,
            f"{here}/stdout",
            f"{here}/stderr",
            _stdin(folder, job.stdin) if job.stdin else None,
            ports,
            job.timeout_seconds,
            job.grace_seconds,
            sandbox=sandbox,
        )

    def _variables_of(
        self,
        assignment: Assignment,
        here: str,
        ports: tuple[Port, ...],
        user: int,
        secrets: Path | None,
    ) -> dict[str, str]:
        ref = assignment.ref
        found = self._variables.copy()
        if self._own_places:
            # The agent's are closed to a program above level none.
            places = {"HOME": f"{here}/home", "TMPDIR": f"{here}/{_TMP}"}
            if user >= 0:
                name = f"job-{user}"
                places |= {"USER": name, "LOGNAME": name, "SHELL": "/bin/sh"}
            if self._given:
                places = {name: text for name, text in places.items() if name not in self._given}
            found.update(places)
        if self._job.secrets:
            found.update(self._secrets(assignment, secrets))
            found.update(self._last)
        if assignment.traceparent and "TRACEPARENT" not in self._given:
            found["TRACEPARENT"] = assignment.traceparent
        found["SHOAL_NAMESPACE"] = ref.namespace
        found["SHOAL_PIPELINE"] = ref.pipeline
        found["SHOAL_REPLICA"] = str(assignment.replica)
        found["SHOAL_REPLICAS"] = str(assignment.replicas)
        found["SHOAL_ATTEMPT"] = str(ref.number)
        found["SHOAL_EPOCH"] = str(ref.epoch)
        found["SHOAL_NAME"] = ref.name
        found["SHOAL_RESULTS"] = f"{here}/work/results"
        found["SHOAL_PORTS"] = self._described(assignment, ports) if ports else _NO_PORTS
        return found

    def _ports(self, here: str) -> tuple[Port, ...]:
        job = self._job
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
                    path = f"{here}/ports/{name}"
                    size = binding.record_size
                    ports.append(Port(name, direction, path=path, record_bytes=size))
                case PortAttachment.FD:
                    ports.append(Port(name, direction, following))
                    following += 1
        return tuple(ports)

    def _described(self, assignment: Assignment, ports: tuple[Port, ...]) -> str:
        places = {(port.direction, port.name): _place(port) for port in ports}

        def peers(direction: str, port: str) -> set[PortFormat]:
            output = direction == "outputs"
            return {
                lane.peer_format
                for lane in assignment.lanes
                if lane.output is output and lane.port == port
            }

        said = described(
            self._job,
            lambda direction, name: places["in" if direction == "inputs" else "out", name],
            peers,
        )
        return json.dumps(said, separators=(",", ":"))

    def _secrets(self, assignment: Assignment, folder: Path | None) -> Mapping[str, str]:
        """The variables with secrets, or with the paths of files with them.

        Raises:
            ProgramError: a value is not known here, or cannot be in a variable.
        """
        found: dict[str, str] = {}
        for use in self._job.secrets:
            value = assignment.secrets.get(use.name)
            if value is None:
                raise ProgramError(
                    f"the value of the secret {use.name!r} for {use.variable} is not on this node (its log says "
                    "why): run the job again, so that it is sent again"
                )
            if use.form is SecretForm.FILE:
                found[use.variable] = f"{folder}/{use.variable}"
            elif is_text(value):
                found[use.variable] = value.decode()
            else:
                raise ProgramError(
                    f"the secret {use.name!r} is no text without NUL characters, so {use.variable} cannot hold it: "
                    f"write {{name: {use.name}, as: file}}"
                )
        return found

    def _program(self, name: str, user: int) -> str:
        absolute = name.startswith("/")
        found = _executable(str(Path(name)), name) if absolute else self._found(name, user)
        closed = _closed(found, user)
        if closed is not None:
            raise ProgramError(
                f"the job runs as user {user}, to which {closed} is closed on the way to {found}: let others "
                f"pass there (chmod o+x), or take an interpreter that all may use (`python: system`)"
            )
        return found

    def _found(self, name: str, user: int) -> str:
        """The first program of a name that the job's user can reach, else the first one."""
        folders = [self._path] if user < 0 else filter(None, self._path.split(os.pathsep))
        here = [shutil.which(name, path=folder) for folder in folders]
        found = [one for one in here if one is not None]
        if not found:
            raise ProgramError(
                f"the program {name!r} is neither in the job's environment nor on this node "
                f"(PATH={self._path}): install it, or write ./{name} for a file of the bundle"
            )
        return next((one for one in found if _closed(one, user) is None), found[0])


def _closed(program: str, user: int) -> Path | None:
    """What keeps a user from a program."""
    return None if user < 0 else barrier(Path(program), user, EXECUTE)


def _executable(path: str, name: str) -> str:
    """Look that a file may be executed; `name` is what the job calls it."""
    if not os.path.isfile(path):  # noqa: PTH113 - as all paths here
        raise ProgramError(f"{name!r} is not a file of the bundle: correct `run` or add it")
    if not os.access(path, os.X_OK):
        raise ProgramError(
            f"{name!r} may not be executed: set its mode (chmod +x) and bundle it again, "
            f"or run it by its interpreter, as in [python, {name}]"
        )
    return path


def _stdin(folder: AttemptFolder, name: str) -> str:
    path = f"{folder.text}/work/{name}"
    real = os.path.realpath(path)
    inside = real.startswith(os.path.realpath(folder.work) + os.sep)
    if not inside or not os.path.isfile(path):  # noqa: PTH113 - as all paths here
        raise ProgramError(f"stdin {name!r} is not a file of the bundle: correct or add it")
    return path


def _place(port: Port) -> dict[str, object]:
    return {"path": port.path} if port.path else {"fd": port.fd}

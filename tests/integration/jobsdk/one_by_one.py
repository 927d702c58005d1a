"""Runs the jobs of a pipeline one after the other, each with all that the ones before have sent.

No cluster: what is tested is the specification's wiring and the jobs' programs.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shoal import spec
from shoal.job import testing
from shoal.specfile.load import load

EXAMPLES = Path(__file__).parents[3] / "examples"


@dataclass
class Run:
    """What the jobs of a pipeline left: by id of the replica, and by `job.port`."""

    results: dict[str, testing.Result] = field(default_factory=dict[str, testing.Result])
    records: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])


def run_example(
    name: str,
    folder: Path,
    *,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
    most_records: int | None = None,
) -> Run:
    """Run the example of that name in `folder`.

    Args:
        name: Folder under examples/.
        folder: An empty folder; every job gets one of its own in it, as on a board.
        python: Interpreter of the jobs' environment.
        variables: More environment variables.
        most_records: Only so many records of each output are passed on.
    """
    run = Run()
    for job in load(EXAMPLES / name / "pipeline.yaml").pipeline.jobs:
        ours: dict[str, list[list[bytes]]] = {port.name: [] for port in job.outputs}
        for replica in range(job.replicas):
            result = _run_replica(run, job, replica, folder, name, python, variables or {})
            assert result.exit_code == 0, f"{job.name}: {result.stderr}"
            run.results[job.replica_id(replica)] = result
            for port in job.outputs:
                assert port.binding.format is not spec.PortFormat.BLOCKS or result.ended[port.name]
                ours[port.name].append([_as_bytes(one) for one in result.outputs[port.name]])
        for port_name, parts in ours.items():
            run.records[f"{job.name}.{port_name}"] = _merged(parts)[:most_records]
    return run


def _run_replica(
    run: Run,
    job: spec.Job,
    replica: int,
    folder: Path,
    example: str,
    python: str,
    variables: Mapping[str, str],
) -> testing.Result:
    home = folder / job.replica_id(replica)
    shutil.copytree(EXAMPLES / example, home)
    bindings = {port.name: port.binding for port in job.streams}
    bindings.update({port.name: port.binding for port in job.outputs})
    return testing.run_program(
        [python if word == "python" else word for word in job.run],
        {
            port.name: run.records[f"{port.job}.{port.port}"][replica :: job.replicas]
            for port in job.streams
        },
        [port.name for port in job.outputs],
        formats={name: binding.format.value for name, binding in bindings.items()},
        stdio=[
            name
            for name, binding in bindings.items()
            if binding.attachment is spec.PortAttachment.STDIO
        ],
        # The bytes of the records are passed on as they are.
        codecs={
            name: "raw"
            for name, binding in bindings.items()
            if binding.format is spec.PortFormat.BLOCKS
        },
        block_count={port.name: port.block_count for port in job.streams},
        recovery=job.recovery.value,
        results=home / "results",
        environment={**job.variables, **variables},
        folder=home,
        deadline_seconds=300,
    )


def _merged(parts: list[list[bytes]]) -> list[bytes]:
    """Records of several replicas in rotation, which is their first order again."""
    total = sum(map(len, parts))
    return [parts[index % len(parts)][index // len(parts)] for index in range(total)]


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value

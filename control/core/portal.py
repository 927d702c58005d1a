"""What stands in for a local job on a node (shoal.portal_names): the job that its attempts run."""

from __future__ import annotations

from dataclasses import replace

from shoal.portal_names import CLIENT, PROGRAM, client_port
from shoal.spec import Job, Merge, Output, PortBinding, Recovery, Resources, StreamInput

RESOURCES = Resources(cpus=0.05)
"""A portal copies blocks, and has hardly anything to do."""


def portal_of(job: Job) -> Job:
    """Return the portal of a local job: its ports as blocks, and one more to the client for each.

    With one port it is without state and sends a record for each that it gets, so it goes on where
    its predecessor was. With several, their records come in no common rounds, so it begins anew,
    and both of its neighbours drop what they have.
    """
    single = len(job.streams) + len(job.outputs) == 1
    replayed = all(stream.merge is Merge.ORDERED for stream in job.streams)
    return Job(
        name=job.name,
        run=PROGRAM,
        streams=(
            *(
                replace(stream, binding=PortBinding(), block_count=1, optional=None)
                for stream in job.streams
            ),
            *(StreamInput(client_port(output.name), CLIENT, output.name) for output in job.outputs),
        ),
        outputs=(
            *(replace(output, binding=PortBinding()) for output in job.outputs),
            *(Output(client_port(stream.name)) for stream in job.streams),
        ),
        resources=RESOURCES,
        recovery=Recovery.RESUME if single and replayed else Recovery.RESTART,
        local=True,
    )

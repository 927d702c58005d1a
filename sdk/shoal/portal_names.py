"""The names by which a client and the portal of its local job find each other.

A local job runs beside the client. In the pipeline a *portal* stands in for it: an ordinary attempt
that copies what comes from the client to the job's outputs, and what comes to its inputs to the
client. Each port of the job has a port `client-PORT` at the portal, whose lane goes to the client.
"""

from shoal.names import check_id

CLIENT = "client"
"""Name of the other end of the lanes between a portal and its client."""

CLIENT_ADDRESS = "client"
"""Stands for the address of a producer that dials in by itself."""

RECORDER = "record"
"""Begins the client's port at the lane of a recorder."""

PROGRAM = ("python", "-m", "shoal.job.portal")
"""What a portal runs."""


def client_port(port: str) -> str:
    """Name the port of a portal at which the client has what the job has at `port`."""
    return f"{CLIENT}-{port}"


def input_lane(job: str, port: str) -> str:
    """Name the lane that carries the records of a local job's output port to its portal."""
    return f"{CLIENT}.{port}/{job}.{client_port(port)}"


def output_lane(job: str, port: str) -> str:
    """Name the lane that carries the records of a local job's input port from its portal."""
    return f"{job}.{client_port(port)}/{CLIENT}.{port}"


def recorder_lane(job: str, port: str, epoch: int) -> str:
    """Name the lane on which a client records an output port of a replica (by id)."""
    return f"{job}.{port}/{CLIENT}.{RECORDER}-{epoch}"


def is_recorder(lane: str) -> bool:
    """Whether it is the lane of a recorder."""
    return lane.partition("/")[2].startswith(f"{CLIENT}.{RECORDER}-")


def port_of(lane: str) -> str:
    """Return the producer's port of a lane."""
    return lane.partition("/")[0].partition(".")[2]


def portal_job(lane: str) -> str:
    """Return the job at the end of such a lane that is not the client.

    Raises:
        ValueError: The lane is none between a portal and its client.
        InvalidNameError: The job has no valid name.
    """
    ends = [end.partition(".")[0] for end in lane.split("/")]
    if len(ends) != 2 or CLIENT not in ends:
        raise ValueError(f"{lane!r} is no lane between a client and a pipeline")
    return check_id("job", ends[0] if ends[1] == CLIENT else ends[1])

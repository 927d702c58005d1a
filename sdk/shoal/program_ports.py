"""The ports of a program as JSON, for the variable `SHOAL_PORTS` (docs/architecture.md, section 3)."""

import json
from collections.abc import Callable, Iterable, Mapping

from shoal.spec import Job, PortFormat, StandIn

PortsDocument = dict[str, dict[str, dict[str, object]]]
"""What is said of each port, under `inputs` and `outputs`, by its name."""


def described(
    job: Job,
    place: Callable[[str, str], Mapping[str, object]],
    peers: Callable[[str, str], Iterable[PortFormat]],
) -> PortsDocument:
    """Describe the ports of a job.

    Args:
        job: Whose ports.
        place: Where the program finds a port, by direction (`inputs` or `outputs`) and name.
        peers: The formats at the other ends of a port. Where none of them is `blocks`, records are
            plain bytes for shoal.job, since the other end knows no codec.
    """

    def common(direction: str, name: str, port_format: str) -> dict[str, object]:
        others = set(peers(direction, name))
        raw = {"codec": "raw"} if others and PortFormat.BLOCKS not in others else {}
        return {**place(direction, name), "format": port_format, **raw}

    return {
        "inputs": {
            stream.name: {
                **common("inputs", stream.name, stream.binding.format_name),
                "block_count": stream.block_count,
                **_stand_in(stream.optional),
            }
            for stream in job.streams
        },
        "outputs": {
            output.name: common("outputs", output.name, output.binding.format_name)
            for output in job.outputs
        },
    }


def _stand_in(optional: StandIn | None) -> dict[str, object]:
    if optional is None:
        return {}
    return {
        "optional": {
            "default": json.loads(optional.default_json),
            "repeat": optional.repeat,
            "buffer": optional.buffer,
            "drop": optional.drop.value,
        }
    }

"""What a round sends when the job has several outputs, or must be explicit about its only one."""

from typing import Any, Dict


class Outputs(Dict[str, Any]):
    """Values by port: `return job.Outputs(found=boxes, thumbnails=image)`.

    A port that is left out sends nothing in this round. A hyphen in a port's name is written as an
    underscore. `job.Outputs(found=None)` sends None, which a bare `return None` does not.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__(values)

"""Where an attempt lives on a node, and its name at the keeper."""

from pathlib import Path

from shoal.names import AttemptRef, InvalidNameError, check_id


def keeper_id(ref: AttemptRef) -> str:
    """`{namespace}.{pipeline}.{job}.{epoch}-{number}`; ids have no dots, so it can be read back."""
    return f"{ref.namespace}.{ref.pipeline}.{ref.job}.{ref.epoch}-{ref.number}"


def parse_keeper_id(value: str) -> AttemptRef | None:
    """Read what `keeper_id` wrote; None for what another program called so."""
    match value.split("."):
        case [namespace, pipeline, job, last]:
            epoch, _, number = last.partition("-")
        case _:
            return None
    if not (epoch.isdecimal() and number.isdecimal()):
        return None
    try:
        return AttemptRef(
            check_id("namespace", namespace),
            check_id("pipeline", pipeline),
            check_id("job", job),
            int(number),
            int(epoch),
        )
    except InvalidNameError:
        return None


class AttemptFolder:
    """The folder of one attempt: `work` is the job's own, the rest is the agent's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"
        """The job's folder: the bundle, the files, and what the program writes."""
        self.input = path / "input"
        """A file input on its way, under a name that no input can be too long for."""
        self.fetched = path / "fetched.json"
        """What the file inputs were that came for this attempt."""
        self.home = path / "home"
        """HOME of a program with a user of its own."""
        self.tmp = path / "tmp"
        """TMPDIR of such a program."""
        self.stdout = path / "stdout"
        """What the program prints."""
        self.stderr = path / "stderr"
        """What the program complains about."""
        self.ports = path / "ports"
        """The FIFOs of the ports that have one; made by the keeper."""
        self.spool = path / "spool"
        """Records that the stream worker keeps on disk."""

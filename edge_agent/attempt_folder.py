"""Where an attempt lives on a node, and its name at the keeper."""

import re
from pathlib import Path

from shoal.names import ID_PATTERN, AttemptRef

_ID = ID_PATTERN.pattern
_KEEPER_ID = re.compile(rf"({_ID})\.({_ID})\.({_ID})\.([0-9]{{1,19}})-([0-9]{{1,10}})")


def keeper_id(ref: AttemptRef) -> str:
    """`{namespace}.{pipeline}.{job}.{epoch}-{number}`; ids have no dots, so it can be read back."""
    return f"{ref.namespace}.{ref.pipeline}.{ref.job}.{ref.epoch}-{ref.number}"


def parse_keeper_id(value: str) -> AttemptRef | None:
    """Read what `keeper_id` wrote; None for what another program called so."""
    found = _KEEPER_ID.fullmatch(value)
    if found is None:
        return None
    namespace, pipeline, job, epoch, number = found.groups()
    return AttemptRef(namespace, pipeline, job, int(number), int(epoch))


class AttemptFolder:
    """The folder of one attempt: `work` is the job's own, the rest is the agent's."""

    __slots__ = ("_path", "text")

    def __init__(self, path: Path | str) -> None:
        self.text = str(path)
        """Its path; the others are made of it where they are wanted, which costs more than to read them."""
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder itself."""
        if self._path is None:
            self._path = Path(self.text)
        return self._path

    @property
    def name(self) -> str:
        """What no other attempt of the node is called."""
        return self.text.rpartition("/")[2]

    @property
    def work(self) -> Path:
        """The job's folder: the bundle, the files, and what the program writes."""
        return self.path / "work"

    @property
    def input(self) -> Path:
        """A file input on its way, under a name that no input can be too long for."""
        return self.path / "input"

    @property
    def fetched(self) -> Path:
        """What the file inputs were that came for this attempt."""
        return self.path / "fetched.json"

    @property
    def home(self) -> Path:
        """HOME of a program with a user of its own."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """TMPDIR of such a program."""
        return self.path / "tmp"

    @property
    def stdout(self) -> Path:
        """What the program prints."""
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        """What the program complains about."""
        return self.path / "stderr"

    @property
    def ports(self) -> Path:
        """The FIFOs of the ports that have one; made by the keeper."""
        return self.path / "ports"

    @property
    def spool(self) -> Path:
        """Records that the stream worker keeps on disk."""
        return self.path / "spool"

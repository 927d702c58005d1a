"""Small artifacts of attempts as they were read to be hashed, until the controller has answered about them.

They travel with the question where to store them, so a controller that takes them needs no upload. Each may be
left out at any time: what is not here is stored under an address, from the attempt's folder. So no more of them is
kept than fits, and none is in the journal: an agent that starts again uploads what was not answered.
"""

from collections.abc import Collection
from typing import Final

from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.uploads import ArtifactContent

HELD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Most bytes of all attempts of a node: a controller that answers has some milliseconds' worth of them."""


class SmallContents:
    """What is held of each attempt."""

    def __init__(self) -> None:
        self.wanted = False
        """Whether the controller of this session takes them."""
        self._held: dict[AttemptRef, tuple[ArtifactContent, ...]] = {}
        self._bytes = 0

    def hold(self, ref: AttemptRef, contents: tuple[ArtifactContent, ...]) -> None:
        """Hold these of an attempt in the place of others, if there is room for them."""
        self.drop(ref)
        size = _size(contents)
        if contents and self._bytes + size <= HELD_BYTES_MAX:
            self._held[ref] = contents
            self._bytes += size

    def of(self, ref: AttemptRef, artifacts: Collection[Artifact]) -> tuple[ArtifactContent, ...]:
        """Return what is held of these artifacts, if the controller takes it."""
        held = self._held.get(ref, ())
        if not held or not self.wanted:
            return ()
        paths = {one.path for one in artifacts}
        return tuple(one for one in held if one.path in paths)

    def drop(self, ref: AttemptRef) -> None:
        """Hold nothing of an attempt any more."""
        self._bytes -= _size(self._held.pop(ref, ()))


def _size(contents: Collection[ArtifactContent]) -> int:
    return sum(len(one.data) for one in contents)

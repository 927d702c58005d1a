"""What jobs print, as files: FOLDER/PIPELINE/JOB/ATTEMPT/stdout and stderr."""

from dataclasses import dataclass, field
from pathlib import Path

from shoal.errors import ShoalError
from shoal.view import LogChunk


@dataclass(slots=True)
class LogFiles:
    """Writes chunks to the files of their attempts; what earlier calls left there is replaced.

    Args:
        folder: made when the first chunk comes.
    """

    folder: Path
    _sizes: dict[Path, int] = field(default_factory=dict[Path, int])

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that was written, in order."""
        return tuple(sorted(self._sizes))

    def write(self, chunk: LogChunk) -> None:
        """Write one chunk.

        Raises:
            ShoalError: the file cannot be written.
        """
        path = self._path(chunk.attempt, chunk.stream.name.lower())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab" if path in self._sizes else "wb") as file:
                file.write(chunk.data)
        except OSError as error:
            raise ShoalError(
                "SAVE",
                f"{path} cannot be written: {error.strerror} ({error.filename}); choose another "
                "folder with --save",
                {"path": str(path)},
                "INVALID_ARGUMENT",
            ) from error
        self._sizes[path] = self._sizes.get(path, 0) + len(chunk.data)

    def _path(self, attempt: str, name: str) -> Path:
        _, pipeline, _, job, _, number = attempt.split("/")
        return self.folder / pipeline / job / number / name

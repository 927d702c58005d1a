"""The specification of a folder: what `shoal run FOLDER` means."""

from pathlib import Path

from shoal.suggestion import LISTED_MAX, closest, did_you_mean

NAMES = ("pipeline.yaml", "pipeline.yml")
"""What the specification of a folder is called; the first that is there."""

_SUFFIXES = (".yaml", ".yml")


def is_spec_folder(path: Path) -> bool:
    """Say whether a folder has a specification; blocks."""
    return any((path / name).is_file() for name in NAMES)


def spec_path(path: Path) -> Path:
    """Return the file that is meant: the path itself, or the specification of a folder; blocks."""
    if path.is_dir():
        return next((path / name for name in NAMES if (path / name).is_file()), path)
    return path


def missing_remedy(path: Path) -> str:
    """Complete a complaint about a specification that is not there, or a folder without one; blocks."""
    folder = path if path.is_dir() else path.parent
    suffixes = _SUFFIXES if path.suffix != ".toml" else (".toml",)
    try:
        beside = sorted(
            one.name
            for one in folder.iterdir()
            if one.suffix in suffixes or (folder != path and is_spec_folder(one))
        )
    except OSError:
        return "look at the path, or make a pipeline with: shoal new NAME"
    if not beside:
        return f"the folder {folder} has no *{suffixes[0]}; look at the path, or make a pipeline: shoal new NAME"
    if path == folder:
        more = ", …" if len(beside) > LISTED_MAX else ""
        return f"name one of {', '.join(beside[:LISTED_MAX])}{more}"
    # Their suffixes alone make all of them alike.
    stems = {Path(name).stem: name for name in beside}
    close = closest(path.stem, stems)
    return f"did you mean {stems[close]!r}?" if close else did_you_mean("", beside)

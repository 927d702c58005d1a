"""Whatever lies in a folder, its bundle unpacks to the same folder or is refused by name."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.bundles import layout
from edge_agent.long_work import done_at_once
from shoal import bundle

NAMES = st.sampled_from(["a", "b", "c d", "ä", ".x", "..."])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TARGETS = st.lists(NAMES | st.just(".."), min_size=1, max_size=5).map("/".join) | st.just("/etc")
THINGS = st.lists(
    st.tuples(PATHS, st.one_of(st.none(), st.binary(max_size=30), TARGETS.map(str))), max_size=10
)


def lay_out(root: Path, things: list[tuple[str, bytes | str | None]]) -> None:
    for name, thing in things:
        path = root / name
        if not os.path.realpath(path).startswith(str(root)):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            match thing:
                case None:
                    path.mkdir(exist_ok=True)
                case bytes():
                    path.write_bytes(thing)
                case str():
                    path.symlink_to(thing)
        except OSError:
            continue


def looks(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = str(path.readlink())
            else:
                found[key] = None if path.is_dir() else path.read_bytes()
    return found


@settings(max_examples=60, deadline=None)
@given(THINGS)
def test_a_bundle_unpacks_to_what_it_was(things: list[tuple[str, bytes | str | None]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary).resolve()
        root, copy = base / "root", base / "copy"
        root.mkdir()
        lay_out(root, things)
        refused = ""
        try:
            with bundle.pack(bundle.BundleFolder(root), base) as packed:
                # The agent refuses whatever would get out of the folder.
                done_at_once(layout.lay_out(packed.path, copy))
        except bundle.BundleError as error:
            refused = str(error)
        if refused:
            assert "points out of it" in refused
            return
        assert looks(copy) == looks(root)

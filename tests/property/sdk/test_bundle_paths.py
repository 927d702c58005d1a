"""K4: `validate`, the agent and the system agree on where a path of a bundle leads.

The bundle is a tree of files, folders and links, once as a list of entries before it is packed, once
as a folder in which it was laid out. 300 trees with 8 paths each; SHOAL_CASES raises the number.
"""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.environments.recipe import FolderFiles
from shoal.bundle import BundleError, BundleFolder, Contents, scan
from shoal.recipe import resolve

NAMES = st.sampled_from(["a", "b", "c"])
PLACES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=7).map(
    "/".join
)
TREES = st.lists(st.tuples(PLACES, st.sampled_from(["file", "folder", "link"]), PATHS), max_size=9)


def grow(root: Path, tree: list[tuple[str, str, str]]) -> None:
    for place, kind, target in tree:
        try:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            match kind:
                case "file":
                    (root / place).touch(exist_ok=False)
                case "folder":
                    (root / place).mkdir()
                case _:
                    (root / place).symlink_to(target or ".")
        except OSError:
            continue  # something else is there already


@settings(max_examples=int(os.environ.get("SHOAL_CASES", "300")), deadline=None)
@given(TREES, st.lists(PATHS, min_size=8, max_size=8))
def test_k4_a_path_leads_to_the_same_file_for_all(
    tree: list[tuple[str, str, str]], paths: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "work"
        root.mkdir()
        grow(root, tree)
        laid_out = FolderFiles(root)
        ours = [resolve(laid_out, path) for path in paths]
        for path, found in zip(paths, ours, strict=True):
            if path.startswith("/"):
                assert found is None  # it is absolute
            elif found is not None:
                assert os.path.realpath(f"{root}/{path}") == f"{root}/{found}"
                assert (root / found).is_file()
            elif Path(os.path.realpath(f"{root}/{path}")).is_relative_to(root):
                # Not there, a folder, or a way that leaves the bundle and comes back.
                assert not os.path.isfile(f"{root}/{path}") or ".." in f"{path}{tree}"  # noqa: PTH113
        try:
            entries = scan(BundleFolder(root))
        except BundleError:
            return  # such a bundle is refused as a whole
        assert [resolve(Contents(entries), path) for path in paths] == ours
